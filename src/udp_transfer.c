/* udp_transfer.c: receive*, send* and their try_ forms.

   Every call tries its system call first; only EAGAIN suspends. The fast path touches no operation, no timer
   and no poll handle, and allocates nothing but the address of a peer that is not the last one.

   A suspended receive is attempted by the dispatcher, which resumes its coroutine in the same breath; the
   result waits in runtime->datagram meanwhile. A suspended send is woken when the socket takes data again and
   makes its system call itself: its arguments are still in its frame, so nothing has to be copied to wait. */
#include "udp_message.h"

#include "address.h"
#include "byte_span.h"
#include "util.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum {
  PROBE_EVERY = 32, /* of receives that could suspend without a try, one in this many tries all the same */
  LARGEST_DATAGRAM = 65535
};

/* --- flags --- */

static const struct {
  const char *name;
  int flag;
  bool receives, sends;
} message_flags[] = {
    {"peek", MSG_PEEK, true, false},       {"do_not_route", MSG_DONTROUTE, false, true},
    {"out_of_band", MSG_OOB, false, true}, {"end_of_record", MSG_EOR, false, true},
#ifdef MSG_MORE
    {"more", MSG_MORE, false, true},
#endif
#ifdef MSG_CONFIRM
    {"confirm", MSG_CONFIRM, false, true},
#endif
};

void ip_socket_push_message_flags(lua_State *L) {
  lua_newtable(L);
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    lua_pushinteger(L, message_flags[i].flag);
    lua_setfield(L, -2, message_flags[i].name);
  }
}

/* Linux ignores the flags of the other direction. A flag is never ignored here: ENOTSUP. [-0, +0, e] */
static int check_flags(lua_State *L, int arg, bool receives, const char *operation) {
  lua_Integer flags = ip_argument_integer(L, arg, 0, INT_MAX);
  lua_Integer unknown = flags;
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    if (!(flags & message_flags[i].flag)) continue;
    unknown &= ~(lua_Integer)message_flags[i].flag;
    if (receives ? !message_flags[i].receives : !message_flags[i].sends)
      ip_error_raise(L, ENOTSUP, operation);
  }
  luaL_argcheck(L, unknown == 0, arg, "not a combination of ip.message_flag values");
  return (int)flags;
}

int ip_transfer_flags(lua_State *L, int arg, bool receives, const char *operation) {
  return IP_LIKELY(lua_isnoneornil(L, arg)) ? 0 : check_flags(L, arg, receives, operation);
}

/* --- receiving --- */

int ip_transfer_raise(lua_State *L, struct ip_runtime *runtime, int error, const char *operation) {
  int mtu = error == EMSGSIZE ? runtime->error_mtu : 0;
  ip_error_push(L, IP_ERROR_SYSTEM, error, operation)->mtu = mtu;
  lua_error(L);
  __builtin_unreachable();
}

int ip_transfer_take(struct ip_socket *socket, void *data, size_t size, int flags,
                     struct ip_datagram *datagram, enum ip_take what) {
  if (IP_UNLIKELY(socket->filtering || socket->messages != NULL || what >= IP_TAKE_MESSAGE))
    return ip_intake_take(socket, data, size, flags, what, datagram);
  /* a connected socket has one source, which costs the system something to tell */
  const struct ip_connection *connection = what == IP_TAKE_SOURCE ? socket->connection : NULL;
  bool asks = what == IP_TAKE_SOURCE && connection == NULL;
  int error = ip_datagram_receive(socket->readiness.fd, data, size, flags, datagram, asks);
  if (connection != NULL) datagram->source = connection->remote;
  return IP_UNLIKELY(error == EMSGSIZE) ? ip_errors_note(socket, error) : error;
}

/* What is left in this process makes no event: those who wait get it at the next turn. */
static void wake_for_pending(struct ip_socket *socket) {
  if (IP_LIKELY(!ip_messages_pending(socket))) return;
  ip_readiness_try_last(&socket->readiness, IP_SIDE_READ);
}

bool ip_transfer_attempt_take(struct ip_operation *operation, enum ip_take what) {
  struct ip_socket *socket = operation->object;
  struct ip_datagram *datagram = &operation->runtime->datagram;
  int error = ip_transfer_take(socket, operation->data, operation->size, operation->flags, datagram, what);
  if (error == EAGAIN && ip_errors_drain(socket) != 0) error = ip_errors_next_report(socket);
  if (error == EAGAIN) return false;
  operation->status = error;
  if (ip_readiness_has_waiters_behind(&socket->readiness, IP_SIDE_READ)) wake_for_pending(socket);
  return true;
}

static bool attempt_receive(struct ip_operation *operation) {
  return ip_transfer_attempt_take(operation, IP_TAKE_BYTES);
}

static bool attempt_receive_from(struct ip_operation *operation) {
  return ip_transfer_attempt_take(operation, IP_TAKE_SOURCE);
}

static int push_datagram(lua_State *L, const struct ip_datagram *datagram) {
  lua_pushinteger(L, (lua_Integer)datagram->length);
  lua_pushboolean(L, datagram->truncated);
  return 2;
}

/* Pushes the address of the sender; the last one is cached, and as addresses are immutable it is safe to
   share. The socket's box is at `index`. [-0, +1, m] */
static void push_source(lua_State *L, int index, const struct ip_socket_box *box,
                        const struct ip_endpoint *source) {
  const struct ip_socket *socket = box->socket;
  if (IP_LIKELY(socket != NULL && socket->peer != NULL && ip_endpoint_has_address(source, socket->peer))) {
    lua_getiuservalue(L, index, IP_SOCKET_PEER);
    return;
  }
  struct ip_address address;
  ip_endpoint_get_address(source, &address);
  const struct ip_address *peer = ip_address_push(L, &address);
  if (box->socket == NULL) return; /* allocating may run a finalizer, and that close the socket */
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, index, IP_SOCKET_PEER);
  box->socket->peer = peer;
}

void ip_transfer_push_source(lua_State *L, const struct ip_endpoint *source) {
  push_source(L, 1, lua_touserdata(L, 1), source);
}

int ip_transfer_push_sender(lua_State *L, int index, const struct ip_socket_box *box,
                            const struct ip_datagram *datagram) {
  push_source(L, index, box, &datagram->source);
  lua_pushinteger(L, ip_endpoint_port(&datagram->source));
  lua_pushboolean(L, datagram->truncated);
  return 3;
}

static int push_datagram_from(lua_State *L, const struct ip_socket_box *box,
                              const struct ip_datagram *datagram) {
  lua_pushinteger(L, (lua_Integer)datagram->length);
  return 1 + ip_transfer_push_sender(L, 1, box, datagram);
}

static int push_string_from(lua_State *L, const char *data, const struct ip_datagram *datagram) {
  lua_pushlstring(L, data, datagram->length);
  return 1 + ip_transfer_push_sender(L, 1, lua_touserdata(L, 1), datagram);
}

static int push_received(lua_State *L, const struct ip_outcome *outcome) {
  return push_datagram(L, &outcome->runtime->datagram);
}

static int push_received_from(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_datagram datagram = outcome->runtime->datagram; /* a finalizer may receive, too */
  return push_datagram_from(L, lua_touserdata(L, 1), &datagram);
}

static int push_received_string(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_datagram datagram = outcome->runtime->datagram;
  return push_string_from(L, outcome->data, &datagram);
}

void ip_transfer_try_last_receive(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  ip_readiness_try_last(&socket->readiness, IP_SIDE_READ);
}

static const struct ip_operation_kind receive_kind = {.name = "receive",
                                                      .attempt = attempt_receive,
                                                      .try_last = ip_transfer_try_last_receive,
                                                      .push_results = push_received};
static const struct ip_operation_kind receive_from_kind = {.name = "receive_from",
                                                           .attempt = attempt_receive_from,
                                                           .try_last = ip_transfer_try_last_receive,
                                                           .push_results = push_received_from};
static const struct ip_operation_kind receive_string_kind = {.name = "receive_string",
                                                             .attempt = attempt_receive_from,
                                                             .try_last = ip_transfer_try_last_receive,
                                                             .push_results = push_received_string};

/* A socket that keeps meeting EAGAIN suspends straight away, which saves the system call, and probes now and
   then. */
static bool skips_try(struct ip_runtime *runtime, const struct ip_socket_box *box) {
  struct ip_socket *socket = box->socket;
  if (IP_LIKELY(socket->misses < IP_SKIP_AFTER)) return false;
  if (box->receive_timeout == 0 || runtime->immediate_scopes != 0 || ip_messages_pending(socket))
    return false;
  socket->skipped = (uint8_t)((socket->skipped + 1) % PROBE_EVERY);
  return socket->skipped != 0;
}

/* Ties an operation that was just acquired to its socket. Acquiring allocates, and so may have run a
   finalizer that closed the socket. [-0, +0, e] */
struct ip_socket *ip_transfer_tie(lua_State *L, struct ip_operation *operation,
                                  const struct ip_socket_box *box) {
  struct ip_socket *socket = box->socket;
  int error = socket == NULL ? EBADF : ip_readiness_prepare(&socket->readiness);
  if (error != 0) ip_operation_fail(L, operation, error);
  operation->object = socket;
  return socket;
}

void ip_transfer_queue_receive(lua_State *L, struct ip_operation *operation,
                               const struct ip_receive_call *call, bool gives_way) {
  struct ip_socket *socket = ip_transfer_tie(L, operation, call->box);
  operation->data = call->data;
  operation->size = call->size;
  operation->flags = call->flags;
  if (gives_way)
    ip_readiness_give_way(&socket->readiness, IP_SIDE_READ, operation);
  else
    ip_readiness_wait(&socket->readiness, IP_SIDE_READ, operation);
  wake_for_pending(socket);
}

/* Suspends the running receive. [-0, +?, e] */
int ip_transfer_wait_to_receive(lua_State *L, const struct ip_operation_kind *kind,
                                const struct ip_receive_call *call, bool gives_way) {
  struct ip_operation *operation =
      ip_operation_acquire(L, ip_runtime(L), kind, call->box->receive_timeout, gives_way);
  ip_transfer_queue_receive(L, operation, call, gives_way);
  return ip_operation_suspend(L, operation);
}

/* Tries; true when there is a datagram. Raises what is not EAGAIN. [-0, +0, e] */
static bool try_to_receive(lua_State *L, const struct ip_operation_kind *kind,
                           const struct ip_receive_call *call, struct ip_datagram *datagram) {
  struct ip_socket *socket = call->box->socket;
  int error = ip_transfer_take(socket, call->data, call->size, call->flags, datagram, call->what);
  if (IP_LIKELY(error == 0)) {
    if (IP_LIKELY(!ip_messages_coalesces(socket))) socket->misses = 0; /* else the intake knows better */
    return true;
  }
  if (error != EAGAIN) ip_transfer_raise(L, socket->readiness.runtime, error, kind->name);
  if (socket->misses < IP_SKIP_AFTER) socket->misses++;
  return false;
}

static void check_receivable(lua_State *L, const struct ip_operation_kind *kind,
                             const struct ip_receive_call *call) {
  if (IP_UNLIKELY(call->box->socket->shut_receive)) ip_error_raise(L, ESHUTDOWN, kind->name);
}

/* The common course of the suspending receives: false when the call has to wait, which it then does with
   `return ip_transfer_wait_to_receive(...)`. */
bool ip_transfer_start_receive(lua_State *L, const struct ip_operation_kind *kind,
                               const struct ip_receive_call *call, struct ip_datagram *datagram,
                               bool *gives_way) {
  struct ip_socket *socket = call->box->socket;
  struct ip_runtime *runtime = socket->readiness.runtime;
  ip_operation_check(L, runtime, kind);
  check_receivable(L, kind, call);
  *gives_way = *gives_way || runtime->budget <= 0;
  if (*gives_way || ip_readiness_has_waiters(&socket->readiness, IP_SIDE_READ)) return false;
  if (skips_try(runtime, call->box) || !try_to_receive(L, kind, call, datagram)) return false;
  runtime->budget--;
  return true;
}

/* Checks the arguments (self, buf[, flags]); leaves on the stack what it has looked at. [-0, +2, e] */
static void check_receive_call(lua_State *L, const char *operation, enum ip_take what,
                               struct ip_receive_call *call) {
  const struct ip_runtime *runtime = ip_runtime(L);
  int count = lua_gettop(L);
  call->box = ip_socket_peek_open(L, runtime, operation);
  struct ip_bytes *span = ip_peek_class_of(L, &runtime->core, 2, IP_CLASS_BYTE_SPAN);
  if (IP_UNLIKELY(span == NULL)) {
    lua_settop(L, count);
    span = ip_byte_span_check(L, 2);
  }
  call->data = span->data;
  call->size = span->length;
  call->flags = IP_LIKELY(count < 3) ? 0 : ip_transfer_flags(L, 3, true, operation);
  call->what = what;
}

/* sock:receive(buf[, flags]) -> n, truncated: takes one datagram into `buf`. An empty buf waits for one and
   consumes it. flags: ip.message_flag.peek. Raises ETIMEDOUT (receive_timeout), ECANCELED, ESHUTDOWN,
   ECONNREFUSED and what else the network reported for an earlier datagram of a connected socket. Suspends:
   yes. Source: recv(2). */
int ip_socket_receive(lua_State *L) {
  struct ip_receive_call call;
  struct ip_datagram datagram;
  bool gives_way = false;
  check_receive_call(L, "receive", IP_TAKE_BYTES, &call);
  if (IP_LIKELY(ip_transfer_start_receive(L, &receive_kind, &call, &datagram, &gives_way)))
    return push_datagram(L, &datagram);
  return ip_transfer_wait_to_receive(L, &receive_kind, &call, gives_way);
}

/* sock:receive_from(buf[, flags]) -> n, address, port, truncated: likewise, with the sender's endpoint.
   Suspends: yes. Source: recvfrom(2). */
int ip_socket_receive_from(lua_State *L) {
  struct ip_receive_call call;
  struct ip_datagram datagram;
  bool gives_way = false;
  check_receive_call(L, "receive_from", IP_TAKE_SOURCE, &call);
  if (IP_LIKELY(ip_transfer_start_receive(L, &receive_from_kind, &call, &datagram, &gives_way)))
    return push_datagram_from(L, call.box, &datagram);
  return ip_transfer_wait_to_receive(L, &receive_from_kind, &call, gives_way);
}

/* sock:receive_string([size[, flags]]) -> string, address, port, truncated: at most `size` bytes (default:
   any datagram, whole) as a new string. Suspends: yes. */
int ip_socket_receive_string(lua_State *L) {
  const struct ip_operation_kind *kind = &receive_string_kind;
  struct ip_receive_call call = {.box = ip_socket_check_open(L, kind->name), .what = IP_TAKE_SOURCE};
  lua_Integer size = ip_argument_optional_integer(L, 2, 0, LUA_MAXINTEGER, LARGEST_DATAGRAM);
  call.size = size < LARGEST_DATAGRAM ? (size_t)size : LARGEST_DATAGRAM;
  call.flags = ip_transfer_flags(L, 3, true, kind->name);
  call.data = ip_runtime_scratch(call.box->socket->readiness.runtime);
  if (call.data == NULL) return luaL_error(L, "not enough memory");
  struct ip_datagram datagram;
  bool gives_way = false;
  if (!ip_transfer_start_receive(L, kind, &call, &datagram, &gives_way))
    return ip_transfer_wait_to_receive(L, kind, &call, gives_way);
  return push_string_from(L, call.data, &datagram);
}

/* The try_ forms: true when there is a datagram; not when others wait for the next one. */
static bool receive_at_once(lua_State *L, const struct ip_operation_kind *kind,
                            const struct ip_receive_call *call, struct ip_datagram *datagram) {
  check_receivable(L, kind, call);
  if (ip_readiness_has_waiters(&call->box->socket->readiness, IP_SIDE_READ)) return false;
  return try_to_receive(L, kind, call, datagram);
}

/* sock:try_receive(buf[, flags]) -> n, truncated | nil, err: as receive, but where that would wait the result
   is nil and an EAGAIN error. Suspends: no. */
int ip_socket_try_receive(lua_State *L) {
  static const struct ip_operation_kind kind = {.name = "try_receive"};
  struct ip_receive_call call;
  struct ip_datagram datagram;
  check_receive_call(L, kind.name, IP_TAKE_BYTES, &call);
  if (receive_at_once(L, &kind, &call, &datagram)) return push_datagram(L, &datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, kind.name);
}

/* sock:try_receive_from(buf[, flags]) -> n, address, port, truncated | nil, err. Suspends: no. */
int ip_socket_try_receive_from(lua_State *L) {
  static const struct ip_operation_kind kind = {.name = "try_receive_from"};
  struct ip_receive_call call;
  struct ip_datagram datagram;
  check_receive_call(L, kind.name, IP_TAKE_SOURCE, &call);
  if (receive_at_once(L, &kind, &call, &datagram)) return push_datagram_from(L, call.box, &datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, kind.name);
}

/* --- sending --- */

static size_t total_of(const struct ip_data *data) {
  size_t total = 0;
  for (size_t i = 0; i < data->count; i++)
    total += data->parts[i].iov_len;
  return total;
}

/* Woken: the call itself tries again (push_results). What is left of its deadline travels in `flags`, in
   milliseconds; negative for none. */
bool ip_transfer_attempt_send(struct ip_operation *operation) {
  uint64_t left = operation->timer != NULL ? uv_timer_get_due_in(&operation->timer->uv) : 0;
  if (operation->immediate)
    operation->flags = 0;
  else if (operation->timer == NULL)
    operation->flags = -1;
  else
    operation->flags = left < 1 ? 1 : left > INT_MAX ? INT_MAX : (int)left;
  operation->status = 0;
  ip_errors_drain(operation->object);
  return true;
}

void ip_transfer_try_last_send(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  ip_readiness_try_last(&socket->readiness, IP_SIDE_WRITE);
}

static int send_again(lua_State *L, const struct ip_outcome *outcome);
static int send_to_again(lua_State *L, const struct ip_outcome *outcome);
static int send_with_again(lua_State *L, const struct ip_outcome *outcome);
static int send_to_with_again(lua_State *L, const struct ip_outcome *outcome);

static const struct ip_operation_kind send_kind = {.name = "send",
                                                   .attempt = ip_transfer_attempt_send,
                                                   .try_last = ip_transfer_try_last_send,
                                                   .push_results = send_again};
static const struct ip_operation_kind send_to_kind = {.name = "send_to",
                                                      .attempt = ip_transfer_attempt_send,
                                                      .try_last = ip_transfer_try_last_send,
                                                      .push_results = send_to_again};
static const struct ip_operation_kind send_with_kind = {.name = "send_with",
                                                        .attempt = ip_transfer_attempt_send,
                                                        .try_last = ip_transfer_try_last_send,
                                                        .push_results = send_with_again};
static const struct ip_operation_kind send_to_with_kind = {.name = "send_to_with",
                                                           .attempt = ip_transfer_attempt_send,
                                                           .try_last = ip_transfer_try_last_send,
                                                           .push_results = send_to_with_again};

/* A vector of many parts is allocated, which may run a finalizer that closes the socket. [-0, +(0|1), e] */
void ip_transfer_read_data(lua_State *L, const char *operation, struct ip_send_call *call) {
  ip_argument_data(L, 2, &call->data);
  if (IP_UNLIKELY(call->box->socket == NULL)) ip_error_raise(L, EBADF, operation);
}

/* As ip_transfer_read_data; what was looked at stays on the stack. [-0, +(0|1), e] */
static inline void peek_data(lua_State *L, const char *operation, struct ip_send_call *call) {
  const struct ip_runtime *runtime = call->box->socket->readiness.runtime;
  const struct ip_bytes *span = ip_peek_class_of(L, &runtime->core, 2, IP_CLASS_BYTE_SPAN);
  if (IP_LIKELY(span != NULL))
    ip_data_set(&call->data, span->data, span->length);
  else
    ip_transfer_read_data(L, operation, call);
}

/* Reads the socket and the flags of a call with `needed` arguments before those. What is looked at from here on is pushed above
   all of them; where there are too few, the message is to say that there is no value. [-?, +?, e] */
static inline void start_send_call(lua_State *L, const char *operation, int needed,
                                   struct ip_send_call *call) {
  int count = lua_gettop(L);
  if (IP_LIKELY(count == needed))
    lua_pushnil(L);
  else if (count > needed)
    lua_settop(L, needed + 1);
  call->box = ip_socket_peek_open(L, ip_runtime(L), operation);
  if (IP_UNLIKELY(count < needed)) lua_settop(L, count);
  call->flags = IP_LIKELY(count <= needed) ? 0 : ip_transfer_flags(L, needed + 1, false, operation);
  call->control.items = 0;
  call->done = 0;
}

/* The addr argument at 3. Most answer the last sender, whose address the box holds: then it needs no look at its
   class. [-0, +(0|1), v] */
static void read_address(lua_State *L, const struct ip_socket_box *box, struct ip_address *address) {
  const struct ip_runtime *runtime = box->socket->readiness.runtime;
  const struct ip_address *object = lua_touserdata(L, 3);
  if (IP_UNLIKELY(object == NULL || object != box->socket->peer))
    object = ip_peek_class_of(L, &runtime->core, 3, IP_CLASS_ADDRESS);
  if (IP_LIKELY(object != NULL))
    *address = *object;
  else
    ip_address_argument(L, 3, address);
}

/* Checks the arguments (self, data[, flags]). [-0, +(0|1), e] */
static void check_send_call(lua_State *L, const char *operation, struct ip_send_call *call) {
  start_send_call(L, operation, 2, call);
  peek_data(L, operation, call);
  call->to = NULL;
  if (IP_UNLIKELY(call->box->socket->connection == NULL)) ip_error_raise(L, EDESTADDRREQ, operation);
}

/* Checks the arguments (self, data, addr, port[, flags]). [-0, +(0|1), e] */
static void check_send_to_call(lua_State *L, const char *operation, struct ip_send_call *call) {
  start_send_call(L, operation, 4, call);
  struct ip_address address;
  read_address(L, call->box, &address);
  uint16_t port = ip_argument_port(L, 4);
  peek_data(L, operation, call);
  ip_endpoint_set(&call->remote, ip_socket_family(call->box->socket), &address, port);
  call->to = &call->remote;
}

/* Suspends the running send. [-0, +?, e] */
static int wait_to_send(lua_State *L, const struct ip_operation_kind *kind, const struct ip_send_call *call,
                        double timeout, bool gives_way, bool first) {
  struct ip_operation *operation = ip_operation_acquire(L, ip_runtime(L), kind, timeout, gives_way);
  struct ip_socket *socket = ip_transfer_tie(L, operation, call->box);
  struct ip_readiness *readiness = &socket->readiness;
  operation->size = total_of(&call->data) - call->done;
  operation->data = (void *)(uintptr_t)call->done;
  if (gives_way)
    ip_readiness_give_way(readiness, IP_SIDE_WRITE, operation);
  else if (first)
    ip_readiness_wait_first(readiness, IP_SIDE_WRITE, operation);
  else
    ip_readiness_wait(readiness, IP_SIDE_WRITE, operation);
  return ip_operation_suspend(L, operation);
}

/* Tries; true and the number of bytes when the system has taken the datagram. Raises what is not EAGAIN. */
static bool try_to_send(lua_State *L, const char *operation, struct ip_send_call *call, size_t *sent) {
  struct ip_socket *socket = call->box->socket;
  if (IP_UNLIKELY(socket->shut_send)) ip_error_raise(L, EPIPE, operation);
  int error;
  if (IP_UNLIKELY(socket->messages != NULL || call->control.items != 0))
    error = ip_split_send(socket, call, sent);
  else
    error = ip_datagram_send(socket->readiness.fd, call->data.parts, call->data.count, call->to, call->flags,
                             sent);
  if (IP_LIKELY(error == 0)) return true;
  if (error != EAGAIN)
    ip_transfer_raise(L, socket->readiness.runtime, ip_errors_note(socket, error), operation);
  return false;
}

static int push_sent(lua_State *L, size_t sent) {
  lua_pushinteger(L, (lua_Integer)sent);
  return 1;
}

int ip_transfer_start_send(lua_State *L, const struct ip_operation_kind *kind, struct ip_send_call *call) {
  struct ip_socket *socket = call->box->socket;
  struct ip_runtime *runtime = socket->readiness.runtime;
  ip_operation_check(L, runtime, kind);
  if (IP_UNLIKELY(socket->shut_send)) return ip_error_raise(L, EPIPE, kind->name);
  bool gives_way = runtime->budget <= 0;
  size_t sent;
  if (gives_way || ip_readiness_has_waiters(&socket->readiness, IP_SIDE_WRITE) ||
      !try_to_send(L, kind->name, call, &sent))
    return wait_to_send(L, kind, call, call->box->send_timeout, gives_way, false);
  runtime->budget--;
  return push_sent(L, sent);
}

int ip_transfer_retry_send(lua_State *L, const struct ip_operation_kind *kind, struct ip_send_call *call,
                           const struct ip_outcome *outcome) {
  size_t sent;
  call->done = (size_t)(uintptr_t)outcome->data;
  if (try_to_send(L, kind->name, call, &sent)) return push_sent(L, sent);
  double timeout = ip_transfer_time_left(outcome);
  return wait_to_send(L, kind, call, timeout, false, true);
}

static int send_again(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_send_call call;
  check_send_call(L, send_kind.name, &call);
  return ip_transfer_retry_send(L, &send_kind, &call, outcome);
}

static int send_to_again(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_send_call call;
  check_send_to_call(L, send_to_kind.name, &call);
  return ip_transfer_retry_send(L, &send_to_kind, &call, outcome);
}

static int send_with_again(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_send_call call;
  check_send_call(L, send_with_kind.name, &call);
  return ip_transfer_retry_send(L, &send_with_kind, &call, outcome);
}

static int send_to_with_again(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_send_call call;
  check_send_to_call(L, send_to_with_kind.name, &call);
  return ip_transfer_retry_send(L, &send_to_with_kind, &call, outcome);
}

/* sock:send(data[, flags]) -> n: sends one datagram to the connected peer. data: string, byte_span or a
   sequence of those; an empty sequence is an empty datagram. EDESTADDRREQ when not connected; EMSGSIZE when
   too large; ETIMEDOUT (send_timeout); EPIPE after shutdown; ECONNREFUSED speaks of an earlier datagram, and
   this one was not sent. Suspends: yes, while the system's buffer is full. Source: send(2). */
int ip_socket_send(lua_State *L) {
  struct ip_send_call call;
  check_send_call(L, send_kind.name, &call);
  return ip_transfer_start_send(L, &send_kind, &call);
}

/* sock:send_to(data, addr, port[, flags]) -> n: sends one datagram to an endpoint. EINVAL for port 0; EACCES
   for a broadcast address without the option. Suspends: yes, while the system's buffer is full. Source:
   sendto(2). */
int ip_socket_send_to(lua_State *L) {
  struct ip_send_call call;
  check_send_to_call(L, send_to_kind.name, &call);
  return ip_transfer_start_send(L, &send_to_kind, &call);
}

/* For lua/ip/udp_fill.lua, before it lets anybody fill a datagram. prepare_fill(sock[, addr]) -> boolean,
   problem: raises EBADF, EPIPE and what keeps the call from suspending; `addr` makes it a send_to_with. Is
   there somebody to send to, and what is wrong with an `addr` that is text? Suspends: no. */
int ip_socket_prepare_fill(lua_State *L) {
  bool with_address = !lua_isnone(L, 2);
  const struct ip_operation_kind *kind = with_address ? &send_to_with_kind : &send_with_kind;
  const struct ip_socket *socket = ip_socket_check_open(L, kind->name)->socket;
  ip_operation_check(L, socket->readiness.runtime, kind);
  if (socket->shut_send) return ip_error_raise(L, EPIPE, kind->name);
  lua_pushboolean(L, with_address || socket->connection != NULL);
  if (lua_type(L, 2) != LUA_TSTRING) return 1;
  size_t length;
  const char *text = lua_tolstring(L, 2, &length);
  struct ip_address address;
  lua_pushstring(L, ip_address_parse(&address, text, length));
  return 2;
}

/* For lua/ip/udp_fill.lua. send_filled(sock, span) -> n: send under the name of send_with. Suspends: yes. */
int ip_socket_send_filled(lua_State *L) {
  struct ip_send_call call;
  check_send_call(L, send_with_kind.name, &call);
  return ip_transfer_start_send(L, &send_with_kind, &call);
}

/* For lua/ip/udp_fill.lua. send_to_filled(sock, span, addr, port) -> n: send_to under the name of
   send_to_with. Suspends: yes. */
int ip_socket_send_to_filled(lua_State *L) {
  struct ip_send_call call;
  check_send_to_call(L, send_to_with_kind.name, &call);
  return ip_transfer_start_send(L, &send_to_with_kind, &call);
}

/* Of what is split here the system may take a part: that is what n tells then. */
static int send_at_once(lua_State *L, const char *operation, struct ip_send_call *call) {
  size_t sent;
  bool queued = ip_readiness_has_waiters(&call->box->socket->readiness, IP_SIDE_WRITE);
  if (!queued && try_to_send(L, operation, call, &sent)) return push_sent(L, sent);
  if (call->done != 0) return push_sent(L, call->done);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, operation);
}

/* sock:try_send(data[, flags]) -> n | nil, err. Suspends: no. */
int ip_socket_try_send(lua_State *L) {
  struct ip_send_call call;
  check_send_call(L, "try_send", &call);
  return send_at_once(L, "try_send", &call);
}

/* sock:try_send_to(data, addr, port[, flags]) -> n | nil, err. Suspends: no. */
int ip_socket_try_send_to(lua_State *L) {
  struct ip_send_call call;
  check_send_to_call(L, "try_send_to", &call);
  return send_at_once(L, "try_send_to", &call);
}
