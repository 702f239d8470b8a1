/* wait_fd.c: waiting for descriptors of others. Each call has a uv_poll_t of its own, which libuv owns until its close callback; from the
   start of the wait until then the struct belongs to the wait. libuv takes a descriptor once per loop: where it is
   there already (a socket of this library, another wait) a duplicate is watched instead. */
#include "fiber/wait_fd.h"

#include "base/util.h"
#include "binding/argument.h"
#include "loop/fork.h"
#include "loop/operation.h"
#include "value/file_descriptor.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct descriptor_wait {
  uv_poll_t poll; /* first */
  struct ip_resource resource;
  struct ip_operation *operation;
  int duplicate; /* to be closed with the wait, or -1 */
};

static void close_wait(struct ip_resource *resource) {
  struct descriptor_wait *wait = ip_container_of(resource, struct descriptor_wait, resource);
  ip_queue_remove(&resource->link);
  wait->operation->object = NULL;
  if (wait->duplicate >= 0) close(wait->duplicate);
  if (ip_fork_check(wait->operation->runtime) != 0) return;
  uv_poll_stop(&wait->poll);
  ip_runtime_close_handle((uv_handle_t *)&wait->poll, ip_runtime_free_handle);
}

static const struct ip_resource_type wait_resource = {.name = "descriptor wait", .close = close_wait};

/* POLLERR arrives as a negative status: whoever waits finds out by reading or writing. */
static void on_ready(uv_poll_t *poll, int status, int events) {
  struct descriptor_wait *wait = ip_container_of(poll, struct descriptor_wait, poll);
  struct ip_operation *operation = wait->operation;
  if (status >= 0) operation->payload.descriptor.events &= events;
  ip_operation_succeed(operation);
}

static void on_unlinked(struct ip_operation *operation) {
  struct descriptor_wait *wait = operation->object;
  close_wait(&wait->resource);
}

static int push_events(lua_State *L, struct ip_result *result) {
  static const char *const names[] = {
      [UV_READABLE] = "r", [UV_WRITABLE] = "w", [UV_READABLE | UV_WRITABLE] = "rw"};
  lua_pushstring(L, names[result->payload.descriptor.events]);
  return 1;
}

static const struct ip_operation_type wait_fd_type = {
    .name = "wait_fd", .unlinked = on_unlinked, .push_results = push_events};

/* 0 or an errno value; then nothing is left. */
static int init_poll(struct ip_runtime *runtime, struct descriptor_wait *wait, int fd) {
  wait->duplicate = -1;
  int status = uv_poll_init(runtime->loop, &wait->poll, fd);
  if (status != UV_EEXIST) return -status;
  wait->duplicate = dup(fd);
  if (wait->duplicate < 0) return errno;
  status = uv_poll_init(runtime->loop, &wait->poll, wait->duplicate);
  if (status != 0) close(wait->duplicate);
  return -status;
}

static int start_wait(struct ip_operation *operation, int fd, int events) {
  struct descriptor_wait *wait = malloc(sizeof *wait);
  if (wait == NULL) return ENOMEM;
  int error = init_poll(operation->runtime, wait, fd);
  if (error != 0) {
    free(wait);
    return error;
  }
  wait->operation = operation;
  wait->poll.data = operation->runtime;
  ip_runtime_handle_opened(operation->runtime);
  ip_runtime_add_resource(operation->runtime, &wait->resource, &wait_resource);
  operation->object = wait;
  operation->payload.descriptor.events = events;
  ip_operation_wait_externally(operation);
  uv_poll_start(&wait->poll, events, on_ready); /* fails only on a closing handle */
  return 0;
}

/* wait_fd(fd, events) -> events: waits until the descriptor is ready for one of `events` ("r", "w", "rw"), and tells for
   which. An error on the descriptor counts as ready. EBADF; EPERM for what cannot be watched (a regular file).
   Suspends: yes. Source: poll(2), uv_poll_start. */
static int fiber_wait_fd(lua_State *L) {
  static const char *const names[] = {"r", "w", "rw", NULL};
  static const int masks[] = {UV_READABLE, UV_WRITABLE, UV_READABLE | UV_WRITABLE};
  struct ip_runtime *runtime = ip_runtime(L);
  int fd = ip_file_descriptor_argument(L, 1, NULL);
  int events = masks[ip_argument_choice(L, 2, names)];
  ip_operation_check(L, runtime, &wait_fd_type);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &wait_fd_type, IP_NEVER, false);
  int error = start_wait(operation, fd, events);
  if (error != 0) return ip_operation_fail(L, operation, error);
  return ip_operation_suspend(L, operation);
}

static const luaL_Reg functions[] = {{"wait_fd", fiber_wait_fd}, {NULL, NULL}};

void ip_wait_fd_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
