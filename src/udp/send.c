/* send.c: send, send_to, their try_ forms, the sends of a filled buffer (send_with), flush. Owns nothing.
   Each method says what it raises.

   Every call first tries its system call; only EAGAIN suspends. When the socket is writable again, the
   suspended call is woken and makes its system call itself: its arguments are still in its frame, so waiting
   copies nothing. */
#include "udp/send.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/error_queue.h"
#include "udp/message_flag.h"
#include "udp/send_queue.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>

/* --- waiting --- */

/* Wakes the call, which tries again itself with the same deadline. */
bool ip_send_attempt(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  if (operation->is.nonblocking) operation->payload.send.deadline = IP_AT_ONCE;
  ip_error_queue_drain(&socket->channel);
  ip_flusher_wake_receives(&socket->watcher, &socket->channel);
  return true;
}

void ip_send_final_attempt(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  ip_watcher_attempt_soon(&socket->watcher, IP_SIDE_WRITE);
}

int ip_send_suspend(lua_State *L, const struct ip_operation_type *type, const struct ip_socket_box *box,
                    union ip_payload payload, enum ip_wait wait) {
  struct ip_operation *operation =
      ip_operation_acquire(L, ip_runtime(L), type, payload.send.deadline, wait == IP_WAIT_YIELDING);
  struct ip_socket *socket = ip_socket_tie(L, operation, box);
  operation->payload = payload;
  ip_watcher_wait(&socket->watcher, IP_SIDE_WRITE, operation, wait);
  return ip_operation_suspend(L, operation);
}

union ip_payload ip_send_payload(const struct ip_send *send, ip_deadline deadline) {
  return (union ip_payload){.send = {
                                .size = (uint32_t)(ip_data_size(&send->data) - send->done),
                                .done = (uint32_t)send->done,
                                .deadline = deadline,
                            }};
}

/* Completing an operation removes it from the queue. */
void ip_send_fail_owner(struct ip_watcher *watcher, const void *owner, int code) {
  struct ip_queue *link = watcher->waiters[IP_SIDE_WRITE].next;
  while (link != &watcher->waiters[IP_SIDE_WRITE]) {
    struct ip_ready *ready = ip_container_of(link, struct ip_ready, link);
    struct ip_operation *operation = ip_container_of(ready, struct ip_operation, ready);
    link = link->next;
    if (operation->payload.send.owner == owner) ip_operation_complete_with(operation, code);
  }
}

static int wait_to_send(lua_State *L, const struct ip_send_type *type, const struct ip_send_call *call,
                        ip_deadline deadline, enum ip_wait wait) {
  union ip_payload payload = ip_send_payload(&call->send, deadline);
  payload.send.owner = call->owner;
  return ip_send_suspend(L, &type->operation, call->box, payload, wait);
}

/* --- one attempt --- */

void ip_send_finish(struct ip_socket *socket) {
  ip_flusher_schedule(socket->flusher);
  ip_flusher_wake_receives(&socket->watcher, &socket->channel);
}

/* Sends through the send path or the send queue. */
static struct ip_failure send_by_path(struct ip_socket *socket, struct ip_send *send, size_t *sent) {
  ip_send_queue_note_iteration(&socket->channel, socket->watcher.runtime->iteration);
  struct ip_failure failure = ip_send_queue_send(&socket->channel, send, sent);
  if (!ip_send_queue_sends_at_once(&socket->channel)) ip_send_finish(socket);
  return failure;
}

static inline struct ip_failure try_once(struct ip_socket *socket, struct ip_send *send, size_t *sent) {
  struct ip_channel *channel = &socket->channel;
  if (IP_UNLIKELY(channel->shut_send)) return ip_failure(EPIPE);
  if (IP_UNLIKELY(channel->send != NULL || send->control.items != 0)) return send_by_path(socket, send, sent);
  int error = ip_datagram_send(channel->fd, send->data.parts, send->data.count, send->to, send->flags, sent);
  return IP_LIKELY(error == 0) ? ip_failure(0) : ip_send_path_failure(channel, error, 0);
}

struct ip_failure ip_send_try(struct ip_socket *socket, struct ip_send *send, size_t *sent) {
  return try_once(socket, send, sent);
}

/* Tries once; true, and the number of bytes, when the system has accepted the datagram. Raises any error
   except EAGAIN. [-0, +0, e] */
static bool try_to_send(lua_State *L, const struct ip_operation_type *type, struct ip_send_call *call,
                        size_t *sent) {
  struct ip_failure failure = try_once(call->box->socket, &call->send, sent);
  if (IP_UNLIKELY(failure.code != 0 && failure.code != EAGAIN))
    ip_operation_raise(L, type, IP_ERROR_SYSTEM, failure);
  return failure.code == 0;
}

static int push_sent(lua_State *L, size_t sent) {
  lua_pushinteger(L, (lua_Integer)sent);
  return 1;
}

int ip_send_continue(lua_State *L, struct ip_result *result) {
  const struct ip_send_type *type = (const struct ip_send_type *)result->type;
  struct ip_send_call call;
  size_t sent;
  type->read(L, type->operation.name, &call);
  call.send.done = result->payload.send.done;
  if (try_to_send(L, &type->operation, &call, &sent)) return push_sent(L, sent);
  ip_watcher_note_fruitless(&call.box->socket->watcher);
  return wait_to_send(L, type, &call, result->payload.send.deadline, IP_WAIT_FIRST);
}

int ip_send_start(lua_State *L, const struct ip_send_type *type) {
  struct ip_send_call call;
  type->read(L, type->operation.name, &call);
  struct ip_socket *socket = call.box->socket;
  struct ip_runtime *runtime = socket->watcher.runtime;
  ip_operation_check(L, runtime, &type->operation);
  if (IP_UNLIKELY(socket->channel.shut_send))
    return ip_operation_raise(L, &type->operation, IP_ERROR_SYSTEM, ip_failure(EPIPE));
  bool yields = runtime->budget <= 0;
  size_t sent;
  if (IP_UNLIKELY(yields || ip_watcher_has_waiters(&socket->watcher, IP_SIDE_WRITE) ||
                  !try_to_send(L, &type->operation, &call, &sent))) {
    ip_deadline deadline = ip_deadline_after(call.box->send_timeout);
    return wait_to_send(L, type, &call, deadline, yields ? IP_WAIT_YIELDING : IP_WAIT);
  }
  runtime->budget--;
  return push_sent(L, sent);
}

/* --- arguments --- */

/* Reading the data may have run a finalizer. [-0, +0, e] */
static void check_still_open(lua_State *L, const char *operation, const struct ip_send_call *call) {
  if (IP_UNLIKELY(call->box->socket == NULL)) ip_error_raise(L, EBADF, operation);
}

void ip_send_read_data(lua_State *L, const char *operation, struct ip_send_call *call) {
  const struct ip_runtime *runtime = call->box->socket->watcher.runtime;
  const struct ip_bytes *span = ip_peek_class_of(L, &runtime->core, 2, IP_CLASS_BYTE_SPAN);
  if (IP_LIKELY(span != NULL)) {
    ip_data_set(&call->send.data, span->data, span->length);
    return;
  }
  ip_argument_data(L, 2, &call->send.data); /* allocates a vector for many parts */
  check_still_open(L, operation, call);
}

/* Checks the data of a call that fails because arguments are missing: of several wrong arguments the first is
   the one to name. Nothing is pushed, now or when the data are read, so that the error of the missing
   argument says "no value". [-?, +0, e] */
static void check_data_alone(lua_State *L, const char *operation, int count, struct ip_send_call *call) {
  lua_settop(L, count);
  ip_argument_data(L, 2, &call->send.data);
  lua_pushliteral(L, "");
  lua_replace(L, 2);
  lua_settop(L, count);
  check_still_open(L, operation, call);
}

void ip_send_read_call(lua_State *L, const char *operation, int needed, struct ip_send_call *call) {
  int count = lua_gettop(L);
  if (IP_LIKELY(count == needed))
    lua_pushnil(L);
  else if (count > needed)
    lua_settop(L, needed + 1);
  call->box = ip_socket_peek_open(L, ip_runtime(L), operation);
  if (IP_UNLIKELY(count < needed)) check_data_alone(L, operation, count, call);
  call->owner = NULL;
  struct ip_send *send = &call->send;
  send->flags = IP_LIKELY(count <= needed) ? 0 : ip_message_flag_optional(L, needed + 1, false, operation);
  send->control.items = 0;
  send->done = 0;
  send->to = NULL;
}

/* Reads the address at 3. Most sends answer the last sender, whose address the box has: that object needs no
   class check. [-0, +0, v] */
static void read_address(lua_State *L, const struct ip_socket_box *box, struct ip_address *address) {
  const struct ip_address *object = lua_touserdata(L, 3);
  if (IP_LIKELY(object != NULL && object == box->socket->peer))
    *address = *object;
  else
    ip_address_argument(L, 3, address);
}

/* Reads the arguments (self, data[, flags]). [-0, +(0|1), e] */
static void read_send(lua_State *L, const char *operation, struct ip_send_call *call) {
  ip_send_read_call(L, operation, 2, call);
  ip_send_read_data(L, operation, call);
  if (IP_UNLIKELY(call->box->socket->channel.connection == NULL)) ip_error_raise(L, EDESTADDRREQ, operation);
}

/* Reads the arguments (self, data, addr, port[, flags]). [-0, +(0|1), e] */
static void read_send_to(lua_State *L, const char *operation, struct ip_send_call *call) {
  ip_send_read_call(L, operation, 4, call);
  ip_send_read_data(L, operation, call);
  struct ip_address address;
  read_address(L, call->box, &address);
  uint16_t port = ip_argument_port(L, 4);
  ip_endpoint_set(&call->send.remote, ip_channel_family(&call->box->socket->channel), &address, port);
  call->send.to = &call->send.remote;
  if (IP_UNLIKELY(address.scope_id != 0)) /* no other interface is named */
    (void)ip_send_path_use_scope(&call->box->socket->channel, &call->send);
}

static bool is_for_v6_only(const struct ip_channel *channel) {
  bool dual_stack = false;
  return channel->is_v6 && ip_association_is_dual_stack(channel, &dual_stack) == 0 && !dual_stack;
}

void ip_send_describe(lua_State *L, const struct ip_address *address, lua_Integer port,
                      struct ip_error_detail *detail) {
  const struct ip_socket_box *box = ip_test_class(L, 1, IP_CLASS_SOCKET);
  bool is_v4 = ip_address_unmapped(address).version == 4;
  if (detail->error.code == ENETUNREACH && is_v4 && box != NULL && box->socket != NULL &&
      is_for_v6_only(&box->socket->channel))
    detail->hint = "the socket is for IPv6 addresses only";
  ip_error_set_endpoint(detail, address, (uint16_t)port);
  detail->error.to_port_0 = port == 0;
}

void ip_send_describe_endpoint(lua_State *L, int address, int port, struct ip_error_detail *detail) {
  struct ip_address found;
  if (ip_address_read(L, address, &found)) ip_send_describe(L, &found, lua_tointeger(L, port), detail);
}

static void describe_send_to(lua_State *L, struct ip_error_detail *detail) {
  ip_send_describe_endpoint(L, 3, 4, detail);
}

static const struct ip_send_type send_type = IP_SEND_TYPE("send", read_send, NULL);
static const struct ip_send_type send_to_type = IP_SEND_TYPE("send_to", read_send_to, describe_send_to);
static const struct ip_send_type send_with_type = IP_SEND_TYPE("send_with", read_send, NULL);
static const struct ip_send_type send_to_with_type =
    IP_SEND_TYPE("send_to_with", read_send_to, describe_send_to);
static const struct ip_send_type try_send_type = IP_SEND_TYPE("try_send", read_send, NULL);
static const struct ip_send_type try_send_to_type =
    IP_SEND_TYPE("try_send_to", read_send_to, describe_send_to);

/* --- methods --- */

/* sock:send(data[, flags]) -> n: sends one datagram to the connected peer. data: string, byte_span or a
   sequence of those; an empty sequence is an empty datagram. EDESTADDRREQ when not connected; EMSGSIZE when
   too large; ETIMEDOUT (send_timeout); EPIPE after shutdown; ECONNREFUSED is the error of an earlier
   datagram, and this one was not sent. Suspends: yes, while the system's buffer is full. Source: send(2). */
int ip_socket_send(lua_State *L) {
  return ip_send_start(L, &send_type);
}

/* sock:send_to(data, addr, port[, flags]) -> n: sends one datagram to an endpoint. EINVAL for port 0; EACCES
   for a broadcast address without the option. Suspends: yes, while the system's buffer is full. Source:
   sendto(2). */
int ip_socket_send_to(lua_State *L) {
  return ip_send_start(L, &send_to_type);
}

/* For lua/ip/udp_fill.lua, before the user fills a datagram. prepare_fill(sock[, addr]) -> boolean, problem:
   raises EBADF, EPIPE and the errors of a call that cannot suspend; `addr` selects send_to_with. The boolean:
   is there a destination? problem: the error in an `addr` that is text. Suspends: no. */
int ip_socket_prepare_fill(lua_State *L) {
  bool with_address = !lua_isnone(L, 2);
  const struct ip_operation_type *type =
      with_address ? &send_to_with_type.operation : &send_with_type.operation;
  const struct ip_socket *socket = ip_socket_check_open(L, type->name)->socket;
  ip_operation_check(L, socket->watcher.runtime, type);
  if (socket->channel.shut_send) return ip_error_raise(L, EPIPE, type->name);
  lua_pushboolean(L, with_address || socket->channel.connection != NULL);
  if (lua_type(L, 2) != LUA_TSTRING) return 1;
  size_t length;
  const char *text = lua_tolstring(L, 2, &length);
  struct ip_address address;
  const char *problem = ip_address_parse(&address, text, length);
  if (problem == NULL) return 1;
  ip_address_push_problem(L, 2, problem);
  return 2;
}

/* For lua/ip/udp_fill.lua. send_filled(sock, span) -> n: send, named send_with in errors. Suspends: yes. */
int ip_socket_send_filled(lua_State *L) {
  return ip_send_start(L, &send_with_type);
}

/* For lua/ip/udp_fill.lua. send_to_filled(sock, span, addr, port) -> n: send_to, named send_to_with in
   errors. Suspends: yes. */
int ip_socket_send_to_filled(lua_State *L) {
  return ip_send_start(L, &send_to_with_type);
}

/* If this library segments the data, the system may accept only a part of it: n is then the size of that
   part. */
int ip_send_at_once(lua_State *L, const struct ip_send_type *type) {
  struct ip_send_call call;
  size_t sent;
  type->read(L, type->operation.name, &call);
  bool queued = ip_watcher_has_waiters(&call.box->socket->watcher, IP_SIDE_WRITE);
  if (!queued && try_to_send(L, &type->operation, &call, &sent)) return push_sent(L, sent);
  if (call.send.done != 0) return push_sent(L, call.send.done);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, type->operation.name);
}

/* sock:try_send(data[, flags]) -> n | nil, err. Suspends: no. */
int ip_socket_try_send(lua_State *L) {
  return ip_send_at_once(L, &try_send_type);
}

/* sock:try_send_to(data, addr, port[, flags]) -> n | nil, err. Suspends: no. */
int ip_socket_try_send_to(lua_State *L) {
  return ip_send_at_once(L, &try_send_to_type);
}

/* --- flush --- */

static bool attempt_flush(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  if (!ip_flusher_flush(socket->flusher)) return false;
  operation->failure = ip_send_queue_pop_failure(&socket->channel);
  return true;
}

static int push_nothing(lua_State *L, struct ip_result *result) {
  (void)L, (void)result;
  return 0;
}

static const struct ip_operation_type flush_type = {.name = "flush",
                                                    .attempt = attempt_flush,
                                                    .final_attempt = ip_send_final_attempt,
                                                    .push_results = push_nothing,
                                                    .sends = true,
                                                    .carries_nothing = true};

/* sock:flush(): submits the datagrams that `coalesce` has queued; does nothing without that option. Raises
   the error of a datagram sent earlier, EBADF, ETIMEDOUT (send_timeout), ECANCELED. Suspends: yes, while the
   system's buffer is full. */
int ip_socket_flush(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check_open(L, flush_type.name);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &flush_type);
  bool done = ip_flusher_flush(box->socket->flusher);
  struct ip_failure failure = ip_send_queue_pop_failure(&box->socket->channel);
  if (failure.code != 0) return ip_operation_raise(L, &flush_type, IP_ERROR_SYSTEM, failure);
  if (done) return 0;
  union ip_payload payload = {.send = {.deadline = ip_deadline_after(box->send_timeout)}};
  return ip_send_suspend(L, &flush_type, box, payload, IP_WAIT_FIRST);
}
