/* compat.h: the only file that looks at the version of Lua. Layer 0.

   Files of other layers ask the preprocessor for single features of a platform only. Nothing here raises. */
#ifndef IP_COMPAT_H
#define IP_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM != 504 && LUA_VERSION_NUM != 505
#error "lua-ip is written for Lua 5.4 and 5.5"
#endif

/* lua_closeslot came with 5.4.3, whose LUA_VERSION_RELEASE_NUM is still that of 5.4.0. */
#if LUA_VERSION_RELEASE_NUM < 50404
#error "lua-ip needs Lua 5.4.4 or later"
#endif

/* Is a finalizer running? While one does, Lua refuses every option of lua_gc with -1. [-0, +0, -] */
static inline int ip_compat_in_finalizer(lua_State *L) {
  return lua_gc(L, LUA_GCCOUNT) < 0;
}

/* Closes a coroutine's pending to-be-closed variables and leaves its error value, if any, on its stack. Lua
   5.4.6 deprecated lua_resetthread in favour of lua_closethread, which counts nested C calls from those of
   `from`; in 5.4.5 lua_resetthread itself had that argument. [-?, +?, -] */
static inline int ip_compat_close_thread(lua_State *thread, lua_State *from) {
#if LUA_VERSION_RELEASE_NUM >= 50406
  return lua_closethread(thread, from);
#elif LUA_VERSION_RELEASE_NUM == 50405
  return lua_resetthread(thread, from);
#else
  (void)from;
  return lua_resetthread(thread);
#endif
}

/* A new state; Lua 5.5 takes a seed for its hashes, which is 0 here. NULL: memory is short. */
static inline lua_State *ip_compat_new_state(lua_Alloc allocate, void *context) {
#if LUA_VERSION_NUM >= 505
  return lua_newstate(allocate, context, 0);
#else
  return lua_newstate(allocate, context);
#endif
}

#endif
