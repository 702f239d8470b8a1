/* watcher.c: uv_poll_t with sticky arming and waiter queues.

   libuv owns the memory of an initialised uv_poll_t until its close callback; the object around it is given back there.
   libuv's callback contains no Lua and no transfer. Whatever status it reports, the watcher only notes that an attempt
   is worth making: libuv reports any POLLERR as UV_EBADF and stops the handle (libuv src/unix/poll.c), and it is in truth
   an ICMP error that the system call will name. */
#include "loop/watcher.h"

#include "base/util.h"
#include "loop/dispatch.h"
#include "loop/fork.h"

static const int side_events[IP_SIDE_COUNT] = {[IP_SIDE_READ] = UV_READABLE, [IP_SIDE_WRITE] = UV_WRITABLE};

static const struct ip_watcher_type *type_of(const struct ip_watcher *watcher) {
  return (const struct ip_watcher_type *)watcher->resource.type;
}

void ip_watcher_init(struct ip_watcher *watcher, struct ip_runtime *runtime, int fd,
                     const struct ip_watcher_type *type) {
  watcher->ready.type = IP_READY_WATCHER;
  ip_queue_init(&watcher->ready.link);
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    ip_queue_init(&watcher->waiters[side]);
  watcher->runtime = runtime;
  watcher->fd = fd;
  watcher->in_loop = false;
  watcher->armed = 0;
  watcher->pending = 0;
  watcher->writing = false;
  ip_runtime_add_resource(runtime, &watcher->resource, &type->resource);
}

int ip_watcher_prepare(struct ip_watcher *watcher) {
  int error = ip_fork_check(watcher->runtime);
  if (IP_UNLIKELY(error != 0)) return error;
  if (IP_LIKELY(watcher->in_loop)) return 0;
  int status = uv_poll_init(watcher->runtime->loop, &watcher->poll, watcher->fd);
  if (status != 0) return -status;
  watcher->poll.data = watcher;
  watcher->in_loop = true;
  ip_runtime_handle_opened(watcher->runtime);
  return 0;
}

static int wanted_events(const struct ip_watcher *watcher) {
  int events = watcher->writing ? UV_WRITABLE : 0;
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    if (ip_watcher_has_waiters(watcher, (enum ip_side)side)) events |= side_events[side];
  return events;
}

static void stop_polling(struct ip_watcher *watcher) {
  if (watcher->armed == 0 || ip_fork_check(watcher->runtime) != 0) return;
  uv_poll_stop(&watcher->poll); /* never fails (libuv src/unix/poll.c) */
  watcher->armed = 0;
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  struct ip_watcher *watcher = poll->data;
  int wanted = wanted_events(watcher);
  if (status < 0) {
    watcher->armed = 0; /* libuv has stopped it */
    events = wanted;
  } else if (wanted == 0) {
    stop_polling(watcher);
    return;
  } else if (wanted != watcher->armed) {
    uv_poll_start(poll, wanted, on_ready);
    watcher->armed = (uint8_t)wanted;
  }
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    if (events & wanted & side_events[side]) watcher->pending |= (uint8_t)(1 << side);
  if (watcher->pending != 0) ip_runtime_enqueue(watcher->runtime, &watcher->ready);
}

/* Watches for everything that somebody waits for; what is watched already costs nothing. Where a fork has taken the loop
   away, whoever polls finds out. */
static void arm(struct ip_watcher *watcher) {
  int wanted = wanted_events(watcher);
  if ((wanted & ~watcher->armed) == 0 || ip_fork_check(watcher->runtime) != 0) return;
  wanted |= watcher->armed;
  uv_poll_start(&watcher->poll, wanted, on_ready); /* fails only on a closing handle */
  watcher->armed = (uint8_t)wanted;
}

void ip_watcher_wait(struct ip_watcher *watcher, enum ip_side side, struct ip_operation *operation,
                     enum ip_wait wait) {
  struct ip_queue *waiters = &watcher->waiters[side];
  /* to append to the position of the oldest member is to insert before it */
  ip_queue_append(wait == IP_WAIT_FIRST ? waiters->next : waiters, &operation->ready.link);
  ip_operation_wait_externally(operation);
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
  if (watcher->writing == writing) return 0;
  int error = writing ? ip_watcher_prepare(watcher) : 0;
  if (error != 0) return error;
  watcher->writing = writing;
  if (writing) {
    ip_runtime_begin_external_wait(watcher->runtime);
    arm(watcher);
  } else {
    ip_runtime_end_external_wait(watcher->runtime);
  }
  return 0;
}

static struct ip_operation *operation_of(struct ip_queue *link) {
  return ip_container_of(ip_container_of(link, struct ip_ready, link), struct ip_operation, ready);
}

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
}

/* The descriptor has nothing: those who may not wait any longer time out. */
static void time_out_nonblocking(struct ip_watcher *watcher, enum ip_side side) {
  struct ip_queue *link = watcher->waiters[side].next;
  while (link != &watcher->waiters[side]) {
    struct ip_operation *operation = operation_of(link);
    link = link->next;
    if (operation->is.nonblocking) ip_operation_time_out(operation);
  }
}

/* Takes a successfully attempted operation out of the queue and runs its coroutine. */
static void serve(lua_State *L, struct ip_operation *operation) {
  ip_operation_complete(operation, IP_ERROR_SYSTEM, operation->failure);
  ip_queue_remove(&operation->ready.link); /* not for the next iteration: now */
  ip_operation_resume(L, operation);
}

/* Serves one side; false when the watcher is gone or the main thread has its result. */
static bool dispatch_side(lua_State *L, struct ip_watcher *watcher, enum ip_side side) {
  struct ip_runtime *runtime = watcher->runtime;
  struct ip_received received; /* nested dispatches have one each */
  while (ip_watcher_has_waiters(watcher, side)) {
    struct ip_operation *operation = oldest(watcher, side);
    if (operation->ready.iteration == runtime->iteration)
      return true; /* came back meanwhile: the next event is theirs */
    ip_operation_set_received(operation, &received);
    if (!operation->type->attempt(operation)) {
      time_out_nonblocking(watcher, side);
      return true;
    }
    serve(L, operation);
    if (runtime->main_done || runtime->dispatching != watcher) return false;
  }
  return true;
}

/* What becomes worth an attempt meanwhile is for the next iteration, so the notes are read first. */
void ip_watcher_dispatch(lua_State *L, struct ip_watcher *watcher) {
  struct ip_runtime *runtime = watcher->runtime;
  uint8_t pending = watcher->pending;
  watcher->pending = 0;
  runtime->dispatching = watcher;
  if (watcher->writing && (pending & (1 << IP_SIDE_WRITE)) != 0) type_of(watcher)->writable(watcher);
  for (int side = 0; side < IP_SIDE_COUNT && pending != 0; side++) {
    uint8_t bit = (uint8_t)(1 << side);
    if (!(pending & bit)) continue;
    pending &= (uint8_t)~bit;
    if (!dispatch_side(L, watcher, (enum ip_side)side)) break;
  }
  if (runtime->dispatching != watcher) return; /* closed by whom it woke */
  runtime->dispatching = NULL;
  watcher->pending |= pending;
  if (watcher->pending != 0)
    ip_runtime_enqueue(runtime, &watcher->ready);
  else
    arm(watcher);
}

static void on_closed(uv_handle_t *handle) {
  struct ip_watcher *watcher = handle->data;
  ip_runtime_handle_closed(watcher->runtime);
  type_of(watcher)->release(watcher);
}

void ip_watcher_fini(struct ip_watcher *watcher) {
  struct ip_runtime *runtime = watcher->runtime;
  (void)ip_watcher_set_writing(watcher, false);
  ip_queue_remove(&watcher->ready.link);
  ip_queue_remove(&watcher->resource.link);
  if (runtime->dispatching == watcher) runtime->dispatching = NULL;
  if (!watcher->in_loop) {
    type_of(watcher)->release(watcher);
    return;
  }
  /* in a child without a loop the memory stays libuv's, which never gives it back */
  if (ip_fork_check(runtime) != 0) return;
  stop_polling(watcher);
  ip_runtime_close_handle((uv_handle_t *)&watcher->poll, on_closed);
}
