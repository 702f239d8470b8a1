/* runtime.c: the runtime of a Lua state: its loop, its memory, its end.

   Lua owns the runtime (a userdata in the registry and in the upvalues of every function). The runtime owns
   the loop and, at the end of the state, everything still registered with it: the objects of the library are
   younger than the runtime, so Lua finalizes them first, and the runtime closes the rest. Raises only where a
   comment says so. */
#include "loop/runtime.h"

#include "base/util.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "binding/place.h"
#include "binding/raise.h"
#include "loop/alarm.h"
#include "loop/dispatch.h"
#include "loop/fork.h"
#include "loop/keyboard_interrupt.h"
#include "loop/loop_probe.h"
#include "loop/poll_set.h"
#include "loop/task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char ip_runtime_key;

/* Registry: the thread that resumes coroutines inside a host's loop. */
static const char driver_key;

void ip_runtime_handle_opened(struct ip_runtime *runtime) {
  runtime->open_handles++;
}

void ip_runtime_handle_closed(struct ip_runtime *runtime) {
  runtime->open_handles--;
}

void ip_runtime_close_handle(uv_handle_t *handle, uv_close_cb closed) {
  if (!uv_is_closing(handle)) uv_close(handle, closed);
}

void *ip_runtime_scratch(struct ip_runtime *runtime) {
  if (runtime->scratch == NULL) runtime->scratch = malloc(IP_SCRATCH_SIZE);
  return runtime->scratch;
}

static void on_wakeup(uv_async_t *async) {
  (void)async; /* the signal has ended the block; the dispatcher reads `signalled` */
}

static void on_loop_handle_closed(uv_handle_t *handle) {
  ip_runtime_handle_closed(handle->data);
}

/* Starts the handles of a loop; 0 or a negative libuv error code. */
static int start_handles(struct ip_runtime *runtime, uv_loop_t *loop) {
  if (ip_fork_watch() != 0) return UV_ENOMEM; /* the only error of pthread_atfork(3) */
  struct ip_loop_handles *handles = calloc(1, sizeof *handles);
  if (handles == NULL) return UV_ENOMEM;
  int status = uv_async_init(loop, &handles->wakeup, on_wakeup);
  if (status != 0) {
    free(handles);
    return status;
  }
  /* none of these can fail (libuv src/unix/loop-watcher.c) */
  (void)uv_check_init(loop, &handles->check);
  (void)uv_idle_init(loop, &handles->idle);
  (void)uv_prepare_init(loop, &handles->prepare);
  handles->wakeup.data = handles->check.data = handles->idle.data = handles->prepare.data = runtime;
  uv_unref((uv_handle_t *)&handles->wakeup);
  runtime->open_handles += 4;
  runtime->handles = handles;
  runtime->loop = loop;
  runtime->generation = atomic_load(&ip_fork_generation);
  runtime->opened = true;
  return 0;
}

/* 0 or an errno value. */
static int open_own_loop(struct ip_runtime *runtime) {
  int error = ip_loop_probe();
  if (error != 0) return error;
  int status = uv_loop_init(&runtime->own_loop);
  if (status != 0) return -status;
  status = start_handles(runtime, &runtime->own_loop);
  if (status != 0) (void)uv_loop_close(&runtime->own_loop); /* EBUSY only with handles in it */
  return -status;
}

/* [-0, +0, e] */
static void open_loop(lua_State *L, struct ip_runtime *runtime) {
  if (runtime->closed) ip_error_text(L, "ip: the runtime is closed");
  int error = open_own_loop(runtime);
  /* a finalizer may have opened the loop meanwhile */
  if (ip_collect_descriptors(L, error)) error = runtime->opened ? 0 : open_own_loop(runtime);
  if (error != 0) ip_error_raise(L, error, "open the event loop");
}

void ip_runtime_check(lua_State *L, struct ip_runtime *runtime) {
  if (IP_UNLIKELY(!runtime->opened)) open_loop(L, runtime);
  int error = ip_fork_check(runtime);
  if (IP_UNLIKELY(error != 0)) ip_error_raise(L, error, IP_FORK_OPERATION);
}

int ip_runtime_use_loop(lua_State *L, struct ip_runtime *runtime, uv_loop_t *loop, uv_prepare_cb on_prepare,
                        uv_check_cb on_check) {
  if (runtime->opened || runtime->closed) return EBUSY;
  lua_State *driver = lua_newthread(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &driver_key);
  int status = start_handles(runtime, loop);
  if (status != 0) return -status;
  /* both fail only without a callback (libuv src/unix/loop-watcher.c) */
  (void)uv_prepare_start(&runtime->handles->prepare, on_prepare);
  (void)uv_check_start(&runtime->handles->check, on_check);
  uv_unref((uv_handle_t *)&runtime->handles->prepare);
  uv_unref((uv_handle_t *)&runtime->handles->check);
  runtime->driver = driver;
  return 0;
}

void ip_runtime_free_handle(uv_handle_t *handle) {
  ip_runtime_handle_closed(handle->data);
  free(handle);
}

/* --- resources --- */

void ip_runtime_add_resource(struct ip_runtime *runtime, struct ip_resource *resource,
                             const struct ip_resource_type *type) {
  resource->type = type;
  ip_queue_append(&runtime->resources, &resource->link);
}

size_t ip_runtime_count_resources(const struct ip_runtime *runtime, const char *name) {
  size_t count = 0;
  for (const struct ip_queue *link = runtime->resources.next; link != &runtime->resources; link = link->next)
    if (strcmp(ip_container_of(link, struct ip_resource, link)->type->name, name) == 0) count++;
  return count;
}

static void close_resources(struct ip_runtime *runtime) {
  while (!ip_queue_is_empty(&runtime->resources)) {
    struct ip_resource *resource = ip_container_of(runtime->resources.next, struct ip_resource, link);
    resource->type->close(resource);
  }
}

/* --- the end --- */

void ip_runtime_drain(uv_loop_t *loop, const size_t *open) {
  while (*open > 0)
    (void)uv_run(loop, UV_RUN_ONCE); /* blocks only while no handle is closing */
}

/* Closes the loop's own handles and the alarm's. A host's loop also has the host's handles, whose data
   is not this runtime. */
static void close_handle(uv_handle_t *handle,
                         void *runtime) { /* cppcheck-suppress constParameter // a uv_walk_cb */
  if (handle->data != runtime || uv_is_closing(handle)) return;
  ip_runtime_close_handle(handle, on_loop_handle_closed);
}

/* Runs the loop until libuv has let go of all handles, which wait for nothing any more, and of the look-ups
   that were given up, which end in its threads: those are waited for without spinning, for they may take
   seconds. Where os.exit closes the state from a fiber inside a host's uv_run, libuv cannot be entered again,
   and the process is about to end: the handles are left as they are. */
static void close_loop(struct ip_runtime *runtime) {
  if (runtime->driver != NULL && runtime->driving) return;
  uv_walk(runtime->loop, close_handle, runtime);
  ip_runtime_drain(runtime->loop, &runtime->open_handles);
  if (runtime->loop == &runtime->own_loop)
    (void)uv_loop_close(runtime->loop); /* EBUSY only with handles in it */
  ip_alarm_free(runtime->timers.alarm);
  free(runtime->handles);
  runtime->handles = NULL;
}

static int runtime_mt_gc(lua_State *L) {
  struct ip_runtime *runtime = lua_touserdata(L, 1);
  if (runtime->closed) return 0;
  int error = ip_fork_check(runtime);
  runtime->closed = true;
  close_resources(runtime);
  if (runtime->opened) {
    runtime->opened = false;
    ip_keyboard_interrupt_forget(runtime);
    if (error == 0) close_loop(runtime);
  }
  ip_timers_fini(&runtime->timers);
  free(runtime->scratch);
  runtime->scratch = NULL;
  ip_place_free(&runtime->core);
  return 0;
}

static void end_waits(struct ip_core *core, int fd) {
  ip_poll_set_end((struct ip_runtime *)(void *)core, fd);
}

static void init(lua_State *L, struct ip_runtime *runtime) {
  *runtime = (struct ip_runtime){.budget = IP_TRANSFER_BUDGET};
  ip_queue_init(&runtime->ready);
  ip_queue_init(&runtime->batch);
  ip_queue_init(&runtime->strays);
  ip_queue_init(&runtime->resources);
  ip_queue_init(&runtime->flushers);
  ip_queue_init(&runtime->unprobed);
  runtime->core.end_waits = end_waits;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  runtime->main = lua_tothread(L, -1);
  lua_pop(L, 1);
}

struct ip_runtime *ip_runtime_push(lua_State *L) {
  struct ip_runtime *runtime = lua_newuserdatauv(L, sizeof *runtime, 0);
  init(L, runtime);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ip_runtime_key);
  lua_newtable(L);
  lua_pushcfunction(L, runtime_mt_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  if (!ip_place_open(&runtime->core)) ip_error_memory(L);
  ip_operation_open(L, -1);
  ip_task_open(L, -1);
  ip_context_open(L);
  ip_loop_open(L);
  return runtime;
}
