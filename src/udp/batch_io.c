/* udp_batch.c: receive_many and send_many: many datagrams in one system call where the system has recvmmsg and sendmmsg.

   Runs of equal size to one peer leave as one message that the system cuts into segments (UDP_SEGMENT), which costs a
   fraction of as many messages. Where a path refuses that, the socket remembers, and they leave one by one. Both calls
   suspend and continue like those for one datagram (udp_receive.c, udp_send.c). */
#include "udp/message.h"

#include "base/util.h"
#include "binding/argument.h"
#include "value/batch.h"

#include <errno.h>
#include <string.h>

enum {
  MOST_MESSAGES = 1024 /* what recvmmsg and sendmmsg take at once (UIO_MAXIOV) */
};

/* --- receiving --- */

static void note_entry(struct ip_batch *batch, size_t index, size_t length, bool truncated,
                       socklen_t name_length) {
  batch->parts[index].iov_len = length < batch->capacity ? length : batch->capacity;
  batch->truncated[index] = truncated;
  batch->peers[index].length = name_length;
  batch->has_info[index] = false; /* what the entry was to be sent with is the former one's */
}

/* The outcome of a call that met `error` behind `count` datagrams: they must not be lost, and neither must it. */
static int end_of_taking(struct ip_socket *socket, size_t count, int error) {
  if (count == 0) return error;
  if (error != EAGAIN) socket->late_error = error;
  return 0;
}

/* One by one: what recvmmsg cannot do (a look without taking, datagrams that were read together, errors that wait in
   the socket) or the system lacks. */
static int take_singly(struct ip_socket *socket, struct ip_batch *batch, int flags, size_t most,
                       size_t *count) {
  *count = 0;
  while (*count < most) {
    struct ip_datagram datagram;
    int error = ip_transfer_take(socket, ip_batch_slot(batch, *count), batch->capacity, flags, &datagram,
                                 IP_TAKE_ENTRY);
    if (error != 0) return end_of_taking(socket, *count, error);
    batch->peers[*count] = datagram.source;
    batch->controls[*count] = socket->readiness.runtime->control;
    ip_message_count_drops(socket, &batch->controls[*count]);
    note_entry(batch, *count, datagram.length, datagram.truncated, datagram.source.length);
    (*count)++;
  }
  return 0;
}

#ifdef __linux__

static void prepare_to_receive(struct ip_batch *batch, struct mmsghdr *messages, size_t from, size_t to) {
  for (size_t i = from; i < to; i++) {
    messages[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &batch->peers[i].name,
                                               .msg_namelen = sizeof batch->peers[i].name,
                                               .msg_iov = &batch->room[i],
                                               .msg_iovlen = 1,
                                               .msg_control = &batch->buffers[i],
                                               .msg_controllen = sizeof batch->buffers[i].bytes}};
  }
}

/* One call; the number of messages, or a negative errno value. */
static int receive_messages(int fd, struct mmsghdr *messages, size_t count, int flags) {
  int received;
  do
    received = recvmmsg(fd, messages, (unsigned)count, flags, NULL);
  while (IP_UNLIKELY(received < 0) && errno == EINTR);
  return received < 0 ? -errno : received;
}

static int take_many(struct ip_socket *socket, struct ip_batch *batch, int flags, size_t *count) {
  struct mmsghdr *messages = batch->messages;
  *count = 0;
  while (*count < batch->slots) {
    size_t left = batch->slots - *count;
    size_t wanted = left < MOST_MESSAGES ? left : MOST_MESSAGES;
    prepare_to_receive(batch, messages, *count, *count + wanted);
    int received = receive_messages(socket->readiness.fd, messages + *count, wanted, flags);
    if (received < 0) return end_of_taking(socket, *count, -received);
    for (size_t end = *count + (size_t)received; *count < end; (*count)++) {
      const struct mmsghdr *message = &messages[*count];
      note_entry(batch, *count, message->msg_len, message->msg_hdr.msg_flags & MSG_TRUNC,
                 message->msg_hdr.msg_namelen);
      batch->controls[*count].items = 0;
      if (message->msg_hdr.msg_controllen != 0)
        ip_control_parse(&message->msg_hdr, socket->is_v6, &batch->controls[*count]);
    }
    if ((size_t)received < wanted) return 0;
  }
  return 0;
}

#else

static int take_many(struct ip_socket *socket, struct ip_batch *batch, int flags, size_t *count) {
  return take_singly(socket, batch, flags, batch->slots, count);
}

#endif

/* Drops the entries that the connected peer did not send: they were queued before `connect`. How many are left. */
static size_t keep_those_of_peer(const struct ip_socket *socket, struct ip_batch *batch, size_t count) {
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) {
    if (!ip_endpoint_equal(&batch->peers[i], &socket->connection->remote)) continue;
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

static int take_entries(struct ip_socket *socket, struct ip_batch *batch, int flags, size_t *count) {
  if (flags & MSG_PEEK) return take_singly(socket, batch, flags, 1, count);
  if (socket->messages != NULL) return take_singly(socket, batch, flags, batch->slots, count);
  return take_many(socket, batch, flags, count);
}

/* Fills the batch from its first entry on; 0 or an errno value, EAGAIN when there is no datagram. An error that strikes
   behind the first datagram is kept for the next call: by the system within one recvmmsg(2), else by the socket. While
   strangers may be queued they are looked for afterwards: a full batch does not empty the queue, so that may last. */
static int fill(struct ip_socket *socket, struct ip_batch *batch, int flags) {
  size_t count = 0;
  do {
    int error = socket->late_error;
    socket->late_error = 0;
    if (IP_LIKELY(error == 0)) error = take_entries(socket, batch, flags, &count);
    if (error == EAGAIN) socket->filtering = false;
    if (error != 0) return error;
    if (IP_UNLIKELY(socket->filtering)) count = keep_those_of_peer(socket, batch, count);
  } while (count == 0);
  batch->count = count;
  socket->readiness.runtime->budget -= (int)count;
  return 0;
}

static bool attempt_fill(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  int error = fill(socket, operation->data, operation->flags);
  if (error == EAGAIN && ip_errors_drain(socket) != 0) error = ip_errors_next_report(socket);
  if (error == EAGAIN) return false;
  operation->status = error;
  return true;
}

static int push_count(lua_State *L, const struct ip_outcome *outcome) {
  const struct ip_batch *batch = outcome->data;
  lua_pushinteger(L, (lua_Integer)batch->count);
  return 1;
}

static const struct ip_operation_kind receive_many_kind = {.name = "receive_many",
                                                           .attempt = attempt_fill,
                                                           .try_last = ip_transfer_try_last_receive,
                                                           .push_results = push_count};

static int wait_to_fill(lua_State *L, struct ip_socket_box *box, struct ip_batch *batch, int flags,
                        bool gives_way) {
  struct ip_receive_call call = {.box = box, .data = batch, .flags = flags, .what = IP_TAKE_SOURCE};
  return ip_transfer_wait_to_receive(L, &receive_many_kind, &call, gives_way);
}

/* sock:receive_many(batch[, flags]) -> count: waits for at least one datagram and takes as many as there are, up to the
   batch's slots, into its entries from the first on. flags: ip.message_flag.peek, which looks at one. Raises what
   receive_from raises. Suspends: yes. Source: recvmmsg(2). */
int ip_socket_receive_many(lua_State *L) {
  const struct ip_operation_kind *kind = &receive_many_kind;
  struct ip_socket_box *box = ip_socket_check_open(L, kind->name);
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_batch *batch = ip_batch_check(L, 2);
  int flags = ip_transfer_flags(L, 3, true, kind->name);
  ip_operation_check(L, runtime, kind);
  struct ip_socket *socket = box->socket;
  if (socket->shut_receive) return ip_error_raise(L, ESHUTDOWN, kind->name);
  bool gives_way = runtime->budget <= 0;
  if (gives_way || ip_readiness_has_waiters(&socket->readiness, IP_SIDE_READ))
    return wait_to_fill(L, box, batch, flags, gives_way);
  int error = fill(socket, batch, flags);
  if (error == EAGAIN) return wait_to_fill(L, box, batch, flags, false);
  if (error != 0) ip_transfer_raise(L, runtime, error, kind->name);
  lua_pushinteger(L, (lua_Integer)batch->count);
  return 1;
}

/* --- sending --- */

#ifdef __linux__

/* How many entries from `first` on can leave as segments of one message: of one size and to one peer, but the last may
   be shorter. */
static size_t run_length(const struct ip_batch *batch, size_t first, size_t end) {
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

/* How many entries from `first` on leave as one message. */
static size_t next_entries(struct ip_socket *socket, const struct ip_batch *batch, size_t first, size_t end) {
  size_t count = socket->sends_singly ? 1 : run_length(batch, first, end);
  return count > 1 && !ip_split_can_cut(socket) ? 1 : count;
}

/* Do the entries from `first` on begin with some that leave as segments? */
static bool begins_with_run(struct ip_socket *socket, const struct ip_batch *batch, size_t first,
                            size_t end) {
  return next_entries(socket, batch, first, end) > 1;
}

enum { MESSAGES_AT_ONCE = 64 };

/* With receive_errors one message at a time: sendmmsg(2) does not tell what stopped it behind the first, and to try the
   next one anew would put its error into the queue twice. */
static unsigned most_at_once(const struct ip_socket *socket) {
  return socket->messages != NULL && socket->messages->errors ? 1 : MESSAGES_AT_ONCE;
}

/* Hands entries from `first` to `end` to the system in one call; the number of entries that it took, or a negative errno
   value. */
static ssize_t send_some(struct ip_socket *socket, struct ip_batch *batch, size_t first, size_t end) {
  struct mmsghdr messages[MESSAGES_AT_ONCE];
  union ip_segment_control controls[MESSAGES_AT_ONCE];
  size_t starts[MESSAGES_AT_ONCE + 1];
  unsigned count = 0, most = most_at_once(socket);
  for (; first < end && count < most; count++) {
    size_t entries = next_entries(socket, batch, first, end);
    struct ip_endpoint *peer = &batch->peers[first];
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
    sent = sendmmsg(socket->readiness.fd, messages, count, MSG_NOSIGNAL);
  while (IP_UNLIKELY(sent < 0) && errno == EINTR);
  return sent < 0 ? -errno : (ssize_t)(starts[sent] - starts[0]);
}

#else

static bool begins_with_run(struct ip_socket *socket, const struct ip_batch *batch, size_t first,
                            size_t end) {
  (void)socket, (void)batch, (void)first, (void)end;
  return false;
}

static ssize_t send_some(struct ip_socket *socket, struct ip_batch *batch, size_t first, size_t end) {
  (void)end;
  size_t sent;
  struct ip_endpoint peer = batch->peers[first];
  if (peer.length != 0 && socket->is_v6 && ip_endpoint_family(&peer) == AF_INET) { /* Linux maps by itself */
    struct ip_address address;
    ip_endpoint_get_address(&batch->peers[first], &address);
    ip_endpoint_set(&peer, AF_INET6, &address, ip_endpoint_port(&batch->peers[first]));
  }
  const struct ip_endpoint *to = peer.length != 0 ? &peer : NULL;
  int error = ip_datagram_send(socket->readiness.fd, &batch->parts[first], 1, to, 0, &sent);
  return error != 0 ? -error : 1;
}

#endif

/* Hands over entries from *next to `end`; 0, or an errno value with *next at the entry that failed. A path that cannot cut
   segments says EIO or EINVAL, or, where a segment is larger than what it carries, EMSGSIZE (EINVAL before Linux 6.14); what
   fails singly, too, was no matter of segments. */
static int send_together(struct ip_socket *socket, struct ip_batch *batch, size_t *next, size_t end) {
  bool on_trial = false;
  int again = 0;
  while (*next < end) {
    if (socket->messages != NULL) socket->messages->local_mtu = 0;
    ssize_t sent = send_some(socket, batch, *next, end);
    if (sent < 0 && sent != -EAGAIN && ip_split_met_older(socket, (int)-sent, again)) {
      again++;
      continue;
    }
    again = 0;
    bool refuses = sent == -EIO || sent == -EINVAL || sent == -EMSGSIZE;
    if (refuses && begins_with_run(socket, batch, *next, end)) {
      socket->sends_singly = on_trial = true;
      continue;
    }
    if (sent < 0) {
      if (on_trial) socket->sends_singly = false;
      return (int)-sent;
    }
    on_trial = false;
    *next += (size_t)sent;
    socket->readiness.runtime->budget -= (int)sent;
  }
  return 0;
}

/* What the frame of a send_many holds, also while it is suspended. */
enum { BATCH = 2, FIRST, LAST, NEXT };

/* One entry with what is to travel beside it, or of a socket that splits or gathers what it sends. `done`: bytes of it
   that an earlier attempt has sent. [-0, +0, e] */
static int send_entry(lua_State *L, struct ip_socket_box *box, const struct ip_batch *batch, size_t index,
                      size_t *done) {
  struct ip_socket *socket = box->socket;
  struct ip_send_call call = {.box = box, .data = {.count = 1}, .remote = batch->peers[index], .done = *done};
  call.data.parts = call.data.inline_parts;
  call.data.inline_parts[0] = batch->parts[index];
  if (call.remote.length != 0 && ip_endpoint_family(&call.remote) != ip_socket_family(socket)) {
    struct ip_address address;
    ip_endpoint_get_address(&batch->peers[index], &address);
    ip_endpoint_set(&call.remote, ip_socket_family(socket), &address, ip_endpoint_port(&batch->peers[index]));
  }
  call.to = call.remote.length != 0 ? &call.remote : NULL;
  if (call.to == NULL && socket->connection == NULL) return EDESTADDRREQ;
  if (batch->has_info[index]) {
    lua_getiuservalue(L, BATCH, IP_BATCH_INFOS);
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
    lua_remove(L, -2);
    ip_message_read_control(L, "send_many", &call);
    if (box->socket != socket) return EBADF; /* a finalizer has closed it */
  }
  size_t sent;
  int error = ip_split_send(socket, &call, &sent);
  *done = error == 0 ? 0 : call.done;
  return error;
}

/* The first entry from `first` on that has to be sent by itself. */
static size_t find_apart(const struct ip_socket *socket, const struct ip_batch *batch, size_t first,
                         size_t end) {
  const struct ip_messages *messages = socket->messages;
  if (messages != NULL && (messages->segment_size != 0 || messages->gather != NULL)) return first;
  while (first < end && !batch->has_info[first])
    first++;
  return first;
}

/* Hands over entries from *next to `end`; 0, or an errno value with *next at the entry that failed. [-0, +0, e] */
static int send_entries(lua_State *L, struct ip_socket_box *box, struct ip_batch *batch, size_t *next,
                        size_t end, size_t *done) {
  while (*next < end) {
    size_t apart = *done != 0 ? *next : find_apart(box->socket, batch, *next, end);
    int error = send_together(box->socket, batch, next, apart);
    if (error == 0 && apart < end) error = send_entry(L, box, batch, apart, done);
    if (error != 0) return error;
    if (apart < end) *next = apart + 1;
    ip_runtime(L)->budget--;
  }
  return 0;
}

static int send_many_again(lua_State *L, const struct ip_outcome *outcome);
static void note_sent(lua_State *L, struct ip_error *error);

static const struct ip_operation_kind send_many_kind = {.name = "send_many",
                                                        .attempt = ip_transfer_attempt_send,
                                                        .try_last = ip_transfer_try_last_send,
                                                        .push_results = send_many_again,
                                                        .describe = note_sent};

/* A wait that ends with an error, too, has sent what the frame says. */
static void note_sent(lua_State *L, struct ip_error *error) {
  error->sent = (int)(lua_tointeger(L, NEXT) - lua_tointeger(L, FIRST));
}

/* Raises with the number of entries that were sent before. [-0, +0, e] */
static int fail_to_send(lua_State *L, int code, size_t sent) {
  struct ip_error *error = ip_error_push(L, IP_ERROR_SYSTEM, code, send_many_kind.name);
  error->sent = (int)sent;
  if (code == EMSGSIZE) error->mtu = ip_runtime(L)->error_mtu;
  return lua_error(L);
}

/* Bytes of the entries that the frame says are left. */
static size_t bytes_left(lua_State *L) {
  const struct ip_batch *batch = lua_touserdata(L, BATCH);
  size_t total = 0, end = (size_t)lua_tointeger(L, LAST);
  for (size_t i = (size_t)lua_tointeger(L, NEXT); i < end; i++)
    total += batch->parts[i].iov_len;
  return total;
}

static int wait_to_send(lua_State *L, const struct ip_socket_box *box, double timeout, bool gives_way,
                        bool first, size_t done) {
  struct ip_operation *operation =
      ip_operation_acquire(L, ip_runtime(L), &send_many_kind, timeout, gives_way);
  struct ip_socket *socket = ip_transfer_tie(L, operation, box);
  operation->size = bytes_left(L);
  operation->data = (void *)(uintptr_t)done;
  if (gives_way)
    ip_readiness_give_way(&socket->readiness, IP_SIDE_WRITE, operation);
  else if (first)
    ip_readiness_wait_first(&socket->readiness, IP_SIDE_WRITE, operation);
  else
    ip_readiness_wait(&socket->readiness, IP_SIDE_WRITE, operation);
  return ip_operation_suspend(L, operation);
}

/* Sends what the frame says is left; waits when the system takes no more. [-0, +?, e] */
static int send_rest(lua_State *L, double timeout, bool again, size_t done) {
  struct ip_socket_box *box = ip_socket_check_open(L, send_many_kind.name);
  struct ip_batch *batch = ip_batch_check(L, BATCH);
  size_t first = (size_t)lua_tointeger(L, FIRST), end = (size_t)lua_tointeger(L, LAST);
  size_t next = (size_t)lua_tointeger(L, NEXT);
  if (box->socket->shut_send) return fail_to_send(L, EPIPE, next - first);
  int error = send_entries(L, box, batch, &next, end, &done);
  if (error != 0 && error != EAGAIN && box->socket != NULL) ip_errors_note(box->socket, error);
  if (error == EAGAIN) {
    lua_pushinteger(L, (lua_Integer)next);
    lua_replace(L, NEXT);
    if (timeout == 0 && next > first) return fail_to_send(L, ETIMEDOUT, next - first);
    return wait_to_send(L, box, timeout, false, again, done);
  }
  if (error != 0) return fail_to_send(L, error, next - first);
  lua_pushinteger(L, (lua_Integer)(end - first));
  return 1;
}

static int send_many_again(lua_State *L, const struct ip_outcome *outcome) {
  lua_settop(L, NEXT);
  return send_rest(L, ip_transfer_time_left(outcome), true, (size_t)(uintptr_t)outcome->data);
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

/* sock:send_many(batch[, first, last]) -> count: sends the entries first..last (default 1..batch.count) in order, each as a
   datagram to its address, or to the connected peer where it has none; returns when the system has taken all. When one
   fails, the error's field `sent` is the number of those before it. Suspends: yes, while the system's buffer is full.
   Source: sendmmsg(2), UDP_SEGMENT in udp(7). */
int ip_socket_send_many(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check_open(L, send_many_kind.name);
  struct ip_runtime *runtime = ip_runtime(L);
  check_range(L);
  ip_operation_check(L, runtime, &send_many_kind);
  bool gives_way = runtime->budget <= 0;
  if (gives_way || ip_readiness_has_waiters(&box->socket->readiness, IP_SIDE_WRITE))
    return wait_to_send(L, box, box->send_timeout, gives_way, false, 0);
  return send_rest(L, box->send_timeout, false, 0);
}

/* batch:info(i[, info]) -> info: what travelled beside entry i (1..slots) of the last receive_many, in `info`, a table that
   is filled anew (a new one without the argument), with the fields of receive_message. Suspends: no. */
static int batch_info(lua_State *L) {
  struct ip_batch *batch = ip_batch_check(L, 1);
  size_t index = ip_batch_check_entry(L, batch, 2);
  if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
  ip_message_prepare_info(L);
  bool known = batch->peers[index].length != 0;
  ip_batch_push_address(L, batch, index);
  ip_message_set_peer(L, known, known ? ip_endpoint_port(&batch->peers[index]) : 0);
  struct ip_control control = batch->controls[index];
  ip_message_fill_info(L, &control, batch->truncated[index]);
  lua_settop(L, 3);
  return 1;
}

void ip_batch_add_info(lua_State *L, int core) {
  static const luaL_Reg methods[] = {{"info", batch_info}, {NULL, NULL}};
  core = lua_absindex(L, core);
  lua_newtable(L);
  ip_message_add_functions(L, core, methods);
  ip_class_add_methods(L, IP_CLASS_BATCH, lua_gettop(L));
  lua_pop(L, 1);
}
