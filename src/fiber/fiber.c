/* fiber.c: spawn, join, interrupt, detach, sleep, yield, run.

   A fiber is a userdata that begins with the engine's struct ip_task. The table of tasks anchors it until its
   coroutine has ended, so the program need not keep a reference. Its first user value is its coroutine and,
   after the end, the coroutine's outcome: its error, its only result, or a table of its results. Each
   function says what it may raise. */
#include "fiber/fiber.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/raise.h"
#include "loop/dispatch.h"
#include "loop/task.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

/* The user value: the coroutine, then its outcome. */
enum { FIBER_REMAINS = 1, FIBER_USER_VALUES = FIBER_REMAINS };

enum fiber_state { FIBER_ALIVE, FIBER_DONE, FIBER_FAILED, FIBER_INTERRUPTED, FIBER_CLOSED };

struct fiber {
  struct ip_task task; /* first */
  struct ip_operation *joiner;
  struct ip_queue watches; /* struct ip_fiber_watch */
  uint32_t number;         /* of those that the runtime has had, from 1 */
  uint8_t results;         /* once the fiber is done: none, one, or SEVERAL */
  uint8_t state;           /* enum fiber_state */
  bool joined : 1, detached : 1;
  bool is_member : 1; /* of a group: its details are a struct member */
};

enum { SEVERAL = 2 };

struct member {
  struct ip_queue link; /* in group->members */
  struct ip_fiber_group *group;
  struct fiber *fiber;
};

static struct fiber *check_fiber(lua_State *L, int arg) {
  return ip_check_class(L, arg, IP_CLASS_FIBER);
}

static struct fiber *fiber_of(struct ip_task *task) {
  return (struct fiber *)task;
}

/* --- the end of a fiber --- */

/* Did the interruption end the fiber? The error value is moved off the coroutine's stack and back. */
static bool died_interrupted(lua_State *L, const struct ip_runtime *runtime, const struct fiber *fiber) {
  lua_xmove(ip_task_thread(&fiber->task), L, 1);
  bool interruption = ip_error_is(L, runtime, -1, IP_ERROR_FIBER, IP_FIBER_INTERRUPTED);
  lua_xmove(L, ip_task_thread(&fiber->task), 1);
  return interruption && fiber->task.context.interrupted;
}

static enum fiber_state state_after(lua_State *L, const struct ip_runtime *runtime, const struct fiber *fiber,
                                    int status) {
  if (status == IP_TASK_CLOSED) return FIBER_CLOSED;
  if (status == LUA_OK) return FIBER_DONE;
  return died_interrupted(L, runtime, fiber) ? FIBER_INTERRUPTED : FIBER_FAILED;
}

/* Removes the fiber from the table of tasks and from the runtime's counters. [-0, +0, -] */
static void unanchor(lua_State *L, struct ip_runtime *runtime, struct fiber *fiber) {
  ip_task_remove(L, &fiber->task);
  if (!fiber->detached) runtime->attached_tasks--;
  if (fiber->task.context.interrupted) runtime->pending_raises--;
}

/* (results ...) -> table of them, with their number as `n`. Runs in protected mode, because it allocates. */
static int pack_results(lua_State *L) {
  int results = lua_gettop(L);
  lua_createtable(L, results, 1);
  lua_pushinteger(L, results);
  lua_setfield(L, -2, "n");
  lua_insert(L, 1);
  for (int i = results; i >= 1; i--)
    lua_rawseti(L, 1, i);
  return 1;
}

/* Moves several results of the coroutine to this stack as one table, or a memory error. The coroutine's stack
   is empty before anything allocates: a finalizer could start the coroutine with its results otherwise.
   [-0, +1, -] */
static void push_packed(lua_State *L, struct fiber *fiber, int results) {
  lua_State *thread = ip_task_thread(&fiber->task);
  if (!lua_checkstack(L, results + 2)) {
    lua_pushnil(L);
    fiber->state = FIBER_FAILED;
    return;
  }
  lua_pushcfunction(L, pack_results);
  lua_xmove(thread, L, results);
  if (lua_pcall(L, results, 1, 0) != LUA_OK) fiber->state = FIBER_FAILED; /* fails with the memory error */
}

/* Pushes the outcome of the coroutine as one value and empties its stack. Otherwise coroutine.status would
   report a finished coroutine as suspended: with values on its stack it looks like one that was never
   started. [-0, +1, -] */
static void push_remains(lua_State *L, struct fiber *fiber) {
  lua_State *thread = ip_task_thread(&fiber->task);
  int results = lua_gettop(thread);
  fiber->results = (uint8_t)(results < SEVERAL ? results : SEVERAL);
  if (results == 1 && fiber->state != FIBER_CLOSED) {
    lua_xmove(thread, L, 1);
    return;
  }
  if (results > 1 && fiber->state != FIBER_CLOSED)
    push_packed(L, fiber, results);
  else
    lua_pushnil(L);
  lua_settop(thread, 0);
}

static void notify_watches(struct fiber *fiber) {
  for (struct ip_queue *link = ip_queue_pop(&fiber->watches); link != NULL;
       link = ip_queue_pop(&fiber->watches)) {
    struct ip_fiber_watch *watch = ip_container_of(link, struct ip_fiber_watch, link);
    watch->ended(watch);
  }
}

static int set_traceback(lua_State *L) {
  ip_task_make_details(L, 1, 0, IP_TASK_TRACEBACK);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, IP_TASK_TRACEBACK);
  return 0;
}

/* Keeps the traceback on top of the stack, if there is memory. [-0, +0, -] */
static void keep_traceback(lua_State *L, int index) {
  lua_pushcfunction(L, set_traceback);
  lua_pushvalue(L, index);
  lua_pushvalue(L, -3);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1);
}

/* Keeps the traceback of the fiber at `index`, whose error is on top of its coroutine's stack, and reports
   the error if nobody else gets it. [-0, +0, -] */
static void note_failure(lua_State *L, const struct fiber *fiber, int index) {
  lua_State *thread = ip_task_thread(&fiber->task);
  ip_loop_push_traceback(L, thread);
  keep_traceback(L, index);
  if (fiber->joiner != NULL || fiber->is_member) {
    lua_pop(L, 1);
    return;
  }
  lua_xmove(thread, L, 1); /* moved, and a copy moved back: the other stack does not grow */
  lua_pushvalue(L, -1);
  lua_xmove(L, thread, 1);
  lua_insert(L, -2); /* error, traceback */
  lua_pushvalue(L, index);
  ip_loop_report(L);
}

/* The fiber at `index`, which has ended, leaves its group. [-0, +0, -] */
static void leave_group(lua_State *L, struct fiber *fiber, int index) {
  ip_task_push_details(L, index);
  struct member *member = lua_touserdata(L, -1);
  struct ip_fiber_group *group = member->group;
  bool failed = fiber->state == FIBER_FAILED;
  ip_queue_remove(&member->link);
  fiber->is_member = false;
  group->size--;
  lua_getiuservalue(L, -1, IP_TASK_GROUP);    /* keeps it alive */
  lua_getiuservalue(L, index, FIBER_REMAINS); /* the error */
  group->ended(L, group, index, failed);
  lua_pushnil(L);
  lua_setiuservalue(L, -4, IP_TASK_GROUP);
  lua_pop(L, 3);
}

/* Called by the dispatcher when the coroutine has returned (its results are on its stack), raised an error
   (on its stack), or was closed by somebody else. The traceback is made before the coroutine's variables are
   closed. [-0, +0, -] */
static void end_fiber(lua_State *L, struct ip_runtime *runtime, struct ip_task *task, int status) {
  struct fiber *fiber = fiber_of(task);
  ip_task_push(L, task); /* anchors it once it has left the table */
  ip_operation_release(L, &task->operation);
  ip_queue_remove(&task->operation.ready.link); /* a queued check for a dead coroutine is obsolete */
  int index = lua_gettop(L);
  fiber->state = (uint8_t)state_after(L, runtime, fiber, status);
  unanchor(L, runtime, fiber);
  if (fiber->state == FIBER_FAILED) note_failure(L, fiber, index);
  if (status != LUA_OK) ip_compat_close_thread(ip_task_thread(task), L);
  push_remains(L, fiber);
  lua_setiuservalue(L, index, FIBER_REMAINS); /* from here on the coroutine may be collected */
  task->operation.thread = NULL;
  if (fiber->joiner != NULL) ip_operation_succeed(fiber->joiner);
  notify_watches(fiber);
  if (fiber->is_member) leave_group(L, fiber, index);
  lua_pop(L, 1);
}

/* --- spawning --- */

static void init_fiber(struct ip_runtime *runtime, struct fiber *fiber, lua_State *thread) {
  fiber->joiner = NULL;
  ip_queue_init(&fiber->watches);
  fiber->is_member = false;
  fiber->number = ++runtime->tasks_created;
  fiber->state = FIBER_ALIVE;
  fiber->joined = fiber->detached = false;
  fiber->results = 0;
  ip_task_init(runtime, &fiber->task, thread);
}

/* Makes the fiber at `index`, which has details, a member of the group at index 1. [-0, +0, -] */
static void join_group(lua_State *L, struct fiber *fiber, int index, struct ip_fiber_group *group) {
  ip_task_push_details(L, index);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, IP_TASK_GROUP);
  struct member *member = lua_touserdata(L, -1);
  lua_pop(L, 1);
  *member = (struct member){.group = group, .fiber = fiber};
  ip_queue_init(&member->link);
  ip_queue_append(&group->members, &member->link);
  group->size++;
  fiber->is_member = fiber->task.context.detailed = true;
}

void ip_fiber_start(lua_State *L, int first, struct ip_fiber_group *group) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_argument_check_type(L, first, LUA_TFUNCTION);
  ip_runtime_check(L, runtime);
  luaL_checkstack(L, 4, "too many arguments to spawn");
  int arguments = lua_gettop(L) - first;
  struct fiber *fiber = lua_newuserdatauv(L, sizeof *fiber, FIBER_USER_VALUES);
  lua_State *thread = lua_newthread(L);
  init_fiber(runtime, fiber, thread);
  lua_setiuservalue(L, -2, FIBER_REMAINS);
  ip_class_set(L, IP_CLASS_FIBER);
  lua_insert(L, first); /* fiber, fn, ... */
  if (!lua_checkstack(thread, arguments + 3)) ip_error_text(L, "too many arguments to spawn");
  if (group != NULL) {
    ip_task_make_details(L, first, sizeof(struct member), IP_TASK_DETAILS);
    lua_pop(L, 1);
  }
  ip_task_add(L, first, &fiber->task);
  if (group != NULL) join_group(L, fiber, first, group);
  lua_xmove(L, thread, arguments + 1);
  runtime->attached_tasks++;
  ip_task_enqueue(&fiber->task);
}

/* spawn(fn, ...) -> fiber: starts fn(...) in the next iteration of the loop. Suspends: no. */
static int fiber_spawn(lua_State *L) {
  ip_fiber_start(L, 1, NULL);
  return 1;
}

/* --- joining --- */

static void on_join_unlinked(struct ip_operation *operation) {
  struct fiber *fiber = operation->object;
  fiber->joiner = NULL;
}

/* Returns the number of results of the fiber at index 1. [-0, +0, -] */
static int count_results(lua_State *L, const struct fiber *fiber) {
  if (fiber->results < SEVERAL || fiber->state != FIBER_DONE) return fiber->results;
  lua_getiuservalue(L, 1, FIBER_REMAINS);
  if (lua_istable(L, -1))
    lua_getfield(L, -1, "n");
  else
    lua_pushinteger(L, 0); /* somebody has joined it */
  int results = (int)lua_tointeger(L, -1);
  lua_pop(L, 2);
  return results;
}

/* Pushes the results of the fiber at index 1, or raises its error. [-0, +?, e] */
static int push_end_of_fiber(lua_State *L, struct fiber *fiber) {
  int results = count_results(L, fiber);
  luaL_checkstack(L, results + 2, "too many results to join");
  fiber->joined = true;
  if (fiber->state == FIBER_INTERRUPTED) return 0;
  if (fiber->state == FIBER_CLOSED) return ip_error_raise(L, ECANCELED, "join");
  lua_getiuservalue(L, 1, FIBER_REMAINS);
  lua_pushnil(L);
  lua_setiuservalue(L, 1, FIBER_REMAINS);
  if (fiber->state == FIBER_FAILED) return ip_error_throw(L);
  if (fiber->results < SEVERAL) return results;
  int table = lua_gettop(L);
  for (int i = 1; i <= results; i++)
    lua_rawgeti(L, table, i);
  return results;
}

static int push_join_results(lua_State *L, struct ip_result *result) {
  return push_end_of_fiber(L, result->object);
}

static const struct ip_operation_type join_type = {
    .name = "join", .unlinked = on_join_unlinked, .push_results = push_join_results};

static struct fiber *joined_by(const struct fiber *fiber) {
  const struct ip_operation *waiting = fiber->task.context.waiting;
  bool joins = waiting != NULL && waiting->type == &join_type && waiting->state == IP_OPERATION_ARMED;
  return joins ? waiting->object : NULL;
}

/* Would the caller wait for itself? */
static bool is_circle(lua_State *L, struct ip_runtime *runtime, const struct fiber *target) {
  struct ip_context *self = ip_context_of(L, runtime);
  struct ip_task *task = ip_context_task(self);
  if (task == NULL) return false;
  while (target != NULL && &target->task != task)
    target = joined_by(target);
  return target != NULL;
}

static void check_joinable(lua_State *L, const struct fiber *fiber, const char *operation) {
  const char *hint = fiber->joined           ? "the fiber has been joined"
                     : fiber->detached       ? "the fiber has been detached"
                     : fiber->joiner != NULL ? "another fiber is joining it"
                                             : NULL;
  if (hint != NULL) ip_error_raise_with_hint(L, EINVAL, operation, hint);
}

/* fiber:join() -> results: waits for the end of the fiber and returns the results of its function, or raises
   its error. Returns nothing for an interrupted fiber. EDEADLK for oneself and in a circle; EINVAL for a
   second join, while another join waits, or after detach. A join that was interrupted or timed out may be
   repeated. Suspends: yes. */
static int fiber_join(lua_State *L) {
  struct fiber *fiber = check_fiber(L, 1);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &join_type);
  if (is_circle(L, runtime, fiber)) return ip_error_raise(L, EDEADLK, "join");
  check_joinable(L, fiber, "join");
  lua_settop(L, 1);
  if (fiber->state != FIBER_ALIVE) return push_end_of_fiber(L, fiber);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &join_type, IP_NEVER, false);
  operation->object = fiber;
  fiber->joiner = operation;
  return ip_operation_suspend(L, operation);
}

static int push_no_results(lua_State *L, struct ip_result *result) {
  (void)L, (void)result;
  return 0;
}

static const struct ip_operation_type wait_for_end_type = {
    .name = "wait_for_end", .unlinked = on_join_unlinked, .push_results = push_no_results, .endures = true};

/* wait_for_end(fiber): waits for the end of the fiber, which nothing joins. An interruption or an expired
   deadline of the caller is raised by a later call. Suspends: yes. */
static int fiber_wait_for_end(lua_State *L) {
  struct fiber *fiber = check_fiber(L, 1);
  if (fiber->state != FIBER_ALIVE) return 0;
  if (fiber->joiner != NULL) return ip_error_raise(L, EINVAL, wait_for_end_type.name);
  struct ip_operation *operation = ip_operation_acquire(L, ip_runtime(L), &wait_for_end_type, IP_NEVER, true);
  operation->object = fiber;
  fiber->joiner = operation;
  return ip_operation_suspend(L, operation);
}

/* fiber:detach(): run() no longer waits for the fiber, and it cannot be joined. Suspends: no. */
static int fiber_detach(lua_State *L) {
  struct fiber *fiber = check_fiber(L, 1);
  check_joinable(L, fiber, "detach");
  fiber->detached = true;
  if (fiber->state == FIBER_ALIVE) ip_runtime(L)->attached_tasks--;
  return 0;
}

static void interrupt(struct fiber *fiber) {
  struct ip_context *context = &fiber->task.context;
  struct ip_operation *waiting = context->waiting;
  if (fiber->state != FIBER_ALIVE || context->interrupted) return;
  context->interrupted = true;
  fiber->task.operation.runtime->pending_raises++;
  if (waiting != NULL && context->shields == 0 && !waiting->type->endures)
    ip_operation_complete(waiting, IP_ERROR_FIBER, ip_failure(IP_FIBER_INTERRUPTED));
}

/* fiber:interrupt(): the pending or next suspending call of the fiber raises INTERRUPTED, and so does every
   later one outside shield. Does nothing to a fiber that has ended. Suspends: no. */
static int fiber_interrupt(lua_State *L) {
  interrupt(check_fiber(L, 1));
  return 0;
}

/* --- groups --- */

/* The fiber that the running coroutine belongs to, or NULL. [-0, +0, -] */
static struct fiber *running_fiber(lua_State *L) {
  struct ip_task *task = ip_context_task(ip_context_of(L, ip_runtime(L)));
  return task != NULL ? fiber_of(task) : NULL;
}

bool ip_fiber_is_current(lua_State *L, int arg) {
  return running_fiber(L) == check_fiber(L, arg);
}

bool ip_fiber_is_in(lua_State *L, const struct ip_fiber_group *group) {
  const struct fiber *fiber = running_fiber(L);
  if (fiber == NULL || !fiber->is_member) return false;
  ip_task_push(L, &fiber->task);
  ip_task_push_details(L, -1);
  const struct member *member = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return member->group == group;
}

void ip_fiber_push_traceback(lua_State *L, int index) {
  ip_task_push_details(L, index);
  if (lua_isnil(L, -1)) return;
  lua_getiuservalue(L, -1, IP_TASK_TRACEBACK);
  lua_remove(L, -2);
}

void ip_fiber_interrupt_all(struct ip_fiber_group *group) {
  for (struct ip_queue *link = group->members.next; link != &group->members; link = link->next)
    interrupt(ip_container_of(link, struct member, link)->fiber);
}

/* --- watching --- */

bool ip_fiber_has_ended(lua_State *L, int arg) {
  return check_fiber(L, arg)->state != FIBER_ALIVE;
}

void ip_fiber_watch(lua_State *L, int arg, struct ip_fiber_watch *watch) {
  ip_queue_append(&check_fiber(L, arg)->watches, &watch->link);
}

/* --- properties --- */

static int fiber_get_joinable(lua_State *L) {
  const struct fiber *fiber = check_fiber(L, 1);
  lua_pushboolean(L, !fiber->joined && !fiber->detached);
  return 1;
}

static int fiber_get_interruption_caught(lua_State *L) {
  lua_pushboolean(L, check_fiber(L, 1)->state == FIBER_INTERRUPTED);
  return 1;
}

static const char *status_of(lua_State *L, const struct fiber *fiber) {
  static const char *const ended[] = {[FIBER_DONE] = "done",
                                      [FIBER_FAILED] = "failed",
                                      [FIBER_INTERRUPTED] = "interrupted",
                                      [FIBER_CLOSED] = "failed"};
  if (fiber->state != FIBER_ALIVE) return ended[fiber->state];
  if (ip_runtime(L)->current == &fiber->task || ip_task_is_running(&fiber->task)) return "running";
  const struct ip_operation *waiting = fiber->task.context.waiting;
  return waiting != NULL && waiting->state == IP_OPERATION_ARMED ? "waiting" : "ready";
}

static int fiber_get_status(lua_State *L) {
  lua_pushstring(L, status_of(L, check_fiber(L, 1)));
  return 1;
}

static int fiber_get_name(lua_State *L) {
  const struct fiber *fiber = check_fiber(L, 1);
  ip_task_push_details(L, 1);
  bool has_name = !lua_isnil(L, -1) && lua_getiuservalue(L, -1, IP_TASK_NAME) == LUA_TSTRING;
  if (!has_name) lua_pushfstring(L, "fiber %I", (lua_Integer)fiber->number);
  return 1;
}

static int fiber_set_name(lua_State *L) {
  size_t length;
  struct fiber *fiber = check_fiber(L, 1);
  ip_argument_string(L, 3, &length);
  ip_task_make_details(L, 1, 0, IP_TASK_DETAILS);
  fiber->task.context.detailed = true;
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, IP_TASK_NAME);
  return 0;
}

/* fiber:traceback() -> string: where the fiber is suspended or running, or where it has failed; of one that
   has ended otherwise, or has not started, an empty traceback. Suspends: no. Source: luaL_traceback. */
static int fiber_traceback(lua_State *L) {
  const struct fiber *fiber = check_fiber(L, 1);
  if (fiber->state == FIBER_ALIVE) {
    lua_State *thread = ip_task_thread(&fiber->task);
    luaL_traceback(L, thread, NULL, thread == L ? 1 : 0); /* without this call itself */
    return 1;
  }
  ip_fiber_push_traceback(L, 1);
  if (!lua_isstring(L, -1)) lua_pushliteral(L, "stack traceback:");
  return 1;
}

/* list() -> sequence of the fibers that have not ended, in no order. Suspends: no. */
static int fiber_list(lua_State *L) {
  ip_task_push_all(L);
  return 1;
}

/* number_of(fiber) -> integer: fibers are numbered in the order of spawning. Suspends: no. */
static int fiber_number_of(lua_State *L) {
  lua_pushinteger(L, check_fiber(L, 1)->number);
  return 1;
}

static int fiber_mt_tostring(lua_State *L) {
  const struct fiber *fiber = check_fiber(L, 1);
  lua_pushfstring(L, "ip.fiber (%s): %p", status_of(L, fiber), lua_topointer(L, 1));
  return 1;
}

/* --- sleep, yield, run --- */

static int push_nothing(lua_State *L, struct ip_result *result) {
  (void)L;
  (void)result;
  return 0;
}

static const struct ip_operation_type sleep_type = {
    .name = "sleep", .push_results = push_nothing, .ends_by_time = true};
static const struct ip_operation_type yield_type = {.name = "yield", .push_results = push_nothing};

static const struct ip_operation_type run_type = {
    .name = "run", .push_results = push_nothing, .ends_when_idle = true};

static int yield(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_type *type) {
  struct ip_operation *operation = ip_operation_acquire(L, runtime, type, IP_NEVER, true);
  ip_operation_succeed(operation);
  return ip_operation_suspend(L, operation);
}

/* yield(): lets every other ready fiber run once. Suspends: yes. */
static int fiber_yield(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &yield_type);
  return yield(L, runtime, &yield_type);
}

/* sleep(seconds): zero or less is a yield. Suspends: yes. */
static int fiber_sleep(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  double seconds = ip_argument_seconds(L, 1);
  ip_operation_check(L, runtime, &sleep_type);
  if (seconds <= 0) return yield(L, runtime, &sleep_type);
  return ip_operation_suspend(
      L, ip_operation_acquire(L, runtime, &sleep_type, ip_deadline_after(seconds), false));
}

static void check_main(lua_State *L, struct ip_runtime *runtime) {
  if (L != runtime->main) ip_error_text(L, "run is for the main thread: a fiber cannot drive the event loop");
  if (runtime->driving) ip_error_text(L, "the main thread is already driving the event loop");
}

/* run_all(): drives the loop until no fiber is left. */
static int fiber_run_all(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  check_main(L, runtime);
  ip_operation_check(L, runtime, &run_type);
  return ip_operation_suspend(L, ip_operation_acquire(L, runtime, &run_type, IP_NEVER, false));
}

/* check_main(): raises where run may not be called. */
static int fiber_check_main(lua_State *L) {
  check_main(L, ip_runtime(L));
  return 0;
}

/* current() -> fiber | nil: the running fiber; nil on the main thread and in a coroutine that somebody else
   has made. */
static int fiber_current(lua_State *L) {
  struct ip_task *task = ip_context_task(ip_context_of(L, ip_runtime(L)));
  if (task != NULL)
    ip_task_push(L, task);
  else
    lua_pushnil(L);
  return 1;
}

/* now() -> seconds of a monotonic clock. */
static int fiber_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)uv_hrtime() / 1e9);
  return 1;
}

/* time() -> nanoseconds since the epoch. */
static int fiber_time(lua_State *L) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return ip_error_raise(L, errno, "time");
  lua_pushinteger(L, (lua_Integer)now.tv_sec * 1000000000 + now.tv_nsec);
  return 1;
}

/* set_reporter(function(err, traceback, fiber)): sets the handler of errors in fibers that nothing joins. */
static int fiber_set_reporter(lua_State *L) {
  ip_argument_check_type(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  ip_loop_set_reporter(L);
  return 0;
}

/* statistics() -> table of the objects in use, for specs. */
static int fiber_statistics(lua_State *L) {
  const struct ip_runtime *runtime = ip_runtime(L);
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, (lua_Integer)runtime->operations);
  lua_setfield(L, -2, "operations");
  lua_pushinteger(L, (lua_Integer)ip_runtime_count_resources(runtime, "socket"));
  lua_setfield(L, -2, "sockets");
  lua_pushinteger(L, (lua_Integer)runtime->attached_tasks);
  lua_setfield(L, -2, "fibers");
  lua_pushinteger(L, (lua_Integer)runtime->external_waits);
  lua_setfield(L, -2, "external_waits");
  return 1;
}

/* --- registration --- */

static const luaL_Reg methods[] = {{"join", fiber_join},
                                   {"detach", fiber_detach},
                                   {"interrupt", fiber_interrupt},
                                   {"traceback", fiber_traceback},
                                   {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__tostring", fiber_mt_tostring}, {NULL, NULL}};

static const struct ip_property properties[] = {
    {"joinable", fiber_get_joinable, NULL},
    {"name", fiber_get_name, fiber_set_name},
    {"status", fiber_get_status, NULL},
    {"interruption_caught", fiber_get_interruption_caught, NULL},
    {NULL, NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"spawn", fiber_spawn},
    {"sleep", fiber_sleep},
    {"yield", fiber_yield},
    {"wait_for_end", fiber_wait_for_end},
    {"run_all", fiber_run_all},
    {"check_main", fiber_check_main},
    {"current", fiber_current},
    {"list", fiber_list},
    {"number_of", fiber_number_of},
    {"now", fiber_now},
    {"time", fiber_time},
    {"set_reporter", fiber_set_reporter},
    {"statistics", fiber_statistics},
    {NULL, NULL},
};

void ip_fiber_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.fiber",
      .id = IP_CLASS_FIBER,
      .methods = methods,
      .metamethods = metamethods,
      .properties = properties,
  };
  ip_class_define(L, core, &definition);
  ((struct ip_runtime *)lua_touserdata(L, core))->end_task = end_fiber;
  lua_newtable(L);
  ip_class_functions(L, core, functions);
}
