/* loop.c: one step of `datagrams` and receive_loop. The loops themselves are in lua/ip/udp_loop.lua, because
   they call user functions that may suspend.

   A loop is a userdata of plain numbers and pointers; Lua owns it. A step returns instead of raising when the
   loop is over, so no protected call is needed, and it allocates nothing except the address of a new peer.

   receive_loop may change its buffer, so it passes all values in each call. `for` calls an iterator, which
   has them as upvalues: they are checked once, and are not pushed when the iterator waits. Each function says
   what it may raise. */
#include "udp/loop.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "fiber/fiber.h"
#include "udp/receive.h"
#include "value/byte_span.h"

#include <errno.h>
#include <stdlib.h>

/* Ends a waiting receive when a fiber ends. It is the object of the receive's operation, so it is no memory of
   Lua: when somebody closes the coroutine that waits, Lua may collect what its frames hold while the operation
   is still waiting. */
struct stop_watch {
  struct ip_fiber_watch watch; /* on the fiber at STOP, while the receive waits */
  struct ip_operation *operation;
  struct ip_socket *socket;
  bool waits;    /* it is the object of `operation` */
  bool orphaned; /* its loop has been collected meanwhile */
};

struct loop {
  struct stop_watch *stop_watch; /* NULL until a fiber at STOP needs it */
  const struct ip_operation_type *type;
  struct ip_runtime *runtime;
  struct ip_socket_box *box; /* the arguments or upvalues anchor the box and the span */
  struct ip_bytes *span;
  size_t capacity; /* bytes of the span that a receive may use */
  bool watches;    /* there is a fiber at STOP */
  lua_Integer max_ready;
  lua_Integer in_row;  /* datagrams handled in `iteration` */
  uint32_t iteration;  /* of the loop: it changes when other coroutines have run */
  uint32_t generation; /* of the socket */
};

/* The arguments of receive. */
enum { BOX = 1, LOOP, SPAN, CAPACITY, STOP };

/* The same values as upvalues of an iterator, after the core. */
#define UPVALUE(argument) lua_upvalueindex(1 + (argument))

/* Pushes nil, reason: the loop is over. */
static int push_end(lua_State *L, const char *reason) {
  lua_pushnil(L);
  lua_pushstring(L, reason);
  return 2;
}

/* Has the socket been closed since the loop began? It may be open again. */
static bool is_closed(const struct ip_socket_box *box, const struct loop *loop) {
  return box->socket == NULL || box->generation != loop->generation;
}

static void count_datagram(struct loop *loop, const struct ip_runtime *runtime) {
  if (loop->iteration != runtime->iteration) loop->in_row = 0;
  loop->iteration = runtime->iteration;
  loop->in_row++;
}

/* Pushes the results of one step; `span` and `box` are the indices of these values. */
static inline int push_next(lua_State *L, int span, int box, struct loop *loop,
                            const struct ip_datagram *datagram) {
  count_datagram(loop, loop->runtime);
  loop->span->length = datagram->length;
  lua_pushvalue(L, span);
  return 1 + ip_receive_push_sender(L, box, loop->box, datagram);
}

static int push_received(lua_State *L, struct ip_result *result) {
  return push_next(L, SPAN, BOX, lua_touserdata(L, LOOP), &result->received->datagram);
}

static int push_iterated(lua_State *L, struct ip_result *result) {
  return push_next(L, UPVALUE(SPAN), UPVALUE(BOX), lua_touserdata(L, UPVALUE(LOOP)),
                   &result->received->datagram);
}

static int push_end_of(lua_State *L, const struct loop *loop, enum ip_error_category category, int code) {
  if (category == IP_ERROR_FIBER && code == IP_FIBER_ENDED) return push_end(L, "stopped");
  bool canceled = category == IP_ERROR_SYSTEM && code == ECANCELED;
  return canceled && is_closed(loop->box, loop) ? push_end(L, "closed") : -1;
}

static int push_failure(lua_State *L, enum ip_error_category category, int code) {
  return push_end_of(L, lua_touserdata(L, LOOP), category, code);
}

static int push_iterated_failure(lua_State *L, enum ip_error_category category, int code) {
  return push_end_of(L, lua_touserdata(L, UPVALUE(LOOP)), category, code);
}

static const struct ip_operation_type types[] = {{.name = "datagrams",
                                                  .attempt = ip_receive_attempt,
                                                  .final_attempt = ip_receive_final_attempt,
                                                  .push_results = push_iterated,
                                                  .push_failure = push_iterated_failure},
                                                 {.name = "receive_loop",
                                                  .attempt = ip_receive_attempt,
                                                  .final_attempt = ip_receive_final_attempt,
                                                  .push_results = push_received,
                                                  .push_failure = push_failure}};

/* --- loops that a fiber stops --- */

static bool attempt_watched(struct ip_operation *operation) {
  struct stop_watch *stop_watch = operation->object;
  operation->object = stop_watch->socket;
  bool done = ip_receive_attempt(operation);
  operation->object = stop_watch;
  return done;
}

static void final_attempt_watched(struct ip_operation *operation) {
  const struct stop_watch *stop_watch = operation->object;
  ip_watcher_attempt_soon(&stop_watch->socket->watcher, IP_SIDE_READ);
}

/* The watch on the fiber ends with the wait. */
static void unlink_watched(struct ip_operation *operation) {
  struct stop_watch *stop_watch = operation->object;
  ip_queue_remove(&stop_watch->watch.link);
  stop_watch->waits = false;
  if (stop_watch->orphaned) free(stop_watch);
}

static const struct ip_operation_type watched_types[] = {{.name = "datagrams",
                                                          .attempt = attempt_watched,
                                                          .unlinked = unlink_watched,
                                                          .final_attempt = final_attempt_watched,
                                                          .push_results = push_iterated,
                                                          .push_failure = push_iterated_failure},
                                                         {.name = "receive_loop",
                                                          .attempt = attempt_watched,
                                                          .unlinked = unlink_watched,
                                                          .final_attempt = final_attempt_watched,
                                                          .push_results = push_received,
                                                          .push_failure = push_failure}};

static void on_fiber_ended(struct ip_fiber_watch *watch) {
  const struct stop_watch *stop_watch = ip_container_of(watch, struct stop_watch, watch);
  ip_operation_complete(stop_watch->operation, IP_ERROR_FIBER, ip_failure(IP_FIBER_ENDED));
}

/* Watches the fiber at `stop`. It has not ended, because only the dispatcher ends fibers. */
static void watch_fiber(lua_State *L, int stop, struct loop *loop, struct ip_operation *operation) {
  struct stop_watch *stop_watch = loop->stop_watch;
  operation->type = &watched_types[loop->type - types];
  operation->object = stop_watch;
  stop_watch->operation = operation;
  stop_watch->socket = loop->box->socket;
  stop_watch->waits = true;
  stop_watch->watch.ended = on_fiber_ended;
  ip_fiber_watch(L, stop, &stop_watch->watch);
}

/* Prepares the watch on the fiber at STOP. [-0, +0, v] */
static void prepare_stop_watch(lua_State *L, struct loop *loop) {
  ip_fiber_has_ended(L, STOP); /* checks that it is a fiber */
  if (loop->stop_watch != NULL) return;
  loop->stop_watch = calloc(1, sizeof *loop->stop_watch);
  if (loop->stop_watch == NULL) ip_error_memory(L);
  ip_queue_init(&loop->stop_watch->watch.link);
}

static int loop_gc(lua_State *L) {
  struct loop *loop = ip_check_class(L, 1, IP_CLASS_LOOP);
  if (loop->stop_watch != NULL && loop->stop_watch->waits)
    loop->stop_watch->orphaned = true;
  else
    free(loop->stop_watch);
  loop->stop_watch = NULL;
  return 0;
}

/* --- making a loop --- */

/* Returns the operation type named at index 2. */
static const struct ip_operation_type *check_type(lua_State *L) {
  static const char *const names[] = {"datagrams", "receive_loop", NULL};
  return &types[ip_argument_choice(L, 2, names)];
}

/* check_loop(sock, name): raises EBADF, named `name`, when the socket is not open. */
int ip_socket_loop_check(lua_State *L) {
  ip_socket_check_open(L, check_type(L)->name);
  return 0;
}

/* new_loop(sock, name, max_ready) -> loop. */
int ip_socket_loop_new(lua_State *L) {
  const struct ip_operation_type *type = check_type(L);
  lua_Integer max_ready = ip_argument_integer(L, 3, 1, LUA_MAXINTEGER);
  struct loop *loop = lua_newuserdatauv(L, sizeof *loop, 0);
  const struct ip_socket_box *box = ip_socket_check_open(L, type->name); /* last: a finalizer may close it */
  *loop = (struct loop){.type = type, .max_ready = max_ready, .generation = box->generation};
  ip_class_set(L, IP_CLASS_LOOP);
  return 1;
}

/* --- receiving --- */

/* Suspends the running receive. [-0, +?, e] */
static int wait_in_loop(lua_State *L, int stop, struct loop *loop, const struct ip_receive_call *call,
                        bool yields) {
  ip_deadline deadline = ip_deadline_after(call->box->receive_timeout);
  struct ip_operation *operation = ip_operation_acquire(L, loop->runtime, loop->type, deadline, yields);
  if (is_closed(call->box, loop)) { /* a finalizer has closed it */
    ip_operation_release(L, operation);
    return push_end(L, "closed");
  }
  ip_receive_queue(L, operation, call, yields);
  if (loop->watches) watch_fiber(L, stop, loop, operation);
  return ip_operation_suspend(L, operation);
}

/* Receives one datagram or waits for it: `return receive_next(...)`. */
static inline int receive_next(lua_State *L, int span, int box, int stop, struct loop *loop) {
  struct ip_receive_call call = {
      .box = loop->box,
      .receive = {.data = loop->span->data, .size = loop->capacity, .wants = IP_WANTS_SOURCE}};
  const struct ip_runtime *runtime = loop->runtime;
  if (IP_UNLIKELY(runtime->closed)) call.box->socket = NULL; /* the runtime has freed it */
  if (IP_UNLIKELY(is_closed(call.box, loop))) return push_end(L, "closed");
  if (loop->watches && ip_fiber_has_ended(L, stop)) return push_end(L, "stopped");
  bool yields = loop->iteration == runtime->iteration && loop->in_row >= loop->max_ready;
  struct ip_received received;
  if (!ip_receive_start(L, loop->type, &call, &received, &yields))
    return wait_in_loop(L, stop, loop, &call, yields);
  return push_next(L, span, box, loop, &received.datagram);
}

/* Checks the arguments of receive and drops all others. [-?, +?, v] */
static struct loop *check_arguments(lua_State *L) {
  struct loop *loop = ip_check_class(L, LOOP, IP_CLASS_LOOP);
  loop->runtime = ip_runtime(L);
  loop->box = ip_socket_check(L, BOX);
  loop->span = ip_byte_span_check(L, SPAN);
  loop->capacity = (size_t)ip_argument_integer(L, CAPACITY, 0, (lua_Integer)loop->span->capacity);
  lua_settop(L, STOP);
  loop->watches = !lua_isnil(L, STOP);
  if (loop->watches) prepare_stop_watch(L, loop);
  return loop;
}

/* receive(sock, loop, span, capacity, fiber | nil) -> span, address, port, truncated | nil, "closed" |
   "stopped": receives one datagram into the first `capacity` bytes of `span` and sets its length. Suspends:
   yes. */
int ip_socket_loop_receive(lua_State *L) {
  return receive_next(L, SPAN, BOX, STOP, check_arguments(L));
}

/* The function that `for` calls for each datagram. */
static int iterate(lua_State *L) {
  return receive_next(L, UPVALUE(SPAN), UPVALUE(BOX), UPVALUE(STOP), lua_touserdata(L, UPVALUE(LOOP)));
}

/* iterator(sock, loop, span, capacity, fiber | nil) -> function that receives with these arguments, for
   `for`. Suspends: no. */
int ip_socket_loop_iterator(lua_State *L) {
  check_arguments(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_pushcclosure(L, iterate, 1 + STOP);
  return 1;
}

void ip_socket_loop_open(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__gc", loop_gc}, {NULL, NULL}};
  static const struct ip_class_definition definition = {
      .name = "ip.loop", .id = IP_CLASS_LOOP, .metamethods = metamethods};
  ip_class_define(L, core, &definition);
}
