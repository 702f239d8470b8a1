/* association.h: the peer of a connected socket. Does not use Lua. */
#ifndef IP_ASSOCIATION_H
#define IP_ASSOCIATION_H

#include "udp/channel.h"

/* Connects, or replaces the peer. Returns 0 or an errno value: EINVAL for port 0, EADDRINUSE where there is
   no free local port, ENOMEM; then the former association is as it was, if the system lets it be made again.
   */
int ip_association_connect(struct ip_channel *channel, const struct ip_endpoint *remote);

/* Dissolves the association; there is one. The socket keeps its local port, whoever chose it, and the device
   that its owner bound it to. Returns 0 or an errno value: EPERM where the device cannot be bound to again
   (before Linux 5.7, without privileges), EADDRINUSE where the port has been taken meanwhile. */
int ip_association_dissolve(struct ip_channel *channel);

/* Finds the peer of a descriptor that somebody else has opened. Returns 0 or an errno value. */
int ip_association_adopt(struct ip_channel *channel);

/* The owner has bound the socket to a device, or to none. Returns 0 or an errno value. */
int ip_association_note_device(struct ip_channel *channel);

void ip_association_free(struct ip_channel *channel);

/* Does the socket carry v4 traffic as well as v6? Returns 0 or an errno value. */
int ip_association_is_dual_stack(const struct ip_channel *channel, bool *dual_stack);

/* Gets the MTU of the path to the peer. Returns 0 or an errno value: ENOTCONN, ENOTSUP. */
int ip_association_path_mtu(const struct ip_channel *channel, int *mtu);

#endif
