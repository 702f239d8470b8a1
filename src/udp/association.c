/* association.c: the peer of a connected socket. Owns the channel's struct ip_connection. Raises nothing;
   knows no Lua.

   Linux keeps the source address of the first association through further connects, where it may be wrong or
   unusable for the next peer, so every association is dissolved before the next one is made. Dissolving
   clears more than the peer: the device, and a port or an address that the system chose (__udp_disconnect in
   net/ipv4/udp.c). What is the owner's among that is noted before the first connect and brought back after
   each dissolution.

   Sources: connect(2), ip(7) and ipv6(7) for the path MTU. */
#include "udp/association.h"

#include "net/datagram_io.h"
#include "net/device.h"

#include <errno.h>
#include <netinet/ip.h>
#include <stdlib.h>

void ip_association_free(struct ip_channel *channel) {
  free(channel->connection);
  channel->connection = NULL;
  channel->filters_peer = false;
}

/* --- the local end --- */

/* What the owner has made of the local end of a socket that is not connected. */
static int note_local_end(const struct ip_channel *channel, struct ip_connection *connection) {
  int error = ip_datagram_local(channel->fd, &connection->local);
  return error != 0 ? error : ip_device_get(channel->fd, &connection->device);
}

/* The port is bound again by hand where the system had chosen it: else the socket would be deaf. The system
   has kept the address exactly where the owner has bound it, which says what to bind to where it has not been
   noted. */
static int restore_port(struct ip_channel *channel, const struct ip_connection *connection, uint16_t port) {
  struct ip_endpoint local;
  int error = ip_datagram_local(channel->fd, &local);
  if (error != 0 || ip_endpoint_port(&local) == port) return error;
  if (connection->local.length != 0) local = connection->local;
  ip_endpoint_set_port(&local, port);
  error = ip_datagram_bind(channel->fd, &local);
  channel->has_port = error == 0;
  return error;
}

/* The device comes first: an address may be of that link alone, and sockets on different devices may share a
   port. */
static int restore_local_end(struct ip_channel *channel, const struct ip_connection *connection,
                             uint16_t port) {
  int device_error = connection->device != 0 ? ip_device_set(channel->fd, connection->device) : 0;
  if (device_error != 0) channel->device = 0;
  int error = restore_port(channel, connection, port);
  return device_error != 0 ? device_error : error;
}

/* --- dissolving --- */

/* The socket has no peer any more, whatever `connection` says; only where *dissolved is false it still has.
   */
static int dissolve(struct ip_channel *channel, const struct ip_connection *connection, bool *dissolved) {
  struct ip_endpoint local;
  *dissolved = false;
  int error = ip_datagram_local(channel->fd, &local);
  if (error == 0) error = ip_datagram_disconnect(channel->fd);
  if (error != 0) return error;
  *dissolved = true;
  bool has_interface = channel->connection != NULL && channel->connection->interface != 0;
  if (has_interface) error = ip_device_send_from(channel->fd, 0); /* possible while there is no device */
  int local_error = restore_local_end(channel, connection, ip_endpoint_port(&local));
  return error != 0 ? error : local_error;
}

int ip_association_dissolve(struct ip_channel *channel) {
  bool dissolved;
  int error = dissolve(channel, channel->connection, &dissolved);
  if (dissolved) ip_association_free(channel);
  return error;
}

/* --- connecting --- */

/* The interface comes first, because the system chooses the source address by it. It is sent from as long as
   the socket has this peer, at no cost for a send. */
static int connect_from(const struct ip_channel *channel, const struct ip_endpoint *remote,
                        unsigned interface) {
  if (interface == 0) return ip_datagram_connect(channel->fd, remote);
  int error = ip_device_send_from(channel->fd, interface);
  if (error != 0) return error;
  error = ip_datagram_connect(channel->fd, remote);
  if (error != 0) (void)ip_device_send_from(channel->fd, 0); /* the connect's error is the one to report */
  return error;
}

/* A socket that is bound to a device leaves no choice. */
static int choose_interface(const struct ip_endpoint *remote, struct ip_connection *next) {
  next->interface = ip_endpoint_wide_scope(remote);
  if (next->interface == 0 || next->device == 0) return 0;
  if (next->interface != next->device) return EINVAL;
  next->interface = 0;
  return 0;
}

/* Linux says EAGAIN where it finds no free port for the socket (inet_autobind in net/ipv4/af_inet.c). */
static int connect_to(const struct ip_channel *channel, const struct ip_endpoint *remote,
                      struct ip_connection *next) {
  int error = connect_from(channel, remote, next->interface);
  if (error == 0) error = ip_datagram_remote(channel->fd, &next->remote);
  return error == EAGAIN ? EADDRINUSE : error;
}

/* After a connect that failed: the socket gets its former peer back. A connect to a link-local address binds
   the socket to that link even where it fails (net/ipv6/datagram.c), and only dissolving undoes that without
   a privilege. */
static void go_back(struct ip_channel *channel, const struct ip_connection *local_end) {
  struct ip_connection *former = channel->connection;
  unsigned device;
  bool dissolved;
  bool same = ip_device_get(channel->fd, &device) == 0 && device == local_end->device;
  if (!same) (void)dissolve(channel, local_end, &dissolved); /* the connect's error is the one to report */
  if (former == NULL) return;
  if (connect_from(channel, &former->remote, former->interface) == 0)
    channel->filters_peer = true; /* others may have sent while there was no peer */
  else
    ip_association_free(channel); /* the way to the former peer is gone, too */
}

/* Leaves the former association and makes the next one; `next` knows the local end. */
static int replace(struct ip_channel *channel, const struct ip_endpoint *remote, struct ip_connection *next) {
  bool dissolved = true;
  int error = channel->connection != NULL ? dissolve(channel, next, &dissolved) : 0;
  if (!dissolved) return error;
  if (error == 0) error = connect_to(channel, remote, next);
  if (error != 0) go_back(channel, next);
  return error;
}

/* Refuses port 0: connect(2) succeeds with it on Linux, but getpeername(2) then reports no peer. */
int ip_association_connect(struct ip_channel *channel, const struct ip_endpoint *remote) {
  if (ip_endpoint_port(remote) == 0) return EINVAL;
  struct ip_connection *next = malloc(sizeof *next);
  if (next == NULL) return ENOMEM;
  int error = 0;
  if (channel->connection != NULL)
    *next = *channel->connection;
  else
    error = note_local_end(channel, next);
  if (error == 0) error = choose_interface(remote, next);
  if (error == 0) error = replace(channel, remote, next);
  if (error != 0) {
    free(next);
    return error;
  }
  ip_association_free(channel);
  channel->connection = next;
  channel->filters_peer = true;
  channel->has_port = true;
  return 0;
}

/* Who chose the device of a socket that somebody else has connected cannot be asked: it is kept, as the port
   is. When the peer was chosen cannot be asked either: datagrams that others sent before are looked for until
   the queue has once been empty. */
int ip_association_adopt(struct ip_channel *channel) {
  struct ip_connection connection = {.local = {.length = 0}};
  int error = ip_device_get(channel->fd, &channel->device);
  if (error != 0) return error;
  error = ip_datagram_remote(channel->fd, &connection.remote);
  if (error != 0) return error == ENOTCONN ? 0 : error;
  connection.device = channel->device;
  channel->connection = malloc(sizeof *channel->connection);
  if (channel->connection == NULL) return ENOMEM;
  *channel->connection = connection;
  channel->filters_peer = true;
  return 0;
}

int ip_association_note_device(struct ip_channel *channel) {
  int error = ip_device_get(channel->fd, &channel->device);
  if (error == 0 && channel->connection != NULL) channel->connection->device = channel->device;
  return error;
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
