/* context.h: what bounds the suspending calls of one coroutine: deadlines, shields, interruption. */
#ifndef IP_CONTEXT_H
#define IP_CONTEXT_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

struct ip_operation;
struct ip_runtime;
struct ip_timer;

/* One with_timeout. It lives in a userdata on the stack of the coroutine that runs it. */
struct ip_scope {
  struct ip_scope *outer;
  struct ip_context *context; /* NULL once left */
  struct ip_timer *timer;     /* NULL when not running */
  bool at_once;               /* zero seconds or less: expires as soon as a call would wait */
  bool expired;
  bool raised; /* a call has raised this deadline */
};

/* Belongs to a task, to the main thread, or to a coroutine that others have made while it is inside a scope. */
struct ip_context {
  struct ip_scope *scope;       /* innermost */
  struct ip_operation *waiting; /* the operation that the coroutine is suspended in */
  uint32_t shields;
  bool interrupted;
  bool is_task; /* the first member of a struct ip_task */
  /* of a task; they stand here because of the padding */
  bool started;
  bool guarded; /* its coroutine has a close guard: not when somebody else has started it */
};

/* The context of the running coroutine, or NULL. [-0, +0, -] */
struct ip_context *ip_context_of(lua_State *L, struct ip_runtime *runtime);

/* Pushes what keeps `context` alive, and can stand for it in ip_context_assign: a task's userdata, the context's own
   userdata, a light userdata for the main thread's. `context` is that of the running coroutine. [-0, +1, -] */
void ip_context_push_owner(lua_State *L, struct ip_runtime *runtime, struct ip_context *context);

/* Makes the value on top of the stack, which is popped, the context of the coroutine at `thread`; nil removes it.
   Others have made that coroutine. [-1, +0, m] */
void ip_context_assign(lua_State *L, int thread);

/* The innermost scope whose deadline has come, or NULL. `waits`: a scope of zero seconds has expired, too. */
struct ip_scope *ip_context_find_expired(const struct ip_context *context, bool waits);

/* Marks a scope as expired. Idempotent. No Lua. */
void ip_scope_expire(struct ip_runtime *runtime, struct ip_scope *scope);

/* Is the context inside a scope of zero seconds? */
bool ip_context_has_scope_at_once(const struct ip_context *context);

/* Raises a pending interruption, called `operation`, or an expired deadline. `waits`: the call is about to wait.
   [-0, +0, e] */
void ip_context_check(lua_State *L, struct ip_runtime *runtime, const char *operation,
                      struct ip_context *context, bool waits);

/* Raises the innermost deadline of `context` that has expired. [-0, +0, e] */
int ip_context_raise_deadline(lua_State *L, struct ip_context *context);

/* Makes the table of contexts of coroutines that others have made. [-0, +0, m] */
void ip_context_open(lua_State *L);

#endif
