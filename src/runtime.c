/* runtime.c: the runtime of a Lua state: its loop, its memory, its end.

   Lua owns the runtime (a userdata in the registry and in the upvalues of every function); the runtime owns
   the loop and everything registered with it. Objects of the library are younger than the runtime, so at the
   end of the state they are finalized first; what is left is closed here. */
#include "runtime.h"

#include "readiness.h"
#include "util.h"

#include <stdlib.h>

const char ip_runtime_tasks_key, ip_runtime_contexts_key, ip_runtime_nothing_key;

void ip_runtime_close_handle(struct ip_runtime *runtime, uv_handle_t *handle, uv_close_cb closed) {
  (void)runtime;
  if (!uv_is_closing(handle)) uv_close(handle, closed);
}

void *ip_runtime_scratch(struct ip_runtime *runtime) {
  if (runtime->scratch == NULL) runtime->scratch = malloc(IP_SCRATCH_SIZE);
  return runtime->scratch;
}

static void on_wakeup(uv_async_t *async) {
  (void)async; /* it has ended the block; the dispatcher looks at `signalled` */
}

void ip_runtime_check(lua_State *L, struct ip_runtime *runtime) {
  if (IP_LIKELY(runtime->opened)) return;
  if (runtime->closed) luaL_error(L, "ip: the runtime is closed");
  int status = uv_loop_init(&runtime->own_loop);
  if (status != 0) ip_error_raise(L, -status, "open the event loop");
  status = uv_async_init(&runtime->own_loop, &runtime->wakeup, on_wakeup);
  if (status != 0) {
    uv_loop_close(&runtime->own_loop);
    ip_error_raise(L, -status, "open the event loop");
  }
  uv_unref((uv_handle_t *)&runtime->wakeup);
  runtime->loop = &runtime->own_loop;
  runtime->opened = true;
}

void ip_runtime_free_handle(uv_handle_t *handle) {
  free(handle);
}

/* Closes what its owner has not closed: pooled timers, caught signals, waits on descriptors, the wake-up. */
static void close_leftover(uv_handle_t *handle, void *argument) {
  struct ip_runtime *runtime = argument;
  if (uv_is_closing(handle)) return;
  if (handle->type == UV_POLL)
    runtime->close_descriptor_wait(runtime, handle);
  else
    ip_runtime_close_handle(runtime, handle, handle->type == UV_ASYNC ? NULL : ip_runtime_free_handle);
}

static void close_loop(struct ip_runtime *runtime) {
  uv_walk(runtime->loop, close_leftover, runtime);
  while (uv_loop_close(runtime->loop) == UV_EBUSY)
    uv_run(runtime->loop, UV_RUN_ONCE);
}

static int runtime_mt_gc(lua_State *L) {
  struct ip_runtime *runtime = lua_touserdata(L, 1);
  if (runtime->closed) return 0;
  runtime->closed = true;
  while (!ip_queue_is_empty(&runtime->open_sockets))
    runtime->close_socket(runtime->open_sockets.next);
  if (runtime->opened) {
    runtime->opened = false;
    ip_keyboard_interrupt_forget(runtime);
    close_loop(runtime);
  }
  free(runtime->scratch);
  runtime->scratch = NULL;
  return 0;
}

/* An empty registry table under `key`. [-0, +0, m] */
static void new_registry_table(lua_State *L, const char *key) {
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

/* Contexts of coroutines made by others, keyed by the coroutine, which they must not keep alive. [-0, +0, m]
 */
static void new_contexts_table(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ip_runtime_contexts_key);
}

static void init(lua_State *L, struct ip_runtime *runtime) {
  *runtime = (struct ip_runtime){.budget = IP_TRANSFER_BUDGET};
  ip_queue_init(&runtime->ready);
  ip_queue_init(&runtime->batch);
  ip_queue_init(&runtime->open_sockets);
  ip_queue_init(&runtime->signal_waiters);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  runtime->main = lua_tothread(L, -1);
  lua_pop(L, 1);
}

struct ip_runtime *ip_runtime_push(lua_State *L) {
  struct ip_runtime *runtime = lua_newuserdatauv(L, sizeof *runtime, 0);
  init(L, runtime);
  lua_newtable(L);
  lua_pushcfunction(L, runtime_mt_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  ip_operation_define(L, -1);
  new_registry_table(L, &ip_runtime_pool_key);
  new_registry_table(L, &ip_runtime_tasks_key);
  new_contexts_table(L);
  if (luaL_loadstring(L, "return") != LUA_OK) lua_error(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ip_runtime_nothing_key);
  return runtime;
}
