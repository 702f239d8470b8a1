/* batch_io.c: receive_many and send_many: many datagrams in one system call, where the system has recvmmsg
   and sendmmsg.

   Entries of equal size to one peer form a segment train: they leave as one message that the system segments
   (UDP_SEGMENT), which costs a fraction of as many single messages. When a path refuses a train, the socket
   remembers that, and the entries leave one by one. Both calls suspend and continue like the calls for one
   datagram (receive.c, send.c). Owns nothing: the batch and the socket belong to Lua. Each function says what
   it may raise. */
#include "udp/batch_io.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "net/datagram_io.h"
#include "udp/error_queue.h"
#include "udp/message.h"
#include "udp/message_flag.h"
#include "udp/receive.h"
#include "udp/send.h"
#include "udp/send_queue.h"
#include "value/batch.h"

#include <errno.h>
#include <string.h>

enum { MOST_MESSAGES = 1024 }; /* limit of recvmmsg (UIO_MAXIOV) */

/* --- receiving --- */

static void note_entry(struct ip_batch *batch, size_t index, size_t length, bool truncated,
                       socklen_t name_length) {
  batch->parts[index].iov_len = length < batch->capacity ? length : batch->capacity;
  batch->truncated[index] = truncated;
  batch->peers[index].length = name_length;
  batch->singly[index] = 0; /* what a former send needed does not concern this datagram */
}

/* Keeps a failure for the next call: its MTU in the error queue, without which it has none. */
static void defer_failure(struct ip_channel *channel, struct ip_failure failure) {
  channel->deferred_error = failure.code;
  if (channel->errors != NULL) channel->errors->deferred_mtu = failure.mtu;
}

static struct ip_failure take_deferred(struct ip_channel *channel) {
  struct ip_failure failure = {.code = channel->deferred_error};
  if (IP_LIKELY(failure.code == 0)) return failure;
  channel->deferred_error = 0;
  if (channel->errors != NULL) failure.mtu = channel->errors->deferred_mtu;
  return failure;
}

/* Ends a call that failed after `count` datagrams: returns the datagrams now and defers the error to the next
   call. */
static struct ip_failure end_receiving(struct ip_channel *channel, size_t count, struct ip_failure failure) {
  if (count == 0) return failure;
  if (failure.code != EAGAIN) defer_failure(channel, failure);
  return ip_failure(0);
}

/* Receives where recvmmsg cannot serve (peeking, read-ahead buffers, errors that wait in this process) or
   does not exist. */
static struct ip_failure receive_one_by_one(struct ip_channel *channel, struct ip_batch *batch, int flags,
                                            size_t most, size_t *count) {
  ip_receive_path_begin_many(channel);
  for (*count = 0; *count < most && !ip_receive_path_is_emptied(channel); (*count)++) {
    struct ip_received received;
    struct ip_receive call = {ip_batch_slot(batch, *count), batch->capacity, flags,
                              IP_WANTS_SOURCE | IP_WANTS_CONTROL | IP_WANTS_MORE};
    struct ip_failure failure = ip_receive_path_receive(channel, &call, &received);
    if (failure.code != 0) return end_receiving(channel, *count, failure);
    const struct ip_datagram *datagram = &received.datagram;
    ip_receive_path_count_drops(channel, &received.control);
    batch->peers[*count] = datagram->source;
    batch->controls[*count] = received.control;
    note_entry(batch, *count, datagram->length, datagram->truncated, datagram->source.length);
  }
  return ip_failure(0);
}

#ifdef __linux__

/* Prepares the first messages, which stay prepared: most calls receive far fewer datagrams than there are
   slots. */
static void prepare_to_receive(struct ip_batch *batch, struct mmsghdr *messages, size_t end) {
  for (; batch->prepared < end; batch->prepared++) {
    size_t i = batch->prepared;
    messages[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &batch->peers[i].name,
                                               .msg_namelen = sizeof batch->peers[i].name,
                                               .msg_iov = &batch->receive_parts[i],
                                               .msg_iovlen = 1,
                                               .msg_control = &batch->buffers[i],
                                               .msg_controllen = sizeof batch->buffers[i].bytes}};
  }
}

/* Restores the lengths that a read has changed. */
static void restore(struct mmsghdr *message) {
  message->msg_hdr.msg_namelen = sizeof((struct ip_endpoint *)NULL)->name;
  message->msg_hdr.msg_controllen = sizeof((union ip_control_buffer *)NULL)->bytes;
}

/* Makes one system call. Returns the number of messages, or a negative errno value. */
static int receive_messages(int fd, struct mmsghdr *messages, size_t count, int flags) {
  int received;
  do
    received = recvmmsg(fd, messages, (unsigned)count, flags, NULL);
  while (IP_UNLIKELY(received < 0) && errno == EINTR);
  return received < 0 ? -errno : received;
}

static struct ip_failure receive_together(struct ip_channel *channel, struct ip_batch *batch, int flags,
                                          size_t *count) {
  struct mmsghdr *messages = batch->messages;
  *count = 0;
  while (*count < batch->slots) {
    size_t left = batch->slots - *count;
    size_t wanted = left < MOST_MESSAGES ? left : MOST_MESSAGES;
    prepare_to_receive(batch, messages, *count + wanted);
    int received = receive_messages(channel->fd, messages + *count, wanted, flags);
    if (received < 0) return end_receiving(channel, *count, ip_error_queue_failure(channel, -received, 0));
    for (size_t end = *count + (size_t)received; *count < end; (*count)++) {
      struct mmsghdr *message = &messages[*count];
      note_entry(batch, *count, message->msg_len, message->msg_hdr.msg_flags & MSG_TRUNC,
                 message->msg_hdr.msg_namelen);
      batch->controls[*count].items = 0;
      if (message->msg_hdr.msg_controllen != 0)
        ip_control_parse(&message->msg_hdr, channel->is_v6, &batch->controls[*count]);
      restore(message);
    }
    if ((size_t)received != wanted) break; /* the socket is empty */
  }
  return ip_failure(0);
}

#else

static struct ip_failure receive_together(struct ip_channel *channel, struct ip_batch *batch, int flags,
                                          size_t *count) {
  return receive_one_by_one(channel, batch, flags, batch->slots, count);
}

#endif

/* Drops non-peer datagrams, which were queued before `connect`. Returns the number of entries that are
   left. */
static size_t drop_non_peer_entries(const struct ip_channel *channel, struct ip_batch *batch, size_t count) {
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) {
    if (!ip_endpoint_equal(&batch->peers[i], &channel->connection->remote)) continue;
    if (kept != i) {
      size_t length = batch->parts[i].iov_len;
      if (length > 0) memcpy(ip_batch_slot(batch, kept), ip_batch_slot(batch, i), length);
      batch->peers[kept] = batch->peers[i];
      note_entry(batch, kept, length, batch->truncated[i], batch->peers[i].length);
      batch->controls[kept] = batch->controls[i];
    }
    kept++;
  }
  return kept;
}

static struct ip_failure receive_entries(struct ip_channel *channel, struct ip_batch *batch, int flags,
                                         size_t *count) {
  if (flags & MSG_PEEK) return receive_one_by_one(channel, batch, flags, 1, count);
  if (channel->receive != NULL) return receive_one_by_one(channel, batch, flags, batch->slots, count);
  return receive_together(channel, batch, flags, count);
}

/* Fills the batch from its first entry on. Returns EAGAIN when there is no datagram. An error after the first
   datagram is deferred to the next call: by the system within one recvmmsg(2), else by the channel. While the
   peer filter is on, non-peer datagrams are dropped afterwards; a full batch does not empty the queue, so the
   filter may stay on for many calls. */
static struct ip_failure fill(struct ip_channel *channel, struct ip_batch *batch, int flags) {
  size_t count = 0;
  do {
    struct ip_failure failure = take_deferred(channel);
    if (IP_LIKELY(failure.code == 0)) failure = receive_entries(channel, batch, flags, &count);
    if (failure.code == EAGAIN) channel->filters_peer = false;
    if (failure.code != 0) return failure;
    if (IP_UNLIKELY(channel->filters_peer)) count = drop_non_peer_entries(channel, batch, count);
  } while (count == 0);
  batch->count = count;
  return ip_failure(0);
}

static bool attempt_fill(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  struct ip_batch *batch = operation->payload.receive.data;
  struct ip_failure failure = fill(&socket->channel, batch, operation->payload.receive.flags);
  failure = ip_receive_look_for_errors(&socket->channel, failure);
  if (failure.code == EAGAIN) return false;
  operation->failure = failure;
  return true;
}

/* Pushes the result of receive_many, and counts the batch and its datagrams among those in a row. */
static int push_count(lua_State *L, struct ip_runtime *runtime, struct ip_batch *batch) {
  runtime->budget -= (int)batch->count;
  if (batch->iteration != runtime->iteration) batch->in_row = 0;
  batch->iteration = runtime->iteration;
  batch->in_row++;
  lua_pushinteger(L, (lua_Integer)batch->count);
  return 1;
}

static int push_received(lua_State *L, struct ip_result *result) {
  return push_count(L, result->runtime, result->payload.receive.data);
}

static bool has_had_its_share(const struct ip_runtime *runtime, const struct ip_batch *batch) {
  return runtime->budget <= 0 ||
         (batch->iteration == runtime->iteration && batch->in_row >= batch->max_ready);
}

static const struct ip_operation_type receive_many_type = {.name = "receive_many",
                                                           .attempt = attempt_fill,
                                                           .final_attempt = ip_receive_final_attempt,
                                                           .push_results = push_received};

/* Reads the arguments (self, batch[, flags]). [-0, +0, e] */
static struct ip_batch *read_receive(lua_State *L, const char *operation, struct ip_receive_call *call) {
  call->box = ip_socket_check_open(L, operation);
  struct ip_batch *batch = ip_batch_check(L, 2);
  call->receive = (struct ip_receive){
      .data = batch, .flags = ip_message_flag_optional(L, 3, true, operation), .wants = IP_WANTS_SOURCE};
  return batch;
}

/* sock:receive_many(batch[, flags]) -> count: waits for at least one datagram and receives all that are
   queued, up to the batch's slots, into its entries from the first on. flags: ip.message_flag.peek, which
   peeks at one datagram. After batch.max_ready calls in a row, or the datagrams that a fiber may receive in a
   row, others run first. Raises the errors of receive_from. Suspends: yes. Source: recvmmsg(2). */
int ip_socket_receive_many(lua_State *L) {
  const struct ip_operation_type *type = &receive_many_type;
  struct ip_receive_call call;
  struct ip_batch *batch = read_receive(L, type->name, &call);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, type);
  struct ip_socket *socket = call.box->socket;
  if (socket->channel.shut_receive) return ip_error_raise(L, ESHUTDOWN, type->name);
  bool yields = has_had_its_share(runtime, batch);
  if (yields || ip_watcher_has_waiters(&socket->watcher, IP_SIDE_READ) ||
      ip_receive_skips_try(runtime, call.box))
    return ip_receive_wait(L, type, &call, yields);
  struct ip_failure failure = fill(&socket->channel, batch, call.receive.flags);
  ip_receive_note_try(&socket->channel, failure);
  if (failure.code == EAGAIN) return ip_receive_wait(L, type, &call, false);
  if (failure.code != 0) return ip_socket_raise(L, failure, type->name);
  return push_count(L, runtime, batch);
}

/* sock:try_receive_many(batch[, flags]) -> count | nil, err: receive_many without waiting. Suspends: no. */
int ip_socket_try_receive_many(lua_State *L) {
  static const char operation[] = "try_receive_many";
  struct ip_receive_call call;
  struct ip_batch *batch = read_receive(L, operation, &call);
  struct ip_socket *socket = call.box->socket;
  if (socket->channel.shut_receive) return ip_error_raise(L, ESHUTDOWN, operation);
  struct ip_failure failure = ip_failure(EAGAIN);
  if (!ip_watcher_has_waiters(&socket->watcher, IP_SIDE_READ))
    failure = fill(&socket->channel, batch, call.receive.flags);
  if (failure.code == EAGAIN) return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, operation);
  if (failure.code != 0) return ip_socket_raise(L, failure, operation);
  lua_pushinteger(L, (lua_Integer)batch->count);
  return 1;
}

/* --- sending segment trains --- */

/* Converts the endpoint to the family of the socket; an entry may have a v4 endpoint for a v6 socket, and a
   v4-mapped one for a v4 socket. */
static void convert_endpoint(const struct ip_channel *channel, struct ip_endpoint *endpoint) {
  if (ip_endpoint_family(endpoint) == ip_channel_family(channel)) return;
  struct ip_address address;
  uint16_t port = ip_endpoint_port(endpoint);
  ip_endpoint_get_address(endpoint, &address);
  ip_endpoint_set(endpoint, ip_channel_family(channel), &address, port);
}

/* Sends one entry, for which sendmmsg(2) would take longer. Returns 1, or a negative errno value. */
static ssize_t send_alone(const struct ip_channel *channel, const struct ip_batch *batch, size_t index) {
  size_t sent;
  struct ip_endpoint peer = batch->peers[index];
  if (peer.length != 0) convert_endpoint(channel, &peer);
  const struct ip_endpoint *to = peer.length != 0 ? &peer : NULL;
  int error = ip_datagram_send(channel->fd, &batch->parts[index], 1, to, 0, &sent);
  return error != 0 ? -error : 1;
}

#ifdef __linux__

/* Counts the entries from `first` on that can leave as segments of one message: they have the same size and
   peer, except that the last one may be shorter. */
static size_t train_length(const struct ip_batch *batch, size_t first, size_t end) {
  size_t size = batch->parts[first].iov_len, total = size, count = 1;
  if (size == 0) return 1;
  for (size_t i = first + 1; i < end && count < IP_MOST_SEGMENTS; i++, count++) {
    size_t next = batch->parts[i].iov_len;
    bool same_peer =
        batch->peers[i].length == batch->peers[first].length &&
        (batch->peers[i].length == 0 || ip_endpoint_equal(&batch->peers[i], &batch->peers[first]));
    if (next == 0 || next > size || total + next > IP_LARGEST_SEGMENTED || !same_peer) break;
    total += next;
    if (next < size) return count + 1;
  }
  return count;
}

/* Counts the entries from `first` on that leave as one message of at most `most` segments. */
static size_t next_segments(struct ip_channel *channel, const struct ip_batch *batch, size_t first,
                            size_t end, size_t most) {
  if (most == 1) return 1;
  size_t count = train_length(batch, first, end);
  return count > 1 && !ip_send_path_can_segment(channel) ? 1 : count;
}

enum { MESSAGES_AT_ONCE = 64 };

/* Returns the number of messages for one call. With an error queue it is one: sendmmsg(2) does not report the
   error that stopped it after the first message, and trying that message again would add its error to the
   error queue twice. */
static unsigned most_at_once(const struct ip_channel *channel) {
  return channel->errors != NULL ? 1 : MESSAGES_AT_ONCE;
}

/* Is it an entry that the kernel does not send as it is? It maps v4 addresses of a v6 socket itself. */
static bool is_mapped_for_v4(const struct ip_channel *channel, const struct ip_endpoint *peer) {
  return !channel->is_v6 && peer->length != 0 && ip_endpoint_family(peer) == AF_INET6;
}

/* Submits entries from `first` to `end` in one system call. Returns the number of entries that the system
   accepted, or a negative errno value. */
static ssize_t send_some(struct ip_channel *channel, struct ip_batch *batch, size_t first, size_t end,
                         size_t most_segments) {
  struct mmsghdr messages[MESSAGES_AT_ONCE];
  union ip_segment_control controls[MESSAGES_AT_ONCE];
  struct ip_endpoint converted[MESSAGES_AT_ONCE];
  size_t starts[MESSAGES_AT_ONCE + 1];
  unsigned count = 0, most = most_at_once(channel);
  if (first + 1 == end) return send_alone(channel, batch, first);
  for (; first < end && count < most; count++) {
    size_t entries = next_segments(channel, batch, first, end, most_segments);
    struct ip_endpoint *peer = &batch->peers[first];
    if (IP_UNLIKELY(is_mapped_for_v4(channel, peer))) {
      converted[count] = *peer;
      peer = &converted[count];
      convert_endpoint(channel, peer);
    }
    messages[count] = (struct mmsghdr){.msg_hdr = {.msg_name = peer->length != 0 ? &peer->name : NULL,
                                                   .msg_namelen = peer->length,
                                                   .msg_iov = &batch->parts[first],
                                                   .msg_iovlen = entries}};
    if (entries > 1)
      ip_control_set_segment_size(&messages[count].msg_hdr, &controls[count], batch->parts[first].iov_len);
    starts[count] = first;
    first += entries;
  }
  starts[count] = first;
  int sent;
  do
    sent = sendmmsg(channel->fd, messages, count, MSG_NOSIGNAL);
  while (IP_UNLIKELY(sent < 0) && errno == EINTR);
  return sent < 0 ? -errno : (ssize_t)(starts[sent] - starts[0]);
}

#else

static size_t next_segments(struct ip_channel *channel, const struct ip_batch *batch, size_t first,
                            size_t end, size_t most) {
  (void)channel, (void)batch, (void)first, (void)end, (void)most;
  return 1;
}

static ssize_t send_some(struct ip_channel *channel, struct ip_batch *batch, size_t first, size_t end,
                         size_t most_segments) {
  (void)end, (void)most_segments;
  return send_alone(channel, batch, first);
}

#endif

/* Does a path refuse segments with this error? Either it does not segment (EIO, EINVAL), or a segment is
   larger than the path carries (EMSGSIZE; EINVAL before Linux 6.14). */
static bool refuses_segments(int error) {
  return error == EIO || error == EINVAL || error == EMSGSIZE;
}

/* Sends entries from *next to `end`; on failure, *next is the entry that failed. When a train is refused, its
   entries are tried one by one: if that succeeds, segmentation was the reason. */
static struct ip_failure send_together(struct ip_socket *socket, struct ip_batch *batch, size_t *next,
                                       size_t end) {
  struct ip_channel *channel = &socket->channel;
  struct ip_send_retry retry = {.attempts = 0};
  size_t most_segments = channel->gso_refused ? 1 : IP_MOST_SEGMENTS;
  bool probing = false;
  while (*next < end) {
    ssize_t sent = send_some(channel, batch, *next, end, most_segments);
    struct ip_failure failure = ip_failure(sent < 0 ? (int)-sent : 0);
    size_t segments = sent < 0 ? next_segments(channel, batch, *next, end, most_segments) : 1;
    enum ip_send_verdict verdict = ip_send_path_classify(channel, &retry, segments, &failure);
    if (verdict == IP_SEND_RETRY_OLDER_ERROR) continue;
    retry = (struct ip_send_retry){.attempts = 0};
    if (verdict == IP_SEND_NOT_SEGMENTABLE && refuses_segments(failure.code)) {
      most_segments = 1;
      probing = true;
      continue;
    }
    if (verdict != IP_SENT) return failure;
    if (probing) channel->gso_refused = true;
    probing = false;
    *next += (size_t)sent;
    socket->watcher.runtime->budget -= (int)sent;
  }
  return ip_failure(0);
}

/* --- sending one by one --- */

/* Stack indices in the frame of send_many, also while it is suspended. */
enum { BATCH = 2, FIRST, LAST, NEXT };

/* One attempt of a call to send its entries. */
struct batch_send {
  const char *operation;
  struct ip_socket_box *box;
  struct ip_batch *batch;
  size_t next; /* the first entry that is not sent; after a failure, the entry that failed */
  size_t end;  /* the entry behind the last one */
  size_t done; /* bytes of the entry `next` that are sent */
};

/* Sends one entry that needs ancillary data, or any entry of a socket that segments or queues its datagrams.
   [-0, +0, e] */
static struct ip_failure send_entry(lua_State *L, struct batch_send *whole, size_t index) {
  struct ip_socket_box *box = whole->box;
  const struct ip_batch *batch = whole->batch;
  struct ip_socket *socket = box->socket;
  struct ip_channel *channel = &socket->channel;
  struct ip_send_call call = {
      .box = box, .send = {.data = {.count = 1}, .remote = batch->peers[index], .done = whole->done}};
  struct ip_send *send = &call.send;
  send->data.parts = send->data.inline_parts;
  send->data.inline_parts[0] = batch->parts[index];
  if (send->remote.length != 0) convert_endpoint(channel, &send->remote);
  send->to = send->remote.length != 0 ? &send->remote : NULL;
  if (send->to == NULL && channel->connection == NULL) return ip_failure(EDESTADDRREQ);
  if (batch->singly[index] & IP_SINGLY_INFO) {
    lua_getiuservalue(L, BATCH, IP_BATCH_INFOS);
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
    lua_remove(L, -2);
    ip_message_read_control(L, whole->operation, index + 1, &call);
    if (box->socket != socket) return ip_failure(EBADF); /* a finalizer has closed it */
  }
  int error = ip_send_path_use_scope(channel, send);
  if (error != 0) return ip_failure(error);
  size_t sent;
  ip_send_queue_note_iteration(channel, socket->watcher.runtime->iteration);
  struct ip_failure failure = ip_send_queue_send(channel, send, &sent);
  whole->done = failure.code == 0 ? 0 : send->done;
  return failure;
}

static bool leaves_device(const struct ip_channel *channel, const struct ip_batch *batch, size_t index) {
  const struct ip_endpoint *peer = &batch->peers[index];
  return peer->length != 0 && ip_send_path_leaves_device(channel, peer);
}

/* Finds the first entry from `first` on that has to be sent by itself. */
static size_t find_single(const struct ip_channel *channel, const struct ip_batch *batch, size_t first,
                          size_t end) {
  const struct ip_send_state *state = channel->send;
  if (state != NULL && (state->segment_size != 0 || state->pool != NULL)) return first;
  while (first < end && batch->singly[first] == 0 && !leaves_device(channel, batch, first))
    first++;
  return first;
}

/* [-0, +0, e] */
static struct ip_failure send_entries(lua_State *L, struct batch_send *call) {
  struct ip_socket_box *box = call->box;
  while (call->next < call->end) {
    size_t single = call->next;
    if (call->done == 0) single = find_single(&box->socket->channel, call->batch, single, call->end);
    struct ip_failure failure = send_together(box->socket, call->batch, &call->next, single);
    if (failure.code == 0 && single < call->end) failure = send_entry(L, call, single);
    if (failure.code != 0) return failure;
    if (single < call->end) call->next = single + 1;
    ip_runtime(L)->budget--;
  }
  return ip_failure(0);
}

/* --- send_many --- */

static int continue_send_many(lua_State *L, struct ip_result *result);
static void note_sent(lua_State *L, struct ip_error_detail *detail);

static const struct ip_operation_type send_many_type = {.name = "send_many",
                                                        .attempt = ip_send_attempt,
                                                        .final_attempt = ip_send_final_attempt,
                                                        .push_results = continue_send_many,
                                                        .describe = note_sent,
                                                        .sends = true};

static const struct ip_operation_type try_send_many_type = {
    .name = "try_send_many", .describe = note_sent, .sends = true};

/* Adds the number of entries sent, which the frame has, and the endpoint of the entry that was not. */
static void note_sent(lua_State *L, struct ip_error_detail *detail) {
  const struct ip_batch *batch = lua_touserdata(L, BATCH);
  size_t next = (size_t)lua_tointeger(L, NEXT);
  detail->sent = (int)(lua_tointeger(L, NEXT) - lua_tointeger(L, FIRST));
  if (next >= batch->slots || batch->peers[next].length == 0) return;
  struct ip_address address;
  ip_endpoint_get_address(&batch->peers[next], &address);
  ip_send_describe(L, &address, ip_endpoint_port(&batch->peers[next]), detail);
}

static void set_next(lua_State *L, size_t next) {
  lua_pushinteger(L, (lua_Integer)next);
  lua_replace(L, NEXT);
}

/* Raises the failure of the entry `next`. [-0, +0, e] */
static int fail_to_send(lua_State *L, const struct ip_operation_type *type, struct ip_failure failure,
                        size_t next) {
  set_next(L, next);
  return ip_operation_raise(L, type, IP_ERROR_SYSTEM, failure);
}

/* Raises the deadline that has come: an enclosing with_timeout's, or the call's own. [-0, +0, e] */
static int time_out(lua_State *L, size_t next) {
  struct ip_error_detail *detail = ip_context_test_deadline(L, ip_runtime(L));
  if (detail == NULL) return fail_to_send(L, &send_many_type, ip_failure(ETIMEDOUT), next);
  note_sent(L, detail);
  return ip_error_throw_new(L, &detail->error);
}

/* Counts the bytes of the entries that are still to be sent. */
static size_t bytes_left(lua_State *L) {
  const struct ip_batch *batch = lua_touserdata(L, BATCH);
  size_t total = 0, end = (size_t)lua_tointeger(L, LAST);
  for (size_t i = (size_t)lua_tointeger(L, NEXT); i < end; i++)
    total += batch->parts[i].iov_len;
  return total;
}

static int wait_to_send(lua_State *L, const struct ip_socket_box *box, ip_deadline deadline, size_t done,
                        enum ip_wait wait) {
  union ip_payload payload = {
      .send = {.size = (uint32_t)bytes_left(L), .done = (uint32_t)done, .deadline = deadline}};
  return ip_send_suspend(L, &send_many_type, box, payload, wait);
}

/* Sends the remaining entries, for which the frame has (self, batch, first - 1, last, next), as far as the
   system accepts them. Returns 0 or EAGAIN; raises any other failure. [-0, +0, e] */
static int attempt_to_send(lua_State *L, const struct ip_operation_type *type, struct batch_send *call) {
  call->operation = type->name;
  call->box = ip_socket_check_open(L, type->name);
  call->batch = ip_batch_check(L, BATCH);
  call->next = (size_t)lua_tointeger(L, NEXT);
  call->end = (size_t)lua_tointeger(L, LAST);
  if (call->box->socket->channel.shut_send) fail_to_send(L, type, ip_failure(EPIPE), call->next);
  struct ip_failure failure = send_entries(L, call);
  if (call->box->socket != NULL) ip_send_finish(call->box->socket);
  if (failure.code != 0 && failure.code != EAGAIN) fail_to_send(L, type, failure, call->next);
  return failure.code;
}

/* Sends the remaining entries; waits when the system accepts no more. [-0, +?, e] */
static int send_rest(lua_State *L, ip_deadline deadline, size_t done, enum ip_wait wait) {
  struct batch_send call = {.done = done};
  size_t first = (size_t)lua_tointeger(L, FIRST), start = (size_t)lua_tointeger(L, NEXT);
  if (attempt_to_send(L, &send_many_type, &call) == 0) {
    lua_pushinteger(L, (lua_Integer)(call.end - first));
    return 1;
  }
  set_next(L, call.next);
  if (wait == IP_WAIT_FIRST && call.next == start) ip_watcher_note_fruitless(&call.box->socket->watcher);
  if (deadline == IP_AT_ONCE && call.next > first) return time_out(L, call.next);
  return wait_to_send(L, call.box, deadline, call.done, wait);
}

static int continue_send_many(lua_State *L, struct ip_result *result) {
  lua_settop(L, NEXT);
  return send_rest(L, result->payload.send.deadline, result->payload.send.done, IP_WAIT_FIRST);
}

/* Leaves (self, batch, first - 1, last, first - 1) in the frame. [-0, +?, v] */
static void check_range(lua_State *L) {
  const struct ip_batch *batch = ip_batch_check(L, BATCH);
  lua_Integer last =
      ip_argument_optional_integer(L, LAST, 0, (lua_Integer)batch->slots, (lua_Integer)batch->count);
  lua_Integer first = ip_argument_optional_integer(L, FIRST, 1, last + 1, 1);
  lua_settop(L, BATCH);
  lua_pushinteger(L, first - 1);
  lua_pushinteger(L, last);
  lua_pushinteger(L, first - 1);
}

/* sock:send_many(batch[, first, last]) -> count: sends the entries first..last (default 1..batch.count) in
   order, each as a datagram to its address, or to the connected peer if it has no address; returns when the
   system has accepted all. When an entry fails, the error's field `sent` is the number of entries before it.
   Suspends: yes, while the system's buffer is full. Source: sendmmsg(2), UDP_SEGMENT in udp(7). */
int ip_socket_send_many(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check_open(L, send_many_type.name);
  struct ip_runtime *runtime = ip_runtime(L);
  check_range(L);
  ip_operation_check(L, runtime, &send_many_type);
  ip_deadline deadline = ip_deadline_after(box->send_timeout);
  bool yields = runtime->budget <= 0;
  if (yields || ip_watcher_has_waiters(&box->socket->watcher, IP_SIDE_WRITE))
    return wait_to_send(L, box, deadline, 0, yields ? IP_WAIT_YIELDING : IP_WAIT);
  return send_rest(L, deadline, 0, IP_WAIT);
}

/* sock:try_send_many(batch[, first, last]) -> count | nil, err: send_many without waiting. `count` may be
   less than the number of entries: the others were not sent. nil and EAGAIN only if there were entries and
   none was sent. An entry that this library segments may leave in part: it does not count. Suspends: no. */
int ip_socket_try_send_many(lua_State *L) {
  const struct ip_operation_type *type = &try_send_many_type;
  const struct ip_socket_box *box = ip_socket_check_open(L, type->name);
  check_range(L);
  size_t first = (size_t)lua_tointeger(L, FIRST);
  struct batch_send call = {.next = first};
  bool queued = ip_watcher_has_waiters(&box->socket->watcher, IP_SIDE_WRITE);
  int error = first == (size_t)lua_tointeger(L, LAST) ? 0 : EAGAIN;
  if (!queued) error = attempt_to_send(L, type, &call);
  if (error != 0 && call.next == first) return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, error, type->name);
  lua_pushinteger(L, (lua_Integer)(call.next - first));
  return 1;
}

/* --- batch:info --- */

/* batch:info(i[, info]) -> info: the ancillary data of entry i (1..slots) of the last receive_many, in the
   table `info`, whose fields are replaced (a new table without the argument), with the fields of
   receive_message. Suspends: no. */
static int batch_info(lua_State *L) {
  struct ip_batch *batch = ip_batch_check(L, 1);
  size_t index = ip_batch_check_entry(L, batch, 2);
  if (!lua_isnoneornil(L, 3)) ip_argument_check_type(L, 3, LUA_TTABLE);
  ip_message_prepare_info(L);
  bool known = batch->peers[index].length != 0;
  ip_batch_push_address(L, batch, index);
  ip_message_set_peer(L, known, known ? ip_endpoint_port(&batch->peers[index]) : 0);
  struct ip_control control = batch->controls[index];
  ip_message_fill_info(L, &control, batch->truncated[index]);
  lua_settop(L, 3);
  return 1;
}

void ip_batch_io_open(lua_State *L, int core) {
  static const luaL_Reg methods[] = {{"info", batch_info}, {NULL, NULL}};
  core = lua_absindex(L, core);
  lua_newtable(L);
  ip_message_add_functions(L, core, methods);
  ip_class_add_methods(L, IP_CLASS_BATCH, lua_gettop(L));
  lua_pop(L, 1);
}
