/* thread_probe.c: makes as many threads as libuv's pool has, all of which wait until the last one is made.
   Owns nothing afterwards. */
#include "resolve/thread_probe.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#ifdef __linux__
#include <signal.h>
#include <sys/syscall.h>
#endif

enum { USUAL_THREADS = 4, MOST_THREADS = 1024, POOL_STACK_SIZE = 8 << 20, LONGEST_WAIT_NS = 1000000000 };

struct probe_thread {
  uv_thread_t thread;
  uv_sem_t *gate;
  /* cppcheck-suppress unusedStructMember // it is used where there is tgkill(2) */
  long number; /* of the thread in the kernel */
};

/* As libuv counts them (init_threads). */
static unsigned count_threads(void) {
  const char *text = getenv("UV_THREADPOOL_SIZE");
  if (text == NULL) return USUAL_THREADS;
  unsigned count = (unsigned)atoi(text);
  if (count == 0) return 1;
  return count < MOST_THREADS ? count : MOST_THREADS;
}

static void run(void *argument) {
  struct probe_thread *self = argument;
#ifdef SYS_gettid
  self->number = syscall(SYS_gettid);
#endif
  uv_sem_wait(self->gate);
}

/* A thread that was joined still counts for RLIMIT_NPROC until the kernel has removed it, a moment later; as
   long as it is there it takes signal 0 (tgkill(2)). */
static void await_removal(const struct probe_thread *thread) {
#ifdef SYS_tgkill
  uint64_t end = uv_hrtime() + LONGEST_WAIT_NS;
  while (syscall(SYS_tgkill, getpid(), thread->number, 0) == 0 && uv_hrtime() < end)
    sched_yield();
#else
  (void)thread;
#endif
}

/* 0 or an errno value. `made`: how many threads there are afterwards. */
static int make_threads(struct probe_thread *threads, unsigned count, uv_sem_t *gate, unsigned *made) {
  uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = POOL_STACK_SIZE};
  for (*made = 0; *made < count; ++*made) {
    struct probe_thread *thread = &threads[*made];
    thread->gate = gate;
    int status = uv_thread_create_ex(&thread->thread, &options, run, thread);
    if (status != 0) return -status;
  }
  return 0;
}

static int probe(struct probe_thread *threads, unsigned count) {
  uv_sem_t gate;
  unsigned made;
  int status = uv_sem_init(&gate, 0);
  if (status != 0) return -status;
  int error = make_threads(threads, count, &gate, &made);
  for (unsigned i = 0; i < made; i++)
    uv_sem_post(&gate);
  for (unsigned i = 0; i < made; i++) {
    (void)uv_thread_join(
        &threads[i].thread); /* fails only for no thread, a detached one or itself (pthread_join(3)) */
    await_removal(&threads[i]);
  }
  uv_sem_destroy(&gate);
  return error;
}

int ip_thread_probe(void) {
  unsigned count = count_threads();
  struct probe_thread *threads = calloc(count, sizeof *threads);
  if (threads == NULL) return ENOMEM;
  int error = probe(threads, count);
  free(threads);
  return error;
}

unsigned ip_thread_most_lookups(void) {
  return (count_threads() + 1) / 2;
}
