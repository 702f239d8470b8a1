/* context.c: deadlines and interruption of the suspending calls of one coroutine.

   Owns no context: a context belongs to a task, to the runtime (the main thread's), or to a userdata in a
   weak table. Raises expired deadlines, interruptions and memory errors. */
#include "loop/context.h"

#include "base/util.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "loop/runtime.h"
#include "loop/task.h"

#include <errno.h>

/* Registry: the contexts of coroutines that somebody else has made. The coroutine is the key, and a weak one,
   so that the table does not keep it alive. */
static const char contexts_key;

void ip_context_open(lua_State *L) {
  ip_core_store_weak_table(L, &contexts_key, "k");
}

/* Pops a coroutine and pushes the value that ip_context_assign has stored for it, or nil. [-1, +1, -] */
static void replace_by_assigned(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &contexts_key);
  lua_insert(L, -2);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

/* Pushes the value that ip_context_assign has stored for the running coroutine, or nil. [-0, +1, -] */
static void push_assigned(lua_State *L) {
  lua_pushthread(L);
  replace_by_assigned(L);
}

struct ip_context *ip_context_of(lua_State *L, struct ip_runtime *runtime) {
  if (IP_LIKELY(runtime->running == L)) return &runtime->current->context;
  if (L == runtime->main) return &runtime->main_context;
  struct ip_task *task = ip_task_find(L);
  if (task != NULL) return &task->context;
  if (runtime->foreign_scopes == 0 && runtime->nested_coroutines == 0) return NULL;
  push_assigned(L);
  struct ip_context *context = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return context;
}

void ip_context_push_owner(lua_State *L, struct ip_runtime *runtime, struct ip_context *context) {
  const struct ip_task *task = context->is_task ? (const struct ip_task *)context : NULL;
  if (context == &runtime->main_context)
    lua_pushlightuserdata(L, context);
  else if (task != NULL && ip_task_thread(task) == L)
    ip_task_push(L, task);
  else
    push_assigned(L);
}

void ip_context_assign(lua_State *L, int thread) {
  thread = lua_absindex(L, thread);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &contexts_key);
  lua_pushvalue(L, thread);
  lua_rotate(L, -3, -1); /* table, thread, context */
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Pushes the context that the coroutine at `thread` has of its own; NULL, and nothing pushed: it has none.
   [-0, +(0|1), -] */
static struct ip_foreign_context *push_own(lua_State *L, int thread) {
  lua_pushvalue(L, thread);
  replace_by_assigned(L);
  struct ip_context *context = lua_touserdata(L, -1);
  if (context != NULL && context->is_foreign) return (struct ip_foreign_context *)context;
  lua_pop(L, 1);
  return NULL;
}

void ip_context_enter(lua_State *L, struct ip_runtime *runtime, int thread, struct ip_context *context) {
  thread = lua_absindex(L, thread);
  struct ip_foreign_context *own = push_own(L, thread);
  ip_context_push_owner(L, runtime, context);
  if (own == NULL) {
    ip_context_assign(L, thread);
    return;
  }
  if (&own->context == context || ip_context_outer(context) == &own->context) { /* no circle */
    lua_pop(L, 2);
    return;
  }
  lua_setiuservalue(L, -2, 1);
  lua_pop(L, 1);
  own->outer = context;
}

void ip_context_leave(lua_State *L, int thread) {
  thread = lua_absindex(L, thread);
  struct ip_foreign_context *own = push_own(L, thread);
  lua_pushnil(L);
  if (own == NULL) {
    ip_context_assign(L, thread);
    return;
  }
  own->outer = NULL;
  lua_setiuservalue(L, -2, 1);
  lua_pop(L, 1);
}

void ip_context_forget(struct ip_context *context, const struct ip_operation *operation) {
  for (; context != NULL; context = ip_context_outer(context))
    if (context->waiting == operation) context->waiting = NULL;
}

struct ip_scope *ip_context_find_expired(const struct ip_context *context, bool waits) {
  for (; context != NULL; context = ip_context_outer(context)) {
    struct ip_scope *scope = context->scope;
    while (scope != NULL && !scope->expired && !(waits && scope->at_once))
      scope = scope->outer;
    if (scope != NULL) return scope;
  }
  return NULL;
}

bool ip_context_has_scope_at_once(const struct ip_context *context) {
  for (; context != NULL; context = ip_context_outer(context))
    for (const struct ip_scope *scope = context->scope; scope != NULL; scope = scope->outer)
      if (scope->at_once) return true;
  return false;
}

bool ip_context_is_interrupted(const struct ip_context *context) {
  for (; context != NULL; context = ip_context_outer(context))
    if (context->interrupted && context->shields == 0) return true;
  return false;
}

void ip_scope_expire(struct ip_runtime *runtime, struct ip_scope *scope) {
  if (scope->expired) return;
  scope->expired = true;
  runtime->pending_raises++;
}

void ip_context_note_raised(struct ip_context *context) {
  struct ip_scope *scope = ip_context_find_expired(context, false);
  if (scope != NULL) scope->raised = true;
}

struct ip_error_detail *ip_context_push_deadline(lua_State *L) {
  struct ip_error_detail *detail = ip_error_push_detail(L, IP_ERROR_SYSTEM, ETIMEDOUT, "with_timeout");
  detail->error.of_scope = true;
  return detail;
}

static bool has_expired(struct ip_runtime *runtime, struct ip_context *context, bool waits) {
  struct ip_scope *expired = ip_context_find_expired(context, waits);
  if (expired == NULL) return false;
  ip_scope_expire(runtime, expired);
  ip_context_note_raised(context);
  return true;
}

struct ip_error_detail *ip_context_test_deadline(lua_State *L, struct ip_runtime *runtime) {
  struct ip_context *context = ip_context_of(L, runtime);
  return context != NULL && has_expired(runtime, context, true) ? ip_context_push_deadline(L) : NULL;
}

struct ip_error_detail *ip_context_test(lua_State *L, struct ip_runtime *runtime, const char *operation,
                                        struct ip_context *context, bool waits) {
  if (ip_context_is_interrupted(context))
    return ip_error_push_detail(L, IP_ERROR_FIBER, IP_FIBER_INTERRUPTED, operation);
  return has_expired(runtime, context, waits) ? ip_context_push_deadline(L) : NULL;
}
