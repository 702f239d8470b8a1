/* scope.c: with_timeout's deadlines and shields, which bound the suspending calls of one coroutine.

   The scope is a userdata in a to-be-closed variable of with_timeout's frame (lua/ip/fiber.lua). It is linked
   into the context of the coroutine: a fiber's, the main thread's, or, for a coroutine made by others, one
   that lives in the table of tasks as long as that coroutine is inside a scope. */
#include "fiber.h"

#include "argument.h"
#include "util.h"

#include <errno.h>

/* A context for a coroutine made by others. Anchored by the scopes that use it. */
struct foreign_context {
  struct ip_context context; /* first */
};

struct scope {
  struct ip_scope scope; /* first */
  struct ip_runtime *runtime;
  lua_State *foreign; /* the coroutine whose context goes when its outermost scope is left, or NULL */
};

static struct scope *check_scope(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_SCOPE);
}

/* Pushes the context of a coroutine made by others, new if need be, or nil where the engine has one. Its key
   in the table of tasks is an address, which a dead coroutine's successor may get: a context goes with its
   last scope, and at the latest with the scope's collection, which cannot come after the coroutine's. [-0,
   +1, m] */
static struct ip_context *push_foreign_context(lua_State *L, struct ip_runtime *runtime) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context != NULL) {
    lua_pushnil(L);
    return context;
  }
  struct foreign_context *foreign = lua_newuserdatauv(L, sizeof *foreign, 0);
  *foreign = (struct foreign_context){{.task = NULL}};
  return &foreign->context;
}

static void on_expired(struct ip_timer *timer) {
  struct ip_scope *scope = timer->owner;
  struct ip_operation *waiting = scope->context->waiting;
  if (!scope->expired) {
    struct ip_runtime *runtime = timer->uv.data;
    scope->expired = true;
    runtime->attention++;
  }
  if (waiting != NULL) ip_operation_expire(waiting);
}

static void link_scope(struct scope *self, struct ip_context *context) {
  self->scope.context = context;
  self->scope.outer = context->scope;
  context->scope = &self->scope;
  if (self->scope.immediate) self->runtime->immediate_scopes++;
}

static void unlink_scope(struct scope *self) {
  struct ip_context *context = self->scope.context;
  struct ip_scope **link = &context->scope;
  while (*link != &self->scope)
    link = &(*link)->outer;
  *link = self->scope.outer;
  self->scope.context = NULL;
  if (self->scope.immediate) self->runtime->immediate_scopes--;
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
  struct ip_context *context = push_foreign_context(L, runtime);
  if (!lua_isnil(L, -1)) {
    self->foreign = L;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_tasks_key);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, L);
    lua_pop(L, 1);
  }
  lua_setiuservalue(L, 2, 1);
  self->scope.context = NULL;
  ip_class_set(L, IP_CLASS_SCOPE);
  bool timed = seconds > 0 && seconds < (double)LUA_MAXINTEGER;
  if (timed && (self->scope.timer = ip_timer_new(runtime)) == NULL) return luaL_error(L, "not enough memory");
  link_scope(self, context);
  if (timed) ip_timer_start(self->scope.timer, seconds, on_expired, &self->scope);
  return 1;
}

/* Leaves the scope; also __close and __gc. Idempotent. */
static int scope_close(lua_State *L) {
  struct scope *self = check_scope(L);
  if (self->scope.timer != NULL && !self->runtime->closed) ip_timer_free(self->scope.timer);
  self->scope.timer = NULL;
  if (self->scope.context == NULL) return 0;
  bool last = self->scope.context->scope == &self->scope && self->scope.outer == NULL;
  unlink_scope(self);
  if (self->foreign == NULL || !last) return 0;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_tasks_key);
  lua_pushnil(L);
  lua_rawsetp(L, -2, self->foreign);
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
  struct shield *self = lua_newuserdatauv(L, sizeof *self, 0);
  self->context = NULL;
  ip_class_set(L, IP_CLASS_SHIELD);
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL || context->task == NULL) return 1;
  self->context = context;
  context->shields++;
  return 1;
}

/* Closed on the stack of its own fiber, which is alive then; a shield whose coroutine was dropped is never
 * closed. */
static int shield_close(lua_State *L) {
  struct shield *self = ip_check_class(L, 1, IP_CLASS_SHIELD);
  if (self->context != NULL) self->context->shields--;
  self->context = NULL;
  return 0;
}

/* --- registration --- */

static const luaL_Reg scope_metamethods[] = {{"__close", scope_close}, {"__gc", scope_close}, {NULL, NULL}};
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
