/* poll_set_portable.c: the poll set where the system has no epoll: each wait has a uv_poll_t of its own.

   libuv owns the memory of a uv_poll_t until its close callback. It takes a descriptor once per loop: where
   it is there already (a socket of this library, another wait) a duplicate is watched instead. It makes the
   open file description non-blocking, which cannot be avoided here. */
#include "loop/poll_set.h"

#ifndef __linux__

#include "base/util.h"
#include "loop/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct ip_poll_descriptor {
  uv_poll_t poll; /* first: freed when it is closed */
  struct ip_queue link;
  struct ip_poll_wait *wait;
  struct ip_poll_set *set;
  int fd;
  int duplicate; /* to be closed with the wait, or -1 */
};

struct ip_poll_set {
  struct ip_resource resource;
  struct ip_runtime *runtime;
  struct ip_queue descriptors; /* struct ip_poll_descriptor */
};

static void forget(struct ip_poll_descriptor *descriptor) {
  ip_queue_remove(&descriptor->link);
  descriptor->wait->descriptor = NULL;
  ip_runtime_close_handle((uv_handle_t *)&descriptor->poll, ip_runtime_free_handle);
  if (descriptor->duplicate >= 0) close(descriptor->duplicate);
}

static void end_wait(struct ip_poll_descriptor *descriptor, int events, int error) {
  struct ip_poll_wait *wait = descriptor->wait;
  forget(descriptor);
  wait->ready(wait, events, error);
}

/* POLLERR arrives as a negative status: whoever waits finds out by reading or writing. */
static void on_ready(uv_poll_t *poll, int status, int events) {
  struct ip_poll_descriptor *descriptor = ip_container_of(poll, struct ip_poll_descriptor, poll);
  int wanted = descriptor->wait->events;
  end_wait(descriptor, status < 0 ? wanted : events & wanted, 0);
}

static void end_waits(struct ip_poll_set *set, int fd, bool all) {
  struct ip_queue *link = set->descriptors.next;
  while (link != &set->descriptors) {
    struct ip_poll_descriptor *descriptor = ip_container_of(link, struct ip_poll_descriptor, link);
    link = link->next;
    if (all || descriptor->fd == fd) end_wait(descriptor, 0, ECANCELED);
  }
}

static void close_set(struct ip_resource *resource) {
  struct ip_poll_set *set = ip_container_of(resource, struct ip_poll_set, resource);
  ip_queue_remove(&resource->link);
  set->runtime->poll_set = NULL;
  end_waits(set, -1, true);
  free(set);
}

static const struct ip_resource_type set_type = {.name = "poll set", .close = close_set};

int ip_poll_set_open(struct ip_runtime *runtime) {
  if (runtime->poll_set != NULL) return 0;
  struct ip_poll_set *set = calloc(1, sizeof *set);
  if (set == NULL) return ENOMEM;
  set->runtime = runtime;
  ip_queue_init(&set->descriptors);
  ip_runtime_add_resource(runtime, &set->resource, &set_type);
  runtime->poll_set = set;
  return 0;
}

/* 0 or an errno value; then nothing is left. */
static int init_poll(struct ip_poll_descriptor *descriptor, uv_loop_t *loop) {
  int status = uv_poll_init(loop, &descriptor->poll, descriptor->fd);
  if (status != UV_EEXIST) return -status;
  descriptor->duplicate = fcntl(descriptor->fd, F_DUPFD_CLOEXEC, 0);
  if (descriptor->duplicate < 0) return errno;
  status = uv_poll_init(loop, &descriptor->poll, descriptor->duplicate);
  if (status != 0) close(descriptor->duplicate);
  return -status;
}

int ip_poll_set_add(struct ip_runtime *runtime, struct ip_poll_wait *wait, int fd) {
  struct ip_poll_descriptor *descriptor = calloc(1, sizeof *descriptor);
  wait->descriptor = NULL;
  if (descriptor == NULL) return ENOMEM;
  descriptor->wait = wait;
  descriptor->set = runtime->poll_set;
  descriptor->fd = fd;
  descriptor->duplicate = -1;
  int error = init_poll(descriptor, runtime->loop);
  if (error != 0) {
    free(descriptor);
    return error;
  }
  descriptor->poll.data = runtime;
  ip_runtime_handle_opened(runtime);
  ip_queue_append(&runtime->poll_set->descriptors, &descriptor->link);
  wait->descriptor = descriptor;
  error = -uv_poll_start(&descriptor->poll, wait->events, on_ready);
  if (error != 0) forget(descriptor);
  return error;
}

void ip_poll_set_remove(struct ip_poll_wait *wait) {
  if (wait->descriptor != NULL) forget(wait->descriptor);
}

void ip_poll_set_end(struct ip_runtime *runtime, int fd) {
  if (runtime->poll_set != NULL && fd >= 0) end_waits(runtime->poll_set, fd, false);
}

#else

/* ISO C wants a declaration in a file. */
typedef int ip_poll_set_is_epoll;

#endif
