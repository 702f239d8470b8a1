/* session.c: ip.udp.session: what a program does with one peer of a listener. Its methods are those of a
   connected socket.

   Owns the session in its box, which keeps the listener alive. A receive first takes what is there, then
   looks at the socket, and only then waits. Each method says what it raises. */
#include "udp/session.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "udp/message_flag.h"
#include "udp/peers.h"
#include "udp/property.h"
#include "udp/send.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>

enum { LARGEST_DATAGRAM = 65535 };

/* The user values of the box. */
enum { LISTENER = 1, REMOTE_ADDRESS, USER_VALUES = REMOTE_ADDRESS };

/* --- checks --- */

struct ip_session_box *ip_session_check(lua_State *L, int arg) {
  return ip_check_class(L, arg, IP_CLASS_SESSION);
}

static struct ip_session_box *check(lua_State *L) {
  return ip_session_check(L, 1);
}

/* Raises the error of a session that is over. [-0, +0, e] */
IP_NO_RETURN static int raise_over(lua_State *L, const struct ip_session_box *box, const char *operation) {
  if (box->idle) ip_error_raise(L, ETIMEDOUT, operation);
  ip_error_raise_with_hint(L, EBADF, operation, "the session is closed");
}

/* Returns the box at 1, whose session is open; raises EBADF or, where its peer was silent, ETIMEDOUT.
   [-0, +0, e] */
static struct ip_session_box *check_open(lua_State *L, const char *operation) {
  struct ip_session_box *box = check(L);
  if (box->session != NULL) ip_session_expire(box->session);
  if (IP_UNLIKELY(box->socket.socket == NULL)) raise_over(L, box, operation);
  return box;
}

struct ip_session_box *ip_session_push(lua_State *L, int listener) {
  struct ip_session_box *box = lua_newuserdatauv(L, sizeof *box, USER_VALUES);
  *box = (struct ip_session_box){.session = NULL};
  ip_class_set(L, IP_CLASS_SESSION);
  lua_pushvalue(L, listener);
  lua_setiuservalue(L, -2, LISTENER);
  return box;
}

/* session:close(): ends the session; pending calls raise ECANCELED, and datagrams that nobody has received
   are gone. The peer's next datagram begins a new session. Closing again does nothing. Also __close and __gc.
   Suspends: no. */
static int session_close(lua_State *L) {
  struct ip_session_box *box = check(L);
  if (box->session != NULL) {
    box->dropped = box->session->dropped;
    ip_session_close(box->session);
  }
  box->idle = false;
  return 0;
}

/* --- receiving --- */

static struct ip_session *session_of(const struct ip_operation *operation) {
  return ip_container_of((struct ip_peer_point *)operation->object, struct ip_session, point);
}

static bool attempt(struct ip_operation *operation) {
  return ip_session_take(session_of(operation), &operation->payload.receive, &operation->received->datagram,
                         &operation->failure);
}

/* Pushes the address of the peer, which is made once. [-0, +1, m] */
static void push_address(lua_State *L, const struct ip_session_box *box) {
  if (lua_getiuservalue(L, 1, REMOTE_ADDRESS) != LUA_TNIL) return;
  struct ip_address address;
  ip_endpoint_get_address(&box->remote, &address);
  ip_address_push(L, &address);
  lua_replace(L, -2);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, REMOTE_ADDRESS);
}

static int push_datagram(lua_State *L, const struct ip_datagram *datagram) {
  lua_pushinteger(L, (lua_Integer)datagram->length);
  lua_pushboolean(L, datagram->truncated);
  return 2;
}

static int push_string(lua_State *L, const void *data, const struct ip_datagram *datagram) {
  const struct ip_session_box *box = lua_touserdata(L, 1);
  lua_pushlstring(L, data, datagram->length);
  push_address(L, box);
  lua_pushinteger(L, ip_endpoint_port(&box->remote));
  lua_pushboolean(L, datagram->truncated);
  return 4;
}

static int push_received(lua_State *L, struct ip_result *result) {
  return push_datagram(L, &result->received->datagram);
}

static int push_received_string(lua_State *L, struct ip_result *result) {
  return push_string(L, result->payload.receive.data, &result->received->datagram);
}

/* Names the peer in errors. */
static void describe(lua_State *L, struct ip_error_detail *detail) {
  const struct ip_session_box *box = ip_test_class(L, 1, IP_CLASS_SESSION);
  if (box == NULL) return;
  struct ip_address address;
  ip_endpoint_get_address(&box->remote, &address);
  ip_error_set_endpoint(detail, &address, ip_endpoint_port(&box->remote));
}

#define RECEIVE_TYPE(text, pusher)                                                                           \
  {                                                                                                          \
    .name = (text), .attempt = attempt, .unlinked = ip_wait_point_unlinked,                                  \
    .final_attempt = ip_peers_final_attempt, .push_results = (pusher), .describe = describe                  \
  }
static const struct ip_operation_type receive_type = RECEIVE_TYPE("receive", push_received);
static const struct ip_operation_type receive_string_type =
    RECEIVE_TYPE("receive_string", push_received_string);
static const struct ip_operation_type try_receive_type = {.name = "try_receive", .describe = describe};
static const struct ip_operation_type try_receive_string_type = {.name = "try_receive_string",
                                                                 .describe = describe};

/* Takes what is there; false: nothing. Raises a failure, and the end of an idle session. [-0, +0, e] */
static bool take(lua_State *L, const struct ip_operation_type *type, struct ip_session_box *box,
                 const struct ip_receive *receive, struct ip_received *received) {
  struct ip_failure failure = ip_failure(0);
  struct ip_session *session = box->session;
  if (session == NULL) raise_over(L, box, type->name);
  bool taken = ip_session_take(session, receive, &received->datagram, &failure);
  if (IP_UNLIKELY(box->socket.socket == NULL)) { /* idle: its last datagrams are delivered */
    if (!taken) raise_over(L, box, type->name);
    if (session->datagrams.count == 0) ip_session_close(session);
  }
  if (failure.code != 0) ip_operation_raise(L, type, IP_ERROR_SYSTEM, failure);
  return taken;
}

/* Looks at the socket; true when there is a datagram for this session. [-0, +0, e] */
static bool look(lua_State *L, const struct ip_operation_type *type, struct ip_session_box *box,
                 const struct ip_receive *receive, struct ip_received *received) {
  struct ip_peers *peers = box->session->point.peers;
  bool direct = !(receive->flags & MSG_PEEK); /* else the datagram stays in the session */
  struct ip_failure failure = ip_peers_read(L, peers, box, &direct, received);
  if (failure.code == EAGAIN) {
    ip_session_expire(box->session);
    if (box->socket.socket == NULL) raise_over(L, box, type->name);
    return false;
  }
  bool canceled = failure.code == EBADF && type->attempt != NULL; /* as when it had waited */
  if (failure.code != 0)
    ip_operation_raise(L, type, IP_ERROR_SYSTEM, canceled ? ip_failure(ECANCELED) : failure);
  if (!direct) return take(L, type, box, receive, received);
  ip_session_copy(ip_runtime_scratch(ip_runtime(L)), received->datagram.length, receive, &received->datagram);
  return true;
}

static bool start(lua_State *L, const struct ip_operation_type *type, struct ip_session_box *box,
                  const struct ip_receive *receive, struct ip_received *received, bool *yields) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, type);
  if (box->socket.socket == NULL) return take(L, type, box, receive, received);
  const struct ip_session *session = box->session;
  *yields = runtime->budget <= 0;
  if (*yields || ip_wait_point_has_waiters(&session->point.wait)) return false;
  if (!take(L, type, box, receive, received)) {
    if (ip_peers_skips_try(session->point.peers, box->socket.receive_timeout)) return false;
    if (!look(L, type, box, receive, received)) return false;
  }
  runtime->budget--;
  return true;
}

static int wait_to_receive(lua_State *L, const struct ip_operation_type *type, struct ip_session_box *box,
                           const struct ip_receive *receive, bool yields) {
  ip_deadline deadline = ip_deadline_after(box->socket.receive_timeout);
  struct ip_operation *operation = ip_operation_acquire(L, ip_runtime(L), type, deadline, yields);
  ip_socket_tie(L, operation, &box->socket); /* a finalizer may have ended the session */
  operation->payload.receive = *receive;
  ip_peers_wait(&box->session->point, operation, yields, false);
  return ip_operation_suspend(L, operation);
}

/* Returns the box at 1 unless its session is closed: an idle one may have datagrams. [-0, +0, e] */
static struct ip_session_box *check_receivable(lua_State *L, const char *operation) {
  struct ip_session_box *box = check(L);
  if (IP_UNLIKELY(box->socket.socket == NULL && !box->idle)) raise_over(L, box, operation);
  return box;
}

/* Reads the arguments (self, buf[, flags]). [-0, +0, e] */
static struct ip_session_box *read_receive(lua_State *L, const char *operation, struct ip_receive *receive) {
  struct ip_session_box *box = check_receivable(L, operation);
  const struct ip_bytes *span = ip_byte_span_check(L, 2);
  *receive = (struct ip_receive){
      .data = span->data, .size = span->length, .flags = ip_message_flag_optional(L, 3, true, operation)};
  return box;
}

/* Reads the arguments (self[, size[, flags]]). [-0, +0, e] */
static struct ip_session_box *read_receive_string(lua_State *L, const char *operation,
                                                  struct ip_receive *receive) {
  struct ip_session_box *box = check_receivable(L, operation);
  lua_Integer size = ip_argument_optional_integer(L, 2, 0, LUA_MAXINTEGER, LARGEST_DATAGRAM);
  *receive = (struct ip_receive){.data = ip_runtime_scratch(ip_runtime(L)),
                                 .size = size < LARGEST_DATAGRAM ? (size_t)size : LARGEST_DATAGRAM,
                                 .flags = ip_message_flag_optional(L, 3, true, operation)};
  if (receive->data == NULL) ip_error_memory(L);
  return box;
}

/* session:receive(buf[, flags]) -> n, truncated: receives the peer's next datagram into `buf`. flags:
   ip.message_flag.peek. Raises ETIMEDOUT (receive_timeout, or idle_timeout of the listener), ECANCELED,
   EBADF, and, with the option receive_errors, what the network reported for an earlier datagram to this peer.
   Suspends: yes. */
static int session_receive(lua_State *L) {
  struct ip_receive receive;
  struct ip_received received;
  bool yields = false;
  struct ip_session_box *box = read_receive(L, receive_type.name, &receive);
  if (start(L, &receive_type, box, &receive, &received, &yields)) return push_datagram(L, &received.datagram);
  return wait_to_receive(L, &receive_type, box, &receive, yields);
}

/* session:receive_string([size[, flags]]) -> string, address, port, truncated: receives at most `size` bytes
   (default: any datagram, whole) as a new string. Raises as receive does. Suspends: yes. */
static int session_receive_string(lua_State *L) {
  struct ip_receive receive;
  struct ip_received received;
  bool yields = false;
  struct ip_session_box *box = read_receive_string(L, receive_string_type.name, &receive);
  if (start(L, &receive_string_type, box, &receive, &received, &yields))
    return push_string(L, receive.data, &received.datagram);
  return wait_to_receive(L, &receive_string_type, box, &receive, yields);
}

/* The try_ forms: true when there is a datagram; false also while other receives wait. */
static bool try_to_receive(lua_State *L, const struct ip_operation_type *type, struct ip_session_box *box,
                           const struct ip_receive *receive, struct ip_received *received) {
  if (box->session != NULL && ip_wait_point_has_waiters(&box->session->point.wait)) return false;
  return take(L, type, box, receive, received) || look(L, type, box, receive, received);
}

/* session:try_receive(buf[, flags]) -> n, truncated | nil, err: like receive, but returns nil and an EAGAIN
   error instead of waiting. It looks at the socket. Suspends: no. */
static int session_try_receive(lua_State *L) {
  struct ip_receive receive;
  struct ip_received received;
  struct ip_session_box *box = read_receive(L, "try_receive", &receive);
  if (try_to_receive(L, &try_receive_type, box, &receive, &received))
    return push_datagram(L, &received.datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, "try_receive");
}

/* session:try_receive_string([size[, flags]]) -> string, address, port, truncated | nil, err. Suspends:
   no. */
static int session_try_receive_string(lua_State *L) {
  struct ip_receive receive;
  struct ip_received received;
  struct ip_session_box *box = read_receive_string(L, "try_receive_string", &receive);
  if (try_to_receive(L, &try_receive_string_type, box, &receive, &received))
    return push_string(L, receive.data, &received.datagram);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, "try_receive_string");
}

/* --- sending --- */

/* Reads the arguments (self, data[, flags]), again after a wait: what was pushed for the first reading stands
   behind the flags. [-?, +?, e] */
static void read_send(lua_State *L, const char *operation, struct ip_send_call *call) {
  if (IP_LIKELY(lua_gettop(L) == 2)) lua_pushnil(L);
  struct ip_session_box *box = check_open(L, operation);
  struct ip_session *session = box->session;
  call->box = &box->socket;
  call->owner = box;
  call->send.flags = ip_message_flag_optional(L, 3, false, operation);
  call->send.done = 0;
  call->send.control = session->answer;
  call->send.remote = session->entry.endpoint;
  call->send.to = &call->send.remote;
  ip_session_touch(session);
  ip_send_read_data(L, operation, call);
}

static const struct ip_send_type send_type = IP_SEND_TYPE("send", read_send, describe);
static const struct ip_send_type try_send_type = IP_SEND_TYPE("try_send", read_send, describe);
static const struct ip_send_type send_with_type = IP_SEND_TYPE("send_with", read_send, describe);

/* session:send(data[, flags]) -> n: sends one datagram to the peer, from the address that the peer used where
   the listener is bound to all addresses. Raises EMSGSIZE, ETIMEDOUT (send_timeout, idle_timeout), ECANCELED,
   EBADF and other errors of sendto(2). Suspends: yes, while the system's buffer is full. */
static int session_send(lua_State *L) {
  return ip_send_start(L, &send_type);
}

/* session:try_send(data[, flags]) -> n | nil, err. Suspends: no. */
static int session_try_send(lua_State *L) {
  return ip_send_at_once(L, &try_send_type);
}

/* For lua/ip/udp_fill.lua, before the user fills a datagram. prepare_session_fill(session): raises the errors
   of a session that is over, and of a call that cannot suspend. Suspends: no. */
static int prepare_session_fill(lua_State *L) {
  check_open(L, send_with_type.operation.name);
  ip_operation_check(L, ip_runtime(L), &send_with_type.operation);
  return 0;
}

/* For lua/ip/udp_fill.lua. session_send_filled(session, span) -> n: send, named send_with in errors.
   Suspends: yes. */
static int session_send_filled(lua_State *L) {
  return ip_send_start(L, &send_with_type);
}

/* --- properties --- */

static int session_get_is_open(lua_State *L) {
  const struct ip_session_box *box = check(L);
  if (box->session != NULL) ip_session_expire(box->session);
  lua_pushboolean(L, box->socket.socket != NULL);
  return 1;
}

static int session_get_dropped(lua_State *L) {
  const struct ip_session_box *box = check(L);
  lua_pushinteger(L, (lua_Integer)(box->session != NULL ? box->session->dropped : box->dropped));
  return 1;
}

static int session_get_remote_address(lua_State *L) {
  push_address(L, check_receivable(L, "remote_address"));
  return 1;
}

static int session_get_remote_port(lua_State *L) {
  lua_pushinteger(L, ip_endpoint_port(&check_receivable(L, "remote_port")->remote));
  return 1;
}

static int session_get_receive_timeout(lua_State *L) {
  return ip_socket_push_timeout(L, check(L)->socket.receive_timeout);
}

static int session_set_receive_timeout(lua_State *L) {
  check(L)->socket.receive_timeout = ip_socket_check_timeout(L, 3);
  return 0;
}

static int session_get_send_timeout(lua_State *L) {
  return ip_socket_push_timeout(L, check(L)->socket.send_timeout);
}

static int session_set_send_timeout(lua_State *L) {
  check(L)->socket.send_timeout = ip_socket_check_timeout(L, 3);
  return 0;
}

static int session_tostring(lua_State *L) {
  const struct ip_session_box *box = check(L);
  char text[IP_ENDPOINT_TEXT_SIZE];
  struct ip_address address;
  ip_endpoint_get_address(&box->remote, &address);
  ip_address_format_with_port(&address, ip_endpoint_port(&box->remote), text);
  const char *state = box->socket.socket != NULL ? "" : box->idle ? ", idle" : ", closed";
  lua_pushfstring(L, "ip.udp.session (%s%s): %p", text, state, lua_topointer(L, 1));
  return 1;
}

/* --- registration --- */

static const luaL_Reg methods[] = {
    {"receive", session_receive},
    {"receive_string", session_receive_string},
    {"try_receive", session_try_receive},
    {"try_receive_string", session_try_receive_string},
    {"send", session_send},
    {"try_send", session_try_send},
    {"close", session_close},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", session_close},
    {"__close", session_close},
    {"__tostring", session_tostring},
    {NULL, NULL},
};

static const struct ip_property properties[] = {
    {"is_open", session_get_is_open, NULL},
    {"dropped", session_get_dropped, NULL},
    {"remote_address", session_get_remote_address, NULL},
    {"remote_port", session_get_remote_port, NULL},
    {"receive_timeout", session_get_receive_timeout, session_set_receive_timeout},
    {"send_timeout", session_get_send_timeout, session_set_send_timeout},
    {NULL, NULL, NULL},
};

/* add_session_methods{name = function, ...}: adds methods to the class. lua/ip/udp.lua calls it once and
   removes it. */
static int add_session_methods(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  ip_class_add_methods(L, IP_CLASS_SESSION, 1);
  return 0;
}

void ip_session_open(lua_State *L, int core) {
  static const struct ip_class_definition definition = {.name = "ip.udp.session",
                                                        .id = IP_CLASS_SESSION,
                                                        .methods = methods,
                                                        .metamethods = metamethods,
                                                        .properties = properties};
  ip_class_define(L, core, &definition);
}

void ip_session_add_internals(lua_State *L, int core) {
  static const luaL_Reg internals[] = {{"add_session_methods", add_session_methods},
                                       {"prepare_session_fill", prepare_session_fill},
                                       {"session_send_filled", session_send_filled},
                                       {NULL, NULL}};
  ip_class_functions(L, core, internals);
}
