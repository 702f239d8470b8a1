/* queue.c: ip.fiber.queue: values that coroutines pass to each other, first in, first out.

   The values are in a ring, a Lua table of the queue's own that grows by doubling. A waiting put has its
   value among the anchors of its operation (meeting.h); the value moves into the ring, and the put is
   complete, when there is place. A waiting get is given its value in the same way. The ring keeps a slot for
   each value that was given to a get and not received yet, for it comes back to the front of the queue if the
   coroutine is closed first. So nothing needs memory where it must not fail.

   Invariants: while gets wait, the ring is empty and the queue open; while puts wait, the ring is full.
   Raises bad arguments, memory errors, and what the methods say. */
#include "fiber/queue.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "fiber/meeting.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>

enum { RING = 1, FIRST_SLOTS = 4 };

struct queue {
  struct ip_queue gets;      /* operations that wait, oldest first */
  struct ip_queue puts;      /* the same */
  struct ip_queue observers; /* struct ip_observer */
  size_t capacity;           /* SIZE_MAX: unbounded */
  size_t first;              /* the slot of the oldest value, from 0 */
  size_t count;              /* values in the ring */
  size_t slots;              /* a power of two */
  size_t given;              /* values that gets were given and have not received yet */
  size_t waiting_puts;
  bool closed;
  bool finalized; /* it has been collected, and brought back by a finalizer */
};

static struct queue *check_queue(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_QUEUE);
}

/* --- the ring; `self` is the index of the queue --- */

static lua_Integer slot_at(const struct queue *queue, size_t position) {
  return (lua_Integer)((queue->first + position) & (queue->slots - 1)) + 1;
}

/* Doubles the ring, whose table is on top of the stack. [-0, +0, m] */
static void grow(lua_State *L, struct queue *queue, int self) {
  lua_createtable(L, (int)(2 * queue->slots), 0);
  for (size_t i = 0; i < queue->count; i++) {
    lua_rawgeti(L, -2, slot_at(queue, i));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setiuservalue(L, self, RING);
  queue->first = 0;
  queue->slots *= 2;
}

/* Makes sure that `extra` more values fit. It may collect, and a finalizer may do anything but suspend.
   [-0, +0, e] */
static void reserve(lua_State *L, struct queue *queue, int self, size_t extra) {
  while (IP_UNLIKELY(queue->slots - queue->count - queue->given < extra)) {
    if (queue->slots > INT_MAX / 4) ip_error_memory(L);
    lua_getiuservalue(L, self, RING);
    grow(L, queue, self);
    lua_pop(L, 1);
  }
}

/* Pops a value into the slot at `position`, which is reserved. [-1, +0, -] */
static void store(lua_State *L, const struct queue *queue, int self, size_t position) {
  lua_getiuservalue(L, self, RING);
  lua_insert(L, -2);
  lua_rawseti(L, -2, slot_at(queue, position)); /* within the array: it needs no memory */
  lua_pop(L, 1);
}

static void append(lua_State *L, struct queue *queue, int self) {
  store(L, queue, self, queue->count);
  queue->count++;
}

static void prepend(lua_State *L, struct queue *queue, int self) {
  queue->first = (queue->first - 1) & (queue->slots - 1);
  queue->count++;
  store(L, queue, self, 0);
}

/* Pushes the oldest value; there is one. [-0, +1, -] */
static void pop(lua_State *L, struct queue *queue, int self) {
  lua_Integer slot = slot_at(queue, 0);
  lua_getiuservalue(L, self, RING);
  lua_rawgeti(L, -1, slot);
  lua_pushnil(L);
  lua_rawseti(L, -3, slot);
  lua_remove(L, -2);
  queue->first++;
  queue->count--;
}

/* --- giving and taking --- */

static bool has_place(const struct queue *queue) {
  return queue->count < queue->capacity;
}

/* Pops a value and gives it to a waiting get. [-1, +0, -] */
static void give(lua_State *L, struct queue *queue, struct ip_operation *get) {
  ip_meeting_set_value(L, get);
  queue->given++;
  ip_operation_succeed(get);
}

/* Moves the value of a waiting put into the ring, which completes the put. [-0, +0, -] */
static void accept_put(lua_State *L, struct queue *queue, int self, struct ip_operation *put) {
  ip_meeting_take(L, put);
  append(L, queue, self);
  ip_operation_succeed(put);
}

/* Returns the oldest waiting put if its value may move into the ring. [-0, +0, -] */
static struct ip_operation *acceptable(lua_State *L, const struct queue *queue) {
  bool fits = has_place(queue) && queue->count + queue->given < queue->slots;
  return fits ? ip_meeting_oldest(L, &queue->puts) : NULL;
}

/* Restores the invariants: gives values to waiting gets, and lets waiting puts move up. [-0, +0, -] */
static void settle(lua_State *L, struct queue *queue, int self) {
  for (;;) {
    struct ip_operation *get = queue->count > 0 ? ip_meeting_oldest(L, &queue->gets) : NULL;
    if (get != NULL) {
      pop(L, queue, self);
      give(L, queue, get);
      continue;
    }
    struct ip_operation *put = acceptable(L, queue);
    if (put == NULL) break;
    accept_put(L, queue, self, put);
  }
  if (queue->count > 0) ip_observer_notify_all(&queue->observers);
}

/* Puts the value at index 2 into the queue at index 1, which has place for it. [-0, +0, -] */
static void put_at_once(lua_State *L, struct queue *queue) {
  struct ip_operation *get = ip_meeting_oldest(L, &queue->gets);
  lua_pushvalue(L, 2);
  if (get != NULL) {
    give(L, queue, get);
    return;
  }
  append(L, queue, 1);
  if (IP_UNLIKELY(!ip_queue_is_empty(&queue->observers))) ip_observer_notify_all(&queue->observers);
}

/* Pushes the oldest value; there is one. [-0, +1, -] */
static void get_at_once(lua_State *L, struct queue *queue) {
  pop(L, queue, 1);
  if (!ip_queue_is_empty(&queue->puts)) settle(L, queue, 1);
}

/* --- operations --- */

static void on_put_unlinked(struct ip_operation *operation) {
  struct queue *queue = operation->object;
  queue->waiting_puts--;
}

/* What was put stays put. */
static void put_cancelled(lua_State *L, struct ip_operation *operation) {
  ip_meeting_end(L, operation);
}

/* The value that was given goes to the next get, or back to the front. */
static void get_cancelled(lua_State *L, struct ip_operation *operation) {
  if (!ip_meeting_was_given(operation)) {
    ip_meeting_end(L, operation);
    return;
  }
  ip_meeting_push_object(L, operation);
  int self = lua_gettop(L);
  struct queue *queue = lua_touserdata(L, self);
  ip_meeting_take(L, operation);
  if (lua_isnil(L, -1)) { /* it was woken by the end of the queue */
    lua_pop(L, 2);
    return;
  }
  queue->given--;
  prepend(L, queue, self);
  settle(L, queue, self);
  lua_settop(L, self - 1);
}

static int push_nothing(lua_State *L, struct ip_result *result) {
  (void)L, (void)result;
  return 0;
}

static int push_value(lua_State *L, struct ip_result *result) {
  struct queue *queue = result->object;
  ip_meeting_take(L, result->payload.meeting.operation);
  if (!lua_isnil(L, -1)) queue->given--;
  return 1;
}

static const struct ip_operation_type put_type = {.name = "put",
                                                  .unlinked = on_put_unlinked,
                                                  .cancelled = put_cancelled,
                                                  .failed = ip_meeting_failed,
                                                  .anchors = true,
                                                  .push_results = push_nothing};
static const struct ip_operation_type get_type = {.name = "get",
                                                  .cancelled = get_cancelled,
                                                  .failed = ip_meeting_failed,
                                                  .anchors = true,
                                                  .push_results = push_value};

/* --- methods --- */

static void check_value(lua_State *L) {
  if (lua_isnoneornil(L, 2)) ip_argument_error(L, 2, "a value other than nil expected");
}

/* Suspends the running put until there is place, or, where there is, because its budget is spent. */
static int wait_in_put(lua_State *L, struct ip_runtime *runtime, struct queue *queue) {
  lua_settop(L, 2);
  reserve(L, queue, 1, queue->waiting_puts + 1); /* for whatever is given while it waits */
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &put_type, IP_NEVER, has_place(queue));
  if (queue->closed) return ip_operation_fail(L, operation, EPIPE); /* by a finalizer */
  operation->object = queue;
  ip_meeting_wait(L, operation, &queue->puts, 1);
  queue->waiting_puts++;
  lua_pushvalue(L, 2);
  ip_meeting_set_value(L, operation);
  settle(L, queue, 1);
  return ip_meeting_suspend(L, operation);
}

/* queue:put(value): appends a value, which is not nil; waits while the queue is full. EPIPE when it is
   closed, also while the call waits. Suspends: yes. */
static int queue_put(lua_State *L) {
  struct queue *queue = check_queue(L);
  struct ip_runtime *runtime = ip_runtime(L);
  check_value(L);
  ip_operation_check(L, runtime, &put_type);
  reserve(L, queue, 1, 1);
  if (queue->closed) return ip_error_raise_with_hint(L, EPIPE, put_type.name, "the queue is closed");
  if (IP_UNLIKELY(!has_place(queue) || runtime->budget <= 0)) return wait_in_put(L, runtime, queue);
  put_at_once(L, queue);
  runtime->budget--;
  return 0;
}

/* Suspends the running get until there is a value, or, where there is, because its budget is spent. */
static int wait_in_get(lua_State *L, struct ip_runtime *runtime, struct queue *queue) {
  lua_settop(L, 1);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &get_type, IP_NEVER, queue->count > 0);
  operation->object = queue;
  ip_meeting_wait(L, operation, &queue->gets, 1);
  settle(L, queue, 1);
  if (queue->closed) ip_operation_succeed(operation); /* by a finalizer; does nothing if it has a value */
  return ip_meeting_suspend(L, operation);
}

/* queue:get() -> value | nil: removes the oldest value; waits while the queue is empty. nil: it is closed and
   empty. Suspends: yes. */
static int queue_get(lua_State *L) {
  struct queue *queue = check_queue(L);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &get_type);
  if (queue->count == 0 && queue->closed) {
    lua_pushnil(L);
    return 1;
  }
  if (IP_UNLIKELY(queue->count == 0 || runtime->budget <= 0)) return wait_in_get(L, runtime, queue);
  get_at_once(L, queue);
  runtime->budget--;
  return 1;
}

/* Pushes nil and the error of a try_ call that cannot succeed. [-0, +2, m] */
static int fail(lua_State *L, int code, const char *operation) {
  if (code == EAGAIN) return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, code, operation);
  lua_pushnil(L);
  ip_error_push(L, IP_ERROR_SYSTEM, code, operation);
  return 2;
}

/* queue:try_put(value) -> true | nil, err: EAGAIN where put would wait, EPIPE when the queue is closed.
   Suspends: no. */
static int queue_try_put(lua_State *L) {
  struct queue *queue = check_queue(L);
  check_value(L);
  reserve(L, queue, 1, 1);
  if (queue->closed) return fail(L, EPIPE, "try_put");
  if (!has_place(queue)) return fail(L, EAGAIN, "try_put");
  put_at_once(L, queue);
  lua_pushboolean(L, true);
  return 1;
}

/* queue:try_get() -> value | nil, err: EAGAIN where get would wait, EPIPE when the queue is closed and empty.
   Suspends: no. */
static int queue_try_get(lua_State *L) {
  struct queue *queue = check_queue(L);
  if (queue->count == 0) return fail(L, queue->closed ? EPIPE : EAGAIN, "try_get");
  get_at_once(L, queue);
  return 1;
}

/* queue:close(): waiting and later puts raise EPIPE; gets receive what is left, then nil. Closing again does
   nothing. Suspends: no. */
static int queue_close(lua_State *L) {
  struct queue *queue = check_queue(L);
  queue->closed = true;
  while (!ip_queue_is_empty(&queue->puts))
    ip_operation_complete_with(ip_meeting_first(&queue->puts), EPIPE);
  while (!ip_queue_is_empty(&queue->gets))
    ip_operation_succeed(ip_meeting_first(&queue->gets));
  ip_observer_notify_all(&queue->observers);
  return 0;
}

/* queue:values() -> iterator, queue: for `for value in queue:values() do`, until the queue is closed and
   empty. Suspends: no, but each iteration may. */
static int queue_values(lua_State *L) {
  check_queue(L);
  lua_getfield(L, 1, get_type.name);
  lua_pushvalue(L, 1);
  return 2;
}

/* #queue: the values that a get can receive without waiting; puts that wait do not count. */
static int queue_mt_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_queue(L)->count);
  return 1;
}

static int queue_get_capacity(lua_State *L) {
  const struct queue *queue = check_queue(L);
  if (queue->capacity == SIZE_MAX)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)queue->capacity);
  return 1;
}

static int queue_get_is_closed(lua_State *L) {
  lua_pushboolean(L, check_queue(L)->closed);
  return 1;
}

/* Nobody waits in a queue that is collected: the operations that are linked in it anchor it. */
static int queue_mt_gc(lua_State *L) {
  struct queue *queue = check_queue(L);
  while (ip_queue_pop(&queue->observers) != NULL) {
  }
  queue->finalized = true;
  return 0;
}

/* --- observers --- */

bool ip_fiber_queue_is_ready(lua_State *L, int index) {
  const struct queue *queue = lua_touserdata(L, index);
  return queue->count > 0 || queue->closed;
}

void ip_fiber_queue_observe(lua_State *L, int index, struct ip_observer *observer) {
  struct queue *queue = lua_touserdata(L, index);
  ip_queue_append(&queue->observers, &observer->link);
  if (IP_LIKELY(!queue->finalized)) return;
  lua_pushvalue(L, index);
  ip_class_set(L, IP_CLASS_QUEUE); /* to be finalized once more */
  lua_pop(L, 1);
  queue->finalized = false;
}

/* --- registration --- */

/* queue([capacity]) -> queue: empty; `capacity`: an integer of at least 1, default unbounded. Suspends:
   no. */
static int queue_new(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  lua_Integer capacity = ip_argument_optional_integer(L, 1, 1, LUA_MAXINTEGER, 0);
  ip_runtime_check(L, runtime);
  struct queue *queue = lua_newuserdatauv(L, sizeof *queue, RING);
  *queue = (struct queue){.capacity = capacity == 0 ? SIZE_MAX : (size_t)capacity, .slots = FIRST_SLOTS};
  ip_queue_init(&queue->gets);
  ip_queue_init(&queue->puts);
  ip_queue_init(&queue->observers);
  lua_createtable(L, FIRST_SLOTS, 0);
  lua_setiuservalue(L, -2, RING);
  ip_class_set(L, IP_CLASS_QUEUE);
  return 1;
}

static const luaL_Reg methods[] = {{"put", queue_put},
                                   {"get", queue_get},
                                   {"try_put", queue_try_put},
                                   {"try_get", queue_try_get},
                                   {"close", queue_close},
                                   {"values", queue_values},
                                   {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__len", queue_mt_len}, {"__gc", queue_mt_gc}, {NULL, NULL}};

static const struct ip_property properties[] = {
    {"capacity", queue_get_capacity, NULL}, {"is_closed", queue_get_is_closed, NULL}, {NULL, NULL, NULL}};

static const luaL_Reg functions[] = {{"queue", queue_new}, {NULL, NULL}};

void ip_fiber_queue_open(lua_State *L, int core) {
  static const struct ip_class_definition definition = {.name = "ip.fiber.queue",
                                                        .id = IP_CLASS_QUEUE,
                                                        .methods = methods,
                                                        .metamethods = metamethods,
                                                        .properties = properties};
  core = lua_absindex(L, core);
  ip_class_define(L, core, &definition);
  ip_class_functions(L, core, functions);
}
