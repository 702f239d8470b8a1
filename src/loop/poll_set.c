/* poll_set.c: the poll set on Linux: an epoll of the library's own, and one uv_poll_t that watches it.

   The set belongs to the runtime, as a resource. It has a table that finds the waits for a descriptor by its
   number.

   A number is registered with EPOLLONESHOT: it reports once, and is registered anew (EPOLL_CTL_MOD) for the
   waits that are left. epoll knows files by (open file description, number), and forgets one when the
   description ends, which is not when the number is closed: a duplicate or another process may hold it
   (epoll(7), question 6). So what epoll reports carries the generation of its registration; a stale one finds
   no waits, and reports once only: it cannot spin. */
#include "loop/poll_set.h"

#ifdef __linux__

#include "base/util.h"
#include "loop/fork.h"
#include "loop/registration.h"
#include "loop/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_AT_ONCE = 64, SMALLEST_TABLE = 64 };

/* A number that somebody waits for. */
struct ip_poll_descriptor {
  struct ip_poll_set *set;
  struct ip_queue waits; /* struct ip_poll_wait; one at least */
  int fd;
  uint32_t generation;
};

struct ip_poll_set {
  uv_poll_t poll; /* of `epoll`; unreferenced while nobody waits, so that it keeps no host's loop alive */
  struct ip_resource resource;
  struct ip_runtime *runtime;
  struct ip_poll_descriptor **table; /* by number; NULL: nobody waits for it */
  size_t table_size;
  size_t waited_for; /* how many are not NULL */
  int epoll;
  uint32_t generation; /* of the latest registration */
};

/* --- the table --- */

static struct ip_poll_descriptor *find(const struct ip_poll_set *set, int fd) {
  return (size_t)fd < set->table_size ? set->table[fd] : NULL;
}

/* Makes the table long enough for a number that is open; 0 or ENOMEM. */
static int grow(struct ip_poll_set *set, int fd) {
  size_t size = set->table_size != 0 ? set->table_size : SMALLEST_TABLE;
  while (size <= (size_t)fd)
    size *= 2;
  if (size == set->table_size) return 0;
  struct ip_poll_descriptor **table = realloc(set->table, size * sizeof(struct ip_poll_descriptor *));
  if (table == NULL) return ENOMEM;
  for (size_t i = set->table_size; i < size; i++)
    table[i] = NULL;
  set->table = table;
  set->table_size = size;
  return 0;
}

static void set_waited_for(struct ip_poll_set *set, size_t count) {
  set->waited_for = count;
  if (count > 0)
    uv_ref((uv_handle_t *)&set->poll);
  else
    uv_unref((uv_handle_t *)&set->poll);
}

static struct ip_poll_descriptor *new_descriptor(struct ip_poll_set *set, int fd) {
  struct ip_poll_descriptor *descriptor = malloc(sizeof *descriptor);
  if (descriptor == NULL) return NULL;
  descriptor->set = set;
  ip_queue_init(&descriptor->waits);
  descriptor->fd = fd;
  descriptor->generation = ++set->generation;
  return descriptor;
}

/* --- the waits for a descriptor --- */

static struct ip_poll_wait *wait_of(struct ip_queue *link) {
  return ip_container_of(link, struct ip_poll_wait, link);
}

static int wanted_events(struct ip_poll_descriptor *descriptor) {
  int events = 0;
  for (struct ip_queue *link = descriptor->waits.next; link != &descriptor->waits; link = link->next)
    events |= wait_of(link)->events;
  return events;
}

/* Registers the number, or changes its registration; 0 or an errno value. */
static int control(struct ip_poll_descriptor *descriptor, int operation) {
  int wanted = wanted_events(descriptor);
  struct epoll_event event = {.events = EPOLLONESHOT};
  if (wanted & UV_READABLE) event.events |= EPOLLIN;
  if (wanted & UV_WRITABLE) event.events |= EPOLLOUT;
  event.data.u64 = (uint64_t)descriptor->generation << 32 | (uint32_t)descriptor->fd;
  return epoll_ctl(descriptor->set->epoll, operation, descriptor->fd, &event) == 0 ? 0 : errno;
}

/* EEXIST: the number was closed and has been given to the same description again, which epoll still has. */
static int enter(struct ip_poll_descriptor *descriptor) {
  int error = control(descriptor, EPOLL_CTL_ADD);
  return error == EEXIST ? control(descriptor, EPOLL_CTL_MOD) : error;
}

/* Nobody waits any more. */
static void forget(struct ip_poll_descriptor *descriptor) {
  struct ip_poll_set *set = descriptor->set;
  struct epoll_event none = {.events = 0};     /* kernels before 2.6.9 want one (epoll_ctl(2), BUGS) */
  bool own = ip_fork_check(set->runtime) == 0; /* else the epoll is still the parent's */
  /* EBADF, ENOENT: the number is closed, or means another file by now; then epoll has nothing of it to
     forget, or what it has is stale */
  if (own) (void)epoll_ctl(set->epoll, EPOLL_CTL_DEL, descriptor->fd, &none);
  set->table[descriptor->fd] = NULL;
  set_waited_for(set, set->waited_for - 1);
  free(descriptor);
}

static void end_wait(struct ip_poll_wait *wait, int events, int error) {
  ip_queue_remove(&wait->link);
  wait->descriptor = NULL;
  wait->ready(wait, events, error);
}

static void end_waits(struct ip_poll_descriptor *descriptor, int error) {
  while (!ip_queue_is_empty(&descriptor->waits))
    end_wait(wait_of(descriptor->waits.next), 0, error);
  forget(descriptor);
}

/* An error and the end of the other side count as all events: a read or a write returns at once, and names
   them. */
static int events_of(uint32_t happened) {
  if (happened & (EPOLLERR | EPOLLHUP)) return UV_READABLE | UV_WRITABLE;
  return ((happened & EPOLLIN) ? UV_READABLE : 0) | ((happened & EPOLLOUT) ? UV_WRITABLE : 0);
}

static void deliver(struct ip_poll_descriptor *descriptor, int events) {
  struct ip_queue *link = descriptor->waits.next;
  while (link != &descriptor->waits) {
    struct ip_poll_wait *wait = wait_of(link);
    link = link->next;
    if (wait->events & events) end_wait(wait, wait->events & events, 0);
  }
  if (ip_queue_is_empty(&descriptor->waits))
    forget(descriptor);
  else if (control(descriptor, EPOLL_CTL_MOD) != 0) /* EBADF, ENOENT: it has been closed meanwhile */
    end_waits(descriptor, ECANCELED);
}

/* --- events --- */

static void take(struct ip_poll_set *set, const struct epoll_event *event) {
  struct ip_poll_descriptor *descriptor = find(set, (int)(uint32_t)event->data.u64);
  if (descriptor == NULL || descriptor->generation != event->data.u64 >> 32) return; /* stale */
  deliver(descriptor, events_of(event->events));
}

/* Reads all that is ready: what has reported reports again only when somebody still waits for it. */
static void read_events(struct ip_poll_set *set) {
  struct epoll_event events[EVENTS_AT_ONCE];
  int count;
  do {
    count = epoll_wait(set->epoll, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < count; i++)
      take(set, &events[i]);
  } while (count == EVENTS_AT_ONCE); /* EINTR: libuv reports again */
}

static int watch_epoll(struct ip_poll_set *set);

/* A negative status, which an epoll does not cause, would have stopped the watch (libuv src/unix/poll.c). */
static void on_ready(uv_poll_t *poll, int status, int events) {
  struct ip_poll_set *set = ip_container_of(poll, struct ip_poll_set, poll);
  (void)events;
  if (status >= 0 || watch_epoll(set) == 0) read_events(set);
}

/* Watches the epoll; 0 or an errno value. */
static int watch_epoll(struct ip_poll_set *set) {
  int status = uv_poll_start(&set->poll, UV_READABLE, on_ready);
  if (status != 0) return -status;
  int error = ip_registration_make(set->runtime->loop, set->epoll, UV_READABLE);
  if (error != 0) (void)uv_poll_stop(&set->poll); /* always 0 (libuv src/unix/poll.c) */
  return error;
}

/* --- opening and closing --- */

/* 0 or an errno value. libuv keeps the number of a descriptor that others have closed under it, and refuses
   the next one with that number: then the epoll gets another. */
static int init_poll(struct ip_poll_set *set) {
  int status = uv_poll_init(set->runtime->loop, &set->poll, set->epoll);
  while (status == UV_EEXIST) {
    int taken = set->epoll;
    set->epoll = fcntl(taken, F_DUPFD_CLOEXEC, taken + 1);
    int error = errno;
    close(taken);
    if (set->epoll < 0) return error;
    status = uv_poll_init(set->runtime->loop, &set->poll, set->epoll);
  }
  return -status;
}

static void on_closed(uv_handle_t *handle) {
  struct ip_poll_set *set = ip_container_of((uv_poll_t *)handle, struct ip_poll_set, poll);
  ip_runtime_handle_closed(set->runtime);
  free(set);
}

/* libuv has the struct until its callback. */
static void close_poll(struct ip_poll_set *set) {
  ip_runtime_close_handle((uv_handle_t *)&set->poll, on_closed);
  close(set->epoll);
  free(set->table);
}

static void close_set(struct ip_resource *resource) {
  struct ip_poll_set *set = ip_container_of(resource, struct ip_poll_set, resource);
  ip_queue_remove(&resource->link);
  set->runtime->poll_set = NULL;
  for (size_t i = 0; i < set->table_size; i++)
    if (set->table[i] != NULL) end_waits(set->table[i], ECANCELED);
  close_poll(set);
}

/* In the child of a fork the epoll is still the parent's: another one takes its number, which libuv watches
   already, and the waits that are pending go on in it. A wait whose descriptor cannot be entered any more
   ends with that error. Where there is no other epoll, or the loop cannot watch it, the set is closed: the
   next wait makes another one. */
static void renew(struct ip_resource *resource) {
  struct ip_poll_set *set = ip_container_of(resource, struct ip_poll_set, resource);
  int number = set->epoll;
  close(number);
  int fresh = epoll_create1(EPOLL_CLOEXEC);
  int error = fresh < 0 ? errno : 0;
  if (fresh >= 0 && fresh != number) {
    if (dup3(fresh, number, O_CLOEXEC) < 0) error = errno;
    close(fresh);
  }
  if (error == 0) error = ip_registration_make(set->runtime->loop, number, UV_READABLE);
  for (size_t i = 0; i < set->table_size; i++) {
    struct ip_poll_descriptor *descriptor = set->table[i];
    if (descriptor == NULL) continue;
    int failure = error != 0 ? error : enter(descriptor);
    if (failure != 0) end_waits(descriptor, failure);
  }
  if (error != 0) close_set(resource);
}

static const struct ip_resource_type set_type = {.name = "poll set", .close = close_set, .forked = renew};

/* Fills a set; 0 or an errno value. Where libuv has the struct already, its callback frees it. */
static int open_set(struct ip_poll_set *set) {
  set->epoll = epoll_create1(EPOLL_CLOEXEC);
  int error = set->epoll < 0 ? errno : init_poll(set);
  if (error != 0) {
    if (set->epoll >= 0) close(set->epoll);
    free(set);
    return error;
  }
  ip_runtime_handle_opened(set->runtime);
  error = watch_epoll(set);
  if (error != 0) close_poll(set);
  return error;
}

int ip_poll_set_open(struct ip_runtime *runtime) {
  int error = ip_fork_check(runtime);
  if (error != 0) return error;
  if (runtime->poll_set != NULL) return 0;
  struct ip_poll_set *set = calloc(1, sizeof *set);
  if (set == NULL) return ENOMEM;
  set->runtime = runtime;
  error = open_set(set);
  if (error != 0) return error;
  set_waited_for(set, 0);
  ip_runtime_add_resource(runtime, &set->resource, &set_type);
  runtime->poll_set = set;
  return 0;
}

/* --- waiting --- */

static void append(struct ip_poll_descriptor *descriptor, struct ip_poll_wait *wait) {
  wait->descriptor = descriptor;
  ip_queue_append(&descriptor->waits, &wait->link);
}

static void detach(struct ip_poll_wait *wait) {
  wait->descriptor = NULL;
  ip_queue_remove(&wait->link);
}

/* Waits beside others. False: the number means another file than theirs, or none, so that theirs is closed,
   and their waits end. */
static bool join(struct ip_poll_descriptor *descriptor, struct ip_poll_wait *wait) {
  append(descriptor, wait);
  if (control(descriptor, EPOLL_CTL_MOD) == 0) return true;
  detach(wait);
  end_waits(descriptor, ECANCELED);
  return false;
}

int ip_poll_set_add(struct ip_runtime *runtime, struct ip_poll_wait *wait, int fd) {
  struct ip_poll_set *set = runtime->poll_set;
  struct ip_poll_descriptor *descriptor = find(set, fd);
  ip_queue_init(&wait->link);
  wait->descriptor = NULL;
  if (descriptor != NULL && join(descriptor, wait)) return 0;
  if (fcntl(fd, F_GETFD) < 0) return errno; /* before the table grows */
  descriptor = new_descriptor(set, fd);
  if (descriptor == NULL) return ENOMEM;
  append(descriptor, wait);
  int error = grow(set, fd);
  if (error == 0) error = enter(descriptor);
  if (error != 0) {
    detach(wait);
    free(descriptor);
    return error;
  }
  set->table[fd] = descriptor;
  set_waited_for(set, set->waited_for + 1);
  return 0;
}

void ip_poll_set_remove(struct ip_poll_wait *wait) {
  struct ip_poll_descriptor *descriptor = wait->descriptor;
  if (descriptor == NULL) return;
  detach(wait);
  if (ip_queue_is_empty(&descriptor->waits)) forget(descriptor);
}

void ip_poll_set_end(struct ip_runtime *runtime, int fd) {
  struct ip_poll_set *set = runtime->poll_set;
  if (set == NULL || fd < 0) return;
  struct ip_poll_descriptor *descriptor = find(set, fd);
  if (descriptor != NULL) end_waits(descriptor, ECANCELED);
}

#endif
