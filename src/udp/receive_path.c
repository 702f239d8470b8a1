/* receive_path.c: one receive from the channel to the system: the read-ahead buffer, the peer filter, and
   errors of datagrams sent earlier.

   Owns the channel's struct ip_receive_state. Does not use Lua and raises nothing. */
#include "udp/receive_path.h"

#include "base/util.h"
#include "net/datagram_message_io.h"
#include "udp/buffer_pool.h"
#include "udp/error_queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct ip_receive_state *ip_receive_path_state(struct ip_channel *channel) {
  if (channel->receive == NULL) channel->receive = calloc(1, sizeof *channel->receive);
  return channel->receive;
}

void ip_receive_path_free(struct ip_channel *channel) {
  if (channel->receive == NULL) return;
  ip_buffer_pool_give_back(channel->receive->pool, channel->receive->read_ahead);
  ip_buffer_pool_leave(channel->receive->pool);
  free(channel->receive);
  channel->receive = NULL;
}

/* --- the read-ahead buffer --- */

/* Reads several datagrams. After a read that emptied the socket, the next receive suspends without a try. */
static int read_several(struct ip_channel *channel, struct ip_read_ahead *buffer) {
  struct ip_receive_state *state = channel->receive;
  uint8_t wanted = state->wanted;
  int error = ip_read_ahead_fill(buffer, channel->fd, channel->is_v6, &state->wanted);
  if (error != 0) return error;
  state->emptied = buffer->end < wanted;
  channel->would_block_streak = state->emptied ? IP_SKIP_AFTER : 0;
  if (!state->emptied || !ip_read_ahead_is_lone(buffer))
    state->lone_reads = 0;
  else if (state->lone_reads < IP_SINGLY_AFTER)
    state->lone_reads++;
  return 0;
}

/* Reads one datagram, or some that the system has joined. */
static inline int read_one(struct ip_channel *channel, struct ip_read_ahead *buffer) {
  struct ip_receive_state *state = channel->receive;
  const struct ip_endpoint *source =
      channel->connection != NULL && !channel->filters_peer ? &channel->connection->remote : NULL;
  int error = ip_read_ahead_read(buffer, channel->fd, channel->is_v6, source);
  if (error == EAGAIN) state->in_row = 0;
  if (error != 0) return error;
  state->emptied = false;
  if (ip_read_ahead_is_lone(buffer) && ++state->in_row < IP_SEVERAL_AFTER) return 0;
  state->lone_reads = state->in_row = 0;
  return 0;
}

/* Reads into the first buffer of the pool, which it gets. Returns an errno value without having read anything
   if memory for a buffer is short. */
static int read_some(struct ip_channel *channel, bool several, struct ip_read_ahead **buffer) {
  *buffer = ip_buffer_pool_first(channel->receive->pool);
  if (IP_UNLIKELY(*buffer == NULL)) return ENOMEM;
  return several ? read_several(channel, *buffer) : read_one(channel, *buffer);
}

/* Reads one or more datagrams, and keeps them. */
static int fill(struct ip_channel *channel) {
  struct ip_read_ahead *buffer;
  int error = read_some(channel, ip_receive_path_reads_several(channel), &buffer);
  if (error == 0) channel->receive->read_ahead = ip_buffer_pool_take(channel->receive->pool);
  return error;
}

/* Copies the next datagram, or, of `size` bytes, the rest of a joined buffer. */
static inline void copy(const struct ip_read_ahead *buffer, const struct ip_receive *call, size_t size,
                        struct ip_received *received) {
  struct ip_datagram *datagram = &received->datagram;
  datagram->length = size < call->size ? size : call->size;
  datagram->truncated = size > call->size;
  datagram->source = *buffer->source;
  if (datagram->length != 0) memcpy(call->data, buffer->data + buffer->at, datagram->length);
  if (!(call->wants & IP_WANTS_CONTROL)) return;
  received->control = buffer->control;
  if (size <= buffer->stride) received->control.items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
}

/* Pops the next datagram, or, with `joined`, the rest of a joined buffer. */
static void pop(struct ip_channel *channel, const struct ip_receive *call, bool joined,
                struct ip_received *received) {
  struct ip_receive_state *state = channel->receive;
  struct ip_read_ahead *buffer = state->read_ahead;
  size_t size = joined ? buffer->length - buffer->at : ip_read_ahead_next_length(buffer);
  copy(buffer, call, size, received);
  if (call->flags & MSG_PEEK) return;
  ip_read_ahead_advance(buffer, size);
  if (!ip_read_ahead_is_empty(buffer)) return;
  ip_buffer_pool_give_back(state->pool, buffer);
  state->read_ahead = NULL;
}

/* Returns the first datagram of a read into the first buffer of the pool, which keeps it if it has no
   more. */
static inline void return_first(struct ip_channel *channel, struct ip_read_ahead *buffer,
                                const struct ip_receive *call, struct ip_received *received) {
  if (IP_LIKELY(ip_read_ahead_is_lone(buffer) && !(call->flags & MSG_PEEK))) {
    copy(buffer, call, buffer->length, received);
    buffer->next = buffer->end;
    return;
  }
  channel->receive->read_ahead = ip_buffer_pool_take(channel->receive->pool);
  pop(channel, call, false, received);
}

static int read_and_pop(struct ip_channel *channel, const struct ip_receive *call,
                        struct ip_received *received) {
  bool several = ip_receive_path_reads_several(channel) ||
                 ((call->wants & IP_WANTS_MORE) != 0 && channel->receive->coalesce);
  struct ip_read_ahead *buffer;
  int error = read_some(channel, several, &buffer);
  if (error == 0) return_first(channel, buffer, call, received);
  return error;
}

/* --- one datagram --- */

static int receive_directly(struct ip_channel *channel, const struct ip_receive *call,
                            struct ip_received *received) {
  int error =
      call->wants & IP_WANTS_CONTROL
          ? ip_datagram_receive_message(channel->fd, channel->is_v6, call->data, call->size, call->flags,
                                        &received->datagram, &received->control)
          : ip_datagram_receive(channel->fd, call->data, call->size, call->flags, &received->datagram, true);
  if (error == 0 && ip_receive_path_reads_several(channel)) channel->would_block_streak = 0;
  return error;
}

/* Does a receive use the read-ahead buffer? A receive that wants joined datagrams in one piece reads them
   itself. */
static bool reads_ahead(const struct ip_receive_state *state, bool joined) {
  if (state == NULL) return false;
  if (state->read_ahead != NULL) return true;
  return state->pool != NULL && (state->gro_enabled || state->coalesce) && !joined;
}

static bool wants_joined(const struct ip_receive_state *state, const struct ip_receive *call) {
  return (call->wants & IP_WANTS_JOINED) != 0 && state != NULL && state->offload;
}

static int receive_one(struct ip_channel *channel, const struct ip_receive *call,
                       struct ip_received *received) {
  bool joined = wants_joined(channel->receive, call);
  if (!reads_ahead(channel->receive, joined)) return receive_directly(channel, call, received);
  if (channel->receive->read_ahead == NULL) return read_and_pop(channel, call, received);
  pop(channel, call, joined, received);
  return 0;
}

/* The buffer of a receive that drops its datagram. */
static unsigned char nowhere[1];
static const struct ip_receive nothing = {.data = nowhere, .size = 0};

/* Drops non-peer datagrams. The system delivers datagrams that were queued before `connect` to the connected
   socket, from any sender. Once the queue has been empty, the kernel's own filter suffices. */
static int receive_from_peer(struct ip_channel *channel, const struct ip_receive *call,
                             struct ip_received *received) {
  for (;;) {
    int error = receive_one(channel, call, received);
    if (error == EAGAIN) channel->filters_peer = false;
    if (error != 0 || ip_endpoint_equal(&received->datagram.source, &channel->connection->remote))
      return error;
    if (!(call->flags & MSG_PEEK)) continue;
    struct ip_received dropped;
    error = receive_one(channel, &nothing, &dropped);
    if (error != 0) return error;
  }
}

/* --- receive offload (GRO) --- */

static int set_gro(struct ip_channel *channel, bool on) {
#ifdef UDP_GRO
  int error = ip_datagram_set_option(channel->fd, IPPROTO_UDP, UDP_GRO, on);
  if (error == 0) channel->receive->gro_enabled = on;
  return error == ENOPROTOOPT ? ENOTSUP : error;
#else
  (void)channel, (void)on;
  return ENOTSUP;
#endif
}

/* May a datagram wait? Yes, where the system does not say. */
static bool is_readable(const struct ip_channel *channel) {
  struct pollfd descriptor = {.fd = channel->fd, .events = POLLIN};
  int ready = poll(&descriptor, 1, 0);
  return ready < 0 || (ready > 0 && (descriptor.revents & POLLIN) != 0);
}

/* Disables GRO, and enables it again if a datagram has arrived meanwhile: datagrams that the system has
   joined stay joined, and without GRO it delivers them as one datagram, without a mark. */
static void disable_gro(struct ip_channel *channel) {
  if (set_gro(channel, false) == 0 && is_readable(channel)) (void)set_gro(channel, true);
}

static bool is_gro_useless(const struct ip_receive_state *state) {
  return state->gro_enabled && !state->offload && !state->coalesce;
}

void ip_receive_path_disable_gro(struct ip_channel *channel) {
  const struct ip_receive_state *state = channel->receive;
  if (state == NULL || state->read_ahead != NULL || !is_gro_useless(state)) return;
  if (!is_readable(channel)) disable_gro(channel);
}

/* --- the whole path --- */

/* Receives without regard to errors of earlier datagrams. */
static int receive_or_empty(struct ip_channel *channel, const struct ip_receive *call,
                            struct ip_received *received) {
  int error = channel->filters_peer ? receive_from_peer(channel, call, received)
                                    : receive_one(channel, call, received);
  if (error == EAGAIN && channel->receive != NULL && is_gro_useless(channel->receive)) disable_gro(channel);
  return error;
}

struct ip_failure ip_receive_path_receive_single(struct ip_channel *channel, const struct ip_receive *call,
                                                 struct ip_received *received) {
  struct ip_receive_state *state = channel->receive;
  struct ip_read_ahead *buffer = ip_buffer_pool_first(state->pool);
  int error = IP_LIKELY(buffer != NULL) ? read_one(channel, buffer) : ENOMEM;
  if (IP_UNLIKELY(error != 0))
    return error == EAGAIN ? ip_failure(error) : ip_error_queue_failure(channel, error, 0);
  return_first(channel, buffer, call, received);
  return ip_failure(0);
}

struct ip_failure ip_receive_path_receive(struct ip_channel *channel, const struct ip_receive *call,
                                          struct ip_received *received) {
  if (ip_error_queue_has_report(channel)) return ip_error_queue_pop_report(channel);
  if (ip_receive_path_has_read_ahead(channel) && !channel->filters_peer) {
    pop(channel, call, wants_joined(channel->receive, call), received);
    return ip_failure(0);
  }
  int error = receive_or_empty(channel, call, received);
  if (error == 0 || error == EAGAIN) return ip_failure(error);
  struct ip_drained drained = ip_error_queue_drain(channel);
  if (ip_error_queue_has_report(channel)) return ip_error_queue_pop_report(channel);
  return ip_error_queue_failure(channel, error, drained.local_mtu);
}

void ip_receive_path_count_drops(const struct ip_channel *channel, struct ip_control *control) {
  struct ip_receive_state *state = channel->receive;
  if (state == NULL || !state->counts_drops) return;
  if (control->items & IP_CONTROL_DROPPED) state->dropped = control->dropped;
  control->dropped = state->dropped;
  control->items |= IP_CONTROL_DROPPED;
}

/* --- io_control and options --- */

/* Drops non-peer datagrams from the head of the queue. */
static int drop_non_peer_datagrams(struct ip_channel *channel) {
  if (!channel->filters_peer) return 0;
  struct ip_received received;
  int error = receive_or_empty(channel, &(struct ip_receive){.data = nowhere, .flags = MSG_PEEK}, &received);
  return error == EAGAIN ? 0 : error;
}

int ip_receive_path_bytes_readable(struct ip_channel *channel, int *bytes) {
  int error = drop_non_peer_datagrams(channel);
  if (error == 0 && !ip_receive_path_has_read_ahead(channel) && reads_ahead(channel->receive, false))
    error = fill(channel);
  if (error != 0 && error != EAGAIN) {
    if (channel->errors == NULL || error == ENOMEM) return error;
    ip_error_queue_drain(channel); /* for the next receive */
  }
  if (!ip_receive_path_has_read_ahead(channel)) return ip_datagram_bytes_readable(channel->fd, bytes);
  *bytes = (int)ip_read_ahead_next_length(channel->receive->read_ahead);
  return 0;
}

/* Joins the pool, and provides it with a buffer. Returns 0 or ENOMEM. */
static int join_pool(struct ip_receive_state *state, struct ip_buffer_pool *pool) {
  if (state->pool == NULL) state->pool = ip_buffer_pool_join(pool);
  return state->pool != NULL && ip_buffer_pool_first(state->pool) != NULL ? 0 : ENOMEM;
}

int ip_receive_path_set_offload(struct ip_channel *channel, struct ip_buffer_pool *pool, bool on) {
  struct ip_receive_state *state = ip_receive_path_state(channel);
  if (state == NULL) return ENOMEM;
  if (!on) {
    state->offload = false;
    ip_receive_path_disable_gro(channel);
    return 0;
  }
  int error = join_pool(state, pool);
  if (error == 0) error = set_gro(channel, true);
  if (error == 0) state->offload = true;
  return error;
}

/* Where the system cannot join datagrams, one read still returns several of them. */
int ip_receive_path_set_coalesce(struct ip_channel *channel, struct ip_buffer_pool *pool, bool on) {
  struct ip_receive_state *state = ip_receive_path_state(channel);
  if (state == NULL) return ENOMEM;
  if (!on) {
    state->coalesce = false;
    ip_receive_path_disable_gro(channel);
    return 0;
  }
#ifdef __linux__
  int error = join_pool(state, pool);
  if (error == 0) error = set_gro(channel, true);
  if (error != 0 && error != ENOTSUP) return error;
#else
  (void)pool;
#endif
  if (!state->coalesce) {
    state->wanted = IP_READ_AHEAD_MOST;
    state->lone_reads = state->in_row = 0;
  }
  state->coalesce = true;
  return 0;
}
