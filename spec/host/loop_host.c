/* loop_host.c: a C program that runs the library on an event loop of its own. CORE is the path of ip/core.so,
   where it looks up lua_ip_use_loop. The main thread runs PROGRAM, which may only spawn fibers; a timer of
   the host calls the function that PROGRAM passes to host_tick. Then the loop runs until nothing is left in
   it. host_poll watches a descriptor by a handle of the host's own. Exit code 0: all of that succeeded, and
   so did closing the state and the loop.

   usage: loop_host CORE PROGRAM */
#include <dlfcn.h>
#include <lauxlib.h>
#include <lua.h>
#include <lua_ip.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

typedef int (*use_loop)(lua_State *L, struct uv_loop_s *loop);

static uv_timer_t ticker;
static uv_poll_t poller;
static int has_poller;
static int callback = LUA_NOREF;

static void on_tick(uv_timer_t *timer) {
  lua_State *L = timer->data;
  lua_rawgeti(L, LUA_REGISTRYINDEX, callback);
  if (lua_pcall(L, 0, 1, 0) != LUA_OK)
    fprintf(stderr, "tick: %s\n", lua_tostring(L, -1));
  else if (!lua_toboolean(L, -1))
    uv_timer_stop(timer);
  lua_pop(L, 1);
}

/* host_tick(fn): a timer calls fn every millisecond until it returns false or nil. */
static int host_tick(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  callback = luaL_ref(L, LUA_REGISTRYINDEX);
  uv_timer_start(&ticker, on_tick, 1, 1);
  return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  printf("host: %s\n", status == 0 && (events & UV_READABLE) ? "readable" : "failed");
  uv_poll_stop(poll);
}

/* host_poll(fd) -> status: a handle of the host's waits until the descriptor is readable, and stops then. */
static int host_poll(lua_State *L) {
  int status = uv_poll_init(ticker.loop, &poller, (int)luaL_checkinteger(L, 1));
  if (status == 0) status = uv_poll_start(&poller, UV_READABLE, on_poll);
  has_poller = status == 0;
  lua_pushinteger(L, status);
  return 1;
}

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

static int run_program(lua_State *L, uv_loop_t *loop, use_loop use, const char *path) {
  if (use(L, loop) != UV_EINVAL) return fail("use_loop", "took a state without the library");
  if (luaL_dostring(L, "require 'ip'") != LUA_OK) return fail("require", lua_tostring(L, -1));
  if (use(L, NULL) != UV_EINVAL) return fail("use_loop", "took no loop");
  int status = use(L, loop);
  if (status != 0) return fail("use_loop", uv_strerror(status));
  if (use(L, loop) != UV_EBUSY) return fail("use_loop", "took a second loop");
  lua_register(L, "host_tick", host_tick);
  lua_register(L, "host_poll", host_poll);
  if (luaL_dofile(L, path) != LUA_OK) return fail("program", lua_tostring(L, -1));
  uv_run(loop, UV_RUN_DEFAULT);
  return 0;
}

int main(int count, char **arguments) {
  if (count != 3) return fail("usage", "loop_host CORE PROGRAM");
  void *core = dlopen(arguments[1], RTLD_NOW);
  if (core == NULL) return fail("dlopen", dlerror());
  use_loop use;
  void *symbol = dlsym(core, "lua_ip_use_loop");
  if (symbol == NULL) {
    int status = fail("dlsym", dlerror());
    dlclose(core);
    return status;
  }
  memcpy(&use, &symbol, sizeof use);
  uv_loop_t loop;
  uv_loop_init(&loop);
  uv_timer_init(&loop, &ticker);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  ticker.data = L;
  int result = run_program(L, &loop, use, arguments[2]);
  uv_close((uv_handle_t *)&ticker, NULL);
  if (has_poller) uv_close((uv_handle_t *)&poller, NULL);
  lua_close(L);
  uv_run(&loop, UV_RUN_NOWAIT);
  int status = uv_loop_close(&loop);
  if (status != 0) result = fail("uv_loop_close", uv_strerror(status));
  dlclose(core);
  return result;
}
