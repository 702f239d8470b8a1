/* raise.c: Lua's own errors, raised by functions that never return. Owns nothing. Every function raises. */
#include "binding/raise.h"

#include "binding/place.h"

#include <stdarg.h>

int ip_error_throw(lua_State *L) {
  lua_error(L);
  __builtin_unreachable();
}

int ip_error_text(lua_State *L, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ip_place_push_prefix(L);
  lua_pushvfstring(L, format, arguments);
  va_end(arguments);
  lua_concat(L, 2);
  ip_error_throw(L);
}

int ip_error_memory(lua_State *L) {
  ip_error_text(L, "not enough memory");
}

int ip_argument_error(lua_State *L, int arg, const char *problem) {
  luaL_argerror(L, arg, problem);
  __builtin_unreachable();
}

int ip_argument_type_error(lua_State *L, int arg, const char *expected) {
  luaL_typeerror(L, arg, expected);
  __builtin_unreachable();
}
