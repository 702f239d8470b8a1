/* send_queue.c: sends that wait for the end of the loop iteration and leave together.

   Owns the queue while datagrams are in it, and frees the struct ip_send_state around it. Does not use Lua
   and raises nothing. The queue has the datagrams in the order of the sends, as segment trains: consecutive
   datagrams of one size to one peer leave as one message that the system segments (UDP_SEGMENT in udp(7)),
   and all messages leave in one call. If a path refuses to segment, the datagrams leave one by one.

   An error that the system would report at once is reported at once here, too: datagrams that are known to
   fail, and datagrams with flags or ancillary data, are sent directly. An error that the system reports later
   is deferred to the next send. */
#include "udp/send_queue.h"

#include "base/util.h"
#include "net/datagram_io.h"
#include "udp/buffer_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CAPACITY = 65536, MOST_TRAINS = 64, MOST_MESSAGES = 64 };

/* After so many flushes in a row that found a single datagram, the first one of an iteration leaves at
   once. */
enum { AT_ONCE_AFTER = 4 };

/* A segment train: `count` datagrams of `segment` bytes, the last one perhaps shorter, from `at` on. */
struct train {
  struct ip_endpoint to; /* length 0: the connected peer */
  size_t at, bytes, segment;
  size_t count;
  bool one_by_one; /* the path refused it as one message */
  bool suspected;  /* the same, and its size may have been the reason */
};

struct ip_send_queue {
  size_t first, end;   /* the trains */
  size_t used;         /* bytes of `data` */
  size_t count, bytes; /* datagrams, and their bytes */
  struct train trains[MOST_TRAINS];
  unsigned char data[CAPACITY];
};

static struct ip_send_queue *queue_of(const struct ip_channel *channel) {
  return channel->send != NULL ? channel->send->queue : NULL;
}

/* Returns the queue of the channel, which it gets from the pool if it has none; NULL when memory is short. */
static struct ip_send_queue *obtain_queue(struct ip_send_state *state) {
  if (state->queue != NULL) return state->queue;
  struct ip_send_queue *queue = ip_buffer_list_take(&state->pool->queues);
  if (queue == NULL) queue = malloc(sizeof *queue);
  if (queue != NULL) queue->first = queue->end = queue->used = queue->count = queue->bytes = 0;
  state->queue = queue;
  return queue;
}

/* Gives the queue back if nothing is in it. */
static void give_back_if_empty(struct ip_send_state *state) {
  if (state->queue == NULL || state->queue->count != 0) return;
  ip_buffer_pool_give_queue_back(state->pool, state->queue);
  state->queue = NULL;
}

/* --- deferred failures --- */

void ip_send_queue_defer(struct ip_channel *channel, struct ip_failure failure) {
  channel->send->at_once = false;
  if (channel->send->deferred.code != 0) return;
  channel->send->deferred = ip_failure_defer(failure);
}

struct ip_failure ip_send_queue_pop_failure(struct ip_channel *channel) {
  if (channel->send == NULL) return ip_failure(0);
  struct ip_failure failure = channel->send->deferred;
  channel->send->deferred = ip_failure(0);
  return failure;
}

/* --- enqueueing --- */

static bool has_place(const struct train *train, size_t size) {
  bool complete = train->bytes == train->count * train->segment;
  return complete && size != 0 && size <= train->segment && train->count < IP_MOST_SEGMENTS &&
         train->bytes + size <= IP_LARGEST_SEGMENTED;
}

static bool is_to(const struct train *train, const struct ip_endpoint *to) {
  if (to == NULL || train->to.length == 0) return to == NULL && train->to.length == 0;
  return ip_endpoint_equal(&train->to, to);
}

/* Returns the train for the datagram: the last one or a new one; NULL if the queue is full. */
static struct train *find_train(struct ip_send_queue *queue, const struct ip_endpoint *to, size_t size) {
  if (size > CAPACITY - queue->used) return NULL;
  struct train *last = queue->end > queue->first ? &queue->trains[queue->end - 1] : NULL;
  if (last != NULL && has_place(last, size) && is_to(last, to)) return last;
  if (queue->end == MOST_TRAINS) return NULL;
  struct train *train = &queue->trains[queue->end++];
  train->at = queue->used;
  train->bytes = train->count = 0;
  train->segment = size;
  train->one_by_one = train->suspected = false;
  if (to != NULL)
    train->to = *to;
  else
    train->to.length = 0;
  return train;
}

static bool enqueue(struct ip_send_queue *queue, const struct ip_send *call, size_t size) {
  struct train *train = find_train(queue, call->to, size);
  if (train == NULL) return false;
  ip_data_copy(queue->data + queue->used, &call->data);
  train->bytes += size;
  train->count++;
  queue->used += size;
  queue->bytes += size;
  queue->count++;
  return true;
}

/* --- submitting --- */

/* One message: the datagrams of one train, or some of them. */
struct message {
  struct train *train;
  size_t at, bytes, count;
};

static bool leaves_whole(struct ip_channel *channel, const struct train *train) {
  if (train->count == 1) return true;
  return !train->one_by_one && train->segment < channel->send->refused_size &&
         ip_send_path_can_segment(channel);
}

/* Splits a train into at most `most` messages of one datagram each. Returns their number. */
static size_t plan_one_by_one(struct train *train, struct message *messages, size_t most) {
  size_t planned = 0;
  for (size_t done = 0; done < train->bytes && planned < most; done += train->segment) {
    size_t left = train->bytes - done;
    size_t bytes = left < train->segment ? left : train->segment;
    messages[planned++] = (struct message){train, train->at + done, bytes, 1};
  }
  return planned;
}

/* Makes messages of the oldest datagrams. Returns their number. */
static size_t plan(struct ip_channel *channel, struct ip_send_queue *queue, struct message *messages) {
  size_t planned = 0;
  for (size_t i = queue->first; i < queue->end && planned < MOST_MESSAGES; i++) {
    struct train *train = &queue->trains[i];
    if (leaves_whole(channel, train))
      messages[planned++] = (struct message){train, train->at, train->bytes, train->count};
    else
      planned += plan_one_by_one(train, messages + planned, MOST_MESSAGES - planned);
  }
  return planned;
}

/* Submits one datagram; the plain call is the cheapest. */
static int submit_one(const struct ip_channel *channel, struct ip_send_queue *queue,
                      const struct message *message) {
  size_t sent;
  struct iovec part = {.iov_base = queue->data + message->at, .iov_len = message->bytes};
  const struct ip_endpoint *to = message->train->to.length != 0 ? &message->train->to : NULL;
  int error = ip_datagram_send(channel->fd, &part, 1, to, 0, &sent);
  return error != 0 ? -error : 1;
}

#ifdef __linux__

/* Submits several messages, or one message of several datagrams, in one call. */
static int submit_many(const struct ip_channel *channel, struct ip_send_queue *queue,
                       const struct message *messages, size_t count) {
  struct mmsghdr headers[MOST_MESSAGES];
  struct iovec parts[MOST_MESSAGES];
  union ip_segment_control controls[MOST_MESSAGES];
  for (size_t i = 0; i < count; i++) {
    struct ip_endpoint *to = &messages[i].train->to;
    parts[i] = (struct iovec){.iov_base = queue->data + messages[i].at, .iov_len = messages[i].bytes};
    headers[i] = (struct mmsghdr){.msg_hdr = {.msg_name = to->length != 0 ? &to->name : NULL,
                                              .msg_namelen = to->length,
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1}};
    if (messages[i].count > 1)
      ip_control_set_segment_size(&headers[i].msg_hdr, &controls[i], messages[i].train->segment);
  }
  int sent;
  do
    sent = count == 1 ? sendmsg(channel->fd, &headers[0].msg_hdr, MSG_NOSIGNAL) < 0 ? -1 : 1
                      : sendmmsg(channel->fd, headers, (unsigned)count, MSG_NOSIGNAL);
  while (IP_UNLIKELY(sent < 0) && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

#else

static int submit_many(const struct ip_channel *channel, struct ip_send_queue *queue,
                       const struct message *messages, size_t count) {
  (void)count;
  return submit_one(channel, queue, &messages[0]);
}

#endif

/* Submits messages. Returns the number that the system accepted, or a negative errno value. */
static int submit(const struct ip_channel *channel, struct ip_send_queue *queue,
                  const struct message *messages, size_t count) {
  if (count == 1 && messages[0].count == 1) return submit_one(channel, queue, &messages[0]);
  return submit_many(channel, queue, messages, count);
}

/* Removes the oldest message from the queue. */
static void pop(struct ip_send_queue *queue, const struct message *message) {
  struct train *train = message->train;
  train->at += message->bytes;
  train->bytes -= message->bytes;
  train->count -= message->count;
  queue->count -= message->count;
  queue->bytes -= message->bytes;
  if (train->count == 0) queue->first++;
  if (queue->count == 0) queue->first = queue->end = queue->used = 0;
}

/* Pops sent messages. If a refused train has been sent one by one, its size was the reason. */
static void pop_sent(struct ip_send_state *state, const struct message *messages, size_t count) {
  for (size_t i = 0; i < count; i++) {
    struct train *train = messages[i].train;
    if (train->suspected && train->segment < state->refused_size) state->refused_size = train->segment;
    train->suspected = false;
    pop(state->queue, &messages[i]);
  }
}

/* --- failed sends --- */

/* Sends the datagrams of a train one by one from now on: the path does not segment (EIO), a segment is larger
   than the path carries (EMSGSIZE; EINVAL before Linux 6.14), or each datagram may get another result by
   itself. */
static void refuse_train(struct ip_channel *channel, struct train *train, int error) {
  train->one_by_one = true;
  train->suspected = error == EINVAL || error == EMSGSIZE;
  if (error == EIO) channel->gso_refused = true;
}

/* Defers an error that occurred once and was then gone: it belonged to an older datagram. With receive_errors
   a receive raises it (error_queue.c), else the next send. */
static void defer_older(struct ip_channel *channel, const struct ip_send_retry *retry) {
  if (retry->suspected != 0 && channel->errors == NULL)
    ip_send_queue_defer(channel, ip_failure(retry->suspected));
}

static const struct ip_send_retry first_attempt = {.attempts = 0, .defers = true};

/* The oldest message has failed. False: the system takes no more now. */
static bool handle_send_error(struct ip_channel *channel, const struct message *message,
                              struct ip_send_retry *retry, int error) {
  struct ip_failure failure = ip_failure(error);
  struct ip_send_retry before = *retry;
  switch (ip_send_path_classify(channel, retry, message->count, &failure)) {
  case IP_SEND_WOULD_BLOCK: defer_older(channel, &before); return false;
  case IP_SEND_RETRY_OLDER_ERROR: defer_older(channel, &before); return true;
  case IP_SEND_NOT_SEGMENTABLE: refuse_train(channel, message->train, error); break;
  case IP_SEND_OWN_ERROR:
    ip_send_queue_defer(channel, failure);
    message->train->suspected = false;
    pop(channel->send->queue, message);
    break;
  case IP_SENT: break; /* it is no error */
  }
  *retry = first_attempt;
  return true;
}

/* --- flushing --- */

/* Submits all datagrams. `error`: what an attempt to send the oldest one has met already, or 0. Returns false
   when the system accepts no more now. */
static bool send_all(struct ip_channel *channel, struct ip_send_queue *queue, int error) {
  struct ip_send_retry retry = first_attempt;
  struct message messages[MOST_MESSAGES];
  while (queue->count != 0) {
    size_t planned = plan(channel, queue, messages);
    if (planned == 0) break; /* never happens: the queue is not empty */
    int sent = error != 0 ? -error : submit(channel, queue, messages, planned);
    error = 0;
    if (sent < 0) {
      if (!handle_send_error(channel, &messages[0], &retry, -sent)) return false;
      continue;
    }
    defer_older(channel, &retry);
    retry = first_attempt;
    pop_sent(channel->send, messages, (size_t)sent);
  }
  return true;
}

/* Moves the remaining datagrams to the beginning of the queue. */
static void compact(struct ip_send_queue *queue) {
  size_t gap = queue->trains[queue->first].at;
  memmove(queue->data, queue->data + gap, queue->used - gap);
  memmove(queue->trains, queue->trains + queue->first, (queue->end - queue->first) * sizeof queue->trains[0]);
  queue->end -= queue->first;
  queue->first = 0;
  queue->used -= gap;
  for (size_t i = 0; i < queue->end; i++)
    queue->trains[i].at -= gap;
}

static void note_flush(struct ip_send_state *state, size_t count) {
  if (count != 1)
    state->lone_flushes = 0;
  else if (state->lone_flushes < AT_ONCE_AFTER)
    state->lone_flushes++;
}

bool ip_send_queue_flush(struct ip_channel *channel) {
  struct ip_send_queue *queue = queue_of(channel);
  if (queue == NULL || queue->count == 0) return true;
  struct ip_send_state *state = channel->send;
  note_flush(state, queue->count);
  if (!send_all(channel, queue, 0)) {
    compact(queue);
    return false;
  }
  give_back_if_empty(state);
  state->at_once = state->coalesce && state->lone_flushes == AT_ONCE_AFTER && state->deferred.code == 0;
  state->lone_iteration = state->iteration;
  return true;
}

void ip_send_queue_end(struct ip_channel *channel) {
  struct ip_send_queue *queue = queue_of(channel);
  if (queue == NULL || queue->count == 0) return;
  (void)send_all(channel, queue, 0);
  queue->count = 0;
  give_back_if_empty(channel->send);
}

void ip_send_queue_leave_peer(struct ip_channel *channel) {
  if (!ip_send_path_queues(channel)) return;
  channel->send->refused_size = SIZE_MAX;
  if (ip_send_queue_flush(channel) || channel->connection == NULL) return;
  struct ip_send_queue *queue = queue_of(channel); /* some datagrams are left */
  for (size_t i = queue->first; i < queue->end; i++)
    if (queue->trains[i].to.length == 0) queue->trains[i].to = channel->connection->remote;
}

size_t ip_send_queue_count(const struct ip_channel *channel, size_t *bytes) {
  const struct ip_send_queue *queue = queue_of(channel);
  if (queue == NULL) return 0;
  *bytes += queue->bytes;
  return queue->count;
}

/* --- a send --- */

static bool is_limited_broadcast(const struct ip_endpoint *to) {
  if (ip_endpoint_family(to) == AF_INET) return to->name.v4.sin_addr.s_addr == htonl(INADDR_BROADCAST);
  static const uint8_t ones[4] = {0xff, 0xff, 0xff, 0xff};
  return IN6_IS_ADDR_V4MAPPED(&to->name.v6.sin6_addr) &&
         memcmp(&to->name.v6.sin6_addr.s6_addr[12], ones, sizeof ones) == 0;
}

/* May the datagram wait in the queue? Only if the system would accept it at once, as far as that is
   predictable. */
static bool can_wait(const struct ip_channel *channel, const struct ip_send *call, size_t size) {
  const struct ip_send_state *state = channel->send;
  if (!state->coalesce || call->flags != 0 || call->control.items != 0 || state->segment_size != 0)
    return false;
  if (!channel->has_port && channel->connection == NULL)
    return false; /* the port is visible after the first send */
  if (call->to == NULL && channel->connection != NULL && channel->connection->interface != 0)
    return false; /* the interface would change with the peer */
  const struct ip_endpoint *to = call->to;
  bool v4_path = ip_channel_is_v4_path(channel, to);
  if (size > (v4_path ? IP_LARGEST_V4 : IP_LARGEST_V6)) return false;
  if (to == NULL) return true;
  if (ip_endpoint_family(to) != ip_channel_family(channel) || ip_endpoint_port(to) == 0) return false;
  return !(channel->is_v6 && v4_path && state->v6_only) && !is_limited_broadcast(to);
}

static struct ip_failure send_directly(struct ip_channel *channel, struct ip_send *call, size_t *sent) {
  if (!ip_send_queue_flush(channel)) return ip_failure(EAGAIN);
  channel->send->at_once = false; /* it may meet errors that a receive waits for */
  struct ip_failure failure = ip_send_queue_pop_failure(channel);
  if (failure.code == 0) failure = ip_send_path_send(channel, call, sent);
  if (failure.code == 0) channel->has_port = true;
  return failure;
}

/* Is it the first datagram of an iteration, where iterations keep bringing one? To queue it would cost time
   and gain nothing. The second one of an iteration ends that. */
static bool leaves_at_once(struct ip_send_state *state, const struct ip_send *call) {
  if (state == NULL || !state->at_once) return false;
  if (call->flags != 0 || call->control.items != 0 || state->segment_size != 0) return false;
  if (state->lone_iteration == state->iteration) state->lone_flushes = 0;
  state->at_once = state->lone_iteration != state->iteration;
  state->lone_iteration = state->iteration;
  return state->at_once;
}

/* A datagram that was to leave at once has failed. If it may wait, it goes to the queue, where its error is
   told apart from those of older datagrams, and deferred, as if it had been there before. Otherwise it is a
   plain send; with an error queue, that has the error of an older datagram. */
static struct ip_failure fail_at_once(struct ip_channel *channel, struct ip_send *call, int error,
                                      size_t *sent) {
  struct ip_send_state *state = channel->send;
  state->at_once = false;
  *sent = ip_data_size(&call->data);
  struct ip_send_queue *queue = can_wait(channel, call, *sent) ? obtain_queue(state) : NULL;
  if (queue != NULL) {
    (void)enqueue(queue, call, *sent); /* it is empty */
    (void)send_all(channel, queue, error);
    give_back_if_empty(state);
    return ip_failure(0);
  }
  if (channel->errors != NULL) return send_directly(channel, call, sent);
  return ip_send_path_failure(channel, error, 0);
}

static struct ip_failure send_at_once(struct ip_channel *channel, struct ip_send *call, size_t *sent) {
  int error = ip_datagram_send(channel->fd, call->data.parts, call->data.count, call->to, 0, sent);
  if (IP_UNLIKELY(error != 0)) return fail_at_once(channel, call, error, sent);
  channel->has_port = true;
  return ip_failure(0);
}

struct ip_failure ip_send_queue_send(struct ip_channel *channel, struct ip_send *call, size_t *sent) {
  if (leaves_at_once(channel->send, call)) return send_at_once(channel, call, sent);
  if (!ip_send_path_queues(channel)) return ip_send_path_send(channel, call, sent);
  struct ip_failure failure = ip_send_queue_pop_failure(channel);
  if (IP_UNLIKELY(failure.code != 0)) return failure;
  size_t size = ip_data_size(&call->data);
  struct ip_send_queue *queue = can_wait(channel, call, size) ? obtain_queue(channel->send) : NULL;
  if (IP_UNLIKELY(queue == NULL)) return send_directly(channel, call, sent);
  channel->send->at_once = false;
  *sent = size;
  if (IP_LIKELY(enqueue(queue, call, size))) return ip_failure(0);
  ip_send_queue_flush(channel);
  failure = ip_send_queue_pop_failure(channel);
  if (failure.code != 0) return failure;
  queue = obtain_queue(channel->send);
  if (IP_UNLIKELY(queue == NULL)) return send_directly(channel, call, sent);
  channel->send->at_once = false;
  return ip_failure(enqueue(queue, call, size) ? 0 : EAGAIN);
}

/* --- options and memory --- */

/* Where the system does not say, sends of v4 go directly, and meet its refusal there. */
void ip_send_queue_read_options(struct ip_channel *channel) {
  int v6_only;
  if (!ip_send_path_queues(channel) || !channel->is_v6) return;
  int error = ip_datagram_get_option(channel->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only);
  channel->send->v6_only = error != 0 || v6_only != 0;
}

int ip_send_queue_set(struct ip_channel *channel, struct ip_buffer_pool *pool, bool on) {
  struct ip_send_state *state = ip_send_path_state(channel);
  if (state == NULL) return ENOMEM;
  if (!on) ip_send_queue_flush(channel); /* the remaining datagrams leave in order, before later ones */
  if (on && state->pool == NULL) {
    state->pool = ip_buffer_pool_join(pool);
    if (state->pool == NULL) return ENOMEM;
    state->refused_size = SIZE_MAX;
    ip_send_queue_read_options(channel);
  }
  state->coalesce = on;
  state->at_once = false;
  state->lone_flushes = 0;
  return 0;
}

void ip_send_queue_free(struct ip_channel *channel) {
  struct ip_send_state *state = channel->send;
  if (state == NULL) return;
  ip_buffer_pool_give_queue_back(state->pool, state->queue);
  ip_buffer_pool_leave(state->pool);
  free(state);
  channel->send = NULL;
}
