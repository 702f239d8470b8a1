/* channel.h: a UDP socket as the paths see it: a descriptor, and what stands between it and the calls. Neither Lua nor
   the event loop is known here, nor in the files that work on it: read_ahead, receive_path, error_queue, send_path,
   send_queue, association, parts. */
#ifndef IP_CHANNEL_H
#define IP_CHANNEL_H

#include "net/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

enum {
  IP_LARGEST_V4 = 65507, /* payload of a datagram */
  IP_LARGEST_V6 = 65527
};

/* Exists while the socket is connected. */
struct ip_connection {
  struct ip_endpoint remote;
  struct ip_endpoint local; /* before the socket was connected; length 0 where that is not known */
  unsigned device;          /* that the owner bound it to, by an option or a link-local address; 0: none */
};

/* Each part has one owner, the file of its name, and is NULL until an option needs it. What only one of them needs is in
   there, so that the plain paths look at one pointer each: where there is an error queue, there are the other two. */
struct ip_channel {
  int fd;
  bool is_v6 : 1;
  bool has_port : 1; /* it is known to have a local port, whoever chose that */
  bool shut_receive : 1;
  bool shut_send : 1;
  bool filters_peer : 1; /* datagrams that others than the peer sent before `connect` may still be queued */
  bool gso_probed : 1;   /* the system has answered whether it segments */
  bool
      gso_refused : 1; /* the system or a path does not segment: that is done here, one call for each datagram */
  uint8_t would_block_streak; /* receives in a row that met EAGAIN, up to a bound */
  uint8_t probe_countdown;    /* receives that may still suspend without a try, while the bound is reached */
  int deferred_error; /* met by receive_many behind datagrams that it returned; the next one raises it */
  unsigned multicast_interface; /* index that the option was set to, 0: none */
  struct ip_connection *connection;
  struct ip_receive_state *receive;
  struct ip_send_state *send;
  struct ip_error_queue *errors;
};

static inline int ip_channel_family(const struct ip_channel *channel) {
  return channel->is_v6 ? AF_INET6 : AF_INET;
}

/* Does a datagram to that endpoint leave as IPv4? NULL: to the connected peer, if there is one. */
static inline bool ip_channel_is_v4_path(const struct ip_channel *channel, const struct ip_endpoint *remote) {
  if (!channel->is_v6) return true;
  if (remote == NULL && channel->connection == NULL) return false;
  if (remote == NULL) remote = &channel->connection->remote;
  return IN6_IS_ADDR_V4MAPPED(&remote->name.v6.sin6_addr);
}

#endif
