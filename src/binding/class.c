/* class.c: metatables, properties, type checks.

   Owns nothing but the metatables, which live in the registry under the addresses in ip_class_keys. Raises
   memory errors, bad-argument errors and the errors of properties that class.h describes. */
#include "binding/class.h"

#include "base/util.h"

#include <string.h>

void ip_class_set(lua_State *L, enum ip_class class) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_class_keys[class]);
  lua_setmetatable(L, -2);
}

void ip_class_functions(lua_State *L, int core, const luaL_Reg *functions) {
  core = lua_absindex(L, core);
  lua_pushvalue(L, core);
  luaL_setfuncs(L, functions, 1);
}

/* Pushes the table name -> method, or name -> number of the property (from 1). [-0, +1, m] */
static void push_members(lua_State *L, int core, const struct ip_class_definition *definition) {
  lua_newtable(L);
  if (definition->methods != NULL) ip_class_functions(L, core, definition->methods);
  const struct ip_property *property = definition->properties;
  for (lua_Integer number = 1; property != NULL && property->name != NULL; property++, number++) {
    lua_pushinteger(L, number);
    lua_setfield(L, -2, property->name);
  }
}

/* Sets metatable[event] to `function` with the upvalues core, members, definition. Stack: ... metatable
   members */
static void set_access(lua_State *L, int core, const char *event, lua_CFunction function,
                       const struct ip_class_definition *definition) {
  lua_pushvalue(L, core);
  lua_pushvalue(L, -2);
  lua_pushlightuserdata(L, (void *)(size_t)definition);
  lua_pushcclosure(L, function, 3);
  lua_setfield(L, -3, event);
}

void ip_class_define(lua_State *L, int core, const struct ip_class_definition *definition) {
  core = lua_absindex(L, core);
  struct ip_core *self = lua_touserdata(L, core);
  lua_newtable(L);
  lua_pushstring(L, definition->name);
  lua_setfield(L, -2, "__name");
  lua_pushstring(L, definition->name);
  lua_setfield(L, -2, "__metatable");
  if (definition->metamethods != NULL) ip_class_functions(L, core, definition->metamethods);
  push_members(L, core, definition);
  set_access(L, core, "__index", definition->index != NULL ? definition->index : ip_class_index, definition);
  set_access(L, core, "__newindex", definition->newindex != NULL ? definition->newindex : ip_class_newindex,
             definition);
  lua_pop(L, 1);
  self->metatable[definition->id] = lua_topointer(L, -1);
  self->property_setter = ip_class_newindex;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ip_class_keys[definition->id]);
}

/* Raises where the name and value on top of the stack cannot become a method. [-0, +0, e] */
static void check_method(lua_State *L, int members) {
  if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TFUNCTION)
    ip_error_text(L, "a method is a name and a function");
  lua_pushvalue(L, -2);
  if (lua_rawget(L, members) != LUA_TNIL) ip_error_text(L, "the name '%s' is taken", lua_tostring(L, -3));
  lua_pop(L, 1);
}

void ip_class_add_methods(lua_State *L, enum ip_class class, int methods) {
  methods = lua_absindex(L, methods);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_class_keys[class]);
  lua_getfield(L, -1, "__index");
  lua_getupvalue(L, -1, 2);
  int members = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, methods) != 0; lua_pop(L, 1))
    check_method(L, members);
  for (lua_pushnil(L); lua_next(L, methods) != 0;) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2); /* name, name, function */
    lua_rawset(L, members);
  }
  lua_pop(L, 3);
}

/* The class with that name, or IP_CLASS_COUNT. */
static int find_class(const char *name) {
  int id = 0;
  while (id < IP_CLASS_COUNT && strcmp(ip_class_name((enum ip_class)id), name) != 0)
    id++;
  return id;
}

int ip_class_members(lua_State *L) {
  int id = find_class(luaL_checkstring(L, 1));
  ip_argument_check(L, id != IP_CLASS_COUNT, 1, "no such class");
  lua_newtable(L);
  int result = lua_gettop(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_class_keys[id]);
  lua_getfield(L, -1, "__index");
  lua_getupvalue(L, -1, 2);
  for (lua_pushnil(L); lua_next(L, -2) != 0;) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2); /* name, name, function or number */
    if (lua_type(L, -1) == LUA_TNUMBER) {
      lua_pop(L, 1);
      lua_pushliteral(L, "property");
    }
    lua_rawset(L, result);
  }
  lua_settop(L, result);
  return 1;
}

static void check_text(lua_State *L, int index) {
  int type = lua_type(L, index);
  if (type == LUA_TSTRING || type == LUA_TNUMBER) return;
  if (luaL_getmetafield(L, index, "__tostring") == LUA_TNIL)
    ip_error_text(L, "attempt to concatenate a %s value", lua_typename(L, type));
  lua_pop(L, 1);
}

int ip_class_concat(lua_State *L) {
  check_text(L, 1);
  check_text(L, 2);
  luaL_tolstring(L, 1, NULL);
  luaL_tolstring(L, 2, NULL);
  lua_concat(L, 2);
  return 1;
}

static const struct ip_class_definition *upvalue_definition(lua_State *L) {
  return (const struct ip_class_definition *)lua_touserdata(L, lua_upvalueindex(3));
}

static int unknown_property(lua_State *L, const struct ip_class_definition *definition) {
  return ip_error_text(L, "%s has no property '%s'", definition->name, luaL_tolstring(L, 2, NULL));
}

int ip_class_index(lua_State *L) {
  lua_pushvalue(L, 2);
  int type = lua_rawget(L, lua_upvalueindex(2));
  if (IP_LIKELY(type == LUA_TFUNCTION)) return 1;
  lua_insert(L, 3); /* a program may call __index itself, with more arguments than Lua passes */
  lua_settop(L, 3);
  const struct ip_class_definition *definition = upvalue_definition(L);
  ip_check_class(L, 1, definition->id);
  if (type != LUA_TNUMBER) return unknown_property(L, definition);
  lua_Integer number = lua_tointeger(L, 3);
  lua_pop(L, 1);
  return definition->properties[number - 1].get(L);
}

int ip_class_newindex(lua_State *L) {
  const struct ip_class_definition *definition = upvalue_definition(L);
  ip_check_class(L, 1, definition->id);
  lua_pushvalue(L, 2);
  int type = lua_rawget(L, lua_upvalueindex(2));
  if (type != LUA_TNUMBER && type != LUA_TFUNCTION) return unknown_property(L, definition);
  lua_Integer number = lua_tointeger(L, 4);
  lua_pop(L, 1);
  if (type == LUA_TFUNCTION || definition->properties[number - 1].set == NULL)
    return ip_error_text(L, "property '%s' of %s cannot be written", lua_tostring(L, 2), definition->name);
  return definition->properties[number - 1].set(L);
}
