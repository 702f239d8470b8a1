/* dispatch.c: the turns of the loop, and the only place that resumes coroutines.

   A turn polls libuv, whose callbacks only note what became ready, and then serves what was noted: no libuv
   frame is on the C stack while Lua runs, so user code may close, raise and even close the state. Nothing
   here raises. */
#include "loop/watcher.h"

#include "base/util.h"

const char ip_runtime_reporter_key;

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

void ip_runtime_gather(struct ip_runtime *runtime, struct ip_queue *link) {
  ip_queue_append(&runtime->gathered, link);
  /* called by a host outside of our turns: there has to be one before its loop blocks */
  if (runtime->driver != NULL && runtime->opened && !runtime->driving)
    uv_idle_start(&runtime->handles->idle, on_idle);
}

/* --- reporting --- */

/* (thread as light userdata, fiber or nil): calls the reporter. Runs protected. */
static int report_protected(lua_State *L) {
  lua_State *thread = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_reporter_key) != LUA_TFUNCTION) return 0;
  /* a copy of the error value, without growing the other coroutine's stack */
  lua_xmove(thread, L, 1);
  lua_pushvalue(L, -1);
  lua_xmove(L, thread, 1);
  luaL_traceback(L, thread, NULL, 0);
  lua_pushvalue(L, 2);
  lua_call(L, 3, 0);
  return 0;
}

void ip_runtime_report(lua_State *L, lua_State *thread, int fiber) {
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
  int results;
  runtime->current = task;
  runtime->budget = IP_TRANSFER_BUDGET;
  int status = lua_resume(thread, L, arguments, &results);
  runtime->current = outer;
  if (status == LUA_YIELD) {
    lua_pop(thread, results); /* what a coroutine yields by itself is nobody's business */
    if (task != NULL && task->context.waiting == NULL) ip_runtime_enqueue(runtime, &task->ready);
    return;
  }
  if (task != NULL)
    runtime->end_task(L, runtime, task, status);
  else if (status != LUA_OK)
    ip_runtime_report(L, thread, 0);
}

void ip_operation_resume(lua_State *L, struct ip_operation *operation) {
  struct ip_runtime *runtime = operation->runtime;
  operation->state = IP_OPERATION_DONE;
  if (operation->relay != NULL) {
    struct ip_operation *relay = operation->relay;
    operation->relay = NULL;
    relay->object = NULL;
    ip_operation_resume(L, relay);
    return;
  }
  if (operation->on_main) {
    runtime->main_done = true; /* ip_runtime_drive goes on */
    return;
  }
  lua_State *thread = operation->thread;
  struct ip_task *task = ip_context_task(operation->context);
  if (IP_LIKELY(operation->reference == 0)) { /* a task's own: the table of tasks holds the coroutine */
    if (lua_status(thread) == LUA_YIELD) resume(L, runtime, thread, task, 0);
    return;
  }
  if (task != NULL && task->thread != thread)
    task = NULL; /* a coroutine inside a fiber that nobody relays for */
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_pool_key);
  lua_rawgeti(L, -1, operation->reference);
  lua_getiuservalue(L, -1, 1); /* the thread must not be collected while it runs: settling lets go of it */
  if (lua_status(thread) == LUA_YIELD && lua_touserdata(thread, operation->slot) == operation)
    resume(L, runtime, thread, task, 0);
  lua_pop(L, 3);
}

/* Starts a fiber, goes on with one that yielded by itself, or finds that somebody else has ended its
   coroutine. */
static void run_task(lua_State *L, struct ip_runtime *runtime, struct ip_task *task) {
  if (task->context.waiting != NULL)
    return; /* resumed by somebody else meanwhile, and suspended in us again */
  int status = lua_status(task->thread);
  bool startable = status == LUA_OK && !task->context.started && lua_gettop(task->thread) > 0;
  if (status != LUA_YIELD && !startable) {
    runtime->end_task(L, runtime, task, IP_TASK_CLOSED);
    return;
  }
  resume(L, runtime, task->thread, task, startable ? ip_task_prepare(task) : 0);
}

/* --- turns --- */

static bool is_done(const struct ip_operation *operation) {
  return operation != NULL && operation->state == IP_OPERATION_DONE;
}

/* Serves one entry of the batch. Fibers are anchored in the table of tasks, operations in the pool. */
static void serve(lua_State *L, struct ip_runtime *runtime, struct ip_ready *ready) {
  switch (ready->kind) {
  case IP_READY_READINESS:
    ip_readiness_dispatch(L, ip_container_of(ready, struct ip_readiness, ready));
    break;
  case IP_READY_OPERATION: ip_operation_resume(L, ip_container_of(ready, struct ip_operation, ready)); break;
  case IP_READY_TASK: run_task(L, runtime, ip_container_of(ready, struct ip_task, ready)); break;
  }
}

/* Serves what is ready now; what becomes ready meanwhile is for the next turn. Stops early when the main
   thread has got its result: it has waited long enough, and a finished read must not meet another change of
   the socket. */
static void serve_batch(lua_State *L, struct ip_runtime *runtime, struct ip_operation *until) {
  runtime->turn++;
  ip_queue_move(&runtime->batch, &runtime->ready);
  while (!is_done(until)) {
    struct ip_queue *link = ip_queue_pop(&runtime->batch);
    if (link == NULL) return;
    serve(L, runtime, ip_container_of(link, struct ip_ready, link));
  }
  ip_queue_move(&runtime->batch, &runtime->ready);
  ip_queue_move(&runtime->ready, &runtime->batch);
}

/* The sends of a turn leave together, before anybody waits for what may answer them. */
static void flush(struct ip_runtime *runtime) {
  if (IP_UNLIKELY(!ip_queue_is_empty(&runtime->gathered))) runtime->flush_gathered(runtime);
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
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_nothing_key);
  return lua_pcall(L, 0, 0, 0) == LUA_OK;
}

/* Is `operation` DONE? One that waits for an idle runtime becomes so here. */
static bool is_over(const struct ip_runtime *runtime, struct ip_operation *operation) {
  if (is_done(operation)) return true;
  if (!operation->kind->ends_when_idle || operation->state != IP_OPERATION_ARMED) return false;
  if (runtime->attached_fibers != 0 || runtime->foreign_waits != 0) return false;
  ip_operation_complete(operation, IP_ERROR_SYSTEM, 0);
  ip_queue_remove(&operation->ready.link);
  operation->state = IP_OPERATION_DONE;
  return true;
}

/* The driver thread runs nothing itself: it is what coroutines are resumed from, and what handlers are called on. */
void ip_runtime_serve_host(struct ip_runtime *runtime) {
  if (runtime->driving) return; /* inside a uv_run of our own, whose caller serves */
  runtime->driving = true;
  dispatch(runtime->driver, runtime, NULL);
  runtime->driving = false;
  if (ip_queue_is_empty(&runtime->ready)) uv_idle_stop(&runtime->handles->idle);
}

static void on_step_over(struct ip_timer *timer) {
  (void)timer; /* it has ended the block */
}

static bool has_work(const struct ip_runtime *runtime) {
  return !ip_queue_is_empty(&runtime->ready) || runtime->external_waits != 0;
}

bool ip_runtime_step(lua_State *L, struct ip_runtime *runtime, double seconds) {
  flush(runtime);
  if (!has_work(runtime)) return false;
  bool busy = !ip_queue_is_empty(&runtime->ready) || seconds <= 0;
  struct ip_timer *timer = busy ? NULL : ip_timer_new(runtime);
  if (timer != NULL) ip_timer_start(timer, seconds, on_step_over, NULL);
  if (!busy)
    ip_keyboard_interrupt_watch(runtime); /* Ctrl-C ends the block, and Lua's hook runs after the step */
  runtime->driving = true;
  bool came = !busy && runtime->spin > 0 && spin(runtime, runtime->spin < seconds ? runtime->spin : seconds);
  if (!came) poll_loop(runtime, busy || timer == NULL || !uv_is_active((uv_handle_t *)&timer->uv));
  if (timer != NULL) ip_timer_free(timer);
  dispatch(L, runtime, NULL);
  runtime->driving = false;
  runtime->budget = IP_TRANSFER_BUDGET;
  return has_work(runtime);
}

double ip_runtime_harvest(struct ip_runtime *runtime) {
  flush(runtime);
  if (!has_work(runtime)) return -1;
  poll_loop(runtime, true);
  if (!ip_queue_is_empty(&runtime->ready)) return 0;
  uv_update_time(runtime->loop);
  int timeout = uv_backend_timeout(runtime->loop);
  return timeout < 0 ? -1 : timeout / 1000.0;
}

enum ip_drive_result ip_runtime_drive(lua_State *L, struct ip_runtime *runtime,
                                      struct ip_operation *operation) {
  enum ip_drive_result result = IP_DRIVE_DONE;
  ip_keyboard_interrupt_watch(runtime);
  runtime->driving = true;
  flush(runtime);
  while (!is_over(runtime, operation)) {
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
