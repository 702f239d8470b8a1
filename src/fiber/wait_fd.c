/* wait_fd.c: waiting for descriptors of others, through the runtime's poll set. A wait is malloc'ed; it
   belongs to the operation that is armed with it, and is freed when that leaves ARMED. */
#include "fiber/wait_fd.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/descriptor_shortage.h"
#include "loop/operation.h"
#include "loop/poll_set.h"
#include "value/file_descriptor.h"

#include <errno.h>
#include <stdlib.h>

struct descriptor_wait {
  struct ip_poll_wait poll;
  struct ip_operation *operation;
};

static void on_ready(struct ip_poll_wait *poll, int events, int error) {
  struct ip_operation *operation = ip_container_of(poll, struct descriptor_wait, poll)->operation;
  operation->payload.descriptor.events = events;
  ip_operation_complete_with(operation, error);
}

static void on_unlinked(struct ip_operation *operation) {
  struct descriptor_wait *wait = operation->object;
  operation->object = NULL;
  ip_poll_set_remove(&wait->poll);
  free(wait);
}

static int push_events(lua_State *L, struct ip_result *result) {
  static const char *const names[] = {
      [UV_READABLE] = "r", [UV_WRITABLE] = "w", [UV_READABLE | UV_WRITABLE] = "rw"};
  lua_pushstring(L, names[result->payload.descriptor.events]);
  return 1;
}

/* Names the descriptor; behind "with_timeout" the number would read as the seconds. */
static void describe_descriptor(lua_State *L, struct ip_error_detail *detail) {
  int fd = ip_file_descriptor_argument(L, 1, NULL);
  if (detail->error.of_scope || fd == IP_NO_DESCRIPTOR) return; /* the object was closed meanwhile */
  lua_pushinteger(L, fd);
  ip_error_set_subject(L, -1, detail);
  lua_pop(L, 1);
}

static const struct ip_operation_type wait_fd_type = {
    .name = "wait_fd", .unlinked = on_unlinked, .push_results = push_events, .describe = describe_descriptor};

static int start_wait(struct ip_operation *operation, int fd, int events) {
  struct descriptor_wait *wait = malloc(sizeof *wait);
  if (wait == NULL) return ENOMEM;
  *wait = (struct descriptor_wait){.poll = {.events = events, .ready = on_ready}, .operation = operation};
  int error = ip_poll_set_add(operation->runtime, &wait->poll, fd);
  if (error != 0) {
    free(wait);
    return error;
  }
  operation->object = wait;
  ip_operation_wait_externally(operation);
  return 0;
}

static void open_set(lua_State *L, struct ip_runtime *runtime) {
  int error = ip_poll_set_open(runtime);
  if (ip_collect_descriptors(L, error)) error = ip_poll_set_open(runtime);
  if (error != 0) ip_error_raise(L, error, wait_fd_type.name);
}

/* wait_fd(fd, events) -> events: waits until the descriptor is ready for one of `events` ("r", "w", "rw"),
   and tells for which. An error on the descriptor counts as ready. EBADF; EPERM for what cannot be watched (a
   regular file); ECANCELED when this library closes it; EMFILE, ENFILE, ENOMEM and ENOSPC of the first wait
   and of epoll_ctl(2). Suspends: yes. Source: poll(2), epoll(7). */
static int fiber_wait_fd(lua_State *L) {
  static const char *const names[] = {"r", "w", "rw", NULL};
  static const int masks[] = {UV_READABLE, UV_WRITABLE, UV_READABLE | UV_WRITABLE};
  struct ip_runtime *runtime = ip_runtime(L);
  int fd = ip_file_descriptor_argument(L, 1, wait_fd_type.name);
  int events = masks[ip_argument_choice(L, 2, names)];
  ip_operation_check(L, runtime, &wait_fd_type);
  open_set(L, runtime);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &wait_fd_type, IP_NEVER, false);
  int error = start_wait(operation, fd, events);
  if (error != 0) return ip_operation_fail(L, operation, error);
  return ip_operation_suspend(L, operation);
}

static const luaL_Reg functions[] = {{"wait_fd", fiber_wait_fd}, {NULL, NULL}};

void ip_wait_fd_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
