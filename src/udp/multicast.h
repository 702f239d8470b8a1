/* udp_multicast.h: what udp_option.c's table refers to for multicast. Layer 5. */
#ifndef IP_UDP_MULTICAST_H
#define IP_UDP_MULTICAST_H

#include "udp/socket.h"

/* Joins or leaves the group at index 3: `request` is MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, or their SOURCE
   forms, which take the source at index 4; an optional interface follows. Errors are called `name`.
   [-0, +0, e] */
void ip_multicast_change(lua_State *L, const struct ip_socket *socket, int request, const char *name);

/* Sets the interface that multicast datagrams leave by to the one at index 3. [-0, +0, e] */
void ip_multicast_set_interface(lua_State *L, struct ip_socket *socket, const char *name);

/* Pushes it: an address on v4, an index on v6. [-0, +1, e] */
int ip_multicast_push_interface(lua_State *L, const struct ip_socket *socket, const char *name);

#endif
