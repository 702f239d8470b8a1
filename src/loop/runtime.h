/* runtime.h: the event loop of one Lua state, and the data that all its users share.

   There is one runtime per Lua state. It is the userdata that every C function of the library has as its
   first upvalue (it begins with struct ip_core), and it owns the loop. It names none of its users: they add
   resources and flushers to its lists. Each function says what it may raise. */
#ifndef IP_RUNTIME_H
#define IP_RUNTIME_H

#include "base/queue.h"
#include "base/util.h"
#include "binding/class.h"
#include "loop/context.h"
#include "loop/timer.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* The number of transfers in a row that may complete at once before the caller has to go through the loop. An
   echo is two. */
enum { IP_TRANSFER_BUDGET = 128 };

/* --- members of the lists --- */

enum ip_ready_type { IP_READY_WATCHER, IP_READY_OPERATION, IP_READY_TASK, IP_READY_WAIT_POINT };

/* An entry of the ready queue: the first member of a watcher or of an operation. */
struct ip_ready {
  struct ip_queue link;
  uint8_t type; /* enum ip_ready_type */
  /* The others stand here because of the padding. */
  uint8_t fruitless; /* of a watcher: iterations in a row whose events brought nothing */
  /* Number of the iteration in which an operation was armed, or in which a watcher's event last brought
     nothing. */
  uint32_t iteration;
};

struct ip_resource;

struct ip_resource_type {
  const char *name;
  /* Closes the resource when the state ends, and removes it from the list. Does not call Lua. */
  void (*close)(struct ip_resource *resource);
  /* In the child of a fork, whose loop has been made anew: makes what the kernel shares with the parent anew.
     It may leave the list. NULL: nothing is shared but what libuv watches. No Lua. */
  void (*forked)(struct ip_resource *resource);
};

/* An open resource that the runtime closes at its end, unless it has been closed before. */
struct ip_resource {
  struct ip_queue link;
  const struct ip_resource_type *type;
};

/* An action that is due before the loop polls the next time. */
struct ip_flusher {
  struct ip_queue link;
  void (*flush)(struct ip_flusher *flusher); /* the flusher has left the list and may return. No Lua. */
};

/* --- the runtime --- */

struct ip_operation;
struct ip_poll_set;
struct ip_task;
struct ip_watcher;

/* The handles that every loop needs. */
struct ip_loop_handles {
  uv_async_t wakeup;    /* unreferenced; a signal handler sends it */
  uv_check_t check;     /* a host's loop: dispatches after each poll; unreferenced */
  uv_idle_t idle;       /* a host's loop: active while something is ready, so that the poll does not block */
  uv_prepare_t prepare; /* a host's loop: probes the watchers before each poll; unreferenced */
};

struct ip_runtime {
  struct ip_core core; /* first: the only part that base, net, binding and value know */
  uv_loop_t *loop;
  uv_loop_t own_loop;
  struct ip_loop_handles *handles; /* the loop owns them until they are closed */
  lua_State *driver;               /* resumes coroutines inside a host's uv_run; NULL: the loop is our own */
  size_t open_handles;             /* libuv handles and requests that are not closed yet */
  lua_State *main;
  struct ip_queue ready;     /* struct ip_ready, to be dispatched in the next iteration */
  struct ip_queue batch;     /* those of this iteration */
  struct ip_queue strays;    /* tasks that somebody else is running, to be looked at in the next iteration */
  struct ip_queue resources; /* struct ip_resource */
  struct ip_queue flushers;  /* struct ip_flusher, due at the end of this iteration */
  struct ip_queue unprobed;  /* struct ip_watcher, started since the loop has polled the last time */
  struct ip_poll_set *poll_set;         /* NULL: nobody has needed it yet */
  struct ip_operation *free_operations; /* the pool, chained through ready.link.next */
  struct ip_timers timers;
  struct ip_watcher *dispatching; /* cleared when the dispatcher's watcher is closed */
  struct ip_task *current;        /* the task that is being resumed */
  lua_State *running;             /* its coroutine */
  struct ip_context main_context;
  void *scratch; /* see ip_runtime_scratch; may be NULL */
  uint32_t
      pending_raises; /* interrupted contexts and expired scopes: while it is not zero, calls check both */
  uint32_t nested_coroutines; /* coroutines that the context of their resumer bounds */
  uint32_t foreign_scopes;    /* open with_timeout of coroutines that somebody else has made */
  uint32_t scopes_at_once;    /* open with_timeout of zero or less: calls must try before they wait */
  uint32_t iteration;
  unsigned generation;   /* of the process that the loop is made for: see fork.h */
  int fork_error;        /* uv_loop_fork has failed with it: libuv must not be called any more */
  size_t external_waits; /* armed external operations and running timers, which can end a block */
  size_t operations;     /* operations that are not FREE */
  uint32_t tasks_created;
  size_t attached_tasks; /* tasks that a run waits for */
  size_t foreign_waits;  /* operations of coroutines that somebody else has made */
  /* Called on the driver's stack when a task's coroutine has ended with LUA_OK, an error status or
     IP_TASK_CLOSED; must not raise. The creator of tasks sets it. */
  void (*end_task)(lua_State *L, struct ip_runtime *runtime, struct ip_task *task, int status);
  int budget;
  double spin;          /* seconds that the loop polls without sleeping before it blocks */
  atomic_int signalled; /* a hook is to run; some systems exchange no smaller type (riscv64) */
  bool main_done;       /* the main thread's operation is DONE: its drive ends before anything else runs */
  bool driving;         /* the loop is being driven */
  bool calling_back;    /* a function of the user that may not suspend runs: the main thread must not drive */
  bool polling;         /* inside uv_run */
  bool opened;          /* the loop exists */
  bool closed;          /* and never will again */
  bool has_threads;     /* libuv has its thread pool, or can make it */
};

/* Registry key of the runtime. */
extern const char ip_runtime_key;

/* The runtime of the running C function. */
static inline struct ip_runtime *ip_runtime(lua_State *L) {
  return (struct ip_runtime *)(void *)ip_core(L);
}

/* Creates a runtime, stores it in the registry and pushes it. The first ip_runtime_check opens the loop.
   [-0, +1, m] */
struct ip_runtime *ip_runtime_push(lua_State *L);

/* Opens the loop if need be, or makes it anew after a fork; raises when that fails or the state is ending.
   [-0, +0, e] */
void ip_runtime_check(lua_State *L, struct ip_runtime *runtime);

/* Uses a host's loop; 0 or an errno value. `on_prepare` is called before each of its polls, and `on_check`
   after it. [-0, +0, m] */
int ip_runtime_use_loop(lua_State *L, struct ip_runtime *runtime, uv_loop_t *loop, uv_prepare_cb on_prepare,
                        uv_check_cb on_check);

/* Count the libuv handles and requests that must be closed before the state ends. */
void ip_runtime_handle_opened(struct ip_runtime *runtime);
void ip_runtime_handle_closed(struct ip_runtime *runtime);

/* Closes a libuv handle; `closed` frees its memory. */
void ip_runtime_close_handle(uv_handle_t *handle, uv_close_cb closed);

/* Runs a loop until `open` is 0. Its callbacks count `open` down. */
void ip_runtime_drain(uv_loop_t *loop, const size_t *open);

/* A close callback for a handle that is the first member of memory from malloc and has the runtime as its
   data. */
void ip_runtime_free_handle(uv_handle_t *handle);

void ip_runtime_add_resource(struct ip_runtime *runtime, struct ip_resource *resource,
                             const struct ip_resource_type *type);

/* Returns the number of open resources with that name. */
size_t ip_runtime_count_resources(const struct ip_runtime *runtime, const char *name);

/* Begin and end counting a wait that something outside this program can end. */
static inline void ip_runtime_begin_external_wait(struct ip_runtime *runtime) {
  runtime->external_waits++;
}

static inline void ip_runtime_end_external_wait(struct ip_runtime *runtime) {
  runtime->external_waits--;
}

enum { IP_SCRATCH_SIZE = 65536 }; /* larger than the largest datagram */

/* Returns a buffer for data that is consumed before any other code runs; NULL when memory is short. */
void *ip_runtime_scratch(struct ip_runtime *runtime);

/* Queues an entry for the next iteration; does nothing if it is queued already. Does not call Lua. */
void ip_runtime_enqueue(struct ip_runtime *runtime, struct ip_ready *ready);

/* Schedules a flusher for the end of this iteration; does nothing if it is scheduled already. Does not call
   Lua. */
void ip_runtime_schedule(struct ip_runtime *runtime, struct ip_flusher *flusher);

#endif
