/* scope.c: the deadlines of with_timeout, and shields, which bound the suspending calls of one coroutine.

   A scope is a userdata in a to-be-closed variable of with_timeout's frame (lua/ip/fiber.lua), and is linked
   into the context of the coroutine. The context belongs to a fiber or to the main thread; for a coroutine
   that somebody else has made, it lives in a weak table while the coroutine is inside a scope. Each function
   says what it may raise. */
#include "fiber/scope.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/raise.h"
#include "loop/operation.h"

#include <errno.h>

struct scope {
  struct ip_scope scope; /* first */
  struct ip_runtime *runtime;
  bool foreign; /* the context is its user value: neither a fiber's nor the main thread's */
};

static struct scope *check_scope(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_SCOPE);
}

/* Pushes the value that keeps the running coroutine's context alive, and creates the context if there is
   none. The scopes of the coroutine hold that value, too, so that the context outlives them in whatever order
   the collector frees them. [-0, +1, m] */
static struct ip_context *push_context(lua_State *L, struct ip_runtime *runtime) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL) {
    ip_context_push_owner(L, runtime, context);
    return context;
  }
  struct ip_foreign_context *foreign = lua_newuserdatauv(L, sizeof *foreign, 1);
  *foreign = (struct ip_foreign_context){.context = {.is_foreign = true}};
  context = &foreign->context;
  lua_pushthread(L);
  lua_pushvalue(L, -2);
  ip_context_assign(L, -2);
  lua_pop(L, 1);
  return context;
}

static void on_expired(struct ip_runtime *runtime, struct ip_timer *timer) {
  struct ip_scope *scope = timer->owner;
  struct ip_operation *waiting = scope->context->waiting;
  ip_scope_expire(runtime, scope);
  if (waiting != NULL) ip_operation_expire(waiting);
}

static void link_scope(struct scope *self, struct ip_context *context) {
  self->scope.context = context;
  self->scope.outer = context->scope;
  context->scope = &self->scope;
  if (self->scope.at_once) self->runtime->scopes_at_once++;
  if (self->foreign) self->runtime->foreign_scopes++;
}

static void unlink_scope(struct scope *self) {
  struct ip_context *context = self->scope.context;
  struct ip_scope **link = &context->scope;
  while (*link != &self->scope)
    link = &(*link)->outer;
  *link = self->scope.outer;
  self->scope.context = NULL;
  if (self->scope.at_once) self->runtime->scopes_at_once--;
  if (self->foreign) self->runtime->foreign_scopes--;
  if (self->scope.expired) self->runtime->pending_raises--;
}

/* scope(seconds) -> scope: the deadline starts now. [-0, +1, e] */
static int scope_new(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  double seconds = ip_argument_seconds(L, 1);
  ip_runtime_check(L, runtime);
  lua_settop(L, 1);
  struct scope *self = lua_newuserdatauv(L, sizeof *self, 1);
  *self = (struct scope){.runtime = runtime, .scope = {.at_once = seconds <= 0}};
  struct ip_context *context = push_context(L, runtime);
  self->foreign = context != &runtime->main_context && !context->is_task;
  lua_setiuservalue(L, 2, 1);
  ip_class_set(L, IP_CLASS_SCOPE);
  bool timed = seconds > 0 && seconds < (double)LUA_MAXINTEGER;
  if (timed && (self->scope.timer = ip_timer_new(runtime)) == NULL) return ip_error_memory(L);
  link_scope(self, context);
  if (timed) ip_timer_start(runtime, self->scope.timer, ip_deadline_after(seconds), on_expired, &self->scope);
  return 1;
}

/* Leaves the scope. Idempotent. */
static void leave(struct scope *self) {
  if (self->scope.timer != NULL && !self->runtime->closed) ip_timer_free(self->runtime, self->scope.timer);
  self->scope.timer = NULL;
  if (self->scope.context != NULL) unlink_scope(self);
}

/* __close: runs on the coroutine's own stack. A foreign coroutine's context is removed with its outermost
   scope. */
static int scope_close(lua_State *L) {
  struct scope *self = check_scope(L);
  struct ip_context *context = self->scope.context;
  leave(self);
  if (context == NULL || !self->foreign || context->scope != NULL) return 0;
  lua_pushthread(L);
  lua_pushnil(L);
  ip_context_assign(L, -2);
  return 0;
}

/* __gc: the coroutine was dropped inside with_timeout, and is no longer in the weak table. */
static int scope_gc(lua_State *L) {
  leave(check_scope(L));
  return 0;
}

/* scope_finish(scope): raises the deadline if a call inside the scope has raised it, even if user code has
   caught that error. */
static int scope_finish(lua_State *L) {
  struct scope *self = check_scope(L);
  return self->scope.raised ? ip_error_throw_new(L, &ip_context_push_deadline(L)->error) : 0;
}

/* --- shields --- */

struct shield {
  struct ip_context *context; /* of the fiber, or NULL */
};

/* shield() -> shield: defers interruption of the fiber until the shield is closed; has no effect outside
   fibers. [-0, +1, m] */
static int shield_new(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct shield *self = lua_newuserdatauv(L, sizeof *self, 1);
  self->context = NULL;
  ip_class_set(L, IP_CLASS_SHIELD);
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL || !context->is_task) return 1;
  ip_context_push_owner(L, runtime, context);
  lua_setiuservalue(L, -2, 1);
  self->context = context;
  context->shields++;
  return 1;
}

/* Runs on the stack of the shield's own fiber or of a coroutine inside it; the shield holds the fiber. The
   shield of a dropped coroutine is never closed. */
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
