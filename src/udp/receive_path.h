/* receive_path.h: one receive from the channel to the system, through the peer filter, the read-ahead buffer,
   receive offload (GRO), and errors of datagrams sent earlier. Does not use Lua. */
#ifndef IP_RECEIVE_PATH_H
#define IP_RECEIVE_PATH_H

#include "base/util.h"
#include "net/failure.h"
#include "net/received.h"
#include "udp/channel.h"
#include "udp/error_queue.h"

#include <errno.h>

/* After so many receives in a row that met EAGAIN, the next ones suspend without a try. */
enum { IP_SKIP_AFTER = 4 };

struct ip_receive_state {
  struct ip_read_ahead *read_ahead; /* NULL until an option needs it */
  bool has_read_ahead;              /* it is not empty */
  bool offload;                     /* the option receive_offload is on */
  bool coalesce;                    /* the option coalesce is on */
  bool gro_enabled;                 /* the system still joins datagrams, or joined ones are unread */
  bool counts_drops;                /* the option receive_dropped is on */
  uint32_t dropped;                 /* the last count from the system */
};

/* Returns the channel's receive state, created if there is none; NULL when memory is short. */
struct ip_receive_state *ip_receive_path_state(struct ip_channel *channel);
void ip_receive_path_free(struct ip_channel *channel);

/* Receives one datagram. EAGAIN: there is none. */
struct ip_failure ip_receive_path_receive(struct ip_channel *channel, const struct ip_receive *call,
                                          struct ip_received *received);

/* Receives one datagram, in the fewest instructions for a plain receive: without receive state, peer filter
   and ancillary data. */
static inline struct ip_failure ip_receive_path_attempt(struct ip_channel *channel,
                                                        const struct ip_receive *call,
                                                        struct ip_received *received) {
  bool plain = channel->receive == NULL && !channel->filters_peer && !(call->wants & IP_WANTS_CONTROL);
  if (IP_UNLIKELY(!plain)) return ip_receive_path_receive(channel, call, received);
  /* the only source of a connected socket is its peer; asking the system for it would cost time */
  const struct ip_connection *connection = call->wants & IP_WANTS_SOURCE ? channel->connection : NULL;
  bool asks = (call->wants & IP_WANTS_SOURCE) != 0 && connection == NULL;
  int error =
      ip_datagram_receive(channel->fd, call->data, call->size, call->flags, &received->datagram, asks);
  if (connection != NULL) received->datagram.source = connection->remote;
  if (IP_UNLIKELY(error == EMSGSIZE)) return ip_error_queue_failure(channel, error, 0);
  return ip_failure(error);
}

static inline bool ip_receive_path_coalesces(const struct ip_channel *channel) {
  return channel->receive != NULL && channel->receive->coalesce;
}

/* Does this process have datagrams that no receive has returned yet? */
static inline bool ip_receive_path_has_read_ahead(const struct ip_channel *channel) {
  return channel->receive != NULL && channel->receive->has_read_ahead;
}

/* Gets the size of the datagram that the next receive returns, or 0 if there is none. Returns 0 or an errno
   value. */
int ip_receive_path_bytes_readable(struct ip_channel *channel, int *bytes);

/* Enables GRO, or disables it once the joined datagrams have been read. Returns 0 or an errno value. */
int ip_receive_path_set_offload(struct ip_channel *channel, bool on);

/* Reads several datagrams at a time from now on, joined by the system if it can. Returns 0 or an errno
   value. */
int ip_receive_path_set_coalesce(struct ip_channel *channel, bool on);

/* Disables GRO if no option needs it any more and the socket is empty; if it is not empty, a later receive
   does so. */
void ip_receive_path_disable_gro(struct ip_channel *channel);

/* Completes the count of drops: the system reports none before the first drop, but the option promises a
   count. */
void ip_receive_path_count_drops(const struct ip_channel *channel, struct ip_control *control);

#endif
