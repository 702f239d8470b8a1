/* interface_mtu.h: the MTU of a network interface. Layer 1. */
#ifndef IP_INTERFACE_MTU_H
#define IP_INTERFACE_MTU_H

/* Gets the MTU in bytes of the interface of that name. Returns 0 or an errno value: ENODEV where there is no
   such interface; EMFILE, ENFILE where no descriptor is free, for it needs a socket. */
int ip_interface_mtu(const char *name, int *mtu);

#endif
