/* channel.h: a UDP socket below Lua and the event loop: a descriptor, and the parts between it and the calls.
   The files that work on it know neither Lua nor the event loop: read_ahead, receive_path, error_queue,
   send_path, send_queue, association, parts. */
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
  unsigned interface;       /* of the peer's scope, where the system would ignore that; 0: none */
};

/* Each part has one owner, the file of its name, and is NULL until an option needs it. Data that only one
   part needs is in that part, so that the plain paths read one pointer each: a channel with an error queue
   has the other two parts, too. */
struct ip_channel {
  int fd;
  bool is_v6 : 1;
  bool has_port : 1; /* it is known to have a local port, whoever chose that */
  bool shut_receive : 1;
  bool shut_send : 1;
  bool raises_truncation : 1; /* a receive that cuts its datagram fails: on_truncation is "raise" */
  bool filters_peer : 1;      /* non-peer datagrams from before `connect` may still be queued */
  bool gso_probed : 1;        /* the system has answered whether it can segment */
  bool
      gso_refused : 1; /* the system or a path does not segment: the library does, in one call per datagram */
  uint8_t would_block_streak;   /* consecutive receives that met EAGAIN, up to a limit */
  uint8_t probe_countdown;      /* at that limit: receives that may still suspend without a try */
  int deferred_error;           /* an error that receive_many met after datagrams; its next call raises it */
  unsigned multicast_interface; /* the index that the option was set to; 0: none */
  unsigned device;              /* what the owner has bound the socket to: an interface's index; 0: none */
  struct ip_connection *connection;
  struct ip_receive_state *receive;
  struct ip_send_state *send;
  struct ip_error_queue *errors;
};

static inline int ip_channel_family(const struct ip_channel *channel) {
  return channel->is_v6 ? AF_INET6 : AF_INET;
}

/* Does a datagram to `remote` leave as IPv4? NULL: to the connected peer, if there is one. */
static inline bool ip_channel_is_v4_path(const struct ip_channel *channel, const struct ip_endpoint *remote) {
  if (!channel->is_v6) return true;
  if (remote == NULL && channel->connection == NULL) return false;
  if (remote == NULL) remote = &channel->connection->remote;
  return IN6_IS_ADDR_V4MAPPED(&remote->name.v6.sin6_addr);
}

#endif
