/* class.h: metatables, properties, and type checks that are cheap enough for the hot paths. Layer 2.

   Every C function of this library is a closure whose first upvalue is the core: a userdata that begins with
   struct ip_core. An object belongs to a class when its metatable has the address that the core has stored
   for that class, so that a check needs neither a registry look-up nor a string. */
#ifndef IP_CLASS_H
#define IP_CLASS_H

#include "base/compat.h"
#include "binding/core.h"
#include "binding/raise.h"

#include <stdbool.h>

struct ip_property {
  const char *name;
  /* Pushes the value of the property of the checked object at index 1; returns 1. [-0, +1, e] */
  int (*get)(lua_State *L);
  /* Sets it to the value at index 3 (NULL: read-only); returns 0. [-0, +0, v] */
  int (*set)(lua_State *L);
};

struct ip_class_definition {
  const char *name; /* the Lua path, also the metatable's name: "ip.address" */
  enum ip_class id;
  const luaL_Reg *methods;
  const luaL_Reg *metamethods;          /* without __index, __newindex, __name and __metatable */
  const struct ip_property *properties; /* ends with a NULL name; NULL: none */
  lua_CFunction index;                  /* what __index calls instead of ip_class_index, or NULL */
  lua_CFunction newindex;               /* what __newindex calls instead of ip_class_newindex, or NULL */
};

/* Does the same as ip_test_class_of, but leaves the metatable of a userdata on the stack. It is for hot paths
   that have looked at their optional arguments before, and return only the values that they push last.
   [-0, +(0|1), -] */
static inline void *ip_peek_class_of(lua_State *L, const struct ip_core *core, int arg, enum ip_class class) {
  void *object = lua_touserdata(L, arg);
  if (object == NULL || !lua_getmetatable(L, arg)) return NULL;
  return lua_topointer(L, -1) == core->metatable[class] ? object : NULL;
}

/* The object at `arg` if it belongs to `class`, else NULL; for functions without the core as an upvalue.
   [-0, +0, -] */
static inline void *ip_test_class_of(lua_State *L, const struct ip_core *core, int arg, enum ip_class class) {
  void *object = lua_touserdata(L, arg);
  if (object == NULL || !lua_getmetatable(L, arg)) return NULL;
  const void *metatable = lua_topointer(L, -1);
  lua_pop(L, 1);
  return metatable == core->metatable[class] ? object : NULL;
}

/* The object at `arg` if it belongs to `class`, else NULL. [-0, +0, -] */
static inline void *ip_test_class(lua_State *L, int arg, enum ip_class class) {
  return ip_test_class_of(L, ip_core(L), arg, class);
}

/* The object at `arg`, or a bad-argument error. [-0, +0, v] */
static inline void *ip_check_class(lua_State *L, int arg, enum ip_class class) {
  void *object = ip_test_class(L, arg, class);
  if (object == NULL) ip_argument_type_error(L, arg, ip_class_name(class));
  return object;
}

/* Makes the metatable of a class and stores its address in the core at stack index `core`. [-0, +0, m] */
void ip_class_define(lua_State *L, int core, const struct ip_class_definition *definition);

/* Gives the userdata on top of the stack its class. [-0, +0, -] */
void ip_class_set(lua_State *L, enum ip_class class);

/* Adds functions to the table on top of the stack, each with the core at stack index `core` as its upvalue.
   [-0, +0, m] */
void ip_class_functions(lua_State *L, int core, const luaL_Reg *functions);

/* Adds the functions of the table at stack index `methods` (name -> function) to a class that is defined.
   Raises, before anything is changed, where a name is taken or a value is no function. [-0, +0, e] */
void ip_class_add_methods(lua_State *L, enum ip_class class, int methods);

/* class_members(name) -> {name = function | "property", ...}: the methods and properties of a class, for the
   spec that compares them with the documentation. `name`: string, the Lua path of a class that is defined.
   Errors: bad argument. Suspends: no. */
int ip_class_members(lua_State *L);

/* __concat of values that have a text: `"failed: " .. err`. The other operand is a string, a number or a
   value with a text, too; any other raises as Lua's own concatenation does. [-2, +1, e] */
int ip_class_concat(lua_State *L);

/* __index and __newindex of every class: methods, then properties, else an error that names the key.
   Upvalues: core, members (name -> function, or property number), definition. [-0, +1, e] */
int ip_class_index(lua_State *L);
int ip_class_newindex(lua_State *L);

#endif
