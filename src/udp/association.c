/* association.c: the peer of a connected socket. Owns the channel's struct ip_connection. Does not use Lua
   and raises nothing.

   Sources: connect(2); ip(7) and ipv6(7) for the path MTU. */
#include "udp/association.h"

#include "net/datagram_io.h"

#include <errno.h>
#include <netinet/ip.h>
#include <stdlib.h>

void ip_association_free(struct ip_channel *channel) {
  free(channel->connection);
  channel->connection = NULL;
  channel->filters_peer = false;
}

/* Binds the local port again. Linux drops a port that it chose itself when the association is dissolved, and
   the socket would receive nothing any more. */
static int bind_again(const struct ip_channel *channel, const struct ip_endpoint *before) {
  struct ip_endpoint now;
  int error = ip_datagram_local(channel->fd, &now);
  if (error != 0) return error;
  bool kept = ip_endpoint_port(&now) == ip_endpoint_port(before);
  return kept ? 0 : ip_datagram_bind(channel->fd, before);
}

int ip_association_dissolve(struct ip_channel *channel) {
  int error = ip_datagram_disconnect(channel->fd);
  if (error != 0) return error;
  struct ip_endpoint local = channel->connection->local;
  ip_association_free(channel);
  return local.length != 0 ? bind_again(channel, &local) : 0;
}

/* Dissolves an association with a peer of the other family. Linux keeps the source address of the first
   association, which is unusable for the other family: connecting would fail, or the socket would receive
   nothing any more. */
static int leave_other_family(struct ip_channel *channel, const struct ip_endpoint *remote) {
  if (channel->connection == NULL || !channel->is_v6) return 0;
  bool same =
      ip_channel_is_v4_path(channel, &channel->connection->remote) == ip_channel_is_v4_path(channel, remote);
  return same ? 0 : ip_association_dissolve(channel);
}

/* Creates the connection and records the local endpoint, to which ip_association_dissolve returns. Returns 0
   or ENOMEM. */
static int prepare(struct ip_channel *channel) {
  if (channel->connection != NULL) return 0;
  channel->connection = calloc(1, sizeof *channel->connection);
  if (channel->connection == NULL) return ENOMEM;
  struct ip_endpoint *local = &channel->connection->local;
  if (!channel->bound || ip_datagram_local(channel->fd, local) != 0) local->length = 0;
  return 0;
}

/* Refuses port 0: connect(2) succeeds with it on Linux, but getpeername(2) then reports no peer. */
int ip_association_connect(struct ip_channel *channel, const struct ip_endpoint *remote) {
  if (ip_endpoint_port(remote) == 0) return EINVAL;
  int error = leave_other_family(channel, remote);
  if (error != 0) return error;
  bool was_connected = channel->connection != NULL;
  error = prepare(channel);
  if (error != 0) return error;
  struct ip_endpoint peer;
  error = ip_datagram_connect(channel->fd, remote);
  if (error == 0) error = ip_datagram_remote(channel->fd, &peer);
  if (error != 0) {
    if (!was_connected) ip_association_free(channel);
    return error;
  }
  channel->connection->remote = peer;
  channel->filters_peer = true;
  return 0;
}

/* The system does not report when the peer was chosen, so non-peer datagrams are filtered until the queue has
   been empty once. */
int ip_association_adopt(struct ip_channel *channel, const struct ip_endpoint *local) {
  struct ip_endpoint remote;
  int error = ip_datagram_remote(channel->fd, &remote);
  if (error != 0) return error == ENOTCONN ? 0 : error;
  channel->connection = malloc(sizeof *channel->connection);
  if (channel->connection == NULL) return ENOMEM;
  *channel->connection = (struct ip_connection){.remote = remote, .local = *local};
  channel->filters_peer = true;
  return 0;
}

int ip_association_is_dual_stack(const struct ip_channel *channel, bool *dual_stack) {
  int v6_only = 1;
  int error = channel->is_v6 ? ip_datagram_get_option(channel->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only) : 0;
  *dual_stack = v6_only == 0;
  return error;
}

/* The path to a v4-mapped peer is a v4 path. */
int ip_association_path_mtu(const struct ip_channel *channel, int *mtu) {
#if defined(IP_MTU) && defined(IPV6_MTU)
  bool v4_path = ip_channel_is_v4_path(channel, NULL);
  return v4_path ? ip_datagram_get_option(channel->fd, IPPROTO_IP, IP_MTU, mtu)
                 : ip_datagram_get_option(channel->fd, IPPROTO_IPV6, IPV6_MTU, mtu);
#else
  (void)channel, (void)mtu;
  return ENOTSUP;
#endif
}
