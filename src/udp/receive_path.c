/* receive_path.c: one receive from the channel to the system: the read-ahead buffer, the peer filter, and
   errors of datagrams sent earlier.

   Owns the channel's struct ip_receive_state. Does not use Lua and raises nothing. */
#include "udp/receive_path.h"

#include "base/util.h"
#include "net/datagram_message_io.h"
#include "udp/error_queue.h"
#include "udp/read_ahead.h"

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
  ip_read_ahead_free(channel->receive->read_ahead);
  free(channel->receive);
  channel->receive = NULL;
}

/* --- the read-ahead buffer --- */

/* Reads one or more datagrams. After a read that emptied the socket, the next receive suspends without a
   try. */
static int fill(struct ip_channel *channel) {
  struct ip_receive_state *state = channel->receive;
  int error = ip_read_ahead_fill(state->read_ahead, channel->fd, channel->is_v6);
  if (error != 0) return error;
  state->has_read_ahead = true;
  if (state->coalesce) channel->would_block_streak = state->read_ahead->drained ? IP_SKIP_AFTER : 0;
  return 0;
}

/* Pops the next datagram, or, with `joined`, the rest of a joined buffer. */
static void pop(struct ip_channel *channel, const struct ip_receive *call, bool joined,
                struct ip_received *received) {
  struct ip_receive_state *state = channel->receive;
  struct ip_read_ahead *buffer = state->read_ahead;
  struct ip_datagram *datagram = &received->datagram;
  size_t real = joined ? buffer->length - buffer->at : ip_read_ahead_next_length(buffer);
  datagram->length = real < call->size ? real : call->size;
  datagram->truncated = real > call->size;
  datagram->source = *buffer->source;
  if (datagram->length != 0) memcpy(call->data, buffer->data + buffer->at, datagram->length);
  if (call->wants & IP_WANTS_CONTROL) {
    received->control = buffer->control;
    if (real <= buffer->stride) received->control.items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
  }
  if (call->flags & MSG_PEEK) return;
  ip_read_ahead_advance(buffer, real);
  state->has_read_ahead = !ip_read_ahead_is_empty(buffer);
}

/* --- one datagram --- */

static int receive_directly(struct ip_channel *channel, const struct ip_receive *call,
                            struct ip_received *received) {
  int error =
      call->wants & IP_WANTS_CONTROL
          ? ip_datagram_receive_message(channel->fd, channel->is_v6, call->data, call->size, call->flags,
                                        &received->datagram, &received->control)
          : ip_datagram_receive(channel->fd, call->data, call->size, call->flags, &received->datagram, true);
  if (error == 0 && ip_receive_path_coalesces(channel)) channel->would_block_streak = 0;
  return error;
}

/* Does a receive use the read-ahead buffer? A receive that wants joined datagrams in one piece reads them
   itself. */
static bool reads_ahead(const struct ip_receive_state *state, bool joined) {
  if (state == NULL) return false;
  if (state->has_read_ahead) return true;
  return state->read_ahead != NULL && (state->gro_enabled || state->coalesce) && !joined;
}

static bool wants_joined(const struct ip_receive_state *state, const struct ip_receive *call) {
  return (call->wants & IP_WANTS_JOINED) != 0 && state != NULL && state->offload;
}

static int receive_one(struct ip_channel *channel, const struct ip_receive *call,
                       struct ip_received *received) {
  bool joined = wants_joined(channel->receive, call);
  if (!reads_ahead(channel->receive, joined)) return receive_directly(channel, call, received);
  int error = channel->receive->has_read_ahead ? 0 : fill(channel);
  if (error == 0) pop(channel, call, joined, received);
  return error;
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
  if (state == NULL || state->has_read_ahead || !is_gro_useless(state)) return;
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
    if (channel->errors == NULL) return error;
    ip_error_queue_drain(channel); /* for the next receive */
  }
  if (!ip_receive_path_has_read_ahead(channel)) return ip_datagram_bytes_readable(channel->fd, bytes);
  *bytes = (int)ip_read_ahead_next_length(channel->receive->read_ahead);
  return 0;
}

/* Provides a read-ahead buffer of at least that many slots. Returns 0 or ENOMEM. */
static int reserve(struct ip_receive_state *state, size_t slots) {
  struct ip_read_ahead *former = state->read_ahead;
  if (former != NULL && former->slots >= slots) return 0;
  struct ip_read_ahead *buffer = ip_read_ahead_new(slots);
  if (buffer == NULL) return ENOMEM;
  if (former != NULL) ip_read_ahead_move(buffer, former);
  ip_read_ahead_free(former);
  state->read_ahead = buffer;
  return 0;
}

int ip_receive_path_set_offload(struct ip_channel *channel, bool on) {
  struct ip_receive_state *state = ip_receive_path_state(channel);
  if (state == NULL) return ENOMEM;
  if (!on) {
    state->offload = false;
    ip_receive_path_disable_gro(channel);
    return 0;
  }
  int error = reserve(state, 1);
  if (error == 0) error = set_gro(channel, true);
  if (error == 0) state->offload = true;
  return error;
}

/* Where the system cannot join datagrams, one read still returns several of them. */
int ip_receive_path_set_coalesce(struct ip_channel *channel, bool on) {
  struct ip_receive_state *state = ip_receive_path_state(channel);
  if (state == NULL) return ENOMEM;
  if (!on) {
    state->coalesce = false;
    ip_receive_path_disable_gro(channel);
    return 0;
  }
#ifdef __linux__
  int error = reserve(state, IP_READ_AHEAD_MOST);
  if (error == 0) error = set_gro(channel, true);
  if (error != 0 && error != ENOTSUP) return error;
#endif
  state->coalesce = true;
  return 0;
}
