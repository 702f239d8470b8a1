/* serve.c: one worker of `serve`: receives a datagram, calls the handler, sends its answer, and so on.

   The worker is a C function that calls functions of the program, which may wait: it calls them by lua_callk,
   and what it goes on with is in its struct server, not in C variables. In a coroutine each wait and each
   call that waits ends in a continuation, which runs the loop of serve_on from there. On the main thread they
   return to that loop (ip_udp_loop_is_driven). Each function says what it may raise. */
#include "udp/serve.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "binding/value_text.h"
#include "udp/loop.h"
#include "udp/send.h"

#include <errno.h>

/* The stack of a worker: the values of its loop, then these. */
enum { HANDLER = IP_LOOP_STOP + 1, ON_ERROR, STOPS, ANSWER };

/* What a worker does next. */
enum step { RECEIVE, HANDLE, SEND_ANSWER, ASK_TO_STOP, STOP_OR_RECEIVE, REPORT };

struct server {
  struct ip_udp_loop loop; /* first */
  enum step step;
  struct ip_endpoint source; /* the sender of the datagram that is served */
  bool truncated;            /* the datagram */
  bool woken;                /* its answer has waited: then these are set */
  size_t done;               /* bytes that are sent already: see struct ip_send */
  ip_deadline deadline;
  struct ip_failure failure; /* to be reported, if it does not end the server */
  bool of_answer;            /* the failure is that of an answer */
};

/* A step returns this, or the number of results. */
enum { GOES_ON = -1 };

static int serve_on(lua_State *L, struct server *server);

static int continue_call(lua_State *L, int status, lua_KContext context) {
  (void)status;
  return serve_on(L, (struct server *)context); /* the frame anchors it */
}

static int push_end(lua_State *L, int end) {
  lua_pushstring(L, ip_udp_loop_reason(end));
  return 1;
}

/* Goes on after a wait: at once in a coroutine, else where the main thread has driven the event loop. */
static int go_on(lua_State *L, struct server *server, enum step step) {
  server->step = step;
  return ip_udp_loop_is_driven(L, &server->loop) ? 0 : serve_on(L, server);
}

/* Suspends a step. [-0, +?, e] */
static int suspend(lua_State *L, struct ip_operation *operation) {
  int results = ip_operation_suspend(L, operation);
  return results != 0 ? results : GOES_ON;
}

/* Ends a step that has failed. */
static int fail(struct server *server, struct ip_failure failure, bool of_answer) {
  server->failure = failure;
  server->of_answer = of_answer;
  server->step = REPORT;
  return GOES_ON;
}

/* The failure of a wait: pushes the results if it ends the server, or goes on with a report. */
static int fail_wait(lua_State *L, enum ip_error_category category, struct ip_failure failure,
                     bool of_answer) {
  struct server *server = lua_touserdata(L, IP_LOOP_SELF);
  failure = ip_udp_loop_classify(&server->loop, category, failure);
  if (failure.code < 0) return push_end(L, failure.code);
  if (failure.code == 0) return -1;
  fail(server, failure, of_answer);
  return go_on(L, server, REPORT);
}

/* --- receiving --- */

static void accept_datagram(struct server *server, const struct ip_datagram *datagram) {
  ip_udp_loop_accept(&server->loop, datagram);
  server->source = datagram->source;
  server->truncated = datagram->truncated;
}

static int continue_received(lua_State *L, struct ip_result *result) {
  struct server *server = lua_touserdata(L, IP_LOOP_SELF);
  accept_datagram(server, &result->received->datagram);
  return go_on(L, server, HANDLE);
}

static int continue_failed(lua_State *L, enum ip_error_category category, struct ip_failure failure) {
  return fail_wait(L, category, failure, false);
}

static const struct ip_udp_loop_type server_type = IP_LOOP_TYPE("serve", continue_received, continue_failed);

static int receive(lua_State *L, struct server *server) {
  struct ip_received received;
  bool yields = false;
  lua_settop(L, STOPS);
  struct ip_failure failure = ip_udp_loop_try(L, IP_LOOP_STOP, &server->loop, &received, &yields);
  if (IP_LIKELY(failure.code == 0)) {
    accept_datagram(server, &received.datagram);
    server->step = HANDLE;
    return GOES_ON;
  }
  if (failure.code == EAGAIN) {
    struct ip_operation *operation = ip_udp_loop_wait(L, IP_LOOP_STOP, &server->loop, yields, &failure);
    if (operation != NULL) return suspend(L, operation);
  }
  return failure.code < 0 ? push_end(L, failure.code) : fail(server, failure, false);
}

/* --- handling --- */

/* Calls handler(span, address, port, truncated), whose result is then at ANSWER. */
static int handle(lua_State *L, struct server *server) {
  lua_settop(L, STOPS);
  lua_pushvalue(L, HANDLER);
  lua_pushvalue(L, IP_LOOP_SPAN);
  ip_receive_push_source(L, IP_LOOP_BOX, server->loop.box, &server->source);
  lua_pushinteger(L, ip_endpoint_port(&server->source));
  lua_pushboolean(L, server->truncated);
  server->woken = false;
  server->step = SEND_ANSWER;
  lua_callk(L, 4, 1, (lua_KContext)server, continue_call);
  return GOES_ON;
}

/* --- answering --- */

static int refuse_answer(lua_State *L, lua_Integer part, int index) {
  const char *got = ip_value_text_push(L, index);
  if (part == 0) return ip_error_text(L, "serve: its handler may return data or nil, not %s", got);
  return ip_error_text(L, "serve: its handler may return data or nil, and part %I of its sequence is %s",
                       part, got);
}

static bool is_part(lua_State *L, int index) {
  return lua_type(L, index) == LUA_TSTRING || ip_test_class(L, index, IP_CLASS_BYTE_SPAN) != NULL;
}

/* Raises unless the table at ANSWER is a sequence of strings and spans. [-0, +0, v] */
static void check_sequence(lua_State *L) {
  lua_Integer count = (lua_Integer)lua_rawlen(L, ANSWER);
  for (lua_Integer i = 1; i <= count; i++) {
    lua_rawgeti(L, ANSWER, i);
    if (!is_part(L, -1)) refuse_answer(L, i, -1);
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  if (count != 0 || lua_next(L, ANSWER) == 0)
    lua_settop(L, ANSWER);
  else
    ip_error_text(L, "serve: its handler may return data or nil, not a table with other keys");
}

/* Reads the data that the handler has returned. [-0, +(0|1), v] */
static void read_answer(lua_State *L, const struct server *server, struct ip_data *data) {
  const struct ip_bytes *span = server->loop.span;
  if (IP_LIKELY(lua_touserdata(L, ANSWER) == (const void *)span)) { /* it echoes */
    ip_data_set(data, span->data, span->length);
    return;
  }
  if (lua_istable(L, ANSWER))
    check_sequence(L);
  else if (!is_part(L, ANSWER))
    refuse_answer(L, 0, ANSWER);
  ip_argument_data(L, ANSWER, data);
}

/* The peer of a connected socket needs no address: the system has looked up the way to it. */
static const struct ip_endpoint *destination(const struct server *server) {
  const struct ip_connection *connection = server->loop.box->socket->channel.connection;
  bool is_peer = connection != NULL && ip_endpoint_equal(&connection->remote, &server->source);
  return is_peer ? NULL : &server->source;
}

static int continue_answer(lua_State *L, struct ip_result *result) {
  struct server *server = lua_touserdata(L, IP_LOOP_SELF);
  lua_settop(L, ANSWER);
  server->woken = true;
  server->done = result->payload.send.done;
  server->deadline = result->payload.send.deadline;
  return go_on(L, server, SEND_ANSWER);
}

static int continue_failed_answer(lua_State *L, enum ip_error_category category, struct ip_failure failure) {
  return fail_wait(L, category, failure, true);
}

/* Names the sender, whose answer has failed. */
static void describe_answer(lua_State *L, struct ip_error_detail *detail) {
  const struct server *server = lua_touserdata(L, IP_LOOP_SELF);
  struct ip_address address;
  uint16_t port = ip_endpoint_port(&server->source);
  ip_endpoint_get_address(&server->source, &address);
  ip_error_set_endpoint(detail, &address, port);
  detail->error.to_port_0 = port == 0;
}

static const struct ip_operation_type answer_type = {.name = "serve",
                                                     .attempt = ip_send_attempt,
                                                     .final_attempt = ip_send_final_attempt,
                                                     .push_results = continue_answer,
                                                     .push_failure = continue_failed_answer,
                                                     .describe = describe_answer,
                                                     .sends = true};

/* Waits until the answer can be sent; the worker serves nothing else meanwhile. */
static int wait_to_answer(lua_State *L, struct server *server, const struct ip_send *send, bool yields) {
  struct ip_udp_loop *loop = &server->loop;
  ip_deadline deadline = server->woken ? server->deadline : ip_deadline_after(loop->box->send_timeout);
  if (ip_udp_loop_is_too_late(L, loop, deadline, yields)) return fail(server, ip_failure(ETIMEDOUT), true);
  struct ip_operation *operation = ip_operation_acquire(L, loop->runtime, &answer_type, deadline, yields);
  if (ip_udp_loop_is_closed(loop)) { /* a finalizer has closed it */
    ip_operation_release(L, operation);
    return push_end(L, IP_LOOP_CLOSED);
  }
  struct ip_socket *socket = ip_socket_tie(L, operation, loop->box);
  operation->payload = ip_send_payload(send, deadline);
  enum ip_wait wait = server->woken ? IP_WAIT_FIRST : yields ? IP_WAIT_YIELDING : IP_WAIT;
  ip_watcher_wait(&socket->watcher, IP_SIDE_WRITE, operation, wait);
  return suspend(L, operation);
}

/* Tries once to send the answer. What an earlier datagram has caused must not take this answer with it, so it
   is tried again; `older` is that failure. Only a connected socket gets the errors of earlier datagrams from
   the system (udp(7)), and one with `coalesce` from its send queue. Does not call Lua. */
static struct ip_failure try_to_answer(const struct ip_udp_loop *loop, struct ip_send *send,
                                       struct ip_failure *older) {
  size_t sent;
  struct ip_socket *socket = loop->box->socket;
  struct ip_failure failure = ip_send_try(socket, send, &sent);
  *older = ip_failure(0);
  if (IP_LIKELY(failure.code == 0) || failure.code == EAGAIN) return failure;
  if (!ip_failure_is_deferred(failure) && socket->channel.connection == NULL) return failure;
  *older = failure;
  return ip_send_try(socket, send, &sent);
}

/* Sends what the handler has returned, or goes on with that after a wait. */
static int send_answer(lua_State *L, struct server *server) {
  struct ip_udp_loop *loop = &server->loop;
  server->step = ASK_TO_STOP;
  if (lua_isnil(L, ANSWER)) return GOES_ON;
  struct ip_send send;
  read_answer(L, server, &send.data);
  if (IP_UNLIKELY(ip_udp_loop_is_closed(loop))) return push_end(L, IP_LOOP_CLOSED);
  struct ip_socket *socket = loop->box->socket;
  send.to = destination(server);
  send.flags = 0;
  send.control.items = 0;
  send.done = server->woken ? server->done : 0;
  bool yields = !server->woken && loop->runtime->budget <= 0;
  if (IP_UNLIKELY(yields || (!server->woken && ip_watcher_has_waiters(&socket->watcher, IP_SIDE_WRITE))))
    return wait_to_answer(L, server, &send, yields);
  struct ip_failure older, failure = try_to_answer(loop, &send, &older);
  if (IP_LIKELY(failure.code == 0)) {
    loop->runtime->budget--;
    return IP_LIKELY(older.code == 0) ? GOES_ON : fail(server, older, true);
  }
  if (failure.code != EAGAIN) return fail(server, failure, true);
  if (server->woken) ip_watcher_note_fruitless(&socket->watcher);
  return wait_to_answer(L, server, &send, false);
}

/* --- stopping --- */

static int ask_to_stop(lua_State *L, struct server *server) {
  server->step = RECEIVE;
  if (IP_LIKELY(lua_isnil(L, STOPS))) return GOES_ON;
  lua_settop(L, STOPS);
  lua_pushvalue(L, STOPS);
  server->step = STOP_OR_RECEIVE;
  lua_callk(L, 0, 1, (lua_KContext)server, continue_call);
  return GOES_ON;
}

static int stop_or_receive(lua_State *L, struct server *server) {
  if (lua_toboolean(L, -1)) return push_end(L, IP_LOOP_STOPPED);
  server->step = RECEIVE;
  return GOES_ON;
}

/* --- errors --- */

/* Does a server go on after this failure, though its error is not `transient`? The address of an answer is
   the sender's choice, so a route of the system that refuses it is no mistake of the program: EACCES of a
   `prohibit` route or a broadcast address, EINVAL of a `blackhole` route (ip-route(8)). The others are what
   an ICMP message, which anybody may forge, becomes (net/ipv4/icmp.c, net/ipv6/icmp.c in Linux). */
static bool is_of_network(const struct server *server) {
  switch (server->failure.code) {
  case EINVAL: return server->of_answer;
  case EACCES:
  case EPROTO:
  case ENOPROTOOPT:
#ifdef ENONET
  case ENONET:
#endif
  case EOPNOTSUPP: return true;
  default: return false;
  }
}

/* Is the error on top of the stack transient? [-0, +0, e] */
static bool is_transient(lua_State *L) {
  lua_getfield(L, -1, "transient");
  bool transient = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return transient;
}

static void push_sender(lua_State *L, const struct server *server) {
  if (!server->of_answer || ip_failure_is_deferred(server->failure)) { /* deferred: of an earlier answer */
    lua_pushnil(L);
    lua_pushnil(L);
    return;
  }
  ip_receive_push_source(L, IP_LOOP_BOX, server->loop.box, &server->source);
  lua_pushinteger(L, ip_endpoint_port(&server->source));
}

/* Raises a failure that ends the server; calls on_error(err, address, port) about any other one. */
static int report(lua_State *L, struct server *server) {
  lua_settop(L, STOPS);
  ip_udp_loop_push_error(L, server->of_answer ? &answer_type : &server_type.plain, server->failure);
  if (!is_transient(L) && !is_of_network(server)) return ip_error_throw(L);
  if (!server->of_answer) ip_udp_loop_count_error(&server->loop);
  server->step = server->of_answer ? ASK_TO_STOP : RECEIVE;
  if (lua_isnil(L, ON_ERROR)) return GOES_ON;
  lua_pushvalue(L, ON_ERROR);
  lua_insert(L, -2);
  push_sender(L, server);
  lua_callk(L, 3, 0, (lua_KContext)server, continue_call);
  return GOES_ON;
}

/* --- serving --- */

static int take_step(lua_State *L, struct server *server) {
  switch (server->step) {
  case RECEIVE: return receive(L, server);
  case HANDLE: return handle(L, server);
  case SEND_ANSWER: return send_answer(L, server);
  case ASK_TO_STOP: return ask_to_stop(L, server);
  case STOP_OR_RECEIVE: return stop_or_receive(L, server);
  case REPORT: break;
  }
  return report(L, server);
}

static int serve_on(lua_State *L, struct server *server) {
  int results;
  do
    results = take_step(L, server);
  while (results == GOES_ON);
  return results;
}

/* check_server(sock, waits): raises EBADF, named `serve`, when the socket is not open; with `waits` also what
   ends a call that would wait here. */
int ip_socket_check_server(lua_State *L) {
  const struct ip_socket_box *box = ip_socket_check_open(L, server_type.plain.name);
  if (lua_toboolean(L, 2)) ip_operation_check(L, box->socket->watcher.runtime, &server_type.plain);
  return 0;
}

/* new_server(sock, max_ready) -> server, for one worker. */
int ip_socket_new_server(lua_State *L) {
  lua_Integer max_ready = ip_argument_integer(L, 2, 1, LUA_MAXINTEGER);
  struct ip_udp_loop *loop = ip_udp_loop_new(L, &server_type, sizeof(struct server), max_ready);
  ((struct server *)loop)->step = RECEIVE;
  return 1;
}

/* serve(sock, server, span, capacity, fiber | nil, handler, on_error | nil, stops | nil) -> "closed" |
   "stopped". Suspends: yes. */
int ip_socket_serve(lua_State *L) {
  struct ip_udp_loop *loop = ip_udp_loop_check(L);
  lua_settop(L, STOPS);
  return serve_on(L, (struct server *)loop);
}
