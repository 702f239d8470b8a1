/* operation.c: the life of a suspended call: check, acquire, suspend, continue, release.

   A task owns one operation: the table of tasks anchors the task while its coroutine lives, and the close
   guard in the coroutine's first frame cancels the call when somebody closes the coroutine. For the main
   thread and for coroutines that somebody else has made, operations are userdata, pooled in a registry table
   that owns them. A coroutine that is suspended in a pooled operation holds it in a to-be-closed slot of its
   frame, and the operation's first user value holds the coroutine. So neither can be collected while the call
   is pending, and coroutine.close cancels the call. The second user value holds what the context of the call
   lives in: a coroutine may be left suspended by the fiber that has resumed it, and outlive that fiber.

   This file, dispatch.c, task.c, context.c and watcher.c are one mechanism and call each other. The comment
   of each function says what it may raise. */
#include "loop/operation.h"

#include "base/util.h"
#include "binding/raise.h"
#include "loop/dispatch.h"
#include "loop/fork.h"
#include "loop/pooled_operation.h"
#include "loop/task.h"

#include <errno.h>

/* Registry: the pool, which owns the operations in it. */
static const char pool_key;

/* Registry: a userdata whose __close does nothing. */
static const char inert_key;

static int do_nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* The hooks that C functions run. */
enum { HOOKS_OF_CALLS = LUA_MASKCALL | LUA_MASKRET };

/* --- checks before a call suspends --- */

static int refuse(lua_State *L, const struct ip_runtime *runtime, const struct ip_operation_type *type) {
  if (L == runtime->main && runtime->driving)
    return ip_error_text(L, "cannot wait in %s: the main thread is already driving the event loop",
                         type->name);
  return ip_error_text(
      L,
      "cannot wait in %s: Lua cannot suspend this coroutine here (inside a comparator, a callback of "
      "string.gsub, a metamethod called from C or a finalizer)",
      type->name);
}

bool ip_operation_can_suspend(lua_State *L, const struct ip_runtime *runtime) {
  if (L == runtime->driver) return false;
  if (L == runtime->main) return !runtime->driving && !runtime->calling_back && !ip_compat_in_finalizer(L);
  return lua_isyieldable(L);
}

static void check_context(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_type *type,
                          struct ip_context *context, bool waits) {
  struct ip_error_detail *detail = ip_context_test(L, runtime, type->name, context, waits);
  if (detail == NULL) return;
  if (type->describe != NULL) type->describe(L, detail);
  ip_error_throw_new(L, &detail->error);
}

void ip_operation_check_wait(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_type *type) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL) check_context(L, runtime, type, context, true);
}

void ip_operation_check_closely(lua_State *L, struct ip_runtime *runtime,
                                const struct ip_operation_type *type) {
  if (IP_UNLIKELY(!runtime->opened)) ip_runtime_check(L, runtime);
  if (IP_UNLIKELY(!ip_operation_can_suspend(L, runtime))) refuse(L, runtime, type);
  if (IP_LIKELY(runtime->pending_raises == 0)) return;
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL) check_context(L, runtime, type, context, false);
}

/* --- acquire --- */

void ip_operation_init(struct ip_operation *operation, struct ip_runtime *runtime, enum ip_ready_type type) {
  *operation = (struct ip_operation){.runtime = runtime, .state = IP_OPERATION_FREE};
  operation->ready.type = (uint8_t)type;
  ip_queue_init(&operation->ready.link);
}

/* Adds one more operation to the pool. [-0, +0, m] */
static void extend_pool(lua_State *L, struct ip_runtime *runtime) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
  struct ip_pooled_operation *pooled = lua_newuserdatauv(L, sizeof *pooled, IP_POOLED_ANCHORS);
  ip_operation_init(&pooled->operation, runtime, IP_READY_OPERATION);
  pooled->operation.is.pooled = true;
  pooled->delegate = NULL;
  ip_class_set(L, IP_CLASS_OPERATION);
  pooled->reference = luaL_ref(L, -2);
  lua_pop(L, 1);
  pooled->operation.ready.link.next = (struct ip_queue *)(void *)runtime->free_operations;
  runtime->free_operations = &pooled->operation;
}

void ip_operation_push_pooled(lua_State *L, const struct ip_operation *operation) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
  lua_rawgeti(L, -1, ip_pooled_const(operation)->reference);
  lua_remove(L, -2);
}

void ip_operation_push_owner(lua_State *L, const struct ip_operation *operation) {
  if (operation->is.pooled)
    ip_operation_push_pooled(L, operation);
  else {
    ip_task_push(L, ip_container_of(operation, struct ip_task, operation));
    ip_task_push_details(L, -1);
    lua_remove(L, -2);
  }
}

void ip_operation_anchor_context(lua_State *L, struct ip_runtime *runtime, struct ip_context *context) {
  if (context == NULL || context == &runtime->main_context) return;
  ip_context_push_owner(L, runtime, context);
  lua_setiuservalue(L, -2, IP_ANCHOR_CONTEXT);
}

/* Lets go of the coroutine and the context of the pooled operation at `index`. [-0, +0, -] */
static void drop_anchors(lua_State *L, int index) {
  index = lua_absindex(L, index);
  for (int value = IP_ANCHOR_THREAD; value <= IP_ANCHOR_CONTEXT; value++) {
    lua_pushnil(L);
    lua_setiuservalue(L, index, value);
  }
}

/* Removes an operation from the pool, which is not empty, pushes it, anchors the running coroutine in it and
   marks it to-be-closed. [-0, +1, -] */
static struct ip_operation *pop_from_pool(lua_State *L, struct ip_runtime *runtime,
                                          struct ip_context *context) {
  struct ip_operation *operation = runtime->free_operations;
  runtime->free_operations = (struct ip_operation *)(void *)operation->ready.link.next;
  ip_queue_init(&operation->ready.link);
  ip_operation_push_pooled(L, operation);
  lua_pushthread(L);
  lua_setiuservalue(L, -2, IP_ANCHOR_THREAD);
  ip_operation_anchor_context(L, runtime, context);
  operation->slot = lua_gettop(L);
  lua_toclose(L, operation->slot);
  return operation;
}

static int ensure_pooled(lua_State *L) {
  struct ip_runtime *runtime = lua_touserdata(L, 1);
  if (runtime->free_operations == NULL) extend_pool(L, runtime);
  return 0;
}

/* Calls `function` with a light userdata. Hooks of calls and the collector are off meanwhile: a hook or a
   finalizer may wait, which lets a deadline pass that has been looked at already, or close what the call is
   about. The stack has all that the call needs: a call that makes it grow collects (Lua ldo.c, luaD_precall).
   [-0, +0, e] */
static void call_undisturbed(lua_State *L, lua_CFunction function, void *argument) {
  lua_pushcfunction(L, function);
  lua_pushlightuserdata(L, argument);
  int mask = lua_gethookmask(L);
  lua_Hook hook = lua_gethook(L);
  int count = lua_gethookcount(L);
  bool collects = lua_gc(L, LUA_GCISRUNNING) == 1;
  lua_sethook(L, NULL, 0, 0);
  if (collects) lua_gc(L, LUA_GCSTOP);
  int status = lua_pcall(L, 1, 0, 0);
  if (collects) lua_gc(L, LUA_GCRESTART);
  lua_sethook(L, hook, mask, count);
  if (status != LUA_OK) lua_error(L);
}

/* A Lua that is built with HARDSTACKTESTS, as for tests, collects in every call (ldo.h, checkstackGCp). */
#ifdef HARDSTACKTESTS
enum { CALLS_COLLECT = 1 };
#else
enum { CALLS_COLLECT = 0 };
#endif

/* Puts an operation into the pool if there is none, in a call: that raises where the stack or the limit of
   nested C calls has no place for the __close of a pooled operation, and later it would lose the result.
   [-0, +0, e] */
static void fill_pool(lua_State *L, struct ip_runtime *runtime) {
  luaL_checkstack(L, LUA_MINSTACK + 4, "too many arguments");
  bool disturbed = CALLS_COLLECT || (lua_gethookmask(L) & HOOKS_OF_CALLS) != 0;
  if (IP_UNLIKELY(disturbed || runtime->free_operations == NULL)) {
    call_undisturbed(L, ensure_pooled, runtime);
    return;
  }
  lua_pushcfunction(L, ensure_pooled);
  lua_pushlightuserdata(L, runtime);
  lua_call(L, 1, 0);
}

static int make_details(lua_State *L) {
  ip_task_push(L, lua_touserdata(L, 1));
  ip_task_make_details(L, -1, 0, IP_OPERATION_ANCHORS);
  return 0;
}

/* Makes the anchors of a task's own operation, the first time that one needs them. [-0, +0, e] */
static void provide_anchors(lua_State *L, struct ip_context *context) {
  struct ip_task *task = ip_context_task(context);
  if (IP_LIKELY(task->context.detailed)) return;
  luaL_checkstack(L, LUA_MINSTACK + 4, "too many arguments");
  call_undisturbed(L, make_details, task);
  task->context.detailed = true;
}

/* Returns the running task's own operation, or NULL when the caller is no task. */
static struct ip_operation *own_operation(lua_State *L, struct ip_context *context) {
  struct ip_task *task = ip_context_task(context);
  if (task == NULL || ip_task_thread(task) != L || !context->guarded) return NULL;
  struct ip_operation *operation = &task->operation;
  if (operation->state != IP_OPERATION_FREE) return NULL;
  ip_queue_remove(&operation->ready.link); /* the task runs, so its queued start or wake-up is obsolete */
  operation->slot = lua_gettop(L);
  return operation;
}

static void on_deadline(struct ip_runtime *runtime, struct ip_timer *timer) {
  (void)runtime;
  struct ip_operation *operation = timer->owner;
  if (operation->type->ends_by_time)
    ip_operation_succeed(operation);
  else
    ip_operation_expire(operation);
}

/* Returns the timer for a deadline, or NULL where none is needed. [-0, +0, e] */
static struct ip_timer *new_timer(lua_State *L, struct ip_runtime *runtime, ip_deadline deadline) {
  if (deadline == IP_NEVER || deadline == IP_AT_ONCE) return NULL;
  struct ip_timer *timer = ip_timer_new(runtime);
  if (timer == NULL) ip_error_memory(L);
  return timer;
}

struct ip_operation *ip_operation_acquire(lua_State *L, struct ip_runtime *runtime,
                                          const struct ip_operation_type *type, ip_deadline deadline,
                                          bool yields) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL && !yields) check_context(L, runtime, type, context, true);
  if (deadline == IP_AT_ONCE && !yields) ip_operation_raise(L, type, IP_ERROR_SYSTEM, ip_failure(ETIMEDOUT));
  struct ip_operation *operation = own_operation(L, context);
  if (operation == NULL)
    fill_pool(L, runtime);
  else if (IP_UNLIKELY(type->anchors))
    provide_anchors(L, context);
  if (IP_UNLIKELY(ip_fork_check(runtime) != 0)) ip_error_raise(L, runtime->fork_error, IP_FORK_OPERATION);
  struct ip_timer *timer = new_timer(L, runtime, deadline);
  /* nothing raises from here on */
  if (operation == NULL) operation = pop_from_pool(L, runtime, context);
  operation->type = type;
  operation->object = NULL;
  operation->thread = L;
  operation->context = context;
  operation->timer = timer;
  operation->received = NULL;
  operation->failure = ip_failure(0);
  operation->ready.iteration = runtime->iteration;
  operation->is = (struct ip_operation_facts){
      .pooled = operation->is.pooled,
      .nonblocking =
          yields && (deadline == IP_AT_ONCE || (context != NULL && ip_context_has_scope_at_once(context))),
      .on_main = L == runtime->main,
      .foreign = L != runtime->main && ip_context_task(context) == NULL};
  operation->state = IP_OPERATION_ARMED;
  if (context != NULL) context->waiting = operation;
  if (timer != NULL) ip_timer_start(runtime, timer, deadline, on_deadline, operation);
  if (operation->is.foreign) runtime->foreign_waits++;
  runtime->operations++;
  return operation;
}

void ip_operation_wait_externally(struct ip_operation *operation) {
  operation->is.external = true;
  ip_runtime_begin_external_wait(operation->runtime);
}

void ip_operation_set_received(struct ip_operation *operation, struct ip_received *frame) {
  operation->received = operation->is.pooled ? &ip_pooled(operation)->received : frame;
}

/* --- complete and expire --- */

/* Removes the operation from its object's queue and counters. */
static void unlink_armed(struct ip_operation *operation) {
  ip_queue_remove(&operation->ready.link);
  if (operation->is.external) ip_runtime_end_external_wait(operation->runtime);
  operation->is.external = false;
  if (operation->type->unlinked != NULL && operation->object != NULL) operation->type->unlinked(operation);
}

static void free_timer(struct ip_operation *operation) {
  if (operation->timer == NULL) return;
  /* at the end of the state the runtime frees all timers */
  if (!operation->runtime->closed) ip_timer_free(operation->runtime, operation->timer);
  operation->timer = NULL;
}

void ip_operation_complete(struct ip_operation *operation, enum ip_error_category category,
                           struct ip_failure failure) {
  if (operation->state != IP_OPERATION_ARMED) return;
  unlink_armed(operation);
  free_timer(operation);
  operation->failure = failure;
  operation->category = (uint8_t)category;
  operation->state = IP_OPERATION_READY;
  ip_runtime_enqueue(operation->runtime, &operation->ready);
}

void ip_operation_succeed(struct ip_operation *operation) {
  ip_operation_complete_with(operation, 0);
}

void ip_operation_complete_with(struct ip_operation *operation, int code) {
  ip_operation_complete(operation, IP_ERROR_SYSTEM, ip_failure(code));
}

void ip_operation_expire(struct ip_operation *operation) {
  if (operation->state != IP_OPERATION_ARMED || operation->type->endures) return;
  if (operation->type->final_attempt == NULL) {
    ip_operation_time_out(operation);
    return;
  }
  operation->is.nonblocking = true;
  operation->type->final_attempt(operation);
}

void ip_operation_time_out(struct ip_operation *operation) {
  if (operation->state != IP_OPERATION_ARMED) return;
  const struct ip_context *context = operation->context;
  struct ip_scope *expired =
      context != NULL ? ip_context_find_expired(context, operation->is.nonblocking) : NULL;
  if (expired != NULL) {
    ip_scope_expire(operation->runtime, expired);
    operation->is.by_scope = true;
  }
  ip_operation_complete_with(operation, ETIMEDOUT);
}

/* --- cancel and release --- */

/* Wakes the coroutine that waits for this operation as its delegate, so that it sees the end. */
static void wake_delegate(struct ip_operation *operation) {
  struct ip_operation *delegate = ip_pooled(operation)->delegate;
  if (delegate != NULL) ip_operation_succeed(delegate);
}

/* Frees the operation from any state, and returns it to the pool if it came from there. */
static void make_free(struct ip_operation *operation) {
  struct ip_runtime *runtime = operation->runtime;
  if (operation->state == IP_OPERATION_ARMED) unlink_armed(operation);
  ip_queue_remove(&operation->ready.link);
  free_timer(operation);
  if (operation->is.pooled) wake_delegate(operation);
  ip_context_forget(operation->context, operation);
  if (operation->is.foreign) runtime->foreign_waits--;
  runtime->operations--;
  operation->context = NULL;
  operation->state = IP_OPERATION_FREE;
  if (!operation->is.pooled) return;
  operation->thread = NULL;
  operation->ready.link.next = (struct ip_queue *)(void *)runtime->free_operations;
  runtime->free_operations = operation;
}

/* Returns the task whose own coroutine waits in the operation, or NULL. */
static struct ip_task *task_of(const struct ip_operation *operation) {
  struct ip_task *task = ip_context_task(operation->context);
  return task != NULL && ip_task_thread(task) == operation->thread ? task : NULL;
}

/* Ends the call because its coroutine continues or because somebody closes it. A closed task is never resumed
   again, so the dispatcher has to examine it; otherwise a fiber that joins it would wait for ever. */
static void end_call(lua_State *L, struct ip_operation *operation) {
  if (operation->state == IP_OPERATION_FREE) return;
  struct ip_task *task = task_of(operation);
  bool cancelled = operation->state == IP_OPERATION_ARMED || operation->state == IP_OPERATION_READY;
  if (cancelled && operation->type->cancelled != NULL) operation->type->cancelled(L, operation);
  make_free(operation);
  if (cancelled && task != NULL) ip_task_enqueue(task);
}

/* __close: called by ip_operation_release, and when somebody closes the coroutine. */
static int operation_mt_close(lua_State *L) {
  end_call(L, lua_touserdata(L, 1));
  drop_anchors(L, 1);
  return 0;
}

/* The slot of a released operation has to be closed by Lua, which fails at the limit of nested C calls: the
   operation is free before that, and an object without a purpose is closed in its place. */
static void release_pooled(lua_State *L, struct ip_operation *operation) {
  int slot = operation->slot;
  end_call(L, operation);
  drop_anchors(L, slot);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &inert_key);
  lua_replace(L, slot);
  lua_closeslot(L, slot);
}

void ip_operation_release(lua_State *L, struct ip_operation *operation) {
  if (operation->is.pooled)
    release_pooled(L, operation);
  else
    end_call(L, operation);
}

void ip_operation_abandon(lua_State *L, struct ip_operation *operation) {
  end_call(L, operation);
  if (!operation->is.pooled) return;
  ip_operation_push_pooled(L, operation);
  drop_anchors(L, -1);
  lua_pop(L, 1);
}

int ip_operation_fail(lua_State *L, struct ip_operation *operation, int code) {
  const struct ip_operation_type *type = operation->type;
  ip_operation_release(L, operation);
  ip_operation_raise(L, type, IP_ERROR_SYSTEM, ip_failure(code));
}

/* --- suspend and continue --- */

static struct ip_error *push_error(lua_State *L, const struct ip_operation_type *type,
                                   enum ip_error_category category, struct ip_failure failure) {
  if (type->describe == NULL) return ip_error_push(L, category, failure.code, type->name);
  struct ip_error_detail *detail = ip_error_push_detail(L, category, failure.code, type->name);
  type->describe(L, detail);
  if (ip_failure_is_deferred(failure)) ip_error_forget_endpoint(detail); /* the datagram was another call's */
  return &detail->error;
}

struct ip_error *ip_operation_push_error(lua_State *L, const struct ip_operation_type *type,
                                         enum ip_error_category category, struct ip_failure failure) {
  struct ip_error *error = push_error(L, type, category, failure);
  error->mtu = ip_failure_mtu(failure);
  error->of_send = type->sends;
  return error;
}

int ip_operation_raise(lua_State *L, const struct ip_operation_type *type, enum ip_error_category category,
                       struct ip_failure failure) {
  ip_error_throw_new(L, ip_operation_push_error(L, type, category, failure));
}

static int raise_failure(lua_State *L, const struct ip_operation_type *type, enum ip_error_category category,
                         struct ip_failure failure) {
  int results = type->push_failure != NULL ? type->push_failure(L, category, failure) : -1;
  if (results >= 0) return results;
  return ip_operation_raise(L, type, category, failure);
}

static int raise_deadline(lua_State *L, const struct ip_operation_type *type) {
  struct ip_error_detail *detail = ip_context_push_deadline(L);
  if (type->describe != NULL) type->describe(L, detail);
  return ip_error_throw_new(L, &detail->error);
}

/* Releasing a pooled operation calls __close, and therefore a hook of calls: data that the hook receives
   would overwrite the result of this call (ip_runtime_scratch). */
static void release_without_hook(lua_State *L, struct ip_operation *operation) {
  int mask = operation->is.pooled ? lua_gethookmask(L) : 0;
  if (IP_LIKELY((mask & HOOKS_OF_CALLS) == 0)) {
    ip_operation_release(L, operation);
    return;
  }
  lua_Hook hook = lua_gethook(L);
  int count = lua_gethookcount(L);
  lua_sethook(L, NULL, 0, 0);
  ip_operation_release(L, operation);
  lua_sethook(L, hook, mask, count);
}

/* Copies everything before the release, because the operation may be reused from then on, and its context may
   be collected unless it is the coroutine's own. A task's own operation has received into the dispatcher's
   frame, which outlives this function. */
static int continue_operation(lua_State *L, int status, lua_KContext operation_context) {
  (void)status;
  struct ip_operation *operation =
      (struct ip_operation *)operation_context; /* the suspended frame anchors it */
  lua_settop(L, operation->slot);               /* drops values that a foreign resume may have passed */
  const struct ip_operation_type *type = operation->type;
  if (IP_UNLIKELY(operation->state == IP_OPERATION_ARMED)) {
    ip_operation_release(L, operation);
    return ip_error_text(L, "resumed while waiting in %s", type->name);
  }
  if (IP_UNLIKELY(operation->runtime->closed)) { /* a finalizer resumes it: objects may be freed already */
    ip_operation_release(L, operation);
    return ip_error_text(L, "ip: the runtime is closed");
  }
  struct ip_result result = {operation->runtime, type, operation->object, operation->received,
                             operation->payload};
  struct ip_received copy;
  if (operation->is.pooled && result.received != NULL) {
    copy = *result.received;
    result.received = &copy;
  }
  struct ip_task *task = task_of(operation);
  struct ip_failure failure = operation->failure;
  enum ip_error_category category = operation->category;
  bool by_scope = operation->is.by_scope;
  if (by_scope) ip_context_note_raised(operation->context);
  operation->state = IP_OPERATION_DONE; /* a resume by somebody else delivers the result, too */
  release_without_hook(L, operation);
  /* Somebody else has resumed a task, so the dispatcher does not see what becomes of it: it looks at the task
     in the next iteration, when the coroutine has ended, or waits, or is suspended by a coroutine.yield of
     its own. */
  if (IP_UNLIKELY(result.runtime->running != L && task != NULL)) ip_task_enqueue(task);
  if (IP_LIKELY(failure.code == 0)) return type->push_results(L, &result);
  if (type->failed != NULL) type->failed(L, &result);
  return by_scope ? raise_deadline(L, type) : raise_failure(L, type, category, failure);
}

static int drive(lua_State *L, struct ip_operation *operation) {
  switch (ip_loop_drive(L, operation->runtime, operation)) {
  case IP_DRIVE_DONE: return continue_operation(L, LUA_OK, (lua_KContext)operation);
  case IP_DRIVE_DEADLOCK: return ip_operation_fail(L, operation, EDEADLK);
  case IP_DRIVE_LOST: return ip_operation_fail(L, operation, operation->runtime->fork_error);
  case IP_DRIVE_ERROR: break;
  }
  ip_operation_release(L, operation);
  return ip_error_throw(L);
}

int ip_operation_suspend(lua_State *L, struct ip_operation *operation) {
  operation->runtime->budget = IP_TRANSFER_BUDGET;
  if (operation->is.on_main) return drive(L, operation);
  return lua_yieldk(L, 0, (lua_KContext)operation, continue_operation);
}

void ip_operation_open(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__close", operation_mt_close}, {NULL, NULL}};
  static const struct ip_class_definition definition = {
      .name = "ip.operation",
      .id = IP_CLASS_OPERATION,
      .metamethods = metamethods,
  };
  ip_class_define(L, core, &definition);
  lua_newuserdatauv(L, 0, 0);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, do_nothing);
  lua_setfield(L, -2, "__close");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &inert_key);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pool_key);
}
