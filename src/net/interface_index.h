/* interface_index.h: the index of a network interface. Layer 1. */
#ifndef IP_INTERFACE_INDEX_H
#define IP_INTERFACE_INDEX_H

/* Returns 0, or an errno value and an index of 0: ENODEV where there is no such interface; EMFILE, ENFILE
   where no descriptor is free, for if_nametoindex(3) needs a socket. */
int ip_interface_index(const char *name, unsigned *index);

#endif
