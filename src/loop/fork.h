/* fork.h: a process that was forked without exec has a loop of its own.

   The handler of pthread_atfork(3) only counts. Whatever touches libuv or the loop's descriptors asks first
   whether the process was forked since, and then makes what the kernel shares with the parent (the epoll
   instance, the event descriptors of libuv, the timerfd) anew. Calls that do not wait ask nothing. */
#ifndef IP_FORK_H
#define IP_FORK_H

#include "loop/runtime.h"

/* What errors call it. */
#define IP_FORK_OPERATION "fork the event loop"

/* How many forks lie between this process and the one that has loaded the library, and one. */
extern atomic_uint ip_fork_generation;

/* Begins to count; 0 or an errno value. Idempotent. */
int ip_fork_watch(void);

/* Was the process forked since the runtime's loop was opened, or made anew? */
static inline bool ip_fork_happened(const struct ip_runtime *runtime) {
  return runtime->generation != atomic_load_explicit(&ip_fork_generation, memory_order_relaxed);
}

/* Makes the loop anew after a fork; 0 or the errno value that uv_loop_fork has failed with: then nothing may
   touch the loop any more. No Lua. */
int ip_fork_follow(struct ip_runtime *runtime);

static inline int ip_fork_check(struct ip_runtime *runtime) {
  return IP_LIKELY(!ip_fork_happened(runtime)) ? 0 : ip_fork_follow(runtime);
}

/* A look-up is given to libuv's threads. */
void ip_fork_note_threads(void);

#endif
