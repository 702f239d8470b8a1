/* udp_receive.c: receive, receive_from, receive_string and their try_ forms.

   Every call tries its system call first; only EAGAIN suspends. The fast path touches no operation, no timer
   and no poll handle, and allocates nothing but the address of a peer that is not the last one.

   A suspended receive is attempted by the dispatcher, which resumes its coroutine in the same breath; the
   result waits in runtime->datagram meanwhile. */
#include "udp/message.h"

#include "base/util.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>

enum {
  PROBE_EVERY = 32, /* of receives that could suspend without a try, one in this many tries all the same */
  LARGEST_DATAGRAM = 65535
};

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

void ip_transfer_read_receive(lua_State *L, const char *operation, int flags, enum ip_take what,
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
  call->flags = IP_LIKELY(count < flags) ? 0 : ip_transfer_flags(L, flags, true, operation);
  call->what = what;
}

/* The arguments (self, buf[, flags]). [-0, +2, e] */
static void check_receive_call(lua_State *L, const char *operation, enum ip_take what,
                               struct ip_receive_call *call) {
  ip_transfer_read_receive(L, operation, 3, what, call);
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
