/* watcher.c: uv_poll_t with sticky arming and waiter queues.

   libuv owns the memory of an initialised uv_poll_t until its close callback; the object around it is given
   back there. libuv's callback contains no Lua and no transfer. Whatever status it reports, the watcher only
   notes that an attempt is worth making: libuv reports any POLLERR as UV_EBADF and stops the handle (libuv
   src/unix/poll.c), and it is in truth an ICMP error that the system call will name.

   Invariant: `armed` never has an event that libuv or the poll set does not watch. */
#include "loop/watcher.h"

#include "base/util.h"
#include "loop/dispatch.h"
#include "loop/fork.h"
#include "loop/poll_set.h"
#include "loop/registration.h"

#include <errno.h>
#include <stdlib.h>

static const int side_events[IP_SIDE_COUNT] = {[IP_SIDE_READ] = UV_READABLE, [IP_SIDE_WRITE] = UV_WRITABLE};

/* The watch of a number that another handle of the loop has. */
struct shared_watch {
  struct ip_poll_wait wait;
  struct ip_watcher *watcher;
};

static struct shared_watch *shared_of(const struct ip_watcher *watcher) {
  return watcher->poll.data;
}

static const struct ip_watcher_type *type_of(const struct ip_watcher *watcher) {
  return (const struct ip_watcher_type *)watcher->resource.type;
}

void ip_watcher_init(struct ip_watcher *watcher, struct ip_runtime *runtime, int fd,
                     const struct ip_watcher_type *type) {
  watcher->ready.type = IP_READY_WATCHER;
  watcher->ready.fruitless = 0;
  watcher->ready.iteration = 0;
  ip_queue_init(&watcher->ready.link);
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    ip_queue_init(&watcher->waiters[side]);
  ip_queue_init(&watcher->unprobed);
  watcher->runtime = runtime;
  watcher->fd = fd;
  watcher->in_loop = false;
  watcher->ended = false;
  watcher->armed = 0;
  watcher->pending = 0;
  watcher->also = 0;
  watcher->guests = NULL;
  watcher->poll.data = NULL;
  ip_runtime_add_resource(runtime, &watcher->resource, &type->resource);
}

static int wanted_events(const struct ip_watcher *watcher) {
  int events = watcher->also | (ip_watcher_reader(watcher) != NULL ? UV_READABLE : 0);
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    if (ip_watcher_has_waiters(watcher, (enum ip_side)side)) events |= side_events[side];
  return events;
}

static void note_events(struct ip_watcher *watcher, int events) {
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    if (events & side_events[side]) watcher->pending |= (uint8_t)(1 << side);
  if (watcher->pending != 0) ip_runtime_enqueue(watcher->runtime, &watcher->ready);
}

static void stop_polling(struct ip_watcher *watcher) {
  if (watcher->armed == 0 || ip_fork_check(watcher->runtime) != 0) return;
  ip_queue_remove(&watcher->unprobed);
  if (shared_of(watcher) != NULL)
    ip_poll_set_remove(&shared_of(watcher)->wait);
  else
    (void)uv_poll_stop(&watcher->poll); /* always 0 (libuv src/unix/poll.c) */
  watcher->armed = 0;
}

/* Nobody may wait for the descriptor. What is to be written without an operation meets the error when it
   tries. */
static void fail_all(struct ip_watcher *watcher, int error) {
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    ip_watcher_fail(watcher, (enum ip_side)side, error);
  if (ip_watcher_is_writing(watcher)) note_events(watcher, UV_WRITABLE);
  ip_watcher_notify(watcher);
}

static void on_closed(uv_handle_t *handle) {
  struct ip_watcher *watcher = ip_container_of((uv_poll_t *)handle, struct ip_watcher, poll);
  watcher->in_loop = false;
  ip_runtime_handle_closed(watcher->runtime);
  if (watcher->ended) type_of(watcher)->release(watcher);
}

/* Others have closed the descriptor. The handle is closed now: later, that would remove a new descriptor with
   the same number from the loop. */
static void lose(struct ip_watcher *watcher) {
  stop_polling(watcher);
  watcher->fd = -1;
  type_of(watcher)->lost(watcher);
  fail_all(watcher, EBADF);
  if (watcher->in_loop) ip_runtime_close_handle((uv_handle_t *)&watcher->poll, on_closed);
}

/* --- a number that another handle has --- */

static void on_shared_ready(struct ip_poll_wait *wait, int events, int error) {
  struct ip_watcher *watcher = ip_container_of(wait, struct shared_watch, wait)->watcher;
  watcher->armed = 0;
  if (error != 0)
    fail_all(watcher, error);
  else
    note_events(watcher, events & wanted_events(watcher));
}

/* Watches through the poll set from now on; 0 or an errno value. */
static int share(struct ip_watcher *watcher) {
  int error = ip_poll_set_open(watcher->runtime);
  if (error != 0) return error;
  struct shared_watch *shared = calloc(1, sizeof *shared);
  if (shared == NULL) return ENOMEM;
  shared->wait.ready = on_shared_ready;
  shared->watcher = watcher;
  watcher->poll.data = shared;
  return 0;
}

static int start_shared(struct ip_watcher *watcher, int wanted) {
  struct ip_poll_wait *wait = &shared_of(watcher)->wait;
  ip_poll_set_remove(wait);
  wait->events = wanted;
  return ip_poll_set_add(watcher->runtime, wait, watcher->fd);
}

/* --- watching --- */

static void on_ready(uv_poll_t *poll, int status, int events);

/* 0 or an errno value. */
static int start(struct ip_watcher *watcher, int wanted) {
  if (watcher->fd < 0) return EBADF;
  if (shared_of(watcher) != NULL) return start_shared(watcher, wanted);
  int status = uv_poll_start(&watcher->poll, wanted, on_ready);
  if (status == UV_EEXIST) {
    int error = share(watcher);
    return error != 0 ? error : start_shared(watcher, wanted);
  }
  if (status == 0 && !ip_queue_is_linked(&watcher->unprobed))
    ip_queue_append(&watcher->runtime->unprobed, &watcher->unprobed);
  return -status;
}

static void watch(struct ip_watcher *watcher, int wanted) {
  int error = start(watcher, wanted);
  if (error != 0) {
    stop_polling(watcher);
    fail_all(watcher, error);
    return;
  }
  watcher->armed = (uint8_t)wanted;
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  struct ip_watcher *watcher = ip_container_of(poll, struct ip_watcher, poll);
  int wanted = wanted_events(watcher);
  if (status < 0) {
    watcher->armed = 0; /* libuv has stopped it */
    events = wanted;
  } else if (wanted == 0) {
    stop_polling(watcher);
    return;
  } else if (wanted != watcher->armed) {
    watch(watcher, wanted);
  }
  note_events(watcher, events & wanted);
}

/* Watches for the events that waiters need. Costs nothing when they are watched already. */
static void arm(struct ip_watcher *watcher) {
  int wanted = wanted_events(watcher);
  if ((wanted & ~watcher->armed) == 0 || ip_fork_check(watcher->runtime) != 0) return;
  watch(watcher, wanted | watcher->armed);
}

/* Two sockets of this library never have one number (ip_socket_holds), so a watcher that has it, too, has
   lost its descriptor: a uv_walk_cb that says so to all but the newest one. */
static void lose_older(uv_handle_t *handle, void *newest) {
  if (handle->type != UV_POLL || ((uv_poll_t *)handle)->poll_cb != on_ready) return;
  struct ip_watcher *watcher = ip_container_of((uv_poll_t *)handle, struct ip_watcher, poll);
  if (watcher != newest && watcher->fd == ((struct ip_watcher *)newest)->fd) lose(watcher);
}

static int init_poll(struct ip_watcher *watcher) {
  int status = uv_poll_init(watcher->runtime->loop, &watcher->poll, watcher->fd);
  if (status == 0) {
    watcher->in_loop = true;
    ip_runtime_handle_opened(watcher->runtime);
  }
  return -status;
}

int ip_watcher_prepare(struct ip_watcher *watcher) {
  int forked = ip_fork_check(watcher->runtime);
  if (IP_UNLIKELY(forked != 0)) return forked;
  if (IP_LIKELY(watcher->in_loop)) return 0;
  if (watcher->fd < 0) return EBADF;
  if (shared_of(watcher) != NULL) return 0;
  int error = init_poll(watcher);
  if (error != EEXIST) return error;
  uv_walk(watcher->runtime->loop, lose_older, watcher);
  error = init_poll(watcher);
  return error == EEXIST ? share(watcher) : error;
}

/* --- probing --- */

void ip_watcher_probe(struct ip_runtime *runtime) {
  for (struct ip_queue *link = ip_queue_pop(&runtime->unprobed); link != NULL;
       link = ip_queue_pop(&runtime->unprobed)) {
    struct ip_watcher *watcher = ip_container_of(link, struct ip_watcher, unprobed);
    int error = ip_registration_make(runtime->loop, watcher->fd, watcher->armed);
    if (error == 0) continue;
    if (error == EBADF) {
      lose(watcher);
      continue;
    }
    stop_polling(watcher);
    fail_all(watcher, error);
  }
}

void ip_watcher_forked(struct ip_resource *resource) {
  struct ip_watcher *watcher = ip_container_of(resource, struct ip_watcher, resource);
  if (watcher->armed == 0 || ip_queue_is_linked(&watcher->unprobed)) return;
  if (shared_of(watcher) == NULL) ip_queue_append(&watcher->runtime->unprobed, &watcher->unprobed);
}

/* --- waiting --- */

static struct ip_operation *operation_of(struct ip_queue *link) {
  return ip_container_of(ip_container_of(link, struct ip_ready, link), struct ip_operation, ready);
}

/* Times out the waiters that must not wait any longer, because the descriptor would block. */
static void time_out_nonblocking(struct ip_watcher *watcher, enum ip_side side) {
  struct ip_queue *link = watcher->waiters[side].next;
  while (link != &watcher->waiters[side]) {
    struct ip_operation *operation = operation_of(link);
    link = link->next;
    if (operation->is.nonblocking) ip_operation_time_out(operation);
  }
}

void ip_watcher_wait(struct ip_watcher *watcher, enum ip_side side, struct ip_operation *operation,
                     enum ip_wait wait) {
  struct ip_queue *waiters = &watcher->waiters[side];
  /* appending to the position of the oldest member inserts before it */
  ip_queue_append(wait == IP_WAIT_FIRST ? waiters->next : waiters, &operation->ready.link);
  ip_operation_wait_externally(operation);
  if (wait == IP_WAIT_FIRST) time_out_nonblocking(watcher, side);
  if (wait != IP_WAIT_YIELDING) {
    arm(watcher);
    return;
  }
  ip_watcher_attempt_soon(watcher, side);
  stop_polling(watcher);
}

void ip_watcher_attempt_soon(struct ip_watcher *watcher, enum ip_side side) {
  watcher->pending |= (uint8_t)(1 << side);
  ip_runtime_enqueue(watcher->runtime, &watcher->ready);
}

int ip_watcher_set_writing(struct ip_watcher *watcher, bool writing) {
  if (ip_watcher_is_writing(watcher) == writing) return 0;
  int error = writing ? ip_watcher_prepare(watcher) : 0;
  if (error != 0) return error;
  watcher->also ^= UV_WRITABLE;
  if (writing) {
    ip_runtime_begin_external_wait(watcher->runtime);
    arm(watcher);
  } else {
    ip_runtime_end_external_wait(watcher->runtime);
  }
  return 0;
}

/* Returns NULL when memory is short. */
static struct ip_watcher_guests *guests_of(struct ip_watcher *watcher) {
  if (watcher->guests != NULL) return watcher->guests;
  watcher->guests = calloc(1, sizeof *watcher->guests);
  if (watcher->guests != NULL) ip_queue_init(&watcher->guests->observers);
  return watcher->guests;
}

void ip_watcher_set_reader(struct ip_watcher *watcher, struct ip_reader *reader) {
  if (reader == NULL && watcher->guests == NULL) return;
  struct ip_watcher_guests *guests = guests_of(watcher);
  if (guests == NULL) {
    reader->failed(reader, ENOMEM);
    return;
  }
  guests->reader = reader;
  if (reader != NULL) arm(watcher);
}

/* --- observing --- */

int ip_watcher_observe(struct ip_watcher *watcher, struct ip_observer *observer) {
  int error = ip_watcher_prepare(watcher);
  if (error != 0) return error;
  struct ip_watcher_guests *guests = guests_of(watcher);
  if (guests == NULL) return ENOMEM;
  ip_queue_append(&guests->observers, &observer->link);
  watcher->also |= UV_READABLE;
  arm(watcher);
  return 0;
}

void ip_watcher_unobserve(struct ip_watcher *watcher, struct ip_observer *observer) {
  if (!ip_queue_is_linked(&observer->link)) return; /* notified, and the watcher may be gone */
  ip_queue_remove(&observer->link);
  if (ip_queue_is_empty(&watcher->guests->observers)) watcher->also &= (uint8_t)~UV_READABLE;
}

void ip_watcher_notify(struct ip_watcher *watcher) {
  watcher->also &= (uint8_t)~UV_READABLE;
  if (watcher->guests != NULL) ip_observer_notify_all(&watcher->guests->observers);
}

/* --- the waiters --- */

size_t ip_watcher_count_sends(const struct ip_watcher *watcher, size_t *bytes) {
  size_t count = 0;
  const struct ip_queue *end = &watcher->waiters[IP_SIDE_WRITE];
  for (struct ip_queue *link = end->next; link != end; link = link->next) {
    const struct ip_operation *operation = operation_of(link);
    if (operation->type->carries_nothing) continue;
    *bytes += operation->payload.send.size;
    count++;
  }
  return count;
}

static struct ip_operation *oldest(const struct ip_watcher *watcher, enum ip_side side) {
  return operation_of(watcher->waiters[side].next);
}

void ip_watcher_fail(struct ip_watcher *watcher, enum ip_side side, int code) {
  while (ip_watcher_has_waiters(watcher, side))
    ip_operation_complete_with(oldest(watcher, side), code);
  struct ip_reader *reader = side == IP_SIDE_READ ? ip_watcher_reader(watcher) : NULL;
  if (reader != NULL) reader->failed(reader, code);
}

enum { MOST_FRUITLESS = 3 }; /* a twin of the descriptor may have been faster now and then */

/* A descriptor that stays ready is reported in every iteration, so no success has to reset the count. */
void ip_watcher_note_fruitless(struct ip_watcher *watcher) {
  struct ip_ready *ready = &watcher->ready;
  uint32_t iteration = watcher->runtime->iteration;
  if (iteration == ready->iteration) return;
  ready->fruitless = iteration == ready->iteration + 1 ? (uint8_t)(ready->fruitless + 1) : 1;
  ready->iteration = iteration;
  if (ready->fruitless < MOST_FRUITLESS) return;
  ready->fruitless = 0;
  type_of(watcher)->fruitless(watcher);
}

/* Takes a successfully attempted operation out of the queue and runs its coroutine. */
static void serve(lua_State *L, struct ip_operation *operation) {
  ip_operation_complete(operation, IP_ERROR_SYSTEM, operation->failure);
  ip_queue_remove(&operation->ready.link); /* it is served now and not in the next iteration */
  ip_operation_resume(L, operation);
}

/* Serves one side. Returns false when the watcher is closed or the main thread has its result. */
static bool dispatch_side(lua_State *L, struct ip_watcher *watcher, enum ip_side side) {
  struct ip_runtime *runtime = watcher->runtime;
  struct ip_received received; /* each nested dispatch has its own */
  while (ip_watcher_has_waiters(watcher, side)) {
    struct ip_operation *operation = oldest(watcher, side);
    if (operation->ready.iteration == runtime->iteration)
      return true; /* its coroutine has returned meanwhile: it waits for the next event */
    if (IP_UNLIKELY(!ip_operation_is_suspended(operation))) {
      ip_operation_abandon(L, operation);
      continue;
    }
    ip_operation_set_received(operation, &received);
    if (!operation->type->attempt(operation)) {
      time_out_nonblocking(watcher, side);
      ip_watcher_note_fruitless(watcher);
      return true;
    }
    serve(L, operation);
    if (runtime->main_done || runtime->dispatching != watcher) return false;
  }
  return true;
}

/* Lets the reader read. Returns false when the watcher is closed or the main thread has its result. */
static bool dispatch_reader(lua_State *L, const struct ip_watcher *watcher, struct ip_reader *reader) {
  const struct ip_runtime *runtime = watcher->runtime;
  reader->readable(L, reader);
  return !runtime->main_done && runtime->dispatching == watcher;
}

/* Serves the waiters of the sides in `pending`. Returns false when a resumed coroutine has closed the
   watcher. */
static inline bool dispatch_waiters(lua_State *L, struct ip_watcher *watcher, uint8_t pending) {
  struct ip_runtime *runtime = watcher->runtime;
  for (int side = 0; side < IP_SIDE_COUNT && pending != 0; side++) {
    uint8_t bit = (uint8_t)(1 << side);
    if (!(pending & bit)) continue;
    pending &= (uint8_t)~bit;
    struct ip_reader *reader = side == IP_SIDE_READ ? ip_watcher_reader(watcher) : NULL;
    if (reader != NULL && !dispatch_reader(L, watcher, reader)) break;
    if (!dispatch_side(L, watcher, (enum ip_side)side)) break;
  }
  if (runtime->dispatching != watcher) return false;
  runtime->dispatching = NULL;
  watcher->pending |= pending;
  if (watcher->pending != 0)
    ip_runtime_enqueue(runtime, &watcher->ready);
  else
    arm(watcher);
  return true;
}

/* The bits of the sides are those of their events: side_events[side] == 1 << side. */
static void dispatch_also(lua_State *L, struct ip_watcher *watcher, uint8_t pending) {
  if (ip_watcher_is_writing(watcher) && (pending & UV_WRITABLE)) type_of(watcher)->writable(watcher);
  bool alive = dispatch_waiters(L, watcher, pending);
  if (!alive || !(watcher->also & pending & UV_READABLE) || (watcher->pending & UV_READABLE)) return;
  if (type_of(watcher)->readable(watcher))
    ip_watcher_notify(watcher);
  else if (!ip_watcher_has_waiters(watcher, IP_SIDE_READ))
    ip_watcher_note_fruitless(watcher);
}

/* Clears `pending` first: a side that becomes pending meanwhile is served in the next iteration. */
void ip_watcher_dispatch(lua_State *L, struct ip_watcher *watcher) {
  uint8_t pending = watcher->pending;
  watcher->pending = 0;
  watcher->runtime->dispatching = watcher;
  if (IP_UNLIKELY((watcher->also & pending) != 0))
    dispatch_also(L, watcher, pending);
  else
    dispatch_waiters(L, watcher, pending);
}

void ip_watcher_fini(struct ip_watcher *watcher) {
  struct ip_runtime *runtime = watcher->runtime;
  (void)ip_watcher_set_writing(watcher, false);
  ip_watcher_notify(watcher);
  free(watcher->guests);
  watcher->guests = NULL;
  ip_queue_remove(&watcher->ready.link);
  ip_queue_remove(&watcher->resource.link);
  if (runtime->dispatching == watcher) runtime->dispatching = NULL;
  stop_polling(watcher);
  free(shared_of(watcher));
  watcher->poll.data = NULL;
  watcher->ended = true;
  if (!watcher->in_loop) {
    type_of(watcher)->release(watcher);
    return;
  }
  /* in a child without a loop the memory stays libuv's, which never gives it back */
  if (ip_fork_check(runtime) != 0) return;
  ip_runtime_close_handle((uv_handle_t *)&watcher->poll, on_closed);
}
