/* dispatch.c: the iterations of the loop. This is the only file that resumes coroutines.

   Owns the reporter, in the registry. An iteration polls libuv, whose callbacks only record which descriptors
   and operations became ready, and serves them afterwards. So no libuv frame is on the C stack while Lua
   runs, and user code may close sockets, raise errors and even close the state. Nothing here raises. */
#include "loop/dispatch.h"

#include "base/util.h"
#include "binding/raise.h"
#include "loop/alarm.h"
#include "loop/fork.h"
#include "loop/keyboard_interrupt.h"
#include "loop/pooled_operation.h"
#include "loop/task.h"
#include "loop/wait_point.h"
#include "loop/watcher.h"

/* Registry: the function that receives reported errors, and a function that does nothing. */
static const char reporter_key, nothing_key;

void ip_loop_open(lua_State *L) {
  if (luaL_loadstring(L, "return") != LUA_OK) ip_error_throw(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &nothing_key);
}

void ip_loop_set_reporter(lua_State *L) {
  lua_rawsetp(L, LUA_REGISTRYINDEX, &reporter_key);
}

/* --- ready queue and flushers --- */

static void on_idle(uv_idle_t *idle) {
  (void)idle; /* while this handle is active, the poll of a host's loop does not block */
}

/* The next poll of a host's loop does not block. */
static void keep_awake(struct ip_runtime *runtime) {
  if (runtime->driver == NULL || !runtime->opened) return;
  (void)uv_idle_start(&runtime->handles->idle,
                      on_idle); /* fails only without a callback (libuv loop-watcher.c) */
}

void ip_runtime_enqueue(struct ip_runtime *runtime, struct ip_ready *ready) {
  if (!ip_queue_is_linked(&ready->link)) ip_queue_append(&runtime->ready, &ready->link);
  /* libuv up to 1.44 runs timers before it polls: without uv_stop it would block while the ready queue has
     entries */
  if (runtime->polling)
    uv_stop(runtime->loop);
  else
    keep_awake(runtime);
}

void ip_runtime_schedule(struct ip_runtime *runtime, struct ip_flusher *flusher) {
  if (ip_queue_is_linked(&flusher->link)) return;
  ip_queue_append(&runtime->flushers, &flusher->link);
  /* called by a host between our iterations: there has to be one before its loop blocks */
  if (!runtime->driving) keep_awake(runtime);
}

/* --- reporting --- */

/* (thread as light userdata) -> traceback. Runs in protected mode. */
static int make_traceback(lua_State *L) {
  luaL_traceback(L, lua_touserdata(L, 1), NULL, 0);
  return 1;
}

void ip_loop_push_traceback(lua_State *L, lua_State *thread) {
  lua_pushcfunction(L, make_traceback);
  lua_pushlightuserdata(L, thread);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) return;
  lua_pop(L, 1);
  lua_pushnil(L);
}

/* (error, traceback or nil, fiber or nil): calls the reporter. Runs in protected mode. */
static int report_protected(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &reporter_key) != LUA_TFUNCTION) return 0;
  lua_insert(L, 1);
  if (lua_isnil(L, 3)) {
    lua_pushliteral(L, "");
    lua_replace(L, 3);
  }
  lua_call(L, 3, 0);
  return 0;
}

void ip_loop_report(lua_State *L) {
  lua_pushcfunction(L, report_protected);
  lua_insert(L, -4);
  /* the reporter handles errors of the user's handler; only a lack of memory is left, and it cannot be
     reported */
  if (lua_pcall(L, 3, 0, 0) != LUA_OK) lua_pop(L, 1);
}

/* Reports the error on top of the stack of a coroutine that is no fiber. [-0, +0, -] */
static void report_foreign(lua_State *L, lua_State *thread) {
  lua_xmove(thread, L, 1);
  lua_pushvalue(L, -1);
  lua_xmove(L, thread, 1);
  ip_loop_push_traceback(L, thread);
  lua_pushnil(L);
  ip_loop_report(L);
}

/* --- resuming --- */

/* The caller anchors `thread`. [-0, +0, -] */
static void resume(lua_State *L, struct ip_runtime *runtime, lua_State *thread, struct ip_task *task,
                   int arguments) {
  struct ip_task *outer = runtime->current;
  lua_State *outer_running = runtime->running;
  int results;
  runtime->current = task;
  runtime->running = task != NULL ? thread : NULL;
  runtime->budget = IP_TRANSFER_BUDGET;
  int status = lua_resume(thread, L, arguments, &results);
  runtime->current = outer;
  runtime->running = outer_running;
  if (status == LUA_YIELD) {
    lua_pop(thread, results); /* values of the user's own coroutine.yield are ignored */
    if (task != NULL && task->context.waiting == NULL) ip_task_enqueue(task);
    return;
  }
  if (task != NULL)
    runtime->end_task(L, runtime, task, status);
  else if (status != LUA_OK)
    report_foreign(L, thread);
  else
    lua_settop(thread, 0); /* with results on its stack it would look as if it had not begun */
}

bool ip_operation_is_suspended(const struct ip_operation *operation) {
  if (operation->is.on_main) return true;
  lua_State *thread = operation->thread;
  if (lua_status(thread) != LUA_YIELD) return false;
  return !operation->is.pooled || lua_touserdata(thread, operation->slot) == operation;
}

/* Resumes the coroutine of a pooled operation. The stack anchors the coroutine while it runs, because the
   operation no longer does so once it is released. */
static void resume_pooled(lua_State *L, struct ip_runtime *runtime, struct ip_operation *operation) {
  lua_State *thread = operation->thread;
  struct ip_task *task = ip_context_task(operation->context);
  if (task != NULL && ip_task_thread(task) != thread)
    task = NULL; /* a coroutine inside a fiber waits without a delegate */
  ip_operation_push_pooled(L, operation);
  lua_getiuservalue(L, -1, IP_ANCHOR_THREAD);
  resume(L, runtime, thread, task, 0);
  lua_pop(L, 2);
}

void ip_operation_resume(lua_State *L, struct ip_operation *operation) {
  struct ip_runtime *runtime = operation->runtime;
  struct ip_operation *delegate = operation->is.pooled ? ip_pooled(operation)->delegate : NULL;
  if (IP_UNLIKELY(!ip_operation_is_suspended(operation))) {
    ip_operation_abandon(L, operation); /* wakes a delegate, too */
    return;
  }
  operation->state = IP_OPERATION_DONE;
  if (IP_LIKELY(!operation->is.pooled)) { /* the table of tasks anchors the coroutine */
    resume(L, runtime, operation->thread, ip_context_task(operation->context), 0);
  } else if (delegate != NULL) {
    delegate->type->unlinked(delegate);
    ip_operation_resume(L, delegate);
  } else if (operation->is.on_main) {
    runtime->main_done = true; /* ends ip_loop_drive */
  } else {
    resume_pooled(L, runtime, operation);
  }
}

/* Starts a task, continues a task that yielded by itself, or ends a task whose coroutine somebody else has
   finished. A task that somebody else is running is looked at again in the next iteration. */
static void run_task(lua_State *L, struct ip_runtime *runtime, struct ip_task *task) {
  if (task->context.waiting != NULL)
    return; /* somebody else has resumed it meanwhile, and it waits in a pooled operation */
  lua_State *thread = ip_task_thread(task);
  if (ip_task_is_running(task)) {
    ip_queue_append(&runtime->strays, &task->operation.ready.link);
    return;
  }
  int status = lua_status(thread);
  bool startable = status == LUA_OK && !task->context.started && lua_gettop(thread) > 0;
  if (status != LUA_YIELD && !startable) {
    runtime->end_task(L, runtime, task, IP_TASK_CLOSED);
    return;
  }
  resume(L, runtime, thread, task, startable ? ip_task_prepare(task) : 0);
}

/* The operation of a task is the entry of that task in the ready queue, with a result or free. */
static void serve_task(lua_State *L, struct ip_runtime *runtime, struct ip_task *task) {
  if (task->operation.state == IP_OPERATION_READY)
    ip_operation_resume(L, &task->operation);
  else
    run_task(L, runtime, task);
}

/* --- iterations --- */

static bool is_done(const struct ip_operation *operation) {
  return operation != NULL && operation->state == IP_OPERATION_DONE;
}

/* Serves one entry of the batch. The table of tasks anchors tasks, and the pool anchors operations. */
static void serve(lua_State *L, struct ip_runtime *runtime, struct ip_ready *ready) {
  switch (ready->type) {
  case IP_READY_WATCHER: ip_watcher_dispatch(L, ip_container_of(ready, struct ip_watcher, ready)); break;
  case IP_READY_OPERATION: ip_operation_resume(L, ip_container_of(ready, struct ip_operation, ready)); break;
  case IP_READY_WAIT_POINT:
    ip_wait_point_dispatch(L, ip_container_of(ready, struct ip_wait_point, ready));
    break;
  case IP_READY_TASK: serve_task(L, runtime, ip_container_of(ready, struct ip_task, operation.ready)); break;
  }
}

/* Serves the entries that are ready now; entries that become ready meanwhile are served in the next
   iteration. Stops early when the main thread has its result: it has waited long enough, and the state of the
   socket should not change again between the completed read and its return. */
static void serve_batch(lua_State *L, struct ip_runtime *runtime, struct ip_operation *until) {
  runtime->iteration++;
  ip_queue_move(&runtime->batch, &runtime->ready);
  ip_queue_move(&runtime->batch, &runtime->strays);
  while (!is_done(until)) {
    struct ip_queue *link = ip_queue_pop(&runtime->batch);
    if (link == NULL) return;
    serve(L, runtime, ip_container_of(link, struct ip_ready, link));
  }
  ip_queue_move(&runtime->batch, &runtime->ready);
  ip_queue_move(&runtime->ready, &runtime->batch);
}

/* A flusher that is scheduled meanwhile runs at the end of the next iteration. */
static void flush_all(struct ip_runtime *runtime) {
  struct ip_queue due;
  ip_queue_init(&due);
  ip_queue_move(&due, &runtime->flushers);
  for (struct ip_queue *link = ip_queue_pop(&due); link != NULL; link = ip_queue_pop(&due)) {
    struct ip_flusher *flusher = ip_container_of(link, struct ip_flusher, link);
    flusher->flush(flusher);
  }
}

/* Submits the sends of the iteration before any call waits for their answers. */
static void flush(struct ip_runtime *runtime) {
  if (IP_UNLIKELY(!ip_queue_is_empty(&runtime->flushers))) flush_all(runtime);
}

static void dispatch(lua_State *L, struct ip_runtime *runtime, struct ip_operation *until) {
  serve_batch(L, runtime, until);
  flush(runtime);
}

static void poll_loop(struct ip_runtime *runtime, bool busy) {
  if (IP_UNLIKELY(!ip_queue_is_empty(&runtime->unprobed))) {
    ip_watcher_probe(runtime);
    busy = busy || !ip_queue_is_empty(&runtime->ready);
  }
  runtime->polling = true;
  (void)uv_run(runtime->loop, busy ? UV_RUN_NOWAIT : UV_RUN_ONCE); /* its result is no status */
  runtime->polling = false;
}

/* Polls without sleeping until something is ready, for at most `seconds`. Waking up from a blocked poll costs
   several times as much as a poll. Returns false when nothing became ready. */
static bool spin(struct ip_runtime *runtime, double seconds) {
  static const double longest = 1e9; /* 31 years: long enough, and sums of it do not overflow */
  uint64_t end = uv_hrtime() + (uint64_t)((seconds < longest ? seconds : longest) * 1e9);
  do {
    poll_loop(runtime, true);
    if (!ip_queue_is_empty(&runtime->ready) || atomic_load(&runtime->signalled) != 0) return true;
  } while (uv_hrtime() < end);
  return false;
}

/* Blocks until something is ready or a timer fires. */
static void wait_for_events(struct ip_runtime *runtime) {
  if (runtime->spin > 0 && spin(runtime, runtime->spin)) return;
  poll_loop(runtime, false);
}

/* Runs one Lua function on the main thread after a signal: a debug hook that the host's signal handler has
   set runs here, where its error can propagate. Returns false when the hook raised an error.
   [-0, +(0|1), -] */
static bool run_hook(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &nothing_key);
  return lua_pcall(L, 0, 0, 0) == LUA_OK;
}

bool ip_loop_watch_interrupt(lua_State *L, struct ip_runtime *runtime) {
  ip_keyboard_interrupt_watch(L, runtime);
  return atomic_exchange(&runtime->signalled, 0) == 0 || run_hook(L);
}

/* Is `operation` DONE? An operation that waits for an idle runtime is completed here. */
static bool is_over(const struct ip_runtime *runtime, struct ip_operation *operation) {
  if (is_done(operation)) return true;
  if (!operation->type->ends_when_idle || operation->state != IP_OPERATION_ARMED) return false;
  if (runtime->attached_tasks != 0 || runtime->foreign_waits != 0) return false;
  ip_operation_succeed(operation);
  ip_queue_remove(&operation->ready.link);
  operation->state = IP_OPERATION_DONE;
  return true;
}

void ip_loop_on_prepare(uv_prepare_t *prepare) {
  struct ip_runtime *runtime = prepare->data;
  if (!ip_queue_is_empty(&runtime->unprobed)) ip_watcher_probe(runtime);
}

/* The driver thread runs nothing itself: it is what coroutines are resumed from, and what handlers are called
   on. */
void ip_loop_on_check(uv_check_t *check) {
  struct ip_runtime *runtime = check->data;
  if (runtime->driving) return; /* our own uv_run is active, and its caller serves the batch */
  if (ip_fork_check(runtime) != 0) return;
  runtime->driving = true;
  dispatch(runtime->driver, runtime, NULL);
  runtime->driving = false;
  if (ip_queue_is_empty(&runtime->ready)) (void)uv_idle_stop(&runtime->handles->idle); /* always 0 */
}

static bool has_work(const struct ip_runtime *runtime) {
  return !ip_queue_is_empty(&runtime->ready) || runtime->external_waits != 0;
}

static void on_step_over(struct ip_runtime *runtime, struct ip_timer *timer) {
  *(bool *)timer->owner = true;
  uv_stop(runtime->loop); /* libuv up to 1.44 runs timers before it polls, and would then block without one */
}

/* Polls for at most `seconds`. */
static void poll_for(struct ip_runtime *runtime, double seconds) {
  bool over = false;
  struct ip_timer *timer = seconds > 0 ? ip_timer_new(runtime) : NULL; /* without memory it does not block */
  if (timer == NULL) {
    poll_loop(runtime, true);
    return;
  }
  ip_deadline deadline = ip_deadline_after(seconds);
  if (deadline != IP_NEVER) ip_timer_start(runtime, timer, deadline, on_step_over, &over);
  flush(runtime);
  double spinning = runtime->spin < seconds ? runtime->spin : seconds;
  bool came = runtime->spin > 0 && spin(runtime, spinning);
  if (!came) poll_loop(runtime, over);
  ip_timer_free(runtime, timer);
}

bool ip_loop_step(lua_State *L, struct ip_runtime *runtime, double seconds) {
  flush(runtime);
  if (!has_work(runtime)) return false;
  runtime->driving = true;
  poll_for(runtime, ip_queue_is_empty(&runtime->ready) ? seconds : 0);
  dispatch(L, runtime, NULL);
  runtime->driving = false;
  runtime->budget = IP_TRANSFER_BUDGET;
  return has_work(runtime);
}

/* A host's loop may have timers of others. Negative: there is no timer. */
static double seconds_to_next_timer(const struct ip_runtime *runtime) {
  double seconds = -1;
  if (runtime->driver != NULL) {
    uv_update_time(runtime->loop);
    int timeout = uv_backend_timeout(runtime->loop);
    if (timeout >= 0) seconds = timeout / 1e3;
  }
  ip_deadline next = ip_timers_next(&runtime->timers);
  if (next == IP_NEVER) return seconds;
  uint64_t time = ip_alarm_time(runtime->timers.alarm, next), now = uv_hrtime();
  double own = time > now ? (double)(time - now) / 1e9 : 0;
  return seconds < 0 || own < seconds ? own : seconds;
}

double ip_loop_poll_nowait(struct ip_runtime *runtime) {
  flush(runtime);
  if (!has_work(runtime)) return -1;
  poll_loop(runtime, true);
  if (!ip_queue_is_empty(&runtime->ready)) return 0;
  return seconds_to_next_timer(runtime);
}

enum ip_drive_result ip_loop_drive(lua_State *L, struct ip_runtime *runtime, struct ip_operation *operation) {
  enum ip_drive_result result = IP_DRIVE_DONE;
  ip_keyboard_interrupt_watch(L, runtime);
  runtime->driving = true;
  flush(runtime);
  while (!is_over(runtime, operation)) {
    if (IP_UNLIKELY(ip_fork_check(runtime) != 0)) {
      result = IP_DRIVE_LOST;
      break;
    }
    bool busy = !ip_queue_is_empty(&runtime->ready) || !ip_queue_is_empty(&runtime->strays) ||
                atomic_load(&runtime->signalled) != 0;
    if (!busy && runtime->external_waits == 0) {
      result = IP_DRIVE_DEADLOCK;
      break;
    }
    if (busy)
      poll_loop(runtime, true);
    else
      wait_for_events(runtime);
    if (atomic_exchange(&runtime->signalled, 0) != 0 && !run_hook(L)) {
      result = IP_DRIVE_ERROR;
      break;
    }
    dispatch(L, runtime, operation);
  }
  runtime->driving = false;
  runtime->main_done = false;
  runtime->budget = IP_TRANSFER_BUDGET;
  return result;
}
