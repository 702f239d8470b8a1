/* context.h: the deadlines, shields and interruption that bound the suspending calls of one coroutine. */
#ifndef IP_CONTEXT_H
#define IP_CONTEXT_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

struct ip_error_detail;
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
  bool is_task : 1;    /* the first member of a struct ip_task */
  bool is_foreign : 1; /* the first member of a struct ip_foreign_context */
  /* of a task: */
  bool started : 1;
  bool guarded : 1;  /* its coroutine has a close guard, unless somebody else has started it */
  bool detailed : 1; /* it has details: see enum ip_task_detail */
};

/* The context of a coroutine that somebody else has made. While a coroutine with a context resumes it by
   ip.fiber.coroutine, that context bounds it as well. */
struct ip_foreign_context {
  struct ip_context context; /* first */
  struct ip_context *outer;  /* held by the user value; NULL: none */
};

/* Returns the context that bounds the calls of `context` as well, or NULL. */
static inline struct ip_context *ip_context_outer(const struct ip_context *context) {
  return context->is_foreign ? ((const struct ip_foreign_context *)context)->outer : NULL;
}

/* Returns the context of the running coroutine, or NULL. [-0, +0, -] */
struct ip_context *ip_context_of(lua_State *L, struct ip_runtime *runtime);

/* Pushes the value that keeps `context` alive and that ip_context_assign accepts in its place: a task's
   userdata, the context's own userdata, or, for the main thread, a light userdata. `context` belongs to the
   running coroutine. [-0, +1, -] */
void ip_context_push_owner(lua_State *L, struct ip_runtime *runtime, struct ip_context *context);

/* Pops a value and makes it the context of the coroutine at `thread`, which somebody else has made; nil
   removes the context. [-1, +0, m] */
void ip_context_assign(lua_State *L, int thread);

/* Lets the running coroutine's `context` bound the calls of the coroutine at `thread` until ip_context_leave.
   A context that the coroutine has of its own goes on bounding it as well. [-0, +0, m] */
void ip_context_enter(lua_State *L, struct ip_runtime *runtime, int thread, struct ip_context *context);
void ip_context_leave(lua_State *L, int thread);

/* `operation` is no longer what a coroutine with this context waits in. */
void ip_context_forget(struct ip_context *context, const struct ip_operation *operation);

/* Returns the innermost scope whose deadline has passed, or NULL. With `waits`, a scope of zero seconds has
   expired, too. */
struct ip_scope *ip_context_find_expired(const struct ip_context *context, bool waits);

/* Is an interruption pending that no shield holds back? */
bool ip_context_is_interrupted(const struct ip_context *context);

/* Marks a scope as expired. Idempotent. Does not call Lua. */
void ip_scope_expire(struct ip_runtime *runtime, struct ip_scope *scope);

/* Is the context inside a scope of zero seconds? */
bool ip_context_has_scope_at_once(const struct ip_context *context);

/* Pushes the error of a pending interruption, which names `operation`, or of an expired deadline, which then
   counts as raised; NULL, and nothing pushed: there is none. `waits`: the call is about to wait.
   [-0, +(0|1), m] */
struct ip_error_detail *ip_context_test(lua_State *L, struct ip_runtime *runtime, const char *operation,
                                        struct ip_context *context, bool waits);

/* A call raises the innermost expired deadline of `context`. */
void ip_context_note_raised(struct ip_context *context);

/* Pushes the error of an expired deadline. [-0, +1, m] */
struct ip_error_detail *ip_context_push_deadline(lua_State *L);

/* Pushes the error of a scope that has expired, or expires because the running coroutine is about to wait;
   NULL, and nothing pushed: no scope ends the call. [-0, +(0|1), m] */
struct ip_error_detail *ip_context_test_deadline(lua_State *L, struct ip_runtime *runtime);

/* Creates the table of contexts of coroutines that somebody else has made. [-0, +0, m] */
void ip_context_open(lua_State *L);

#endif
