/* dispatch.c: the iterations of the loop, and the only place that resumes coroutines.

   An iteration polls libuv, whose callbacks only note what became ready, and then serves what was noted: no libuv frame
   is on the C stack while Lua runs, so user code may close, raise and even close the state. Nothing here raises. */
#include "loop/dispatch.h"

#include "base/util.h"
#include "binding/raise.h"
#include "loop/alarm.h"
#include "loop/fork.h"
#include "loop/keyboard_interrupt.h"
#include "loop/pooled_operation.h"
#include "loop/task.h"
#include "loop/watcher.h"

/* Registry: the function that errors are reported to, and one that does nothing. */
static const char reporter_key, nothing_key;

void ip_loop_open(lua_State *L) {
  if (luaL_loadstring(L, "return") != LUA_OK) ip_error_throw(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &nothing_key);
}

void ip_loop_set_reporter(lua_State *L) {
  lua_rawsetp(L, LUA_REGISTRYINDEX, &reporter_key);
}

/* --- what is ready, and what is due --- */

static void on_idle(uv_idle_t *idle) {
  (void)idle; /* that it is active keeps a host's poll from blocking */
}

void ip_runtime_enqueue(struct ip_runtime *runtime, struct ip_ready *ready) {
  if (!ip_queue_is_linked(&ready->link)) ip_queue_append(&runtime->ready, &ready->link);
  /* libuv up to 1.44 runs timers before it polls: without this it would block with work in the ready queue */
  if (runtime->polling)
    uv_stop(runtime->loop);
  else if (runtime->driver != NULL && runtime->opened)
    uv_idle_start(&runtime->handles->idle, on_idle);
}

void ip_runtime_schedule(struct ip_runtime *runtime, struct ip_flusher *flusher) {
  if (ip_queue_is_linked(&flusher->link)) return;
  ip_queue_append(&runtime->flushers, &flusher->link);
  /* called by a host between our iterations: there has to be one before its loop blocks */
  if (runtime->driver != NULL && runtime->opened && !runtime->driving)
    uv_idle_start(&runtime->handles->idle, on_idle);
}

/* --- reporting --- */

/* (thread as light userdata, fiber or nil): calls the reporter. Runs protected. */
static int report_protected(lua_State *L) {
  lua_State *thread = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &reporter_key) != LUA_TFUNCTION) return 0;
  /* a copy of the error value, without growing the other coroutine's stack */
  lua_xmove(thread, L, 1);
  lua_pushvalue(L, -1);
  lua_xmove(L, thread, 1);
  luaL_traceback(L, thread, NULL, 0);
  lua_pushvalue(L, 2);
  lua_call(L, 3, 0);
  return 0;
}

void ip_loop_report(lua_State *L, lua_State *thread, int fiber) {
  lua_pushcfunction(L, report_protected);
  lua_pushlightuserdata(L, thread);
  if (fiber != 0)
    lua_pushvalue(L, fiber);
  else
    lua_pushnil(L);
  /* the reporter handles the handler's errors; what remains is a lack of memory, of which nobody can be told
   */
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1);
}

/* --- resuming --- */

/* The caller keeps `thread` anchored. [-0, +0, -] */
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
    lua_pop(thread, results); /* what a coroutine yields by itself is nobody's business */
    if (task != NULL && task->context.waiting == NULL) ip_task_enqueue(task);
    return;
  }
  if (task != NULL)
    runtime->end_task(L, runtime, task, status);
  else if (status != LUA_OK)
    ip_loop_report(L, thread, 0);
}

/* Resumes the coroutine of a pooled operation, which must not be collected while it runs: the release of the operation
   no longer anchors it. */
static void resume_pooled(lua_State *L, struct ip_runtime *runtime, struct ip_operation *operation) {
  lua_State *thread = operation->thread;
  struct ip_task *task = ip_context_task(operation->context);
  if (task != NULL && ip_task_thread(task) != thread)
    task = NULL; /* a coroutine inside a fiber that waits without a delegate */
  ip_operation_push_pooled(L, operation);
  lua_getiuservalue(L, -1, 1);
  if (lua_status(thread) == LUA_YIELD && lua_touserdata(thread, operation->slot) == operation)
    resume(L, runtime, thread, task, 0);
  lua_pop(L, 2);
}

void ip_operation_resume(lua_State *L, struct ip_operation *operation) {
  struct ip_runtime *runtime = operation->runtime;
  operation->state = IP_OPERATION_DONE;
  if (IP_LIKELY(!operation->is.pooled)) { /* the table of tasks anchors the coroutine */
    if (lua_status(operation->thread) == LUA_YIELD)
      resume(L, runtime, operation->thread, ip_context_task(operation->context), 0);
    return;
  }
  struct ip_operation *delegate = ip_pooled(operation)->delegate;
  if (delegate != NULL) {
    ip_pooled(operation)->delegate = NULL;
    delegate->object = NULL;
    ip_operation_resume(L, delegate);
  } else if (operation->is.on_main) {
    runtime->main_done = true; /* ip_loop_drive goes on */
  } else {
    resume_pooled(L, runtime, operation);
  }
}

/* Starts a task, goes on with one that yielded by itself, or finds that somebody else has ended its coroutine. */
static void run_task(lua_State *L, struct ip_runtime *runtime, struct ip_task *task) {
  if (task->context.waiting != NULL)
    return; /* somebody else has resumed it meanwhile, and it waits in a pooled operation */
  lua_State *thread = ip_task_thread(task);
  int status = lua_status(thread);
  bool startable = status == LUA_OK && !task->context.started && lua_gettop(thread) > 0;
  if (status != LUA_YIELD && !startable) {
    runtime->end_task(L, runtime, task, IP_TASK_CLOSED);
    return;
  }
  resume(L, runtime, thread, task, startable ? ip_task_prepare(task) : 0);
}

/* A task is queued by its own operation: with a result, or free. */
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

/* Serves one entry of the batch. Tasks are anchored in their table, operations in the pool. */
static void serve(lua_State *L, struct ip_runtime *runtime, struct ip_ready *ready) {
  switch (ready->type) {
  case IP_READY_WATCHER: ip_watcher_dispatch(L, ip_container_of(ready, struct ip_watcher, ready)); break;
  case IP_READY_OPERATION: ip_operation_resume(L, ip_container_of(ready, struct ip_operation, ready)); break;
  case IP_READY_TASK: serve_task(L, runtime, ip_container_of(ready, struct ip_task, operation.ready)); break;
  }
}

/* Serves what is ready now; what becomes ready meanwhile is for the next iteration. Stops early when the main
   thread has got its result: it has waited long enough, and a finished read must not meet another change of
   the socket. */
static void serve_batch(lua_State *L, struct ip_runtime *runtime, struct ip_operation *until) {
  runtime->iteration++;
  ip_queue_move(&runtime->batch, &runtime->ready);
  while (!is_done(until)) {
    struct ip_queue *link = ip_queue_pop(&runtime->batch);
    if (link == NULL) return;
    serve(L, runtime, ip_container_of(link, struct ip_ready, link));
  }
  ip_queue_move(&runtime->batch, &runtime->ready);
  ip_queue_move(&runtime->ready, &runtime->batch);
}

/* What is scheduled meanwhile is for the end of the next iteration. */
static void flush_all(struct ip_runtime *runtime) {
  struct ip_queue due;
  ip_queue_init(&due);
  ip_queue_move(&due, &runtime->flushers);
  for (struct ip_queue *link = ip_queue_pop(&due); link != NULL; link = ip_queue_pop(&due)) {
    struct ip_flusher *flusher = ip_container_of(link, struct ip_flusher, link);
    flusher->flush(flusher);
  }
}

/* The sends of an iteration leave together, before anybody waits for what may answer them. */
static void flush(struct ip_runtime *runtime) {
  if (IP_UNLIKELY(!ip_queue_is_empty(&runtime->flushers))) flush_all(runtime);
}

static void dispatch(lua_State *L, struct ip_runtime *runtime, struct ip_operation *until) {
  serve_batch(L, runtime, until);
  flush(runtime);
}

static void poll_loop(struct ip_runtime *runtime, bool busy) {
  runtime->polling = true;
  uv_run(runtime->loop, busy ? UV_RUN_NOWAIT : UV_RUN_ONCE);
  runtime->polling = false;
}

/* Polls without sleeping until something is ready, at most for `seconds`. A wake-up from a blocked poll costs several
   times what a poll does. False: nothing came. */
static bool spin(struct ip_runtime *runtime, double seconds) {
  static const double longest = 1e9; /* nobody lives to see its end, and no sum of it overflows */
  uint64_t end = uv_hrtime() + (uint64_t)((seconds < longest ? seconds : longest) * 1e9);
  do {
    poll_loop(runtime, true);
    if (!ip_queue_is_empty(&runtime->ready) || atomic_load(&runtime->signalled)) return true;
  } while (uv_hrtime() < end);
  return false;
}

/* Blocks until something is ready, at most until a timer ends. */
static void wait_for_events(struct ip_runtime *runtime) {
  if (runtime->spin > 0 && spin(runtime, runtime->spin)) return;
  poll_loop(runtime, false);
}

/* After a signal: runs one Lua function on the main thread, so that a debug hook which the host's signal
   handler has set takes effect here, where the error can pass. True when there was none. [-0, +(0|1), -] */
static bool run_hook(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &nothing_key);
  return lua_pcall(L, 0, 0, 0) == LUA_OK;
}

/* Is `operation` DONE? One that waits for an idle runtime becomes so here. */
static bool is_over(const struct ip_runtime *runtime, struct ip_operation *operation) {
  if (is_done(operation)) return true;
  if (!operation->type->ends_when_idle || operation->state != IP_OPERATION_ARMED) return false;
  if (runtime->attached_tasks != 0 || runtime->foreign_waits != 0) return false;
  ip_operation_succeed(operation);
  ip_queue_remove(&operation->ready.link);
  operation->state = IP_OPERATION_DONE;
  return true;
}

/* The driver thread runs nothing itself: it is what coroutines are resumed from, and what handlers are called on. */
void ip_loop_on_check(uv_check_t *check) {
  struct ip_runtime *runtime = check->data;
  if (runtime->driving) return; /* inside a uv_run of our own, whose caller serves */
  if (ip_fork_check(runtime) != 0) return;
  runtime->driving = true;
  dispatch(runtime->driver, runtime, NULL);
  runtime->driving = false;
  if (ip_queue_is_empty(&runtime->ready)) uv_idle_stop(&runtime->handles->idle);
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
  ip_keyboard_interrupt_watch(runtime); /* Ctrl-C ends the block, and Lua's hook runs after the step */
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
  ip_keyboard_interrupt_watch(runtime);
  runtime->driving = true;
  flush(runtime);
  while (!is_over(runtime, operation)) {
    if (IP_UNLIKELY(ip_fork_check(runtime) != 0)) {
      result = IP_DRIVE_LOST;
      break;
    }
    bool busy = !ip_queue_is_empty(&runtime->ready);
    if (!busy && runtime->external_waits == 0) {
      result = IP_DRIVE_DEADLOCK;
      break;
    }
    if (busy)
      poll_loop(runtime, true);
    else
      wait_for_events(runtime);
    if (atomic_exchange(&runtime->signalled, false) && !run_hook(L)) {
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
