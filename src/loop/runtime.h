/* runtime.h: the engine's shared structures and their contracts. Layer 4: knows neither values nor sockets.

   One runtime per Lua state. It is the userdata that every C function of the library carries as its first
   upvalue (it begins with struct ip_core), and it owns the event loop.

   A suspended call is an operation:

     FREE --acquire--> ARMED --complete--> READY --dispatch--> DONE --settle--> FREE
                         +------- abandon -----+--> FREE

   ARMED: linked in the queue of the object it waits for. READY: it has its result and is linked in the
   runtime's ready queue. DONE: its coroutine is being resumed. Whatever ends it, settling it or the
   __close of its userdata (both the same code) unlinks it, stops its timer and puts it back into the pool. */
#ifndef IP_RUNTIME_H
#define IP_RUNTIME_H

#include "base/queue.h"
#include "base/util.h"
#include "binding/class.h"
#include "binding/error.h"
#include "net/control_message.h"
#include "net/datagram_io.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* Transfers that may complete at once, in a row, before the caller has to go through the loop. An echo is
   two. */
enum { IP_TRANSFER_BUDGET = 128 };

enum ip_ready_kind { IP_READY_READINESS, IP_READY_OPERATION, IP_READY_TASK };

/* What the ready queue holds. */
struct ip_ready {
  struct ip_queue link;
  uint8_t kind;  /* enum ip_ready_kind */
  uint32_t turn; /* of the dispatcher, when an operation was armed; stands here because of the padding */
};

struct ip_operation;
struct ip_runtime;
struct ip_readiness;
struct signal_watch;

/* --- timers: pooled uv_timer_t; they never fire early --- */

struct ip_timer {
  uv_timer_t uv; /* its data is the runtime */
  struct ip_timer *next_free;
  void (*fire)(struct ip_timer *timer); /* called inside uv_run: no Lua */
  void *owner;
};

/* A stopped timer, or NULL when memory is short. */
struct ip_timer *ip_timer_new(struct ip_runtime *runtime);
void ip_timer_start(struct ip_timer *timer, double seconds, void (*fire)(struct ip_timer *timer),
                    void *owner);
/* Stops the timer and gives it back. */
void ip_timer_free(struct ip_timer *timer);

/* --- contexts: what bounds the suspending calls of one coroutine --- */

/* One with_timeout. Lives in a userdata on the stack of the coroutine that runs it. */
struct ip_scope {
  struct ip_scope *outer;
  struct ip_context *context; /* NULL once left */
  struct ip_timer *timer;     /* NULL when not running */
  bool immediate;             /* zero or less: over as soon as a call would wait */
  bool expired;
  bool met; /* a call has raised this deadline */
};

/* Belongs to a fiber, to the main thread, or to a coroutine made by others while that is inside a scope. */
struct ip_context {
  struct ip_scope *scope;       /* innermost */
  struct ip_operation *waiting; /* the operation that the coroutine is suspended in */
  uint32_t shields;
  bool interrupted;
  bool is_task; /* the first member of a struct ip_task */
  /* of a task; they stand here because of the padding */
  bool started;
  bool guarded; /* has the object that tells: not when somebody else has started it */
};

/* Status of a task whose coroutine somebody else has closed or run to its end. */
enum { IP_TASK_CLOSED = -1 };

/* --- operations --- */

enum ip_operation_state { IP_OPERATION_FREE, IP_OPERATION_ARMED, IP_OPERATION_READY, IP_OPERATION_DONE };

struct ip_outcome;

/* The engine reaches objects through these functions only. */
struct ip_operation_kind {
  const char *name; /* static text, what errors call the operation */
  /* The system call, when the object is ready. Returns false when it would wait; else sets status. No Lua. */
  bool (*attempt)(struct ip_operation *operation);
  /* Told when the operation leaves ARMED, for the object's own accounts; may be NULL. No Lua. */
  void (*unlinked)(struct ip_operation *operation);
  /* Told before a coroutine gives up the operation that it is suspended in; may be NULL. Runs Lua. */
  void (*abandoned)(lua_State *L, struct ip_operation *operation);
  /* The time is over: arranges for one last attempt. NULL: none is made. No Lua. */
  void (*try_last)(struct ip_operation *operation);
  /* Pushes the results of a successful operation; the operation is settled already. */
  int (*push_results)(lua_State *L, const struct ip_outcome *outcome);
  /* Told of a failure before it is raised: pushes results instead and returns their number, or returns
     negative and pushes nothing. NULL: every failure is raised. [-0, +?, e] */
  int (*push_failure)(lua_State *L, const struct ip_outcome *outcome, enum ip_error_category category,
                      int code);
  /* Adds what the call's frame knows to the error that ended its wait; may be NULL. */
  void (*describe)(lua_State *L, struct ip_error *error);
  bool ends_by_time;    /* its deadline is no error but what it waits for */
  bool carries_nothing; /* it waits to send, and is no datagram itself */
  bool ends_when_idle;  /* it waits, on the main thread, until no fiber is left */
};

/* What a call needs to finish after its operation has gone back into the pool. */
struct ip_outcome {
  struct ip_runtime *runtime;
  void *object;
  void *data;
  size_t size;
  int flags;
};

struct ip_operation {
  struct ip_ready ready;
  struct ip_queue watch; /* among the watchers of a fiber, while ARMED, or detached */
  struct ip_runtime *runtime;
  const struct ip_operation_kind *kind;
  void *object;               /* whose queue it is in, while ARMED; NULL: in none */
  lua_State *thread;          /* anchored by the operation's user value */
  struct ip_context *context; /* NULL: none */
  struct ip_timer *timer;     /* NULL: no deadline */
  struct ip_operation
      *relay; /* another coroutine waits for this one, and is resumed in its stead; NULL: none */
  void *data; /* for the kind: buffer or payload, held by the frame of the coroutine */
  size_t size;
  int flags;
  int status;    /* 0, or the error code */
  int reference; /* in the pool table; 0: a task's own */
  int slot;      /* height of the suspended C function's frame; one from the pool stands on top of it */
  uint8_t state;
  uint8_t category; /* of status */
  bool immediate;   /* what is not there at the next attempt counts as timed out */
  bool by_scope;    /* ended by a with_timeout */
  bool external;    /* in runtime->external_waits: something outside this program can end it */
  bool on_main;     /* the main thread drives the loop until it is DONE */
  bool counts;      /* in runtime->foreign_waits */
};

/* --- tasks --- */

/* A coroutine that the library started: the engine's half of a fiber. It has an operation of its own, for it waits in
   one at a time; an object in its first frame tells when somebody else closes it. */
struct ip_task {
  struct ip_context context; /* first: what the table of tasks holds begins with a context */
  struct ip_ready ready;
  struct ip_operation operation;
  lua_State *thread; /* anchored by the fiber's userdata until the fiber is collected */
};

/* The task of a context, or NULL. */
static inline struct ip_task *ip_context_task(struct ip_context *context) {
  return context != NULL && context->is_task ? (struct ip_task *)context : NULL;
}

void ip_task_init(struct ip_runtime *runtime, struct ip_task *task, lua_State *thread);

/* For the start of a task whose function and arguments are on its stack, with room for two values more; returns how
   many arguments to resume it with. */
int ip_task_prepare(struct ip_task *task);

/* --- the runtime --- */

/* The handles that every loop needs. */
struct ip_loop_handles {
  uv_async_t wakeup; /* unreferenced; a signal handler sends it */
  uv_check_t check;  /* a host's loop: dispatches after each poll; unreferenced */
  uv_idle_t idle;    /* a host's loop: active while something is ready, so that the poll does not block */
};

struct ip_runtime {
  struct ip_core core; /* first: every room below sees only this */
  uv_loop_t *loop;
  uv_loop_t own_loop;
  struct ip_loop_handles *handles; /* the loop's, not the runtime's, until they are closed */
  lua_State *driver;               /* resumes coroutines inside a host's uv_run; NULL: the loop is our own */
  size_t open_handles;             /* libuv handles and requests that libuv still has */
  lua_State *main;
  struct ip_queue ready;                /* struct ip_ready, to be dispatched at the next turn */
  struct ip_queue batch;                /* those of this turn */
  struct ip_operation *free_operations; /* chained through ready.link.next */
  struct ip_timer *free_timers;
  struct ip_readiness *dispatching; /* cleared when it is closed under the dispatcher */
  struct ip_task *current;          /* the fiber being resumed */
  struct ip_context main_context;
  void *scratch; /* ip_runtime_scratch, or NULL */
  struct ip_datagram
      datagram;              /* what an attempt has taken; its coroutine reads it before anything else runs */
  struct ip_control control; /* likewise, what travelled beside it */
  int error_mtu;             /* likewise, where its status is EMSGSIZE; 0: unknown */
  uint32_t attention; /* interrupted contexts and expired scopes: calls look closer while it is not zero */
  uint32_t nested_coroutines; /* resumed by ip.fiber.coroutine and bounded by their resumer's context */
  uint32_t foreign_scopes;    /* open with_timeout of coroutines made by others */
  uint32_t immediate_scopes;  /* open with_timeout of zero or less: nobody may wait without a try */
  uint32_t turn;
  size_t external_waits; /* armed operations on descriptors and running timers: what can end a block */
  size_t operations;     /* not FREE */
  size_t attached_fibers;
  size_t foreign_waits; /* operations of coroutines made by others */
  /* Called on the driver's stack when a task's coroutine has ended with LUA_OK, an error status or
     IP_TASK_CLOSED; must not raise. Set by the room of fibers, like close_socket by that of sockets. */
  void (*end_task)(lua_State *L, struct ip_runtime *runtime, struct ip_task *task, int status);
  struct ip_queue signal_waiters; /* operations of wait_signal */
  struct signal_watch *signals;   /* caught signals */
  void (*close_descriptor_wait)(struct ip_runtime *runtime, uv_handle_t *handle);
  struct ip_queue open_sockets;
  void (*close_socket)(struct ip_queue *link); /* closes a member of open_sockets, which leaves the queue */
  size_t sockets;                              /* open ones */
  struct ip_queue gathered; /* what flush_gathered sends, at the end of a turn at the latest */
  void (*flush_gathered)(struct ip_runtime *runtime);  /* empties `gathered`; no Lua */
  void (*write_ready)(struct ip_readiness *readiness); /* of one that is marked `writes`; no Lua */
  int budget;
  double spin;           /* seconds that the loop polls without sleeping before it blocks */
  atomic_bool signalled; /* set by the signal handler */
  bool main_done;        /* the main thread's operation is DONE: its drive ends before anything else runs */
  bool driving;          /* the main thread is in ip_runtime_drive */
  bool polling;          /* inside uv_run */
  bool opened;           /* the loop exists */
  bool closed;           /* and never will again */
};

/* Registry tables, addressed by these (the contents are never read). */
extern const char ip_runtime_key, ip_runtime_pool_key, ip_runtime_tasks_key, ip_runtime_contexts_key,
    ip_runtime_nothing_key, ip_runtime_closer_key;

/* The runtime of the running C function. */
static inline struct ip_runtime *ip_runtime(lua_State *L) {
  return (struct ip_runtime *)lua_touserdata(L, lua_upvalueindex(1));
}

/* Pushes a new runtime, which has no loop yet, and makes the registry tables of the engine. [-0, +1, m] */
struct ip_runtime *ip_runtime_push(lua_State *L);

/* Makes sure that the loop exists, and raises when the runtime is closed: what is older than the library's
   first require is finalized after the runtime, and may still call. [-0, +0, e] */
void ip_runtime_check(lua_State *L, struct ip_runtime *runtime);

/* libuv handles and requests are counted from their initialisation to their last callback, which calls
   ip_runtime_handle_closed. */
void ip_runtime_handle_opened(struct ip_runtime *runtime);
void ip_runtime_handle_closed(struct ip_runtime *runtime);

/* Closes a libuv handle; `closed` gets its memory back. */
void ip_runtime_close_handle(struct ip_runtime *runtime, uv_handle_t *handle, uv_close_cb closed);

/* Uses a host's loop; 0 or an errno value. [-0, +0, m] */
int ip_runtime_use_loop(lua_State *L, struct ip_runtime *runtime, uv_loop_t *loop);

/* A close callback for handles that are the first member of what malloc gave, with the runtime as data. */
void ip_runtime_free_handle(uv_handle_t *handle);

enum { IP_SCRATCH_SIZE = 65536 }; /* larger than the largest datagram */

/* A buffer for what is consumed before anything else runs; NULL when memory is short. */
void *ip_runtime_scratch(struct ip_runtime *runtime);

/* Queues for the next turn; already queued stays queued. No Lua. */
void ip_runtime_enqueue(struct ip_runtime *runtime, struct ip_ready *ready);

/* operation.c */

/* May this call suspend here? Raises when not, before anything was done. Also raises a pending interruption
   or an expired deadline of the calling coroutine. [-0, +0, e] */
void ip_operation_check_closely(lua_State *L, struct ip_runtime *runtime,
                                const struct ip_operation_kind *kind);

static inline void ip_operation_check(lua_State *L, struct ip_runtime *runtime,
                                      const struct ip_operation_kind *kind) {
  const struct ip_task *task = runtime->current; /* while there is one, the loop exists */
  bool plain = task != NULL && task->thread == L && runtime->attention == 0;
  if (IP_LIKELY(plain && lua_isyieldable(L))) return;
  ip_operation_check_closely(L, runtime, kind);
}

/* An operation, ARMED but in no queue yet: the fiber's own, or one from the pool, which is pushed and marked
   to-be-closed. `timeout` in seconds, negative for none. `gives_way`: the call suspends though it might complete at once,
   so a deadline of zero does not end it yet. The caller sets `object` before it queues the operation. Acquiring may run
   finalizers, which may do anything that needs no suspension. [-0, +(0|1), e] */
struct ip_operation *ip_operation_acquire(lua_State *L, struct ip_runtime *runtime,
                                          const struct ip_operation_kind *kind, double timeout,
                                          bool gives_way);

/* For what goes wrong between acquire and suspend: settles the operation and raises a system error. [-0, +0,
   e] */
IP_NO_RETURN int ip_operation_fail(lua_State *L, struct ip_operation *operation, int code);

/* Frees the operation of the running call, whatever state it is in. [-0, +0, -] */
void ip_operation_settle(lua_State *L, struct ip_operation *operation);

/* Suspends the running C function in `operation`: `return ip_operation_suspend(L, operation)`. On the main
   thread it drives the loop. Ends with the kind's push_results or raises. [-0, +?, e] */
int ip_operation_suspend(lua_State *L, struct ip_operation *operation);

/* ARMED -> READY. Anything else: does nothing. No Lua. */
void ip_operation_complete(struct ip_operation *operation, enum ip_error_category category, int status);

/* The time of an operation is over. No Lua. */
void ip_operation_run_out(struct ip_operation *operation);

/* Ends the operation by ETIMEDOUT, its own or its context's innermost expired scope's. No Lua. */
void ip_operation_expire(struct ip_operation *operation);

/* The context of the running coroutine, or NULL. [-0, +0, -] */
struct ip_context *ip_context_of(lua_State *L, struct ip_runtime *runtime);

void ip_operation_define(lua_State *L, int core);

/* dispatch.c */

enum ip_drive_result { IP_DRIVE_DONE, IP_DRIVE_DEADLOCK, IP_DRIVE_ERROR };

/* One turn, blocking for at most `seconds`; true while something is left to wait for. For a foreign loop. [-0, +0, -] */
bool ip_runtime_step(lua_State *L, struct ip_runtime *runtime, double seconds);

/* Serves what is ready, inside a host's uv_run. */
void ip_runtime_serve_host(struct ip_runtime *runtime);

/* Puts something into `gathered`. No Lua. */
void ip_runtime_gather(struct ip_runtime *runtime, struct ip_queue *link);

/* Polls without blocking and without serving, so that all that is waited for is registered with the system; returns
   the seconds until the next timer, 0 when something is ready, negative when nothing is waited for. No Lua. */
double ip_runtime_harvest(struct ip_runtime *runtime);

/* Runs the loop on the main thread until `operation` is DONE. IP_DRIVE_ERROR leaves an error value on the
   stack. [-0, +(0|1), -] */
enum ip_drive_result ip_runtime_drive(lua_State *L, struct ip_runtime *runtime,
                                      struct ip_operation *operation);

/* Reports an error that left a coroutine: calls the registered reporter with (error, traceback, fiber or
   nil). `fiber` is a stack index or 0. Must not raise. [-0, +0, -] */
void ip_runtime_report(lua_State *L, lua_State *thread, int fiber);

extern const char ip_runtime_reporter_key;

/* keyboard_interrupt.c */

/* Makes sure that a SIGINT handler of the host also wakes this loop; cheap when it does already. */
void ip_keyboard_interrupt_watch(struct ip_runtime *runtime);
void ip_keyboard_interrupt_forget(struct ip_runtime *runtime);

#endif
