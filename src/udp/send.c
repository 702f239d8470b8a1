/* udp_send.c: send, send_to, their try_ forms, and the sends of a buffer that was filled (send_with).

   Every call tries its system call first; only EAGAIN suspends. A suspended send is woken when the socket takes data again
   and makes its system call itself: its arguments are still in its frame, so nothing has to be copied to wait. */
#include "udp/message.h"

#include "base/util.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>
#include <limits.h>

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

void ip_transfer_read_data(lua_State *L, const char *operation, struct ip_send_call *call) {
  const struct ip_runtime *runtime = call->box->socket->readiness.runtime;
  const struct ip_bytes *span = ip_peek_class_of(L, &runtime->core, 2, IP_CLASS_BYTE_SPAN);
  if (IP_LIKELY(span != NULL)) {
    ip_data_set(&call->data, span->data, span->length);
    return;
  }
  ip_argument_data(L, 2, &call->data); /* a vector of many parts is allocated, which may run a finalizer */
  if (IP_UNLIKELY(call->box->socket == NULL)) ip_error_raise(L, EBADF, operation);
}

void ip_transfer_start_call(lua_State *L, const char *operation, int needed, struct ip_send_call *call) {
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
  call->to = NULL;
}

/* The addr argument at 3. Most answer the last sender, whose address the box holds: then it needs no look at its
   class. [-0, +0, v] */
static void read_address(lua_State *L, const struct ip_socket_box *box, struct ip_address *address) {
  const struct ip_address *object = lua_touserdata(L, 3);
  if (IP_LIKELY(object != NULL && object == box->socket->peer))
    *address = *object;
  else
    ip_address_argument(L, 3, address);
}

/* Checks the arguments (self, data[, flags]). [-0, +(0|1), e] */
static void check_send_call(lua_State *L, const char *operation, struct ip_send_call *call) {
  ip_transfer_start_call(L, operation, 2, call);
  ip_transfer_read_data(L, operation, call);
  if (IP_UNLIKELY(call->box->socket->connection == NULL)) ip_error_raise(L, EDESTADDRREQ, operation);
}

/* Checks the arguments (self, data, addr, port[, flags]). [-0, +(0|1), e] */
static void check_send_to_call(lua_State *L, const char *operation, struct ip_send_call *call) {
  ip_transfer_start_call(L, operation, 4, call);
  struct ip_address address;
  read_address(L, call->box, &address);
  uint16_t port = ip_argument_port(L, 4);
  ip_transfer_read_data(L, operation, call);
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
