/* device.h: the network device that a datagram socket is bound to, or sends from. Knows no Lua.

   Owns nothing. Every function returns 0 or an errno value. */
#ifndef IP_DEVICE_H
#define IP_DEVICE_H

/* The interface index of the device; 0 where the socket is bound to none, and where the system has no such
   binding. */
int ip_device_get(int fd, unsigned *index);

/* Binds the socket to the device of that index, which may be gone; 0 unbinds it. A change of an existing
   binding needs a privilege, a first binding needs one before Linux 5.7 (EPERM). */
int ip_device_set(int fd, unsigned index);

/* Lets all v6 datagrams of the socket that name no interface leave from this one; 0: as routed. EINVAL where
   the socket is bound to another device. */
int ip_device_send_from(int fd, unsigned index);

#endif
