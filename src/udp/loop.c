/* loop.c: one receive of a loop over datagrams: `datagrams` and receive_loop (receive_loop.c), and serve
   (serve.c).

   A receive returns its failure instead of raising it, so no protected call is needed, and it allocates
   nothing. Each function says what it may raise. */
#include "udp/loop.h"

#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "loop/context.h"

#include <stdlib.h>

/* --- loops that a fiber stops --- */

/* Ends a waiting receive when a fiber ends. It is the object of the receive's operation, so it is no memory
   of Lua: when somebody closes the coroutine that waits, Lua may collect what its frames hold while the
   operation is still waiting. */
struct ip_stop_watch {
  struct ip_fiber_watch watch; /* on the fiber that stops the loop, while the receive waits */
  struct ip_operation *operation;
  struct ip_socket *socket;
  bool waits;    /* it is the object of `operation` */
  bool orphaned; /* its loop has been collected meanwhile */
};

bool ip_udp_loop_attempt_watched(struct ip_operation *operation) {
  struct ip_stop_watch *stop_watch = operation->object;
  operation->object = stop_watch->socket;
  bool done = ip_receive_attempt(operation);
  operation->object = stop_watch;
  return done;
}

void ip_udp_loop_final_attempt_watched(struct ip_operation *operation) {
  const struct ip_stop_watch *stop_watch = operation->object;
  ip_watcher_attempt_soon(&stop_watch->socket->watcher, IP_SIDE_READ);
}

/* The watch on the fiber ends with the wait. */
void ip_udp_loop_unlink_watched(struct ip_operation *operation) {
  struct ip_stop_watch *stop_watch = operation->object;
  ip_queue_remove(&stop_watch->watch.link);
  stop_watch->waits = false;
  if (stop_watch->orphaned) free(stop_watch);
}

static void on_fiber_ended(struct ip_fiber_watch *watch) {
  const struct ip_stop_watch *stop_watch = ip_container_of(watch, struct ip_stop_watch, watch);
  ip_operation_complete(stop_watch->operation, IP_ERROR_FIBER, ip_failure(IP_FIBER_ENDED));
}

/* Watches the fiber at `stop`. It has not ended, because only the dispatcher ends fibers. */
static void watch_fiber(lua_State *L, int stop, struct ip_udp_loop *loop, struct ip_operation *operation) {
  struct ip_stop_watch *stop_watch = loop->stop_watch;
  operation->type = &loop->type->watched;
  operation->object = stop_watch;
  stop_watch->operation = operation;
  stop_watch->socket = loop->box->socket;
  stop_watch->waits = true;
  stop_watch->watch.ended = on_fiber_ended;
  ip_fiber_watch(L, stop, &stop_watch->watch);
}

/* Prepares the watch on the fiber at IP_LOOP_STOP. [-0, +0, v] */
static void prepare_stop_watch(lua_State *L, struct ip_udp_loop *loop) {
  ip_fiber_has_ended(L, IP_LOOP_STOP); /* checks that it is a fiber */
  if (loop->stop_watch != NULL) return;
  loop->stop_watch = calloc(1, sizeof *loop->stop_watch);
  if (loop->stop_watch == NULL) ip_error_memory(L);
  ip_queue_init(&loop->stop_watch->watch.link);
}

static int loop_gc(lua_State *L) {
  struct ip_udp_loop *loop = ip_check_class(L, 1, IP_CLASS_LOOP);
  if (loop->stop_watch != NULL && loop->stop_watch->waits)
    loop->stop_watch->orphaned = true;
  else
    free(loop->stop_watch);
  loop->stop_watch = NULL;
  return 0;
}

/* --- making a loop --- */

struct ip_udp_loop *ip_udp_loop_new(lua_State *L, const struct ip_udp_loop_type *type, size_t size,
                                    lua_Integer max_ready) {
  struct ip_udp_loop *loop = lua_newuserdatauv(L, size, 0);
  const struct ip_socket_box *box =
      ip_socket_check_open(L, type->plain.name); /* last: a finalizer may close it */
  *loop = (struct ip_udp_loop){.type = type,
                               .runtime = ip_runtime(L),
                               .max_ready = max_ready < UINT32_MAX ? (uint32_t)max_ready : UINT32_MAX,
                               .generation = box->generation};
  ip_class_set(L, IP_CLASS_LOOP);
  return loop;
}

struct ip_udp_loop *ip_udp_loop_check(lua_State *L) {
  struct ip_udp_loop *loop = ip_check_class(L, IP_LOOP_SELF, IP_CLASS_LOOP);
  loop->box = ip_socket_check(L, IP_LOOP_BOX);
  loop->span = ip_byte_span_check(L, IP_LOOP_SPAN);
  loop->capacity = (size_t)ip_argument_integer(L, IP_LOOP_CAPACITY, 0, (lua_Integer)loop->span->capacity);
  loop->watches = !lua_isnoneornil(L, IP_LOOP_STOP);
  if (loop->watches) prepare_stop_watch(L, loop);
  return loop;
}

/* --- receiving --- */

bool ip_udp_loop_is_too_late(lua_State *L, const struct ip_udp_loop *loop, ip_deadline deadline,
                             bool yields) {
  if (IP_LIKELY(deadline != IP_AT_ONCE) || yields) return false;
  ip_operation_check_wait(L, loop->runtime, &loop->type->plain);
  return true;
}

struct ip_operation *ip_udp_loop_wait(lua_State *L, int stop, struct ip_udp_loop *loop, bool yields,
                                      struct ip_failure *failure) {
  ip_deadline deadline = ip_deadline_after(loop->box->receive_timeout);
  *failure = ip_failure(ETIMEDOUT);
  if (ip_udp_loop_is_too_late(L, loop, deadline, yields)) return NULL;
  struct ip_operation *operation =
      ip_operation_acquire(L, loop->runtime, &loop->type->plain, deadline, yields);
  if (ip_udp_loop_is_closed(loop)) { /* a finalizer has closed it */
    ip_operation_release(L, operation);
    *failure = ip_failure(IP_LOOP_CLOSED);
    return NULL;
  }
  struct ip_receive_call call = {
      .box = loop->box,
      .receive = {.data = loop->span->data, .size = loop->capacity, .wants = IP_WANTS_SOURCE}};
  ip_receive_queue(L, operation, &call, yields);
  if (loop->watches && operation->state == IP_OPERATION_ARMED) watch_fiber(L, stop, loop, operation);
  return operation;
}

struct ip_failure ip_udp_loop_classify(const struct ip_udp_loop *loop, enum ip_error_category category,
                                       struct ip_failure failure) {
  if (category == IP_ERROR_FIBER) return ip_failure(failure.code == IP_FIBER_ENDED ? IP_LOOP_STOPPED : 0);
  if (failure.code == EBADF) return ip_failure(0);
  if (failure.code == ECANCELED) return ip_failure(ip_udp_loop_is_closed(loop) ? IP_LOOP_CLOSED : 0);
  return failure;
}

void ip_udp_loop_push_error(lua_State *L, const struct ip_operation_type *type, struct ip_failure failure) {
  struct ip_error *error = ip_operation_push_error(L, type, IP_ERROR_SYSTEM, failure);
  struct ip_place place = ip_place_note(L);
  error->line = place.line;
  error->file = place.file;
}

const char *ip_udp_loop_reason(int end) {
  return end == IP_LOOP_CLOSED ? "closed" : "stopped";
}

void ip_udp_loop_open(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__gc", loop_gc}, {NULL, NULL}};
  static const struct ip_class_definition definition = {
      .name = "ip.loop", .id = IP_CLASS_LOOP, .metamethods = metamethods};
  ip_class_define(L, core, &definition);
}
