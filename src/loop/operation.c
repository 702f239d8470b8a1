/* operation.c: the life of a suspended call: check, acquire, suspend, continue, settle.

   A fiber has an operation of its own: the table of tasks holds the fiber while its coroutine lives, and a
   to-be-closed object in the coroutine's first frame withdraws the call when somebody closes the coroutine. For the
   main thread and for coroutines made by others, operations are userdata, pooled in a registry table that
   owns them; a coroutine suspended in one holds it in a to-be-closed slot of its frame, and the operation's user
   value holds the coroutine. So neither can be collected while the call is pending, and coroutine.close withdraws
   the call. What may raise is said at each function. */
#include "loop/runtime.h"

#include "base/util.h"

#include <errno.h>
#include <math.h>

const char ip_runtime_pool_key, ip_runtime_closer_key;

/* --- what bounds a call --- */

struct ip_context *ip_context_of(lua_State *L, struct ip_runtime *runtime) {
  if (IP_LIKELY(runtime->current != NULL && runtime->current->thread == L)) return &runtime->current->context;
  if (L == runtime->main) return &runtime->main_context;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_tasks_key);
  lua_rawgetp(L, -1, L);
  struct ip_context *context = lua_touserdata(L, -1);
  lua_pop(L, 2);
  if (context != NULL || (runtime->foreign_scopes == 0 && runtime->nested_coroutines == 0)) return context;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_contexts_key);
  lua_pushthread(L);
  lua_rawget(L, -2);
  context = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return context;
}

/* Raises the innermost deadline of `context` that is over. [-0, +0, e] */
static int raise_deadline(lua_State *L, struct ip_context *context) {
  struct ip_scope *scope = context->scope;
  while (scope != NULL && !scope->expired)
    scope = scope->outer;
  if (scope != NULL) scope->met = true;
  return ip_error_raise(L, ETIMEDOUT, "with_timeout");
}

/* The innermost scope whose deadline has come; `waits`: one of zero seconds has, too. */
static struct ip_scope *find_due(struct ip_context *context, bool waits) {
  struct ip_scope *scope = context->scope;
  while (scope != NULL && !scope->expired && !(waits && scope->immediate))
    scope = scope->outer;
  return scope;
}

static void expire_scope(struct ip_runtime *runtime, struct ip_scope *scope) {
  if (scope->expired) return;
  scope->expired = true;
  runtime->attention++;
}

static void check_context(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_kind *kind,
                          struct ip_context *context, bool waits) {
  if (context->interrupted && context->shields == 0) {
    ip_error_push(L, IP_ERROR_FIBER, IP_FIBER_INTERRUPTED, kind->name);
    lua_error(L);
  }
  struct ip_scope *due = find_due(context, waits);
  if (due == NULL) return;
  expire_scope(runtime, due);
  raise_deadline(L, context);
}

static int refuse(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_kind *kind) {
  if (L == runtime->main && runtime->driving)
    return luaL_error(L, "cannot wait in %s: the main thread is already driving the event loop", kind->name);
  return luaL_error(
      L,
      "cannot wait in %s: Lua cannot suspend this coroutine here (inside a comparator, a callback of "
      "string.gsub, a metamethod called from C or a finalizer)",
      kind->name);
}

void ip_operation_check_closely(lua_State *L, struct ip_runtime *runtime,
                                const struct ip_operation_kind *kind) {
  if (IP_UNLIKELY(!runtime->opened)) ip_runtime_check(L, runtime);
  bool allowed = L == runtime->driver ? false
                 : L == runtime->main ? !runtime->driving && !ip_compat_in_finalizer(L)
                                      : lua_isyieldable(L);
  if (IP_UNLIKELY(!allowed)) refuse(L, runtime, kind);
  if (IP_LIKELY(runtime->attention == 0)) return;
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL) check_context(L, runtime, kind, context, false);
}

/* --- acquire --- */

static void init(struct ip_operation *operation, struct ip_runtime *runtime) {
  *operation = (struct ip_operation){.runtime = runtime, .state = IP_OPERATION_FREE};
  operation->ready.kind = IP_READY_OPERATION;
  ip_queue_init(&operation->ready.link);
  ip_queue_init(&operation->watch);
}

/* Makes one more operation and puts it into the pool. [-0, +0, m] */
static void extend_pool(lua_State *L, struct ip_runtime *runtime) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_pool_key);
  struct ip_operation *operation = lua_newuserdatauv(L, sizeof *operation, 1);
  init(operation, runtime);
  ip_class_set(L, IP_CLASS_OPERATION);
  operation->reference = luaL_ref(L, -2);
  lua_pop(L, 1);
  operation->ready.link.next = (struct ip_queue *)runtime->free_operations;
  runtime->free_operations = operation;
}

/* Takes an operation out of the pool, where there is one, pushes it, anchors the running coroutine in it and marks it
   to-be-closed. [-0, +1, -] */
static struct ip_operation *take_from_pool(lua_State *L, struct ip_runtime *runtime) {
  struct ip_operation *operation = runtime->free_operations;
  runtime->free_operations = (struct ip_operation *)(void *)operation->ready.link.next;
  ip_queue_init(&operation->ready.link);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_pool_key);
  lua_rawgeti(L, -1, operation->reference);
  lua_remove(L, -2);
  lua_pushthread(L);
  lua_setiuservalue(L, -2, 1);
  operation->slot = lua_gettop(L);
  lua_toclose(L, operation->slot);
  return operation;
}

/* The running fiber's own operation; NULL for everybody else. */
static struct ip_operation *own_operation(lua_State *L, struct ip_context *context) {
  struct ip_task *task = ip_context_task(context);
  if (task == NULL || task->thread != L || !context->guarded) return NULL;
  if (task->operation.state != IP_OPERATION_FREE) return NULL;
  task->operation.slot = lua_gettop(L);
  return &task->operation;
}

static void on_deadline(struct ip_timer *timer) {
  struct ip_operation *operation = timer->owner;
  if (operation->kind->ends_by_time)
    ip_operation_complete(operation, IP_ERROR_SYSTEM, 0);
  else
    ip_operation_run_out(operation);
}

/* The timer that a call needs, or NULL; a timeout of zero is no timer's business. [-0, +0, e] */
static struct ip_timer *new_timer(lua_State *L, struct ip_runtime *runtime, double timeout) {
  if (!(timeout > 0) || isinf(timeout)) return NULL;
  struct ip_timer *timer = ip_timer_new(runtime);
  if (timer == NULL) luaL_error(L, "not enough memory");
  return timer;
}

static bool has_immediate_scope(const struct ip_context *context) {
  const struct ip_scope *scope = context != NULL ? context->scope : NULL;
  while (scope != NULL && !scope->immediate)
    scope = scope->outer;
  return scope != NULL;
}

struct ip_operation *ip_operation_acquire(lua_State *L, struct ip_runtime *runtime,
                                          const struct ip_operation_kind *kind, double timeout,
                                          bool gives_way) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL && !gives_way) check_context(L, runtime, kind, context, true);
  if (timeout == 0 && !gives_way) ip_error_raise(L, ETIMEDOUT, kind->name);
  struct ip_operation *operation = own_operation(L, context);
  if (operation == NULL) luaL_checkstack(L, 4, "too many arguments");
  if (operation == NULL && runtime->free_operations == NULL) extend_pool(L, runtime);
  struct ip_timer *timer = new_timer(L, runtime, timeout);
  /* nothing raises from here on */
  if (operation == NULL) operation = take_from_pool(L, runtime);
  operation->kind = kind;
  operation->object = NULL;
  operation->thread = L;
  operation->context = context;
  operation->timer = timer;
  operation->status = 0;
  operation->ready.turn = runtime->turn;
  operation->by_scope = false;
  operation->relay = NULL;
  operation->external = false;
  operation->on_main = L == runtime->main;
  operation->immediate = gives_way && (timeout == 0 || has_immediate_scope(context));
  operation->counts = !operation->on_main && ip_context_task(context) == NULL;
  operation->state = IP_OPERATION_ARMED;
  if (context != NULL) context->waiting = operation;
  if (timer != NULL) ip_timer_start(timer, timeout, on_deadline, operation);
  if (operation->counts) runtime->foreign_waits++;
  runtime->operations++;
  return operation;
}

/* --- complete --- */

/* Leaves the object's queue and accounts. */
static void unlink_armed(struct ip_operation *operation) {
  ip_queue_remove(&operation->ready.link);
  ip_queue_remove(&operation->watch);
  if (operation->external) operation->runtime->external_waits--;
  operation->external = false;
  if (operation->kind->unlinked != NULL && operation->object != NULL) operation->kind->unlinked(operation);
}

static void free_timer(struct ip_operation *operation) {
  if (operation->timer == NULL) return;
  if (!operation->runtime->closed) ip_timer_free(operation->timer); /* else the runtime has freed them all */
  operation->timer = NULL;
}

void ip_operation_complete(struct ip_operation *operation, enum ip_error_category category, int status) {
  if (operation->state != IP_OPERATION_ARMED) return;
  unlink_armed(operation);
  free_timer(operation);
  operation->status = status;
  operation->category = (uint8_t)category;
  operation->state = IP_OPERATION_READY;
  ip_runtime_enqueue(operation->runtime, &operation->ready);
}

void ip_operation_run_out(struct ip_operation *operation) {
  if (operation->state != IP_OPERATION_ARMED) return;
  if (operation->kind->try_last == NULL) {
    ip_operation_expire(operation);
    return;
  }
  operation->immediate = true;
  operation->kind->try_last(operation);
}

void ip_operation_expire(struct ip_operation *operation) {
  if (operation->state != IP_OPERATION_ARMED) return;
  struct ip_scope *due =
      operation->context != NULL ? find_due(operation->context, operation->immediate) : NULL;
  if (due != NULL) {
    expire_scope(operation->runtime, due);
    operation->by_scope = true;
  }
  ip_operation_complete(operation, IP_ERROR_SYSTEM, ETIMEDOUT);
}

/* --- settle --- */

/* Somebody else has ended the coroutine's wait or the coroutine: who relays for it is to find out. */
static void wake_relay(struct ip_operation *operation) {
  struct ip_operation *relay = operation->relay;
  operation->relay = NULL;
  relay->object = NULL;
  ip_operation_complete(relay, IP_ERROR_SYSTEM, 0);
}

/* Whatever state it is in: free, and back into the pool where it is from there. The one exit door; idempotent. */
static void release(struct ip_operation *operation) {
  struct ip_runtime *runtime = operation->runtime;
  if (operation->state == IP_OPERATION_FREE) return;
  if (operation->state == IP_OPERATION_ARMED) unlink_armed(operation);
  ip_queue_remove(&operation->ready.link);
  free_timer(operation);
  if (operation->relay != NULL) wake_relay(operation);
  if (operation->context != NULL && operation->context->waiting == operation)
    operation->context->waiting = NULL;
  if (operation->counts) runtime->foreign_waits--;
  runtime->operations--;
  operation->context = NULL;
  operation->thread = NULL;
  operation->state = IP_OPERATION_FREE;
  if (operation->reference == 0) return;
  operation->ready.link.next = (struct ip_queue *)(void *)runtime->free_operations;
  runtime->free_operations = operation;
}

/* The call is over, or somebody has closed the coroutine. In the latter case a fiber that is never resumed again has to
   be looked at by the dispatcher, or whoever joins it would wait for ever. */
static void withdraw(lua_State *L, struct ip_operation *operation) {
  struct ip_context *context = operation->context;
  bool abandoned = operation->state == IP_OPERATION_ARMED || operation->state == IP_OPERATION_READY;
  if (abandoned && operation->kind->abandoned != NULL) operation->kind->abandoned(L, operation);
  const lua_State *thread = operation->thread;
  release(operation);
  struct ip_task *task = ip_context_task(context);
  if (abandoned && task != NULL && task->thread == thread)
    ip_runtime_enqueue(operation->runtime, &task->ready);
}

/* __close: reached by settle, and when somebody closes the coroutine. */
static int operation_mt_close(lua_State *L) {
  withdraw(L, lua_touserdata(L, 1));
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 1);
  return 0;
}

/* __close of what stands in a fiber's first frame, called on its stack: the coroutine ends, or somebody closes it. In
   the latter case the values of its frames are gone by now, but nothing has looked at them: only the dispatcher
   attempts, and what closes a coroutine does not return to it meanwhile. */
static int closer_mt_close(lua_State *L) {
  struct ip_task *task = ip_context_task(ip_context_of(L, ip_runtime(L)));
  if (task != NULL && task->thread == L && task->operation.state != IP_OPERATION_FREE)
    withdraw(L, &task->operation);
  return 0;
}

void ip_task_init(struct ip_runtime *runtime, struct ip_task *task, lua_State *thread) {
  *task = (struct ip_task){.context = {.is_task = true}, .thread = thread};
  task->ready.kind = IP_READY_TASK;
  ip_queue_init(&task->ready.link);
  init(&task->operation, runtime);
}

static int finish_task(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L) - 1;
}

/* The first frame of a fiber: (closer, function, arguments ...) -> results. */
static int task_main(lua_State *L) {
  lua_toclose(L, 1);
  lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, finish_task);
  return finish_task(L, LUA_OK, 0);
}

int ip_task_prepare(struct ip_task *task) {
  lua_State *thread = task->thread;
  int arguments = lua_gettop(thread) + 1; /* the function becomes one, and the closer */
  lua_pushcfunction(thread, task_main);
  lua_rawgetp(thread, LUA_REGISTRYINDEX, &ip_runtime_closer_key);
  lua_rotate(thread, 1, 2);
  task->context.started = task->context.guarded = true;
  return arguments;
}

void ip_operation_settle(lua_State *L, struct ip_operation *operation) {
  if (operation->reference == 0)
    withdraw(L, operation);
  else
    lua_closeslot(L, operation->slot); /* its __close does */
}

int ip_operation_fail(lua_State *L, struct ip_operation *operation, int code) {
  const char *name = operation->kind->name;
  ip_operation_settle(L, operation);
  ip_error_raise(L, code, name);
}

/* --- suspend and continue --- */

static int continue_operation(lua_State *L, int status, lua_KContext operation_context) {
  (void)status;
  struct ip_operation *operation =
      (struct ip_operation *)operation_context; /* the suspended frame has kept it */
  lua_settop(L, operation->slot);               /* whoever resumed us may have passed values */
  const struct ip_operation_kind *kind = operation->kind;
  if (operation->state == IP_OPERATION_ARMED) {
    ip_operation_settle(L, operation);
    return luaL_error(L, "resumed while waiting in %s", kind->name);
  }
  struct ip_outcome outcome = {operation->runtime, operation->object, operation->data, operation->size,
                               operation->flags};
  struct ip_context *context = operation->context;
  int code = operation->status;
  enum ip_error_category category = operation->category;
  bool by_scope = operation->by_scope;
  operation->state =
      IP_OPERATION_DONE; /* a result that a stranger's resume delivers is delivered all the same */
  ip_operation_settle(L, operation);
  if (IP_LIKELY(code == 0)) return kind->push_results(L, &outcome);
  if (by_scope) return raise_deadline(L, context);
  int results = kind->push_failure != NULL ? kind->push_failure(L, &outcome, category, code) : -1;
  if (results >= 0) return results;
  struct ip_error *error = ip_error_push(L, category, code, kind->name);
  if (code == EMSGSIZE && category == IP_ERROR_SYSTEM) error->mtu = outcome.runtime->error_mtu;
  if (kind->describe != NULL) kind->describe(L, error);
  return lua_error(L);
}

static int drive(lua_State *L, struct ip_operation *operation) {
  switch (ip_runtime_drive(L, operation->runtime, operation)) {
  case IP_DRIVE_DONE: return continue_operation(L, LUA_OK, (lua_KContext)operation);
  case IP_DRIVE_DEADLOCK: return ip_operation_fail(L, operation, EDEADLK);
  case IP_DRIVE_ERROR: break;
  }
  ip_operation_settle(L, operation);
  return lua_error(L);
}

int ip_operation_suspend(lua_State *L, struct ip_operation *operation) {
  operation->runtime->budget = IP_TRANSFER_BUDGET;
  if (operation->on_main) return drive(L, operation);
  return lua_yieldk(L, 0, (lua_KContext)operation, continue_operation);
}

void ip_operation_define(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__close", operation_mt_close}, {NULL, NULL}};
  static const struct ip_class_definition definition = {
      .name = "ip.operation",
      .id = IP_CLASS_OPERATION,
      .metamethods = metamethods,
  };
  ip_class_define(L, core, &definition);
  core = lua_absindex(L, core);
  static const luaL_Reg closer_metamethods[] = {{"__close", closer_mt_close}, {NULL, NULL}};
  lua_newuserdatauv(L, 0, 0);
  lua_newtable(L);
  ip_class_functions(L, core, closer_metamethods);
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ip_runtime_closer_key);
}
