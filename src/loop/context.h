/* context.h: the deadlines, shields and interruption that bound the suspending calls of one coroutine. */
#ifndef IP_CONTEXT_H
#define IP_CONTEXT_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

struct ip_operation;
struct ip_runtime;
struct ip_timer;

/* One call of with_timeout. It lives in a userdata on the stack of the coroutine that makes the call. */
struct ip_scope {
  struct ip_scope *outer;
  struct ip_context *context; /* NULL once the coroutine has left the scope */
  struct ip_timer *timer;     /* NULL while no timer runs */
  bool at_once;               /* zero seconds or less: expires as soon as a call would wait */
  bool expired;
  bool raised; /* a call has raised this deadline */
};

/* Belongs to a task, to the main thread, or, inside a scope, to a coroutine that somebody else has made. */
struct ip_context {
  struct ip_scope *scope;       /* innermost */
  struct ip_operation *waiting; /* the operation that the coroutine is suspended in */
  uint32_t shields;
  bool interrupted;
  bool is_task; /* the first member of a struct ip_task */
  /* the next two concern tasks only; they fill the padding */
  bool started;
  bool guarded; /* the coroutine has a close guard; it has none when somebody else started it */
};

/* Returns the context of the running coroutine, or NULL. [-0, +0, -] */
struct ip_context *ip_context_of(lua_State *L, struct ip_runtime *runtime);

/* Pushes the value that keeps `context` alive and that ip_context_assign accepts in its place: a task's
   userdata, the context's own userdata, or, for the main thread, a light userdata. `context` belongs to the
   running coroutine. [-0, +1, -] */
void ip_context_push_owner(lua_State *L, struct ip_runtime *runtime, struct ip_context *context);

/* Pops a value and makes it the context of the coroutine at `thread`, which somebody else has made; nil
   removes the context. [-1, +0, m] */
void ip_context_assign(lua_State *L, int thread);

/* Returns the innermost scope whose deadline has passed, or NULL. With `waits`, a scope of zero seconds has
   expired, too. */
struct ip_scope *ip_context_find_expired(const struct ip_context *context, bool waits);

/* Marks a scope as expired. Idempotent. Does not call Lua. */
void ip_scope_expire(struct ip_runtime *runtime, struct ip_scope *scope);

/* Is the context inside a scope of zero seconds? */
bool ip_context_has_scope_at_once(const struct ip_context *context);

/* Raises a pending interruption or an expired deadline; the error names `operation`. `waits`: the call is
   about to wait. [-0, +0, e] */
void ip_context_check(lua_State *L, struct ip_runtime *runtime, const char *operation,
                      struct ip_context *context, bool waits);

/* Raises the innermost expired deadline of `context`. [-0, +0, e] */
int ip_context_raise_deadline(lua_State *L, struct ip_context *context);

/* Creates the table of contexts of coroutines that somebody else has made. [-0, +0, m] */
void ip_context_open(lua_State *L);

#endif
