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

/* With `coalesce`: after so many reads in a row that brought a single datagram, each of them the last one, a
   receive reads one datagram; after so many of these that did not have to wait, several again. */
enum { IP_SINGLY_AFTER = 4, IP_SEVERAL_AFTER = 3 };

struct ip_buffer_pool;

struct ip_receive_state {
  struct ip_read_ahead *read_ahead; /* its datagrams have not been received yet; NULL: there are none */
  struct ip_buffer_pool *pool;      /* NULL until an option needs it */
  bool offload;                     /* the option receive_offload is on */
  bool coalesce;                    /* the option coalesce is on */
  bool gro_enabled;                 /* the system still joins datagrams, or joined ones are unread */
  bool counts_drops;                /* the option receive_dropped is on */
  bool emptied;                     /* the last read emptied the socket */
  uint8_t wanted;     /* datagrams that a read of several asks for: fewer while they are large */
  uint8_t lone_reads; /* reads of several in a row that brought one, up to IP_SINGLY_AFTER */
  uint8_t in_row;     /* reads of one in a row that found it without waiting */
  uint32_t dropped;   /* the last count from the system */
};

/* Returns the channel's receive state, created if there is none; NULL when memory is short. */
struct ip_receive_state *ip_receive_path_state(struct ip_channel *channel);
void ip_receive_path_free(struct ip_channel *channel);

/* Receives one datagram. EAGAIN: there is none. */
struct ip_failure ip_receive_path_receive(struct ip_channel *channel, const struct ip_receive *call,
                                          struct ip_received *received);

/* Does a receive read one datagram that is probably alone, and does it want nothing but it? */
static inline bool ip_receive_path_is_single(const struct ip_channel *channel,
                                             const struct ip_receive *call) {
  const struct ip_receive_state *state = channel->receive;
  if (state == NULL || state->lone_reads != IP_SINGLY_AFTER || state->read_ahead != NULL) return false;
  if (channel->filters_peer || channel->errors != NULL || call->flags != 0) return false;
  return state->coalesce && (call->wants & ~(unsigned)IP_WANTS_SOURCE) == 0;
}

/* The same in the fewest instructions for such a receive. */
struct ip_failure ip_receive_path_receive_single(struct ip_channel *channel, const struct ip_receive *call,
                                                 struct ip_received *received);

/* The same in the fewest instructions for a plain receive: without receive state, peer filter and ancillary
   data. */
static inline struct ip_failure ip_receive_path_attempt(struct ip_channel *channel,
                                                        const struct ip_receive *call,
                                                        struct ip_received *received) {
  bool plain = channel->receive == NULL && !channel->filters_peer && !(call->wants & IP_WANTS_CONTROL);
  if (IP_UNLIKELY(!plain))
    return ip_receive_path_is_single(channel, call) ? ip_receive_path_receive_single(channel, call, received)
                                                    : ip_receive_path_receive(channel, call, received);
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

/* Does a receive read several datagrams at a time, where the path itself decides whether the next one
   tries? */
static inline bool ip_receive_path_reads_several(const struct ip_channel *channel) {
  return ip_receive_path_coalesces(channel) && channel->receive->lone_reads < IP_SINGLY_AFTER;
}

/* Notes that a receive waits without a try. */
static inline void ip_receive_path_note_wait(const struct ip_channel *channel) {
  if (channel->receive != NULL) channel->receive->in_row = 0;
}

/* Does this process have datagrams that no receive has returned yet? */
static inline bool ip_receive_path_has_read_ahead(const struct ip_channel *channel) {
  return channel->receive != NULL && channel->receive->read_ahead != NULL;
}

/* A call that takes several datagrams asks, between these two, whether a read has emptied the socket and all
   datagrams have been received: then another read would find nothing. */
static inline void ip_receive_path_begin_many(const struct ip_channel *channel) {
  if (channel->receive != NULL) channel->receive->emptied = false;
}

static inline bool ip_receive_path_is_emptied(const struct ip_channel *channel) {
  return channel->receive != NULL && channel->receive->emptied && channel->receive->read_ahead == NULL;
}

/* Gets the size of the datagram that the next receive returns, or 0 if there is none. Returns 0 or an errno
   value. */
int ip_receive_path_bytes_readable(struct ip_channel *channel, int *bytes);

/* Enables GRO, or disables it once the joined datagrams have been read. The buffers are those of `pool`;
   NULL: the socket's own. Returns 0 or an errno value. */
int ip_receive_path_set_offload(struct ip_channel *channel, struct ip_buffer_pool *pool, bool on);

/* Reads several datagrams at a time from now on, where several come, joined by the system if it can. `pool`
   as above. Returns 0 or an errno value. */
int ip_receive_path_set_coalesce(struct ip_channel *channel, struct ip_buffer_pool *pool, bool on);

/* Disables GRO if no option needs it any more and the socket is empty; if it is not empty, a later receive
   does so. */
void ip_receive_path_disable_gro(struct ip_channel *channel);

/* Completes the count of drops: the system reports none before the first drop, but the option promises a
   count. */
void ip_receive_path_count_drops(const struct ip_channel *channel, struct ip_control *control);

#endif
