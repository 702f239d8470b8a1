/* association.h: the peer of a connected socket. Does not use Lua. */
#ifndef IP_ASSOCIATION_H
#define IP_ASSOCIATION_H

#include "udp/channel.h"

/* Connects, or replaces the peer. Returns 0 or an errno value: EINVAL for port 0, ENOMEM. */
int ip_association_connect(struct ip_channel *channel, const struct ip_endpoint *remote);

/* Dissolves the association, which must exist. A bound socket keeps its local port. Returns 0 or an errno
   value. */
int ip_association_dissolve(struct ip_channel *channel);

/* Looks up the peer of a descriptor that somebody else has opened; `local` is its local endpoint. Returns 0
   or an errno value. */
int ip_association_adopt(struct ip_channel *channel, const struct ip_endpoint *local);

void ip_association_free(struct ip_channel *channel);

/* Does the socket carry v4 traffic as well as v6? Returns 0 or an errno value. */
int ip_association_is_dual_stack(const struct ip_channel *channel, bool *dual_stack);

/* Gets the MTU of the path to the peer. Returns 0 or an errno value: ENOTCONN, ENOTSUP. */
int ip_association_path_mtu(const struct ip_channel *channel, int *mtu);

#endif
