/* receive.c: receive, receive_from, receive_string and their try_ forms. Owns nothing. Each method says what
   it raises.

   Every call first tries its system call; only EAGAIN suspends. The fast path uses no operation, no timer and
   no poll handle, and allocates nothing except the address of a new peer. The dispatcher attempts a suspended
   receive, and resumes its coroutine as soon as that succeeds. */
#include "udp/receive.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "udp/error_queue.h"
#include "udp/message_flag.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>

enum {
  PROBE_EVERY = 32, /* one in so many receives that may suspend without a try makes a try */
  LARGEST_DATAGRAM = 65535
};

/* --- attempts of the dispatcher --- */

struct ip_failure ip_receive_look_for_errors(struct ip_channel *channel, struct ip_failure failure) {
  if (failure.code != EAGAIN || ip_error_queue_drain(channel).reports == 0) return failure;
  return ip_error_queue_pop_report(channel);
}

/* Does the socket's owner want an error for a datagram that was longer than the buffer? An empty buffer is
   for calls that want none of it. */
static bool refuses_cut(const struct ip_channel *channel, const struct ip_receive *call) {
  return channel->raises_truncation && call->size != 0;
}

bool ip_receive_attempt(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  struct ip_channel *channel = &socket->channel;
  struct ip_failure failure =
      ip_receive_path_attempt(channel, &operation->payload.receive, operation->received);
  failure = ip_receive_look_for_errors(channel, failure);
  if (failure.code == EAGAIN) return false;
  if (failure.code == 0 && IP_UNLIKELY(operation->received->datagram.truncated) &&
      refuses_cut(channel, &operation->payload.receive))
    failure = ip_failure(EMSGSIZE);
  operation->failure = failure;
  if (ip_watcher_has_waiters_behind(&socket->watcher, IP_SIDE_READ))
    ip_flusher_wake_receives(&socket->watcher, channel);
  return true;
}

void ip_receive_final_attempt(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  ip_watcher_attempt_soon(&socket->watcher, IP_SIDE_READ);
}

/* --- results --- */

static int push_datagram(lua_State *L, const struct ip_datagram *datagram) {
  lua_pushinteger(L, (lua_Integer)datagram->length);
  lua_pushboolean(L, datagram->truncated);
  return 2;
}

/* Pushes the last sender's address from the cache; addresses are immutable, so they can be shared. */
void ip_receive_push_source(lua_State *L, int index, const struct ip_socket_box *box,
                            const struct ip_endpoint *source) {
  const struct ip_socket *socket = box->socket;
  if (IP_LIKELY(socket != NULL && socket->peer != NULL && ip_endpoint_has_address(source, socket->peer))) {
    lua_getiuservalue(L, index, IP_SOCKET_PEER);
    return;
  }
  struct ip_address address;
  ip_endpoint_get_address(source, &address);
  const struct ip_address *peer = ip_address_push(L, &address);
  if (box->socket == NULL) return; /* allocating may run a finalizer that closes the socket */
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, index, IP_SOCKET_PEER);
  box->socket->peer = peer;
}

int ip_receive_push_sender(lua_State *L, int index, const struct ip_socket_box *box,
                           const struct ip_datagram *datagram) {
  ip_receive_push_source(L, index, box, &datagram->source);
  lua_pushinteger(L, ip_endpoint_port(&datagram->source));
  lua_pushboolean(L, datagram->truncated);
  return 3;
}

static int push_datagram_from(lua_State *L, const struct ip_socket_box *box,
                              const struct ip_datagram *datagram) {
  lua_pushinteger(L, (lua_Integer)datagram->length);
  return 1 + ip_receive_push_sender(L, 1, box, datagram);
}

static int push_string_from(lua_State *L, const char *data, const struct ip_datagram *datagram) {
  lua_pushlstring(L, data, datagram->length);
  return 1 + ip_receive_push_sender(L, 1, lua_touserdata(L, 1), datagram);
}

static int push_received(lua_State *L, struct ip_result *result) {
  return push_datagram(L, &result->received->datagram);
}

static int push_received_from(lua_State *L, struct ip_result *result) {
  return push_datagram_from(L, lua_touserdata(L, 1), &result->received->datagram);
}

static int push_received_string(lua_State *L, struct ip_result *result) {
  return push_string_from(L, result->payload.receive.data, &result->received->datagram);
}

static const struct ip_operation_type receive_type = {.name = "receive",
                                                      .attempt = ip_receive_attempt,
                                                      .final_attempt = ip_receive_final_attempt,
                                                      .push_results = push_received};
static const struct ip_operation_type receive_from_type = {.name = "receive_from",
                                                           .attempt = ip_receive_attempt,
                                                           .final_attempt = ip_receive_final_attempt,
                                                           .push_results = push_received_from};
static const struct ip_operation_type receive_string_type = {.name = "receive_string",
                                                             .attempt = ip_receive_attempt,
                                                             .final_attempt = ip_receive_final_attempt,
                                                             .push_results = push_received_string};

/* --- waiting --- */

/* Does this process have a datagram or an error for a receive? The system does not report it. */
static bool has_pending(const struct ip_channel *channel) {
  return channel->deferred_error != 0 || ip_error_queue_has_report(channel) ||
         ip_receive_path_has_read_ahead(channel);
}

/* A socket that meets EAGAIN repeatedly suspends without a try, which saves the system call, and probes at
   intervals. */
bool ip_receive_skips_try(const struct ip_runtime *runtime, const struct ip_socket_box *box) {
  struct ip_channel *channel = &box->socket->channel;
  if (IP_LIKELY(channel->would_block_streak < IP_SKIP_AFTER)) return false;
  if (box->receive_timeout == 0 || runtime->scopes_at_once != 0 || has_pending(channel)) return false;
  if (channel->shut_receive) return false;
  if (channel->probe_countdown == 0) channel->probe_countdown = PROBE_EVERY;
  if (--channel->probe_countdown == 0) return false;
  ip_receive_path_note_wait(channel);
  return true;
}

void ip_receive_queue(lua_State *L, struct ip_operation *operation, const struct ip_receive_call *call,
                      bool yields) {
  struct ip_socket *socket = ip_socket_tie(L, operation, call->box);
  if (IP_UNLIKELY(socket->channel.shut_receive)) { /* the system would return nothing, again and again */
    ip_operation_complete_with(operation, ESHUTDOWN);
    return;
  }
  operation->payload.receive = call->receive;
  ip_watcher_wait(&socket->watcher, IP_SIDE_READ, operation, yields ? IP_WAIT_YIELDING : IP_WAIT);
  ip_flusher_wake_receives(&socket->watcher, &socket->channel);
}

int ip_receive_wait(lua_State *L, const struct ip_operation_type *type, const struct ip_receive_call *call,
                    bool yields) {
  ip_deadline deadline = ip_deadline_after(call->box->receive_timeout);
  struct ip_operation *operation = ip_operation_acquire(L, ip_runtime(L), type, deadline, yields);
  ip_receive_queue(L, operation, call, yields);
  return ip_operation_suspend(L, operation);
}

/* Tries once. EAGAIN: there is no datagram. Does not call Lua. */
static inline struct ip_failure try_once(struct ip_channel *channel, const struct ip_receive_call *call,
                                         struct ip_received *received) {
  if (IP_UNLIKELY(channel->shut_receive)) return ip_failure(ESHUTDOWN);
  struct ip_failure failure = ip_receive_path_attempt(channel, &call->receive, received);
  ip_receive_note_try(channel, failure);
  if (IP_UNLIKELY(failure.code == 0 && received->datagram.truncated) && refuses_cut(channel, &call->receive))
    return ip_failure(EMSGSIZE);
  return failure;
}

struct ip_failure ip_receive_try(lua_State *L, const struct ip_operation_type *type,
                                 const struct ip_receive_call *call, struct ip_received *received,
                                 bool *yields) {
  struct ip_watcher *watcher = &call->box->socket->watcher;
  struct ip_runtime *runtime = watcher->runtime;
  ip_operation_check(L, runtime, type);
  *yields = *yields || runtime->budget <= 0;
  if (*yields || ip_watcher_has_waiters(watcher, IP_SIDE_READ)) return ip_failure(EAGAIN);
  if (ip_receive_skips_try(runtime, call->box)) return ip_failure(EAGAIN);
  struct ip_failure failure = try_once(&call->box->socket->channel, call, received);
  if (IP_LIKELY(failure.code == 0)) runtime->budget--;
  return failure;
}

bool ip_receive_start(lua_State *L, const struct ip_operation_type *type, const struct ip_receive_call *call,
                      struct ip_received *received, bool *yields) {
  struct ip_failure failure = ip_receive_try(L, type, call, received, yields);
  if (IP_LIKELY(failure.code == 0)) return true;
  if (failure.code != EAGAIN) ip_socket_raise(L, failure, type->name);
  return false;
}

void ip_receive_read(lua_State *L, const char *operation, int flags, uint8_t wants,
                     struct ip_receive_call *call) {
  const struct ip_runtime *runtime = ip_runtime(L);
  int count = lua_gettop(L);
  call->box = ip_socket_peek_open(L, runtime, operation);
  struct ip_bytes *span = ip_peek_class_of(L, &runtime->core, 2, IP_CLASS_BYTE_SPAN);
  if (IP_UNLIKELY(span == NULL)) {
    lua_settop(L, count);
    span = ip_byte_span_check(L, 2);
  }
  call->receive.data = span->data;
  call->receive.size = span->length;
  call->receive.flags = IP_LIKELY(count < flags) ? 0 : ip_message_flag_optional(L, flags, true, operation);
  call->receive.wants = wants;
}

/* --- methods --- */

/* sock:receive(buf[, flags]) -> n, truncated: receives one datagram into `buf`. An empty buf waits for a
   datagram and consumes it. flags: ip.message_flag.peek. Raises ETIMEDOUT (receive_timeout), ECANCELED,
   ESHUTDOWN, ECONNREFUSED and other errors that the network reported for an earlier datagram of a connected
   socket. Suspends: yes. Source: recv(2). */
int ip_socket_receive(lua_State *L) {
  struct ip_receive_call call;
  struct ip_received received;
  bool yields = false;
  ip_receive_read(L, "receive", 3, 0, &call);
  if (IP_LIKELY(ip_receive_start(L, &receive_type, &call, &received, &yields)))
    return push_datagram(L, &received.datagram);
  return ip_receive_wait(L, &receive_type, &call, yields);
}

/* sock:receive_from(buf[, flags]) -> n, address, port, truncated: like receive, with the sender's endpoint.
   Suspends: yes. Source: recvfrom(2). */
int ip_socket_receive_from(lua_State *L) {
  struct ip_receive_call call;
  struct ip_received received;
  bool yields = false;
  ip_receive_read(L, "receive_from", 3, IP_WANTS_SOURCE, &call);
  if (IP_LIKELY(ip_receive_start(L, &receive_from_type, &call, &received, &yields)))
    return push_datagram_from(L, call.box, &received.datagram);
  return ip_receive_wait(L, &receive_from_type, &call, yields);
}

/* Reads the arguments (self, [size[, flags]]); the datagram goes into the runtime's scratch. [-0, +0, e] */
static void read_string_call(lua_State *L, const char *operation, struct ip_receive_call *call) {
  call->box = ip_socket_check_open(L, operation);
  lua_Integer size = ip_argument_optional_integer(L, 2, 0, LUA_MAXINTEGER, LARGEST_DATAGRAM);
  call->receive = (struct ip_receive){.data = ip_runtime_scratch(ip_runtime(L)),
                                      .size = size < LARGEST_DATAGRAM ? (size_t)size : LARGEST_DATAGRAM,
                                      .flags = ip_message_flag_optional(L, 3, true, operation),
                                      .wants = IP_WANTS_SOURCE};
  if (call->receive.data == NULL) ip_error_memory(L);
}

/* sock:receive_string([size[, flags]]) -> string, address, port, truncated: receives at most `size` bytes
   (default: any datagram, whole) as a new string. Suspends: yes. */
int ip_socket_receive_string(lua_State *L) {
  const struct ip_operation_type *type = &receive_string_type;
  struct ip_receive_call call;
  struct ip_received received;
  bool yields = false;
  read_string_call(L, type->name, &call);
  if (!ip_receive_start(L, type, &call, &received, &yields)) return ip_receive_wait(L, type, &call, yields);
  return push_string_from(L, call.receive.data, &received.datagram);
}

bool ip_receive_at_once(lua_State *L, const struct ip_operation_type *type,
                        const struct ip_receive_call *call, struct ip_received *received) {
  struct ip_socket *socket = call->box->socket;
  if (ip_watcher_has_waiters(&socket->watcher, IP_SIDE_READ)) return false;
  struct ip_failure failure = try_once(&socket->channel, call, received);
  if (failure.code != 0 && failure.code != EAGAIN) ip_socket_raise(L, failure, type->name);
  return failure.code == 0;
}

/* sock:try_receive(buf[, flags]) -> n, truncated | nil, err: like receive, but returns nil and an EAGAIN
   error instead of waiting. Suspends: no. */
int ip_socket_try_receive(lua_State *L) {
  static const struct ip_operation_type type = {.name = "try_receive"};
  struct ip_receive_call call;
  struct ip_received received;
  ip_receive_read(L, type.name, 3, 0, &call);
  if (ip_receive_at_once(L, &type, &call, &received)) return push_datagram(L, &received.datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, type.name);
}

/* sock:try_receive_from(buf[, flags]) -> n, address, port, truncated | nil, err. Suspends: no. */
int ip_socket_try_receive_from(lua_State *L) {
  static const struct ip_operation_type type = {.name = "try_receive_from"};
  struct ip_receive_call call;
  struct ip_received received;
  ip_receive_read(L, type.name, 3, IP_WANTS_SOURCE, &call);
  if (ip_receive_at_once(L, &type, &call, &received))
    return push_datagram_from(L, call.box, &received.datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, type.name);
}

/* sock:try_receive_string([size[, flags]]) -> string, address, port, truncated | nil, err. Suspends: no. */
int ip_socket_try_receive_string(lua_State *L) {
  static const struct ip_operation_type type = {.name = "try_receive_string"};
  struct ip_receive_call call;
  struct ip_received received;
  read_string_call(L, type.name, &call);
  if (ip_receive_at_once(L, &type, &call, &received))
    return push_string_from(L, call.receive.data, &received.datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, type.name);
}
