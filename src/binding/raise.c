/* raise.c: Lua's own errors, raised by functions that never return. Owns nothing. Every function raises.

   Argument errors name the function and count its arguments as in a method call, however the program calls
   it: luaL_argerror knows both from the calling instruction alone, and would say "bad argument #3 to '?'" for
   a method that pcall calls. */
#include "binding/raise.h"

#include "binding/callee.h"
#include "binding/core.h"
#include "binding/place.h"
#include "binding/value_text.h"

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

int ip_error_raise_text(lua_State *L) {
  return ip_error_text(L, "%s", luaL_checkstring(L, 1));
}

int ip_error_memory(lua_State *L) {
  ip_error_text(L, "not enough memory");
}

/* Adds to `problem` the option that it is about, where the function sets options. [-0, +1, m] */
static const char *name_option(lua_State *L, lua_CFunction function, int arg, const char *problem) {
  const struct ip_core *core = ip_core(L);
  bool named = core != NULL && function == core->option_setter && arg > 2 && lua_type(L, 2) == LUA_TSTRING;
  return named ? lua_pushfstring(L, "option '%s': %s", lua_tostring(L, 2), problem) : problem;
}

int ip_argument_error(lua_State *L, int arg, const char *problem) {
  lua_Debug frame;
  if (lua_getstack(L, 0, &frame) == 0) ip_error_text(L, "bad argument #%d (%s)", arg, problem);
  lua_getinfo(L, "fn", &frame);
  int function = lua_gettop(L);
  lua_CFunction running = lua_tocfunction(L, function);
  const struct ip_core *core = ip_core(L);
  if (core != NULL && running == core->property_setter)
    ip_error_text(L, "property '%s' of %s: %s", luaL_tolstring(L, 2, NULL), ip_value_text_push(L, 1),
                  problem);
  problem = name_option(L, running, arg, problem);
  bool is_method;
  const char *name = ip_callee_name(L, function, &is_method);
  if (name == NULL) name = frame.name != NULL ? frame.name : "?";
  if (is_method && arg == 1) ip_error_text(L, "calling '%s' on bad self (%s)", name, problem);
  ip_error_text(L, "bad argument #%d to '%s' (%s)", is_method ? arg - 1 : arg, name, problem);
}

int ip_argument_type_error(lua_State *L, int arg, const char *expected) {
  const char *got = ip_value_text_push(L, arg);
  ip_argument_error(L, arg, lua_pushfstring(L, "%s expected, got %s", expected, got));
}
