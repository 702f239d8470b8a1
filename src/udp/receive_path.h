/* receive_path.h: one datagram or an error, whatever stands between the socket and the system: the peer filter, the
   read-ahead buffer, receive offload (GRO), errors of datagrams sent earlier. Knows no Lua. */
#ifndef IP_RECEIVE_PATH_H
#define IP_RECEIVE_PATH_H

#include "base/util.h"
#include "net/failure.h"
#include "net/received.h"
#include "udp/channel.h"
#include "udp/error_queue.h"

#include <errno.h>

/* Receives in a row that met EAGAIN before the next ones suspend without a try. */
enum { IP_SKIP_AFTER = 4 };

struct ip_receive_state {
  struct ip_read_ahead *read_ahead; /* NULL until an option needs it */
  bool has_read_ahead;              /* it is not empty */
  bool offload;                     /* the option receive_offload is on */
  bool coalesce;                    /* the option of that name is on */
  bool gro_enabled;  /* the system still joins datagrams, or has joined some that are not read yet */
  bool counts_drops; /* the option receive_dropped is on */
  uint32_t dropped;  /* as the system said last */
};

/* The channel's, made when there is none; NULL when memory is short. */
struct ip_receive_state *ip_receive_path_state(struct ip_channel *channel);
void ip_receive_path_free(struct ip_channel *channel);

/* Receives one datagram. EAGAIN: there is none. */
struct ip_failure ip_receive_path_receive(struct ip_channel *channel, const struct ip_receive *call,
                                          struct ip_received *received);

/* As above, in the fewest instructions where nothing stands between the socket and the system. */
static inline struct ip_failure ip_receive_path_attempt(struct ip_channel *channel,
                                                        const struct ip_receive *call,
                                                        struct ip_received *received) {
  bool plain = channel->receive == NULL && !channel->filters_peer && !(call->wants & IP_WANTS_CONTROL);
  if (IP_UNLIKELY(!plain)) return ip_receive_path_receive(channel, call, received);
  /* a connected socket has one source, which costs the system something to tell */
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

/* Are there received datagrams in this process? */
static inline bool ip_receive_path_has_read_ahead(const struct ip_channel *channel) {
  return channel->receive != NULL && channel->receive->has_read_ahead;
}

/* The size of the datagram that the next receive gets, 0 where there is none. Returns 0 or an errno value. */
int ip_receive_path_bytes_readable(struct ip_channel *channel, int *bytes);

/* Makes the system join datagrams, or stop it once the joined ones are read. Returns 0 or an errno value. */
int ip_receive_path_set_offload(struct ip_channel *channel, bool on);

/* Reads several datagrams at a time from now on, joined ones where the system can. Returns 0 or an errno value. */
int ip_receive_path_set_coalesce(struct ip_channel *channel, bool on);

/* Where no option wants joined datagrams any more, disables GRO if the socket is empty; else a later receive does. */
void ip_receive_path_disable_gro(struct ip_channel *channel);

/* The system reports drops from the first one on; the option promises a count. */
void ip_receive_path_count_drops(const struct ip_channel *channel, struct ip_control *control);

#endif
