/* operation.h: a suspended call.

     FREE --acquire--> ARMED --complete--> READY --dispatch--> DONE --release--> FREE
                         +------ cancel ------+--> FREE

   ARMED: the operation is linked in the queue of the object it waits for. READY: it has its result and is
   linked in the runtime's ready queue. DONE: its coroutine is being resumed.

   Four verbs have one meaning each:

     complete   the operation gets its result, a success or a failure; does nothing unless it is ARMED
     expire     its deadline has passed: a final attempt if its type has one, else completion with ETIMEDOUT
     cancel     its coroutine abandons it before its result: somebody else closes or resumes the coroutine
     release    the only way back to FREE, from any state; idempotent

   The result of a call travels in its operation (`payload`, `received`, `failure`), and only the dispatcher
   writes it between the completion and the continuation: a hook, a finalizer or a __close cannot change
   it. */
#ifndef IP_OPERATION_H
#define IP_OPERATION_H

#include "binding/error.h"
#include "loop/runtime.h"
#include "loop/timer.h"
#include "net/failure.h"
#include "net/received.h"

enum ip_operation_state { IP_OPERATION_FREE, IP_OPERATION_ARMED, IP_OPERATION_READY, IP_OPERATION_DONE };

struct ip_operation;
struct ip_result;

/* The engine calls objects through these functions only. */
struct ip_operation_type {
  const char *name; /* static text: the operation's name in errors */
  /* Makes the system call when the object is ready. Returns false when it would block; else sets `failure`.
     NULL: no watcher has operations of this type. Does not call Lua. */
  bool (*attempt)(struct ip_operation *operation);
  /* Called when the operation leaves ARMED, so that the object can update its own counters; may be NULL. Does
     not call Lua. */
  void (*unlinked)(struct ip_operation *operation);
  /* Called before a coroutine abandons the operation that it is suspended in; may be NULL. May call Lua. */
  void (*cancelled)(lua_State *L, struct ip_operation *operation);
  /* Arranges a final attempt after the deadline. NULL: there is no final attempt. Does not call Lua. */
  void (*final_attempt)(struct ip_operation *operation);
  /* Pushes the results of a successful call, whose operation has been released. [-0, +?, e] */
  int (*push_results)(lua_State *L, struct ip_result *result);
  /* Called on the call's own coroutine before the failure of its released operation is raised; may be NULL.
     [-0, +0, -] */
  void (*failed)(lua_State *L, struct ip_result *result);
  /* Called before a failure is raised: pushes results instead and returns their number, or returns a negative
     number and pushes nothing. NULL: every failure is raised. [-0, +?, e] */
  int (*push_failure)(lua_State *L, enum ip_error_category category, struct ip_failure failure);
  /* Adds facts from the frame of the call to an error of the call: its endpoint, what it has done. NULL:
     there are none. Must not raise. [-0, +0, -] */
  void (*describe)(lua_State *L, struct ip_error_detail *detail);
  bool anchors;         /* it keeps values alive by the anchors of its operation */
  bool sends;           /* what it raises is the error of a send */
  bool endures;         /* neither a deadline nor an interruption ends it */
  bool ends_by_time;    /* its deadline is a success and not an error */
  bool carries_nothing; /* it waits until it may send, but holds no datagram */
  bool ends_when_idle;  /* it waits, on the main thread, until no task is left */
};

/* The arguments and the result of a waiting call, one member per family of calls. The coroutine's frame owns
   the memory behind the pointers. */
union ip_payload {
  struct ip_receive receive;
  struct {
    uint32_t size;        /* bytes that are not sent yet: less than a batch can hold */
    uint32_t done;        /* bytes that a send in several pieces has sent before it had to wait */
    ip_deadline deadline; /* set on wake-up: the rest of the time */
    const void *owner;    /* whose send it is: a session; NULL: the socket's */
  } send;
  struct {
    uint32_t set; /* one bit per signal */
    int number;   /* the signal that came */
  } signal;
  struct {
    int events; /* of uv_poll_event: first wanted, then ready */
  } descriptor;
  struct {
    void *box; /* the look-up's box, which has the result */
  } lookup;
  struct {
    struct ip_operation *operation; /* itself: whoever continues the call finds its anchors by it */
    bool passes_on; /* where its coroutine is closed, the next waiter gets what it was given */
  } meeting;
  struct {
    size_t count;
    size_t fired; /* the number of the source that became ready, from 1 */
    bool in_list;
  } sources;
  struct {
    struct ip_operation *innermost; /* what the context waits in: deadlines and interruption end that one */
  } delegate;
};

/* The values that a waiting call keeps alive are user values of what owns its operation: the userdata with
   the task's details, or the pooled operation's own. Further user values are the owner's business. */
enum ip_operation_anchor { IP_ANCHOR_OBJECT = 1, IP_ANCHOR_VALUE, IP_OPERATION_ANCHORS = IP_ANCHOR_VALUE };

/* The further user values of a pooled operation. */
enum ip_pooled_anchor {
  IP_ANCHOR_THREAD = IP_OPERATION_ANCHORS + 1, /* the coroutine that waits */
  IP_ANCHOR_CONTEXT,
  IP_POOLED_ANCHORS = IP_ANCHOR_CONTEXT
};

struct ip_operation_facts {
  bool pooled : 1;      /* else it belongs to a task */
  bool nonblocking : 1; /* the next attempt, if it would block, counts as timed out */
  bool by_scope : 1;    /* a with_timeout ended it */
  bool external : 1;    /* something outside this program can end it: counted in runtime->external_waits */
  bool on_main : 1;     /* the main thread drives the loop until it is DONE */
  bool foreign : 1;     /* of a coroutine that somebody else has made: counted in runtime->foreign_waits */
};

struct ip_operation {
  struct ip_ready ready;
  struct ip_runtime *runtime;
  const struct ip_operation_type *type;
  void *object;                 /* the object that it waits for, while ARMED; NULL: none */
  lua_State *thread;            /* anchored by the operation's user value, or by the task */
  struct ip_context *context;   /* NULL: none */
  struct ip_timer *timer;       /* NULL: no deadline */
  struct ip_received *received; /* attempts receive into this: see ip_operation_set_received */
  union ip_payload payload;
  struct ip_failure failure;
  int slot; /* height of the suspended C function's frame; a pooled operation is on top of it */
  uint8_t state;
  uint8_t category; /* of `failure` */
  struct ip_operation_facts is;
};

/* The facts that a continuation gets after its operation has been released. */
struct ip_result {
  struct ip_runtime *runtime;
  const struct ip_operation_type *type;
  void *object;
  struct ip_received *received;
  union ip_payload payload;
};

/* Initialises a free operation. */
void ip_operation_init(struct ip_operation *operation, struct ip_runtime *runtime, enum ip_ready_type type);

/* Defines the class of operations and creates the pool. [-0, +0, m] */
void ip_operation_open(lua_State *L, int core);

/* May this call suspend here? If not, raises before the call has had any effect. Also raises a pending
   interruption or an expired deadline of the calling coroutine. [-0, +0, e] */
void ip_operation_check_closely(lua_State *L, struct ip_runtime *runtime,
                                const struct ip_operation_type *type);

/* Raises a pending interruption or an expired deadline of a call that is about to wait; a call that has done
   a part already tells it. [-0, +0, e] */
void ip_operation_check_wait(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_type *type);

static inline void ip_operation_check(lua_State *L, struct ip_runtime *runtime,
                                      const struct ip_operation_type *type) {
  bool plain = runtime->running == L && runtime->pending_raises == 0; /* while a task runs, the loop exists */
  if (IP_LIKELY(plain && lua_isyieldable(L))) return;
  ip_operation_check_closely(L, runtime, type);
}

/* Returns an operation that is ARMED but not queued yet: the task's own, or one from the pool, which is
   pushed and marked to-be-closed. `yields`: the call suspends though it might complete at once, so a deadline
   of zero does not end it yet. The caller sets `object` before it queues the operation. Acquiring may run
   finalizers, which may do anything except suspend. [-0, +(0|1), e] */
struct ip_operation *ip_operation_acquire(lua_State *L, struct ip_runtime *runtime,
                                          const struct ip_operation_type *type, ip_deadline deadline,
                                          bool yields);

/* Counts the operation among those that something outside this program can end. */
void ip_operation_wait_externally(struct ip_operation *operation);

/* Pushes the userdata whose user values are the operation's anchors. [-0, +1, -] */
void ip_operation_push_owner(lua_State *L, const struct ip_operation *operation);

/* Handles a failure between acquire and suspend: releases the operation and raises a system error.
   [-0, +0, e] */
IP_NO_RETURN int ip_operation_fail(lua_State *L, struct ip_operation *operation, int code);

/* Releases the operation of the running call from any state. [-0, +0, -] */
void ip_operation_release(lua_State *L, struct ip_operation *operation);

/* Is the coroutine of an ARMED or READY operation still suspended in it? Its __close may not have been
   called: at the limit of nested C calls Lua closes a coroutine without it. [-0, +0, -] */
bool ip_operation_is_suspended(const struct ip_operation *operation);

/* Releases an operation whose coroutine is not suspended in it any more. [-0, +0, -] */
void ip_operation_abandon(lua_State *L, struct ip_operation *operation);

/* Suspends the running C function in `operation`: `return ip_operation_suspend(L, operation)`. On the main
   thread, drives the loop. Ends with the type's push_results, or raises. [-0, +?, e] */
int ip_operation_suspend(lua_State *L, struct ip_operation *operation);

/* Pushes the error of a failure of a call of this type, which has its arguments in its frame. [-0, +1, m] */
struct ip_error *ip_operation_push_error(lua_State *L, const struct ip_operation_type *type,
                                         enum ip_error_category category, struct ip_failure failure);

/* Raises it. [-0, +0, e] */
IP_NO_RETURN int ip_operation_raise(lua_State *L, const struct ip_operation_type *type,
                                    enum ip_error_category category, struct ip_failure failure);

/* These functions do not call Lua. */
void ip_operation_complete(struct ip_operation *operation, enum ip_error_category category,
                           struct ip_failure failure);
void ip_operation_succeed(struct ip_operation *operation);
void ip_operation_complete_with(struct ip_operation *operation, int code); /* a system error without an mtu */
void ip_operation_expire(struct ip_operation *operation);

/* Completes with ETIMEDOUT after the final attempt has failed. The error is the call's own, or that of its
   context's innermost expired scope. */
void ip_operation_time_out(struct ip_operation *operation);

/* Makes attempts receive into `frame`, which lives until the resumed coroutine returns. Where something else
   may run before the continuation (the main thread, a nested coroutine), they receive into memory of the
   operation itself. */
void ip_operation_set_received(struct ip_operation *operation, struct ip_received *frame);

#endif
