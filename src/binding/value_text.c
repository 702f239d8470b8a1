/* value_text.c: what an error message says of a value. Owns nothing. Raises memory errors. */
#include "binding/value_text.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 40 };

/* A message is one line of readable text, whatever the program has passed. */
const char *ip_value_text_push_quoted(lua_State *L, int index) {
  char text[LONGEST + 1] = "";
  size_t length;
  const char *bytes = lua_tolstring(L, index, &length);
  for (size_t i = 0; i < length && i < LONGEST; i++)
    text[i] = (char)(isprint((unsigned char)bytes[i]) ? bytes[i] : '?');
  return lua_pushfstring(L, "'%s%s'", text, length > LONGEST ? "..." : "");
}

static const char *push_string(lua_State *L, int index) {
  const char *text = lua_pushfstring(L, "string %s", ip_value_text_push_quoted(L, index));
  lua_remove(L, -2);
  return text;
}

static const char *push_number(lua_State *L, int index) {
  lua_pushvalue(L, index); /* lua_tostring would turn the argument itself into a string */
  const char *text = lua_pushfstring(L, "number %s", lua_tostring(L, -1));
  lua_remove(L, -2);
  return text;
}

static const char *push_type(lua_State *L, int index) {
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) return lua_tostring(L, -1);
  return lua_pushstring(L, lua_type(L, index) == LUA_TLIGHTUSERDATA ? "light userdata"
                                                                    : luaL_typename(L, index));
}

const char *ip_value_text_push(lua_State *L, int index) {
  index = lua_absindex(L, index);
  switch (lua_type(L, index)) {
  case LUA_TSTRING: return push_string(L, index);
  case LUA_TNUMBER: return push_number(L, index);
  case LUA_TBOOLEAN: return lua_pushstring(L, lua_toboolean(L, index) ? "boolean true" : "boolean false");
  default: return push_type(L, index);
  }
}

int ip_value_text(lua_State *L) {
  if (lua_isnoneornil(L, 1))
    lua_pushliteral(L, "no value");
  else
    ip_value_text_push(L, 1);
  return 1;
}
