/* descriptor_probe.h: are descriptors free? */
#ifndef IP_DESCRIPTOR_PROBE_H
#define IP_DESCRIPTOR_PROBE_H

/* Are at least `needed` descriptors (1 or more) free? Returns 0; EMFILE where this process may not have as
   many more; ENFILE where the system has none. */
int ip_descriptor_probe(unsigned needed);

#endif
