/* lua_ip.h: for C programs that embed Lua and have an event loop of their own. Owns nothing. */
#ifndef LUA_IP_H
#define LUA_IP_H

#include <lua.h>

struct uv_loop_s;

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the library in this Lua state use `loop` instead of a loop of its own. Call it after the program has
   required "ip" and before the first operation of the library. The function is a symbol of the module
   ip.core; a host that does not link the module finds it with dlsym. The host owns the loop, and closes it
   after the state. Returns 0 or a negative libuv error code: UV_EINVAL when the library is not loaded in the
   state or `loop` is NULL, UV_EBUSY when the library has a loop already. May raise a memory error.

   Fibers then run inside the host's uv_run. A suspending call of the main thread runs the loop itself, so do
   not make one from a callback of that loop. lua_close runs the loop until the library's handles are closed:
   call it outside of the loop's callbacks, and before uv_loop_close.

   In the child of a fork the library calls uv_loop_fork before it touches the loop for the first time. A host
   that runs the loop in the child before it calls the library calls uv_loop_fork itself; it may do so in any
   case. */
int lua_ip_use_loop(lua_State *L, struct uv_loop_s *loop);

#ifdef __cplusplus
}
#endif

#endif
