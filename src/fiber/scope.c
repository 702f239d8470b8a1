/* scope.c: with_timeout's deadlines and shields, which bound the suspending calls of one coroutine.

   The scope is a userdata in a to-be-closed variable of with_timeout's frame (lua/ip/fiber.lua). It is linked
   into the context of the coroutine: a fiber's, the main thread's, or, for a coroutine made by others, one
   that lives in a weak table as long as that coroutine is inside a scope. */
#include "fiber/fiber.h"

#include "base/util.h"
#include "binding/argument.h"

#include <errno.h>

struct scope {
  struct ip_scope scope; /* first */
  struct ip_runtime *runtime;
  bool foreign; /* its context, which is its user value, is no fiber's and not the main thread's */
};

static struct scope *check_scope(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_SCOPE);
}

/* Stores the context at `index` for the running coroutine, which others have made; 0 removes it. [-0, +0, m]
 */
static void set_foreign_context(lua_State *L, int index) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_contexts_key);
  lua_pushthread(L);
  if (index != 0)
    lua_pushvalue(L, index);
  else
    lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Pushes what holds the context of the running coroutine: nil for the main thread's, and for a fiber's own; its fiber
   for a generator, which may outlive that. [-0, +1, -] */
static void push_engine_owner(lua_State *L, const struct ip_context *context) {
  const struct ip_task *task = context->is_task ? (const struct ip_task *)context : NULL;
  if (task == NULL || task->thread == L) {
    lua_pushnil(L);
    return;
  }
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_tasks_key);
  lua_rawgetp(L, -1, task->thread);
  lua_remove(L, -2);
}

/* Pushes the userdata of the running coroutine's context, new if need be; what holds it where the context is the
   engine's own. The coroutine's scopes hold it as well, so that it outlives them whatever the collector frees
   first. [-0, +1, m] */
static struct ip_context *push_context(lua_State *L, struct ip_runtime *runtime) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL) {
    context = lua_newuserdatauv(L, sizeof *context, 0);
    *context = (struct ip_context){.scope = NULL};
    set_foreign_context(L, lua_gettop(L));
  } else if (context == &runtime->main_context || context->is_task) {
    push_engine_owner(L, context);
  } else {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_contexts_key);
    lua_pushthread(L);
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  return context;
}

static void on_expired(struct ip_timer *timer) {
  struct ip_scope *scope = timer->owner;
  struct ip_operation *waiting = scope->context->waiting;
  if (!scope->expired) {
    struct ip_runtime *runtime = timer->uv.data;
    scope->expired = true;
    runtime->attention++;
  }
  if (waiting != NULL) ip_operation_run_out(waiting);
}

static void link_scope(struct scope *self, struct ip_context *context) {
  self->scope.context = context;
  self->scope.outer = context->scope;
  context->scope = &self->scope;
  if (self->scope.immediate) self->runtime->immediate_scopes++;
  if (self->foreign) self->runtime->foreign_scopes++;
}

static void unlink_scope(struct scope *self) {
  struct ip_context *context = self->scope.context;
  struct ip_scope **link = &context->scope;
  while (*link != &self->scope)
    link = &(*link)->outer;
  *link = self->scope.outer;
  self->scope.context = NULL;
  if (self->scope.immediate) self->runtime->immediate_scopes--;
  if (self->foreign) self->runtime->foreign_scopes--;
  if (self->scope.expired) self->runtime->attention--;
}

/* scope(seconds) -> scope: the deadline begins now. [-0, +1, e] */
static int scope_new(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  double seconds = ip_argument_seconds(L, 1);
  ip_runtime_check(L, runtime);
  lua_settop(L, 1);
  struct scope *self = lua_newuserdatauv(L, sizeof *self, 1);
  *self = (struct scope){.runtime = runtime, .scope = {.immediate = seconds <= 0}};
  struct ip_context *context = push_context(L, runtime);
  self->foreign = context != &runtime->main_context && !context->is_task;
  lua_setiuservalue(L, 2, 1);
  ip_class_set(L, IP_CLASS_SCOPE);
  bool timed = seconds > 0 && seconds < (double)LUA_MAXINTEGER;
  if (timed && (self->scope.timer = ip_timer_new(runtime)) == NULL) return luaL_error(L, "not enough memory");
  link_scope(self, context);
  if (timed) ip_timer_start(self->scope.timer, seconds, on_expired, &self->scope);
  return 1;
}

/* Leaves the scope. Idempotent. */
static void leave(struct scope *self) {
  if (self->scope.timer != NULL && !self->runtime->closed) ip_timer_free(self->scope.timer);
  self->scope.timer = NULL;
  if (self->scope.context != NULL) unlink_scope(self);
}

/* __close: runs on the coroutine's own stack, whose context goes with its outermost scope. */
static int scope_close(lua_State *L) {
  struct scope *self = check_scope(L);
  struct ip_context *context = self->scope.context;
  leave(self);
  if (context != NULL && self->foreign && context->scope == NULL) set_foreign_context(L, 0);
  return 0;
}

/* __gc: the coroutine was dropped inside with_timeout, and the weak table has forgotten it. */
static int scope_gc(lua_State *L) {
  leave(check_scope(L));
  return 0;
}

/* scope_finish(scope): raises the deadline when a call inside has met it, whatever became of that error. */
static int scope_finish(lua_State *L) {
  struct scope *self = check_scope(L);
  return self->scope.met ? ip_error_raise(L, ETIMEDOUT, "with_timeout") : 0;
}

/* --- shields --- */

struct shield {
  struct ip_context *context; /* of the fiber, or NULL */
};

/* shield() -> shield: holds interruption back until it is closed. Only fibers are interrupted. [-0, +1, m] */
static int shield_new(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct shield *self = lua_newuserdatauv(L, sizeof *self, 1);
  self->context = NULL;
  ip_class_set(L, IP_CLASS_SHIELD);
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL || !context->is_task) return 1;
  push_engine_owner(L, context);
  lua_setiuservalue(L, -2, 1);
  self->context = context;
  context->shields++;
  return 1;
}

/* Closed on the stack of its own fiber, which is alive then, or of a generator, and then it holds the fiber; a shield whose coroutine was dropped is never
   closed. */
static int shield_close(lua_State *L) {
  struct shield *self = ip_check_class(L, 1, IP_CLASS_SHIELD);
  if (self->context != NULL) self->context->shields--;
  self->context = NULL;
  return 0;
}

/* --- registration --- */

static const luaL_Reg scope_metamethods[] = {{"__close", scope_close}, {"__gc", scope_gc}, {NULL, NULL}};
static const luaL_Reg shield_metamethods[] = {{"__close", shield_close}, {NULL, NULL}};
static const luaL_Reg functions[] = {
    {"scope", scope_new}, {"scope_finish", scope_finish}, {"shield", shield_new}, {NULL, NULL}};

void ip_scope_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition scope_definition = {
      .name = "ip.scope", .id = IP_CLASS_SCOPE, .metamethods = scope_metamethods};
  static const struct ip_class_definition shield_definition = {
      .name = "ip.shield", .id = IP_CLASS_SHIELD, .metamethods = shield_metamethods};
  ip_class_define(L, core, &scope_definition);
  ip_class_define(L, core, &shield_definition);
  ip_class_functions(L, core, functions);
}
