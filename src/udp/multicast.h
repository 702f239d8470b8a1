/* multicast.h: group membership and the interface of outgoing multicast, for the table of options. */
#ifndef IP_UDP_MULTICAST_H
#define IP_UDP_MULTICAST_H

#include "base/compat.h"
#include "udp/channel.h"

/* Joins or leaves the group at index 3. `request` is MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, or their SOURCE
   forms, which have the source at index 4; an optional interface follows. Errors name `name`. [-0, +0, e] */
void ip_multicast_change(lua_State *L, const struct ip_channel *channel, int request, const char *name);

/* Sets the interface of outgoing multicast datagrams to the value at index 3. [-0, +0, e] */
void ip_multicast_set_interface(lua_State *L, struct ip_channel *channel, const char *name);

/* Pushes the interface of outgoing multicast: an address on v4, an index on v6. [-0, +1, e] */
int ip_multicast_push_interface(lua_State *L, const struct ip_channel *channel, const char *name);

#endif
