/* host_loop.c: functions by which another event loop drives this one. Owns nothing. Raises when the loop
   cannot be opened or is already being driven. */
#include "fiber/host_loop.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/raise.h"
#include "loop/dispatch.h"

#include <lua_ip.h>

/* loop_pollfd() -> descriptor that is readable when the loop has work. */
static int loop_pollfd(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_runtime_check(L, runtime);
  lua_pushinteger(L, uv_backend_fd(runtime->loop));
  return 1;
}

static void check_idle(lua_State *L, struct ip_runtime *runtime) {
  ip_runtime_check(L, runtime);
  if (runtime->driving) ip_error_text(L, "the event loop is already being driven");
}

/* loop_timeout() -> seconds until the loop must be stepped at the latest, or nil. libuv registers descriptors
   with the system only when it polls, so this function polls, but does not serve the ready entries. */
static int loop_timeout(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  check_idle(L, runtime);
  double seconds = ip_loop_poll_nowait(runtime);
  if (seconds < 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, seconds);
  return 1;
}

/* loop_step([seconds]) -> true while calls still wait or entries are ready. */
static int loop_step(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  double seconds = lua_isnoneornil(L, 1) ? 0 : ip_argument_seconds(L, 1);
  check_idle(L, runtime);
  luaL_checkstack(L, LUA_MINSTACK, "too many arguments");
  if (seconds > 0 && !ip_loop_watch_interrupt(L, runtime)) return ip_error_throw(L);
  check_idle(L, runtime); /* once more: a hook may have run, and forked the process */
  lua_pushboolean(L, ip_loop_step(L, runtime, seconds));
  return 1;
}

/* loop_get_spin() -> seconds. */
static int loop_get_spin(lua_State *L) {
  lua_pushnumber(L, ip_runtime(L)->spin);
  return 1;
}

/* loop_set_spin(seconds): a number of at least 0; for any other value, returns a description of the
   problem. */
static int loop_set_spin(lua_State *L) {
  double seconds = lua_type(L, 1) == LUA_TNUMBER ? lua_tonumber(L, 1) : -1;
  if (!(seconds >= 0)) {
    lua_pushliteral(L, "seconds of at least 0 expected");
    return 1;
  }
  ip_runtime(L)->spin = seconds;
  return 0;
}

IP_EXPORT int lua_ip_use_loop(lua_State *L, struct uv_loop_s *loop) {
  if (loop == NULL || lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_key) != LUA_TUSERDATA) {
    lua_pop(L, loop == NULL ? 0 : 1);
    return UV_EINVAL;
  }
  struct ip_runtime *runtime = lua_touserdata(L, -1);
  int error = ip_runtime_use_loop(L, runtime, loop, ip_loop_on_prepare, ip_loop_on_check);
  lua_pop(L, 1);
  return -error;
}

static const luaL_Reg functions[] = {{"loop_pollfd", loop_pollfd},     {"loop_timeout", loop_timeout},
                                     {"loop_step", loop_step},         {"loop_get_spin", loop_get_spin},
                                     {"loop_set_spin", loop_set_spin}, {NULL, NULL}};

void ip_host_loop_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
