/* receive_loop.c: one step of `datagrams` and receive_loop. The loops themselves are in lua/ip/udp_loop.lua,
   because they call user functions that may suspend.

   A step returns instead of raising when the loop is over, and allocates nothing except the address of a new
   peer and errors. receive_loop may change its buffer, so it passes all values in each call. `for` calls an
   iterator, which has them as upvalues: they are checked once, and are not pushed when the iterator waits.
   Each function says what it may raise. */
#include "udp/receive_loop.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "udp/loop.h"
#include "value/byte_span.h"

#include <errno.h>

/* The upvalues of an iterator, after the core: the values of a loop and, of one that asks, on_error. */
#define UPVALUE(value) lua_upvalueindex(1 + (value))
enum { ON_ERROR = IP_LOOP_STOP + 1 };

static int iterate_slowly(lua_State *L, struct ip_udp_loop *loop, struct ip_failure failure, bool yields);

/* Pushes nil, reason: the loop is over. */
static int push_end(lua_State *L, int end) {
  lua_pushnil(L);
  lua_pushstring(L, ip_udp_loop_reason(end));
  return 2;
}

/* Pushes the results of one step; `span` and `box` are the indices of these values. */
static inline int push_next(lua_State *L, int span, int box, struct ip_udp_loop *loop,
                            const struct ip_datagram *datagram) {
  ip_udp_loop_accept(loop, datagram);
  lua_pushvalue(L, span);
  return 1 + ip_receive_push_sender(L, box, loop->box, datagram);
}

/* Is on_error asked about this failure, which a receive has met at once? */
static bool is_askable(const struct ip_udp_loop *loop, int code) {
  return loop->asks && code != EBADF;
}

/* --- receive_loop --- */

/* Pushes false, error for a program that decides whether the loop goes on. */
static int push_question(lua_State *L, struct ip_udp_loop *loop, struct ip_failure failure) {
  ip_udp_loop_count_error(loop);
  lua_pushboolean(L, false);
  ip_udp_loop_push_error(L, &loop->type->plain, failure);
  return 2;
}

static int push_received(lua_State *L, struct ip_result *result) {
  return push_next(L, IP_LOOP_SPAN, IP_LOOP_BOX, lua_touserdata(L, IP_LOOP_SELF),
                   &result->received->datagram);
}

static int push_failure(lua_State *L, enum ip_error_category category, struct ip_failure failure) {
  struct ip_udp_loop *loop = lua_touserdata(L, IP_LOOP_SELF);
  failure = ip_udp_loop_classify(loop, category, failure);
  if (failure.code < 0) return push_end(L, failure.code);
  return failure.code != 0 && loop->asks ? push_question(L, loop, failure) : -1;
}

/* receive(sock, loop, span, capacity, fiber | nil) -> span, address, port, truncated | nil, "closed" |
   "stopped" | false, error: receives one datagram into the first `capacity` bytes of `span` and sets its
   length. Of a loop that asks it returns errors that the program may go on after. Suspends: yes. */
int ip_socket_loop_receive(lua_State *L) {
  struct ip_udp_loop *loop = ip_udp_loop_check(L);
  struct ip_received received;
  bool yields = false;
  lua_settop(L, IP_LOOP_STOP);
  struct ip_failure failure = ip_udp_loop_try(L, IP_LOOP_STOP, loop, &received, &yields);
  if (IP_LIKELY(failure.code == 0)) return push_next(L, IP_LOOP_SPAN, IP_LOOP_BOX, loop, &received.datagram);
  if (failure.code == EAGAIN) {
    struct ip_operation *operation = ip_udp_loop_wait(L, IP_LOOP_STOP, loop, yields, &failure);
    if (operation != NULL) return ip_operation_suspend(L, operation);
  }
  if (failure.code < 0) return push_end(L, failure.code);
  if (is_askable(loop, failure.code)) return push_question(L, loop, failure);
  return ip_socket_raise(L, failure, loop->type->plain.name);
}

/* --- datagrams --- */

static int push_iterated(lua_State *L, struct ip_result *result) {
  return push_next(L, UPVALUE(IP_LOOP_SPAN), UPVALUE(IP_LOOP_BOX), lua_touserdata(L, UPVALUE(IP_LOOP_SELF)),
                   &result->received->datagram);
}

static int push_iterated_failure(lua_State *L, enum ip_error_category category, struct ip_failure failure) {
  struct ip_udp_loop *loop = lua_touserdata(L, UPVALUE(IP_LOOP_SELF));
  failure = ip_udp_loop_classify(loop, category, failure);
  if (failure.code < 0) return push_end(L, failure.code);
  if (failure.code == 0 || !loop->asks) return -1;
  if (!ip_udp_loop_is_driven(L, loop)) return iterate_slowly(L, loop, failure, false);
  loop->failure = failure;
  return 0;
}

/* The function that `for` calls for each datagram. */
static int iterate(lua_State *L) {
  struct ip_udp_loop *loop = lua_touserdata(L, UPVALUE(IP_LOOP_SELF));
  struct ip_received received;
  bool yields = false;
  struct ip_failure failure = ip_udp_loop_try(L, UPVALUE(IP_LOOP_STOP), loop, &received, &yields);
  if (IP_LIKELY(failure.code == 0))
    return push_next(L, UPVALUE(IP_LOOP_SPAN), UPVALUE(IP_LOOP_BOX), loop, &received.datagram);
  return iterate_slowly(L, loop, failure, yields);
}

/* Raises the error at index 1 unless on_error, whose answer is on top of the stack, lets the loop go on. */
static void check_answer(lua_State *L) {
  bool goes_on = lua_toboolean(L, -1);
  lua_settop(L, 1);
  if (!goes_on) ip_error_throw(L);
  lua_settop(L, 0);
}

static int continue_asked(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  check_answer(L);
  return iterate(L);
}

/* Asks on_error, which may wait, about a failure; raises it unless the loop goes on. [-0, +0, e] */
static void ask(lua_State *L, struct ip_udp_loop *loop, struct ip_failure failure) {
  if (!is_askable(loop, failure.code)) ip_socket_raise(L, failure, loop->type->plain.name);
  ip_udp_loop_count_error(loop);
  lua_settop(L, 0);
  ip_udp_loop_push_error(L, &loop->type->plain, failure);
  lua_pushvalue(L, UPVALUE(ON_ERROR));
  lua_pushvalue(L, 1);
  lua_callk(L, 1, 1, 0, continue_asked);
  check_answer(L);
}

/* Goes on with a step that has not received at once. */
static int iterate_slowly(lua_State *L, struct ip_udp_loop *loop, struct ip_failure failure, bool yields) {
  struct ip_received received;
  for (;;) {
    if (failure.code == EAGAIN) {
      struct ip_operation *operation = ip_udp_loop_wait(L, UPVALUE(IP_LOOP_STOP), loop, yields, &failure);
      int results = operation != NULL ? ip_operation_suspend(L, operation) : 0;
      if (results != 0) return results;
      if (operation != NULL) failure = loop->failure;
    }
    if (failure.code < 0) return push_end(L, failure.code);
    ask(L, loop, failure);
    failure = ip_udp_loop_try(L, UPVALUE(IP_LOOP_STOP), loop, &received, &yields);
    if (failure.code == 0)
      return push_next(L, UPVALUE(IP_LOOP_SPAN), UPVALUE(IP_LOOP_BOX), loop, &received.datagram);
  }
}

/* --- making a loop --- */

static const struct ip_udp_loop_type types[] = {
    IP_LOOP_TYPE("datagrams", push_iterated, push_iterated_failure),
    IP_LOOP_TYPE("receive_loop", push_received, push_failure)};

/* Returns the type named at index 2. */
static const struct ip_udp_loop_type *check_type(lua_State *L) {
  static const char *const names[] = {"datagrams", "receive_loop", NULL};
  return &types[ip_argument_choice(L, 2, names)];
}

/* check_loop(sock, name): raises EBADF, named `name`, when the socket is not open. */
int ip_socket_loop_check(lua_State *L) {
  ip_socket_check_open(L, check_type(L)->plain.name);
  return 0;
}

/* new_loop(sock, name, max_ready, asks) -> loop. asks: boolean, there is a function on_error. */
int ip_socket_loop_new(lua_State *L) {
  const struct ip_udp_loop_type *type = check_type(L);
  lua_Integer max_ready = ip_argument_integer(L, 3, 1, LUA_MAXINTEGER);
  bool asks = ip_argument_boolean(L, 4);
  ip_udp_loop_new(L, type, sizeof(struct ip_udp_loop), max_ready)->asks = asks;
  return 1;
}

/* iterator(sock, loop, span, capacity, fiber | nil, on_error | nil) -> function that receives with these
   arguments, for `for`. Suspends: no. */
int ip_socket_loop_iterator(lua_State *L) {
  int values = ip_udp_loop_check(L)->asks ? ON_ERROR : IP_LOOP_STOP;
  lua_settop(L, values);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_pushcclosure(L, iterate, 1 + values);
  return 1;
}
