/* raise.h: Lua's own errors, raised by functions that are declared never to return. Layer 2.

   Lua declares lua_error, luaL_error, luaL_argerror and luaL_typeerror as functions that return, so that gcc
   -fanalyzer follows paths behind a failed check that do not exist. The return type lets callers write
   `return ip_argument_error(...)`. Owns nothing; every function raises. */
#ifndef IP_RAISE_H
#define IP_RAISE_H

#include "base/compat.h"
#include "base/util.h"

/* Raises the value on top of the stack, as lua_error does. [-1, +0, v] */
IP_NO_RETURN int ip_error_throw(lua_State *L);

/* Raises a text that begins with the position of the calling Lua function, as luaL_error does. `format` is
   that of lua_pushfstring. [-0, +0, v] */
IP_NO_RETURN int ip_error_text(lua_State *L, const char *format, ...);

/* raise_text(text): ip_error_text for the Lua files of this library: the position is that of the program,
   however many of their functions are between. Suspends: no. */
int ip_error_raise_text(lua_State *L);

/* Raises "not enough memory", for memory that Lua does not allocate. [-0, +0, v] */
IP_NO_RETURN int ip_error_memory(lua_State *L);

/* Raises a bad-argument error with the text `problem`, as luaL_argerror does. [-0, +0, v] */
IP_NO_RETURN int ip_argument_error(lua_State *L, int arg, const char *problem);

/* Raises the bad-argument error "EXPECTED expected, got TYPE", as luaL_typeerror does. [-0, +0, v] */
IP_NO_RETURN int ip_argument_type_error(lua_State *L, int arg, const char *expected);

/* Raises a bad-argument error unless `condition` holds; the counterpart of luaL_argcheck. */
#define ip_argument_check(L, condition, arg, problem)                                                        \
  ((void)(IP_LIKELY(condition) || ip_argument_error(L, arg, problem)))

#endif
