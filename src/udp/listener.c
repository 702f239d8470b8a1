/* listener.c: ip.udp.listener: accepts the sessions of new peers.

   Owns the peers in its box. The program's accept function and an error of it are user values of the box, so
   that a listener to which only its own function refers can be collected. A weak table in the registry leads
   from the peers to their box, for the reader of the event loop. Each method says what it raises. */
#include "udp/listener.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "net/datagram_io.h"
#include "udp/peers.h"
#include "udp/session.h"
#include "value/address.h"

#include <errno.h>

struct listener {
  struct ip_peers *peers; /* NULL: closed */
  uint64_t dropped;       /* the count of a closed one */
};

/* The user values of the box. */
enum { ACCEPT = 1, ERROR, LOCAL_ADDRESS, USER_VALUES = LOCAL_ADDRESS };

/* Registry: a weak table from the address of peers to the box of their listener. */
static const char listeners_key;

/* --- checks --- */

static struct listener *check(lua_State *L) {
  struct listener *listener = ip_check_class(L, 1, IP_CLASS_LISTENER);
  if (IP_UNLIKELY(ip_runtime(L)->closed)) listener->peers = NULL; /* the runtime has freed them */
  return listener;
}

struct ip_peers *ip_listener_check(lua_State *L, int arg) {
  const struct listener *listener = ip_check_class(L, arg, IP_CLASS_LISTENER);
  return ip_runtime(L)->closed ? NULL : listener->peers;
}

static struct listener *check_open(lua_State *L, const char *operation) {
  struct listener *listener = check(L);
  if (listener->peers == NULL) ip_error_raise_with_hint(L, EBADF, operation, "the listener is closed");
  return listener;
}

/* listener:close(): closes the socket and ends every session; pending calls of all of them raise ECANCELED.
   Closing again does nothing. Also __close and __gc. Suspends: no. */
static int listener_close(lua_State *L) {
  struct listener *listener = check(L);
  struct ip_peers *peers = listener->peers;
  if (peers == NULL) return 0;
  listener->peers = NULL;
  listener->dropped = peers->dropped;
  ip_peers_close(peers);
  return 0;
}

/* --- the program's accept function --- */

struct question {
  const struct ip_peers *peers;
  const struct ip_endpoint *source;
  const char *data;
  size_t length;
};

/* Pushes the box of the peers, or nil while it is being collected. [-0, +1, -] */
static int push_box(lua_State *L, const struct ip_peers *peers) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &listeners_key);
  int type = lua_rawgetp(L, -1, peers);
  lua_remove(L, -2);
  return type;
}

/* (question) -> string of the datagram, or nil where the peer is refused. */
static int ask_protected(lua_State *L) {
  const struct question *question = lua_touserdata(L, 1);
  struct ip_address address;
  if (push_box(L, question->peers) != LUA_TUSERDATA) return 0;
  lua_pushlstring(L, question->data, question->length);
  lua_getiuservalue(L, 2, ACCEPT);
  ip_endpoint_get_address(question->source, &address);
  ip_address_push(L, &address);
  lua_pushinteger(L, ip_endpoint_port(question->source));
  lua_pushvalue(L, 3);
  lua_call(L, 3, 1);
  bool accepted = lua_toboolean(L, -1);
  lua_settop(L, 3);
  return accepted ? 1 : 0;
}

/* Pops an error, and keeps it for the next accept, unless one is kept already. [-1, +0, -] */
static void keep_error(lua_State *L, struct ip_peers *peers) {
  bool wanted = ip_peers_is_open(peers) && !peers->raises;
  if (push_box(L, peers) == LUA_TUSERDATA && wanted) {
    lua_pushvalue(L, -2);
    lua_setiuservalue(L, -2, ERROR);
    ip_peers_note_error(peers);
  }
  lua_pop(L, 2);
}

static const char *ask(lua_State *L, struct ip_peers *peers, const struct ip_endpoint *source,
                       const char *data, size_t length) {
  struct question question = {peers, source, data, length};
  struct ip_runtime *runtime = peers->point.wait.runtime;
  bool outer = runtime->calling_back;
  if (!lua_checkstack(L, LUA_MINSTACK)) return NULL;
  lua_pushcfunction(L, ask_protected);
  lua_pushlightuserdata(L, &question);
  runtime->calling_back = true;
  int status = lua_pcall(L, 1, 1, 0);
  runtime->calling_back = outer;
  if (status != LUA_OK) {
    keep_error(L, peers);
    return NULL;
  }
  const char *copy = lua_tostring(L, -1);
  if (copy == NULL) lua_pop(L, 1);
  return copy;
}

/* --- accepting --- */

/* Raises the error of the accept function. [-0, +0, e] */
IP_NO_RETURN static int raise_kept(lua_State *L, int index, struct ip_peers *peers) {
  ip_peers_take_error(peers);
  lua_getiuservalue(L, index, ERROR);
  lua_pushnil(L);
  lua_setiuservalue(L, index, ERROR);
  ip_error_throw(L);
}

/* Pushes the next session of the listener at `index`, and returns 0. Otherwise pushes nothing and returns
   EAGAIN: there is none, or ECANCELED: creating the userdata has run a finalizer that closed the listener.
   [-0, +(0|1), e] */
static int push_session(lua_State *L, int index) {
  const struct listener *listener = lua_touserdata(L, index);
  if (listener->peers != NULL && listener->peers->raises) raise_kept(L, index, listener->peers);
  struct ip_session_box *box = ip_session_push(L, index);
  if (listener->peers != NULL && !ip_queue_is_empty(&listener->peers->pending)) {
    ip_peers_accept(listener->peers, box);
    return 0;
  }
  lua_pop(L, 1);
  return listener->peers != NULL ? EAGAIN : ECANCELED;
}

static bool attempt(struct ip_operation *operation) {
  return ip_wait_point_is_ready(operation->object);
}

static int push_accepted(lua_State *L, struct ip_result *result);
static int push_next(lua_State *L, struct ip_result *result);
static int push_end(lua_State *L, enum ip_error_category category, struct ip_failure failure);

static const struct ip_operation_type accept_type = {.name = "accept",
                                                     .attempt = attempt,
                                                     .unlinked = ip_wait_point_unlinked,
                                                     .final_attempt = ip_peers_final_attempt,
                                                     .push_results = push_accepted};
static const struct ip_operation_type sessions_type = {.name = "sessions",
                                                       .attempt = attempt,
                                                       .unlinked = ip_wait_point_unlinked,
                                                       .final_attempt = ip_peers_final_attempt,
                                                       .push_results = push_next,
                                                       .push_failure = push_end};

/* The listener is an upvalue of the iterator that `sessions` returns. */
static int index_of(const struct ip_operation_type *type) {
  return type == &accept_type ? 1 : lua_upvalueindex(2);
}

/* Ends a call that has failed: as when it had waited. */
static int fail_accept(lua_State *L, const struct ip_operation_type *type, struct ip_failure failure) {
  int results = type->push_failure != NULL ? type->push_failure(L, IP_ERROR_SYSTEM, failure) : -1;
  return results >= 0 ? results : ip_socket_raise(L, failure, type->name);
}

static int wait_to_accept(lua_State *L, const struct ip_operation_type *type, bool yields, bool first) {
  const struct listener *listener = lua_touserdata(L, index_of(type));
  struct ip_operation *operation = ip_operation_acquire(L, ip_runtime(L), type, IP_NEVER, yields);
  int error = ECANCELED; /* a finalizer has closed it */
  if (listener->peers != NULL) error = ip_watcher_prepare(&listener->peers->socket.socket->watcher);
  if (error != 0) {
    ip_operation_release(L, operation);
    return fail_accept(L, type, ip_failure(error));
  }
  ip_peers_wait(&listener->peers->point, operation, yields, first);
  return ip_operation_suspend(L, operation);
}

/* The session is taken here and not by the attempt: its userdata may not be had. Where something else ran
   meanwhile and took the session, the call waits again. */
static int continue_accept(lua_State *L, const struct ip_operation_type *type) {
  int error = push_session(L, index_of(type));
  if (error == 0) return 1;
  return error == EAGAIN ? wait_to_accept(L, type, false, true) : fail_accept(L, type, ip_failure(error));
}

static int push_accepted(lua_State *L, struct ip_result *result) {
  (void)result;
  return continue_accept(L, &accept_type);
}

static int push_next(lua_State *L, struct ip_result *result) {
  (void)result;
  return continue_accept(L, &sessions_type);
}

/* The loop over the sessions ends when the listener is closed. */
static int push_end(lua_State *L, enum ip_error_category category, struct ip_failure failure) {
  const struct listener *listener = lua_touserdata(L, index_of(&sessions_type));
  if (category != IP_ERROR_SYSTEM || failure.code != ECANCELED || listener->peers != NULL) return -1;
  lua_pushnil(L);
  return 1;
}

/* Looks at the socket unless there is a session. EAGAIN: there is none; EBADF: the accept function has closed
   the listener. [-0, +0, -] */
static struct ip_failure look(lua_State *L, struct ip_peers *peers) {
  if (ip_wait_point_is_ready(&peers->point.wait)) return ip_failure(0);
  struct ip_received received;
  bool direct = false;
  return ip_peers_read(L, peers, NULL, &direct, &received);
}

static int start_accept(lua_State *L, const struct ip_operation_type *type, struct ip_peers *peers) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, type);
  bool yields = runtime->budget <= 0;
  const struct ip_wait_point *point = &peers->point.wait;
  if (yields || ip_wait_point_has_waiters(point)) return wait_to_accept(L, type, yields, false);
  bool skips = !ip_wait_point_is_ready(point) && ip_peers_skips_try(peers, -1);
  struct ip_failure failure = skips ? ip_failure(EAGAIN) : look(L, peers);
  if (failure.code == EAGAIN) return wait_to_accept(L, type, false, false);
  if (failure.code != 0) return fail_accept(L, type, failure.code == EBADF ? ip_failure(ECANCELED) : failure);
  runtime->budget--;
  return continue_accept(L, type);
}

/* listener:accept() -> session: the next peer that was heard for the first time; its first datagram is the
   session's first receive. Raises ECANCELED, EBADF, and what the accept function raised. Suspends: yes. */
static int listener_accept(lua_State *L) {
  struct ip_peers *peers = check_open(L, accept_type.name)->peers;
  lua_settop(L, 1);
  return start_accept(L, &accept_type, peers);
}

/* listener:try_accept() -> session | nil, err: like accept, but returns nil and an EAGAIN error instead of
   waiting. It looks at the socket. Suspends: no. */
static int listener_try_accept(lua_State *L) {
  static const char operation[] = "try_accept";
  struct ip_peers *peers = check_open(L, operation)->peers;
  struct ip_failure failure = ip_failure(EAGAIN);
  if (!ip_wait_point_has_waiters(&peers->point.wait)) failure = look(L, peers);
  if (failure.code == 0) failure = ip_failure(push_session(L, 1));
  if (failure.code == 0) return 1;
  if (failure.code != EAGAIN) return ip_socket_raise(L, failure, operation);
  return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, operation);
}

/* The function that `for` calls for each session. */
static int iterate(lua_State *L) {
  const struct listener *listener = lua_touserdata(L, index_of(&sessions_type));
  lua_settop(L, 0);
  if (listener->peers != NULL && !ip_runtime(L)->closed)
    return start_accept(L, &sessions_type, listener->peers);
  lua_pushnil(L);
  return 1;
}

/* listener:sessions() -> function for `for session in listener:sessions() do`, which accepts until the
   listener is closed. EBADF when it is closed already. Suspends: no, but the function does. */
static int listener_sessions(lua_State *L) {
  check_open(L, sessions_type.name);
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_pushcclosure(L, iterate, 2);
  return 1;
}

/* --- properties --- */

static int listener_get_is_open(lua_State *L) {
  lua_pushboolean(L, check(L)->peers != NULL);
  return 1;
}

static int listener_get_dropped(lua_State *L) {
  const struct listener *listener = check(L);
  lua_pushinteger(L, (lua_Integer)(listener->peers != NULL ? listener->peers->dropped : listener->dropped));
  return 1;
}

static struct ip_endpoint get_local(lua_State *L, const char *property) {
  const struct listener *listener = check_open(L, property);
  struct ip_endpoint local;
  int error = ip_datagram_local(listener->peers->socket.socket->channel.fd, &local);
  if (error != 0) ip_error_raise(L, error, property);
  return local;
}

static int listener_get_local_address(lua_State *L) {
  struct ip_endpoint local = get_local(L, "local_address");
  if (lua_getiuservalue(L, 1, LOCAL_ADDRESS) != LUA_TNIL) return 1;
  struct ip_address address;
  ip_endpoint_get_address(&local, &address);
  ip_address_push(L, &address);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, 1, LOCAL_ADDRESS);
  return 1;
}

static int listener_get_local_port(lua_State *L) {
  struct ip_endpoint local = get_local(L, "local_port");
  lua_pushinteger(L, ip_endpoint_port(&local));
  return 1;
}

static int listener_tostring(lua_State *L) {
  const struct listener *listener = check(L);
  const char *state = "closed";
  if (listener->peers != NULL) state = listener->peers->socket.socket->channel.is_v6 ? "v6" : "v4";
  lua_pushfstring(L, "ip.udp.listener (%s): %p", state, lua_topointer(L, 1));
  return 1;
}

/* --- making a listener --- */

/* For lua/ip/udp_listen.lua. new_listener(sock, max_sessions, session_capacity, idle_timeout | nil,
   answers_from, accept | nil) -> listener: moves the bound socket into a listener. Raises ENOMEM, and EBADF
   when the socket is not open. Suspends: no. */
static int new_listener(lua_State *L) {
  static const char operation[] = "listen";
  ip_runtime_check(L, ip_runtime(L));
  lua_settop(L, 6);
  lua_Integer max_sessions = ip_argument_integer(L, 2, 1, LUA_MAXINTEGER);
  lua_Integer session_capacity = ip_argument_integer(L, 3, 1, LUA_MAXINTEGER);
  double idle_timeout = lua_isnil(L, 4) ? -1 : ip_argument_seconds(L, 4);
  struct listener *listener = lua_newuserdatauv(L, sizeof *listener, USER_VALUES);
  *listener = (struct listener){.peers = NULL};
  ip_class_set(L, IP_CLASS_LISTENER);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &listeners_key);
  struct ip_socket_box *socket = ip_socket_check_open(L, operation); /* last: a finalizer may close it */
  int error = ip_peers_new(socket, idle_timeout, &listener->peers);
  if (error != 0) return ip_error_raise(L, error, operation);
  struct ip_peers *peers = listener->peers;
  peers->max_sessions = (size_t)max_sessions;
  peers->session_capacity = (size_t)session_capacity;
  peers->answers_from = lua_toboolean(L, 5);
  if (lua_isnil(L, 6)) {
    lua_pop(L, 1);
    return 1;
  }
  lua_pushvalue(L, 6);
  lua_setiuservalue(L, -3, ACCEPT);
  peers->ask = ask;
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, peers);
  lua_pop(L, 1);
  return 1;
}

/* --- registration --- */

static const luaL_Reg methods[] = {
    {"accept", listener_accept},
    {"try_accept", listener_try_accept},
    {"sessions", listener_sessions},
    {"close", listener_close},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", listener_close},
    {"__close", listener_close},
    {"__tostring", listener_tostring},
    {NULL, NULL},
};

static const struct ip_property properties[] = {
    {"is_open", listener_get_is_open, NULL},
    {"dropped", listener_get_dropped, NULL},
    {"local_address", listener_get_local_address, NULL},
    {"local_port", listener_get_local_port, NULL},
    {NULL, NULL, NULL},
};

void ip_listener_open(lua_State *L, int core) {
  static const struct ip_class_definition definition = {.name = "ip.udp.listener",
                                                        .id = IP_CLASS_LISTENER,
                                                        .methods = methods,
                                                        .metamethods = metamethods,
                                                        .properties = properties};
  core = lua_absindex(L, core);
  ip_class_define(L, core, &definition);
  ip_session_open(L, core);
  ip_core_store_weak_table(L, &listeners_key, "v");
}

void ip_listener_add_internals(lua_State *L, int core) {
  static const luaL_Reg internals[] = {{"new_listener", new_listener}, {NULL, NULL}};
  core = lua_absindex(L, core);
  ip_class_functions(L, core, internals);
  ip_session_add_internals(L, core);
}
