/* readiness.c: uv_poll_t with sticky arming and waiter queues.

   libuv owns the memory of an initialised uv_poll_t until its close callback; the object around it is given
   back there. libuv's callback contains no Lua and no transfer. Whatever status it reports, the readiness
   only notes that an attempt is worth making: any POLLERR arrives as UV_EBADF and stops the handle (libuv
   src/unix/poll.c), and is in truth an ICMP error that the system call will name. */
#include "loop/watcher.h"

#include "base/util.h"

static const int side_events[IP_SIDE_COUNT] = {[IP_SIDE_READ] = UV_READABLE, [IP_SIDE_WRITE] = UV_WRITABLE};

void ip_readiness_init(struct ip_readiness *readiness, struct ip_runtime *runtime, int fd) {
  readiness->ready.kind = IP_READY_READINESS;
  ip_queue_init(&readiness->ready.link);
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    ip_queue_init(&readiness->waiters[side]);
  readiness->runtime = runtime;
  readiness->fd = fd;
  readiness->in_loop = false;
  readiness->armed = 0;
  readiness->pending = 0;
  readiness->writes = false;
}

int ip_readiness_prepare(struct ip_readiness *readiness) {
  if (IP_LIKELY(readiness->in_loop)) return 0;
  int status = uv_poll_init(readiness->runtime->loop, &readiness->poll, readiness->fd);
  if (status != 0) return -status;
  readiness->poll.data = readiness;
  readiness->in_loop = true;
  ip_runtime_handle_opened(readiness->runtime);
  return 0;
}

static int wanted_events(const struct ip_readiness *readiness) {
  int events = readiness->writes ? UV_WRITABLE : 0;
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    if (ip_readiness_has_waiters(readiness, (enum ip_side)side)) events |= side_events[side];
  return events;
}

static void stop_polling(struct ip_readiness *readiness) {
  if (readiness->armed == 0) return;
  uv_poll_stop(&readiness->poll); /* never fails (libuv src/unix/poll.c) */
  readiness->armed = 0;
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  struct ip_readiness *readiness = poll->data;
  int wanted = wanted_events(readiness);
  if (status < 0) {
    readiness->armed = 0; /* libuv has stopped it */
    events = wanted;
  } else if (wanted == 0) {
    stop_polling(readiness);
    return;
  } else if (wanted != readiness->armed) {
    uv_poll_start(poll, wanted, on_ready);
    readiness->armed = (uint8_t)wanted;
  }
  for (int side = 0; side < IP_SIDE_COUNT; side++)
    if (events & wanted & side_events[side]) readiness->pending |= (uint8_t)(1 << side);
  if (readiness->pending != 0) ip_runtime_enqueue(readiness->runtime, &readiness->ready);
}

/* Watches for everything that somebody waits for; what is watched already costs nothing. */
static void arm(struct ip_readiness *readiness) {
  int wanted = wanted_events(readiness);
  if ((wanted & ~readiness->armed) == 0) return;
  wanted |= readiness->armed;
  uv_poll_start(&readiness->poll, wanted, on_ready); /* fails only on a closing handle */
  readiness->armed = (uint8_t)wanted;
}

static void join_queue(struct ip_readiness *readiness, struct ip_queue *position,
                       struct ip_operation *operation) {
  ip_queue_append(position, &operation->ready.link);
  operation->external = true;
  readiness->runtime->external_waits++;
}

void ip_readiness_wait(struct ip_readiness *readiness, enum ip_side side, struct ip_operation *operation) {
  join_queue(readiness, &readiness->waiters[side], operation);
  arm(readiness);
}

/* Appending to the oldest member's position is inserting before it. */
void ip_readiness_wait_first(struct ip_readiness *readiness, enum ip_side side,
                             struct ip_operation *operation) {
  join_queue(readiness, readiness->waiters[side].next, operation);
  arm(readiness);
}

void ip_readiness_give_way(struct ip_readiness *readiness, enum ip_side side,
                           struct ip_operation *operation) {
  join_queue(readiness, &readiness->waiters[side], operation);
  readiness->pending |= (uint8_t)(1 << side);
  ip_runtime_enqueue(readiness->runtime, &readiness->ready);
  stop_polling(readiness);
}

int ip_readiness_set_writes(struct ip_readiness *readiness, bool writes) {
  if (readiness->writes == writes) return 0;
  int error = writes ? ip_readiness_prepare(readiness) : 0;
  if (error != 0) return error;
  readiness->writes = writes;
  if (writes) {
    readiness->runtime->external_waits++;
    arm(readiness);
  } else {
    readiness->runtime->external_waits--;
  }
  return 0;
}

void ip_readiness_try_last(struct ip_readiness *readiness, enum ip_side side) {
  readiness->pending |= (uint8_t)(1 << side);
  ip_runtime_enqueue(readiness->runtime, &readiness->ready);
}

static struct ip_operation *operation_of(struct ip_queue *link) {
  return ip_container_of(ip_container_of(link, struct ip_ready, link), struct ip_operation, ready);
}

size_t ip_readiness_count(const struct ip_readiness *readiness, enum ip_side side, size_t *bytes) {
  size_t count = 0;
  const struct ip_queue *end = &readiness->waiters[side];
  for (struct ip_queue *link = end->next; link != end; link = link->next) {
    *bytes += operation_of(link)->size;
    if (!operation_of(link)->kind->carries_nothing) count++;
  }
  return count;
}

static struct ip_operation *oldest(const struct ip_readiness *readiness, enum ip_side side) {
  return operation_of(readiness->waiters[side].next);
}

void ip_readiness_fail(struct ip_readiness *readiness, enum ip_side side, int status) {
  while (ip_readiness_has_waiters(readiness, side))
    ip_operation_complete(oldest(readiness, side), IP_ERROR_SYSTEM, status);
}

/* The descriptor has nothing: those who may not wait any longer time out. */
static void expire_immediate(struct ip_readiness *readiness, enum ip_side side) {
  struct ip_queue *link = readiness->waiters[side].next;
  while (link != &readiness->waiters[side]) {
    struct ip_operation *operation = operation_of(link);
    link = link->next;
    if (operation->immediate) ip_operation_expire(operation);
  }
}

/* Takes a successfully attempted operation out of the queue and runs its coroutine. */
static void serve(lua_State *L, struct ip_operation *operation) {
  ip_operation_complete(operation, IP_ERROR_SYSTEM, operation->status);
  ip_queue_remove(&operation->ready.link); /* not for the next turn: now */
  ip_operation_resume(L, operation);
}

/* Serves one side; false when the readiness is gone or the main thread has its result. */
static bool dispatch_side(lua_State *L, struct ip_readiness *readiness, enum ip_side side) {
  struct ip_runtime *runtime = readiness->runtime;
  while (ip_readiness_has_waiters(readiness, side)) {
    struct ip_operation *operation = oldest(readiness, side);
    if (operation->ready.turn == runtime->turn)
      return true; /* came back meanwhile: the next event is theirs */
    if (!operation->kind->attempt(operation)) {
      expire_immediate(readiness, side);
      return true;
    }
    serve(L, operation);
    if (runtime->main_done || runtime->dispatching != readiness) return false;
  }
  return true;
}

/* What becomes worth an attempt meanwhile is for the next turn, so the notes are taken over first. */
void ip_readiness_dispatch(lua_State *L, struct ip_readiness *readiness) {
  struct ip_runtime *runtime = readiness->runtime;
  uint8_t pending = readiness->pending;
  readiness->pending = 0;
  runtime->dispatching = readiness;
  if (readiness->writes && (pending & (1 << IP_SIDE_WRITE)) != 0) runtime->write_ready(readiness);
  for (int side = 0; side < IP_SIDE_COUNT && pending != 0; side++) {
    uint8_t bit = (uint8_t)(1 << side);
    if (!(pending & bit)) continue;
    pending &= (uint8_t)~bit;
    if (!dispatch_side(L, readiness, (enum ip_side)side)) break;
  }
  if (runtime->dispatching != readiness) return; /* closed by whom it woke */
  runtime->dispatching = NULL;
  readiness->pending |= pending;
  if (readiness->pending != 0)
    ip_runtime_enqueue(runtime, &readiness->ready);
  else
    arm(readiness);
}

static void on_closed(uv_handle_t *handle) {
  struct ip_readiness *readiness = handle->data;
  ip_runtime_handle_closed(readiness->runtime);
  readiness->release(readiness);
}

void ip_readiness_fini(struct ip_readiness *readiness, void (*release)(struct ip_readiness *readiness)) {
  struct ip_runtime *runtime = readiness->runtime;
  (void)ip_readiness_set_writes(readiness, false);
  ip_queue_remove(&readiness->ready.link);
  if (runtime->dispatching == readiness) runtime->dispatching = NULL;
  if (!readiness->in_loop) {
    release(readiness);
    return;
  }
  stop_polling(readiness);
  readiness->release = release;
  ip_runtime_close_handle(runtime, (uv_handle_t *)&readiness->poll, on_closed);
}
