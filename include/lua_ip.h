/* lua_ip.h: for C programs that embed Lua and have an event loop of their own. */
#ifndef LUA_IP_H
#define LUA_IP_H

#include <lua.h>

struct uv_loop_s;

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the library of this Lua state use `loop` instead of one of its own. To be called after "ip" was required and
   before its first operation; the function is a symbol of the module ip.core, to be looked up with dlsym where the
   host does not link it. Returns 0, or a negative libuv error code: UV_EINVAL when the library is not loaded in the
   state or `loop` is NULL, UV_EBUSY when it has a loop already.

   Fibers then run inside the host's uv_run. A suspending call of the main thread runs the loop itself, so it must not be
   made from a callback of that loop. lua_close runs the loop until the library's handles are closed: close the state
   outside of the loop's callbacks, and before the loop. */
int lua_ip_use_loop(lua_State *L, struct uv_loop_s *loop);

#ifdef __cplusplus
}
#endif

#endif
