/* callee.c: the name of a C function of the library. It looks through the tables that the program itself
   calls the function from, which takes time, but only an error needs it. Owns nothing. Raises memory
   errors. */
#include "binding/callee.h"

#include "binding/core.h"

/* Returns the key of the function at `value` in the table on top of the stack, or NULL. [-0, +(0|2), -] */
static const char *find_function(lua_State *L, int value) {
  int table = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1))
    if (lua_rawequal(L, -1, value) && lua_type(L, -2) == LUA_TSTRING) return lua_tostring(L, -2);
  return NULL;
}

/* Pushes the members of a class that is defined; false, and nothing pushed, where it is not.
   [-0, +(0|1), -] */
static bool push_members_of(lua_State *L, int class) {
  int top = lua_gettop(L);
  bool defined = lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_class_keys[class]) == LUA_TTABLE &&
                 lua_getfield(L, -1, "__index") == LUA_TFUNCTION && lua_getupvalue(L, -1, 2) != NULL;
  if (defined) lua_replace(L, top + 1);
  lua_settop(L, top + (defined ? 1 : 0));
  return defined;
}

/* Looks in the table of the core and in the tables in it. [-0, +?, m] */
static const char *find_in_core(lua_State *L, int value) {
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) != LUA_TTABLE) return NULL;
  if (lua_getfield(L, -1, "ip.core") != LUA_TTABLE) return NULL;
  const char *name = find_function(L, value);
  int table = lua_gettop(L);
  for (lua_pushnil(L); name == NULL && lua_next(L, table) != 0;) {
    if (lua_type(L, -1) == LUA_TTABLE) name = find_function(L, value);
    if (name == NULL) lua_pop(L, 1);
  }
  return name;
}

const char *ip_callee_name(lua_State *L, int index, bool *is_method) {
  index = lua_absindex(L, index);
  *is_method = true;
  for (int class = 0; class < IP_CLASS_COUNT; class ++) {
    if (!push_members_of(L, class)) continue;
    const char *name = find_function(L, index);
    if (name != NULL) return name;
    lua_pop(L, 1);
  }
  *is_method = false;
  return find_in_core(L, index);
}
