/* device.h: the network device that a datagram socket is bound to. Knows no Lua.

   Owns nothing. Every function returns 0 or an errno value. */
#ifndef IP_DEVICE_H
#define IP_DEVICE_H

/* The interface index of the device; 0 where the socket is bound to none, and where the system has no such
   binding. */
int ip_device_get(int fd, unsigned *index);

/* Binds the socket to the device of that index, which may be gone; 0 unbinds it. A change of an existing
   binding needs a privilege, a first binding needs one before Linux 5.7 (EPERM). */
int ip_device_set(int fd, unsigned index);

#endif
