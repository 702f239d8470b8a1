/* operation.h: a suspended call.

   FREE --acquire--> ARMED --complete--> READY --dispatch--> DONE --release--> FREE
                       +------ cancel ------+--> FREE

   ARMED: linked in the queue of the object it waits for. READY: it has its result and is linked in the runtime's ready
   queue. DONE: its coroutine is being resumed.

   Four verbs, one meaning each:
     complete   it has its result, a success or a failure; anything but ARMED: does nothing
     expire     its deadline has come: one final attempt where its type has one, else it is completed with ETIMEDOUT
     cancel     its coroutine gives it up before it has its result: somebody else closes or resumes the coroutine
     release    the one way back to FREE, whatever the state; idempotent

   What a call returns travels in its operation (`payload`, `received`, `failure`), which nothing but the dispatcher
   writes between the completion and the continuation: a hook, a finalizer or a __close cannot change it. */
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

/* The engine reaches objects through these functions only. */
struct ip_operation_type {
  const char *name; /* static text, what errors call the operation */
  /* The system call, when the object is ready. Returns false when it would wait; else sets `failure`. NULL: no
     watcher has such operations. No Lua. */
  bool (*attempt)(struct ip_operation *operation);
  /* Called when the operation leaves ARMED, for the object's own accounts; may be NULL. No Lua. */
  void (*unlinked)(struct ip_operation *operation);
  /* Called before a coroutine gives up the operation that it is suspended in; may be NULL. Runs Lua. */
  void (*cancelled)(lua_State *L, struct ip_operation *operation);
  /* Arranges for a final attempt after the deadline. NULL: none is made. No Lua. */
  void (*final_attempt)(struct ip_operation *operation);
  /* Pushes the results of a successful call, whose operation is free already. [-0, +?, e] */
  int (*push_results)(lua_State *L, struct ip_result *result);
  /* Sees a failure before it is raised: pushes results instead and returns their number, or returns a negative number
     and pushes nothing. NULL: every failure is raised. [-0, +?, e] */
  int (*push_failure)(lua_State *L, enum ip_error_category category, int code);
  /* Adds what the frame of the call knows to the error that ended its wait; may be NULL. */
  void (*describe)(lua_State *L, struct ip_error *error);
  bool ends_by_time;    /* its deadline is no error but what it waits for */
  bool carries_nothing; /* it waits to send, and is no datagram itself */
  bool ends_when_idle;  /* it waits, on the main thread, until no task is left */
};

/* What one call waits with, and what it gets, one member per family of calls. The frame of the coroutine holds the
   memory behind the pointers. */
union ip_payload {
  struct ip_receive receive;
  struct {
    size_t size;          /* bytes that are not sent yet */
    size_t done;          /* bytes that a send in several pieces has sent before it had to wait */
    ip_deadline deadline; /* once woken: what is left of the time */
  } send;
  struct {
    uint32_t set; /* a bit for each signal */
    int number;   /* of the one that came */
  } signal;
  struct {
    int events; /* of uv_poll_event: wanted, then those that came */
  } descriptor;
  struct {
    void *box; /* of the look-up, whose result it holds */
  } lookup;
};

struct ip_operation_facts {
  bool pooled : 1;      /* else a task's own */
  bool nonblocking : 1; /* what is not there at the next attempt counts as timed out */
  bool by_scope : 1;    /* ended by a with_timeout */
  bool external : 1;    /* something outside this program can end it: counted in runtime->external_waits */
  bool on_main : 1;     /* the main thread drives the loop until it is DONE */
  bool foreign : 1;     /* of a coroutine that others have made: counted in runtime->foreign_waits */
};

struct ip_operation {
  struct ip_ready ready;
  struct ip_runtime *runtime;
  const struct ip_operation_type *type;
  void *object;                 /* whose queue it is in, while ARMED; NULL: in none */
  lua_State *thread;            /* anchored by the operation's user value, or the task's */
  struct ip_context *context;   /* NULL: none */
  struct ip_timer *timer;       /* NULL: no deadline */
  struct ip_received *received; /* where an attempt puts what it receives: see ip_operation_set_received */
  union ip_payload payload;
  struct ip_failure failure;
  int slot; /* height of the suspended C function's frame; one from the pool stands on top of it */
  uint8_t state;
  uint8_t category; /* of `failure` */
  struct ip_operation_facts is;
};

/* What a continuation gets after its operation has been released. */
struct ip_result {
  struct ip_runtime *runtime;
  const struct ip_operation_type *type;
  void *object;
  struct ip_received *received;
  union ip_payload payload;
};

/* Fills a free operation. */
void ip_operation_init(struct ip_operation *operation, struct ip_runtime *runtime, enum ip_ready_type type);

/* Makes the class of operations and the close guard. [-0, +0, m] */
void ip_operation_open(lua_State *L, int core);

/* May this call suspend here? Raises when not, before anything was done. Also raises a pending interruption or an
   expired deadline of the calling coroutine. [-0, +0, e] */
void ip_operation_check_closely(lua_State *L, struct ip_runtime *runtime,
                                const struct ip_operation_type *type);

static inline void ip_operation_check(lua_State *L, struct ip_runtime *runtime,
                                      const struct ip_operation_type *type) {
  bool plain = runtime->running == L && runtime->pending_raises == 0; /* while a task runs, the loop exists */
  if (IP_LIKELY(plain && lua_isyieldable(L))) return;
  ip_operation_check_closely(L, runtime, type);
}

/* An operation, ARMED but in no queue yet: the task's own, or one from the pool, which is pushed and marked
   to-be-closed. `yields`: the call suspends though it might complete at once, so that a deadline of zero does not end
   it yet. The caller sets `object` before it queues the operation. Acquiring may run finalizers, which may do anything
   that needs no suspension. [-0, +(0|1), e] */
struct ip_operation *ip_operation_acquire(lua_State *L, struct ip_runtime *runtime,
                                          const struct ip_operation_type *type, ip_deadline deadline,
                                          bool yields);

/* Counts the operation among those that something outside this program can end. */
void ip_operation_wait_externally(struct ip_operation *operation);

/* For what goes wrong between acquire and suspend: releases the operation and raises a system error. [-0, +0, e] */
IP_NO_RETURN int ip_operation_fail(lua_State *L, struct ip_operation *operation, int code);

/* Releases the operation of the running call, whatever state it is in. [-0, +0, -] */
void ip_operation_release(lua_State *L, struct ip_operation *operation);

/* Suspends the running C function in `operation`: `return ip_operation_suspend(L, operation)`. On the main thread it
   drives the loop. Ends with the type's push_results or raises. [-0, +?, e] */
int ip_operation_suspend(lua_State *L, struct ip_operation *operation);

/* No Lua in any of these. */
void ip_operation_complete(struct ip_operation *operation, enum ip_error_category category,
                           struct ip_failure failure);
void ip_operation_succeed(struct ip_operation *operation);
void ip_operation_complete_with(struct ip_operation *operation, int code); /* a system error without an mtu */
void ip_operation_expire(struct ip_operation *operation);

/* The final attempt has failed: completes with ETIMEDOUT, the call's own or its context's innermost expired scope's. */
void ip_operation_time_out(struct ip_operation *operation);

/* Attempts put what they receive into `frame`, which lives as long as the resumption, or, where something else may run
   before the continuation (the main thread, a nested coroutine), into memory of the operation's own. */
void ip_operation_set_received(struct ip_operation *operation, struct ip_received *frame);

#endif
