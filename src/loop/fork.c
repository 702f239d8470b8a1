/* fork.c: what a child process does with the loop that it has inherited.

   A runtime that has no loop yet needs nothing. One with a loop calls uv_loop_fork once: libuv closes this
   process's copies of the descriptors that it shares with the parent, opens others, and registers all watched
   descriptors again. What libuv 1.42 to 1.52 leave behind is mended here: marks of asynchronous handles that
   were on their way (cleared by later versions), the queue of the thread pool's results with its mutex, and
   the count of its requests, whose threads the child does not have.

   Nothing here raises or calls Lua. */
#include "loop/fork.h"

#include "loop/alarm.h"
#include "loop/keyboard_interrupt.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

/* 0: pthread_atfork has not been called. Static, like threads_generation, for the handler of a fork and a
   destructor have no other data. */
atomic_uint ip_fork_generation;

static void on_child(void) {
  atomic_fetch_add_explicit(&ip_fork_generation, 1, memory_order_relaxed);
}

int ip_fork_watch(void) {
  unsigned none = 0;
  if (!atomic_compare_exchange_strong(&ip_fork_generation, &none, 1)) return 0;
  int error = pthread_atfork(NULL, NULL, on_child);
  if (error != 0) atomic_store(&ip_fork_generation, 0);
  return error;
}

/* --- libuv's threads --- */

/* The generation of the process that has started them; 0: none has. */
static atomic_uint threads_generation;

void ip_fork_note_threads(void) {
  atomic_store_explicit(&threads_generation, atomic_load(&ip_fork_generation), memory_order_relaxed);
}

static void do_nothing(uv_work_t *work) {
  (void)work;
}

static void on_done(uv_work_t *work, int status) {
  (void)status;
  *(size_t *)work->data = 0;
}

/* When libuv is unloaded or the process ends, its destructor joins its threads (src/threadpool.c). The child
   of a fork has none, so that it would crash; work of its own gives it threads that can be joined. This runs
   before that, for this library depends on libuv. */
__attribute__((destructor)) static void restart_threads(void) {
  unsigned started = atomic_load(&threads_generation);
  if (started == 0 || started == atomic_load(&ip_fork_generation)) return;
  uv_loop_t loop;
  size_t open = 1;
  uv_work_t work = {.data = &open};
  if (uv_loop_init(&loop) != 0) return;
  if (uv_queue_work(&loop, &work, do_nothing, on_done) == 0) ip_runtime_drain(&loop, &open);
  uv_loop_close(&loop);
}

/* --- the loop --- */

/* Only this library's look-ups use the thread pool through a loop of its own. */
static int mend_own_loop(uv_loop_t *loop) {
  void *empty[2] = {&loop->wq, &loop->wq};
  static_assert(sizeof empty == sizeof loop->wq, "libuv's queues are two pointers");
  memcpy(&loop->wq, empty, sizeof empty);
  return -uv_mutex_init(&loop->wq_mutex); /* a thread of the parent may have held it */
}

/* A mark that stays would keep uv_async_send from waking the loop for ever (libuv src/unix/async.c up to
   1.45). */
static int mend_loop(struct ip_runtime *runtime) {
  runtime->loop->wq_async.pending = 0;
  runtime->handles->wakeup.pending = 0;
  if (runtime->loop == &runtime->own_loop) return mend_own_loop(runtime->loop);
  return -uv_async_send(
      &runtime->loop->wq_async); /* what threads had finished before the fork is delivered */
}

/* A hook may take its own resource out of the list. */
static void tell_resources(struct ip_runtime *runtime) {
  const struct ip_queue *end = &runtime->resources;
  for (struct ip_queue *link = end->next, *next; link != end; link = next) {
    struct ip_resource *resource = ip_container_of(link, struct ip_resource, link);
    next = link->next;
    if (resource->type->forked != NULL) resource->type->forked(resource);
  }
}

static int adopt_loop(struct ip_runtime *runtime) {
  int status = uv_loop_fork(runtime->loop);
  if (status != 0) return -status;
  int error = mend_loop(runtime);
  if (error != 0) return error;
  runtime->generation = atomic_load(&ip_fork_generation);
  tell_resources(runtime);
  if (runtime->timers.alarm != NULL) ip_alarm_forked(runtime->timers.alarm);
  ip_keyboard_interrupt_forked(runtime);
  return 0;
}

/* A second uv_loop_fork after one that has failed would abort the process, for libuv would close a descriptor
   twice. */
int ip_fork_follow(struct ip_runtime *runtime) {
  if (!runtime->opened) return 0;
  if (runtime->fork_error == 0) runtime->fork_error = adopt_loop(runtime);
  return runtime->fork_error;
}
