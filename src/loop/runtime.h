/* runtime.h: the event loop of one Lua state, and what everything that uses it shares.

   One runtime per Lua state. It is the userdata that every C function of the library carries as its first upvalue (it
   begins with struct ip_core), and it owns the loop. It names none of its users: they put resources and flushers into
   its lists. */
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

/* Transfers that may complete at once, in a row, before the caller has to go through the loop. An echo is two. */
enum { IP_TRANSFER_BUDGET = 128 };

/* --- what the lists hold --- */

enum ip_ready_type { IP_READY_WATCHER, IP_READY_OPERATION, IP_READY_TASK };

/* An entry of the ready queue: the first member of a watcher or of an operation. */
struct ip_ready {
  struct ip_queue link;
  uint8_t type;       /* enum ip_ready_type */
  uint32_t iteration; /* of the loop, when an operation was armed; it stands here because of the padding */
};

struct ip_resource;

struct ip_resource_type {
  const char *name;
  /* Closes it when the state ends; it leaves the list. No Lua. */
  void (*close)(struct ip_resource *resource);
  /* In the child of a fork, whose loop has been made anew: makes what the kernel shares with the parent anew. It may
     leave the list. NULL: nothing is shared but what libuv watches. No Lua. */
  void (*forked)(struct ip_resource *resource);
};

/* Something open that the runtime closes at its end, if nobody has done it before. */
struct ip_resource {
  struct ip_queue link;
  const struct ip_resource_type *type;
};

/* Something that is to be done before the loop polls the next time. */
struct ip_flusher {
  struct ip_queue link;
  void (*flush)(struct ip_flusher *flusher); /* no longer in the list; may come back. No Lua. */
};

/* --- the runtime --- */

struct ip_operation;
struct ip_task;
struct ip_watcher;

/* The handles that every loop needs. */
struct ip_loop_handles {
  uv_async_t wakeup; /* unreferenced; a signal handler sends it */
  uv_check_t check;  /* a host's loop: dispatches after each poll; unreferenced */
  uv_idle_t idle;    /* a host's loop: active while something is ready, so that the poll does not block */
};

struct ip_runtime {
  struct ip_core core; /* first: all that the layers below know of it */
  uv_loop_t *loop;
  uv_loop_t own_loop;
  struct ip_loop_handles *handles; /* the loop's, not the runtime's, until they are closed */
  lua_State *driver;               /* resumes coroutines inside a host's uv_run; NULL: the loop is our own */
  size_t open_handles;             /* libuv handles and requests that libuv still has */
  lua_State *main;
  struct ip_queue ready;                /* struct ip_ready, to be dispatched in the next iteration */
  struct ip_queue batch;                /* those of this iteration */
  struct ip_queue resources;            /* struct ip_resource */
  struct ip_queue flushers;             /* struct ip_flusher, due at the end of this iteration */
  struct ip_operation *free_operations; /* the pool, chained through ready.link.next */
  struct ip_timers timers;
  struct ip_watcher *dispatching; /* cleared when it is closed under the dispatcher */
  struct ip_task *current;        /* the one being resumed */
  lua_State *running;             /* its coroutine */
  struct ip_context main_context;
  void *scratch; /* ip_runtime_scratch, or NULL */
  uint32_t
      pending_raises; /* interrupted contexts and expired scopes: calls look closer while it is not zero */
  uint32_t nested_coroutines; /* bounded by the context of the coroutine that resumes them */
  uint32_t foreign_scopes;    /* open with_timeout of coroutines that others have made */
  uint32_t scopes_at_once;    /* open with_timeout of zero or less: nobody may wait without a try */
  uint32_t iteration;
  unsigned generation;   /* of the process that the loop is made for: see fork.h */
  int fork_error;        /* what uv_loop_fork has failed with: libuv is not to be called any more */
  size_t external_waits; /* what can end a block: armed operations on something outside, running timers */
  size_t operations;     /* not FREE */
  size_t attached_tasks; /* those that a run waits for */
  size_t foreign_waits;  /* operations of coroutines that others have made */
  /* Called on the driver's stack when a task's coroutine has ended with LUA_OK, an error status or IP_TASK_CLOSED; must
     not raise. The maker of tasks sets it. */
  void (*end_task)(lua_State *L, struct ip_runtime *runtime, struct ip_task *task, int status);
  int budget;
  double spin;           /* seconds that the loop polls without sleeping before it blocks */
  atomic_bool signalled; /* set by the signal handler */
  bool main_done;        /* the main thread's operation is DONE: its drive ends before anything else runs */
  bool driving;          /* the loop is being driven */
  bool polling;          /* inside uv_run */
  bool opened;           /* the loop exists */
  bool closed;           /* and never will again */
};

/* Registry key of the runtime. */
extern const char ip_runtime_key;

/* The runtime of the running C function. */
static inline struct ip_runtime *ip_runtime(lua_State *L) {
  return (struct ip_runtime *)(void *)ip_core(L);
}

/* Pushes a new runtime and keeps it in the registry. The loop is opened by the first ip_runtime_check. [-0, +1, m] */
struct ip_runtime *ip_runtime_push(lua_State *L);

/* Opens the loop if need be, or makes it anew after a fork; raises when that fails or the state is ending.
   [-0, +0, e] */
void ip_runtime_check(lua_State *L, struct ip_runtime *runtime);

/* Uses a host's loop; 0 or an errno value. `on_check` is called after each of its polls. [-0, +0, m] */
int ip_runtime_use_loop(lua_State *L, struct ip_runtime *runtime, uv_loop_t *loop, uv_check_cb on_check);

/* Count libuv handles and requests, which the end of the state waits for. */
void ip_runtime_handle_opened(struct ip_runtime *runtime);
void ip_runtime_handle_closed(struct ip_runtime *runtime);

/* Closes a libuv handle; `closed` gets its memory back. */
void ip_runtime_close_handle(uv_handle_t *handle, uv_close_cb closed);

/* Runs a loop until `open` is 0, which its callbacks see to. Nothing is left to wait for. */
void ip_runtime_drain(uv_loop_t *loop, const size_t *open);

/* A close callback for handles that are the first member of what malloc gave, with the runtime as data. */
void ip_runtime_free_handle(uv_handle_t *handle);

void ip_runtime_add_resource(struct ip_runtime *runtime, struct ip_resource *resource,
                             const struct ip_resource_type *type);

/* How many resources of that name are open. */
size_t ip_runtime_count_resources(const struct ip_runtime *runtime, const char *name);

/* Something outside this program that can end a block of the loop begins or ends to be waited for. */
static inline void ip_runtime_begin_external_wait(struct ip_runtime *runtime) {
  runtime->external_waits++;
}

static inline void ip_runtime_end_external_wait(struct ip_runtime *runtime) {
  runtime->external_waits--;
}

enum { IP_SCRATCH_SIZE = 65536 }; /* larger than the largest datagram */

/* A buffer for what is consumed before anything else runs; NULL when memory is short. */
void *ip_runtime_scratch(struct ip_runtime *runtime);

/* Queues for the next iteration; what is queued stays queued. No Lua. */
void ip_runtime_enqueue(struct ip_runtime *runtime, struct ip_ready *ready);

/* Lets a flusher flush at the end of this iteration; what is queued stays queued. No Lua. */
void ip_runtime_schedule(struct ip_runtime *runtime, struct ip_flusher *flusher);

#endif
