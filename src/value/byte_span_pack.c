/* byte_span_pack.c: numbers and strings in a span, in the formats of Lua's string.pack.

   The methods call Lua's own functions. The registry holds them from the moment when the module is opened, so
   that a program which later changes the table `string` changes nothing here. Owns nothing else. Raises
   bad-argument errors, memory errors, and the errors of string.pack and string.unpack. */
#include "value/byte_span_pack.h"

#include "binding/argument.h"
#include "value/byte_span.h"

#include <stdlib.h>
#include <string.h>

/* Registry keys are the addresses of these; the contents are never read. */
static const char pack_key;
static const char unpack_key;

enum {
  LARGEST_ALIGNMENT = 16, /* of a format: "!16" */
  FIRST_TRY = 256         /* bytes that string.unpack gets at first: most formats need fewer */
};

/* Stores the function `name` of the table on top of the stack in the registry. [-0, +0, e] */
static void store(lua_State *L, const char *name, const char *key) {
  if (lua_getfield(L, -1, name) != LUA_TFUNCTION) ip_error_text(L, "byte_span needs Lua's string.%s", name);
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void ip_byte_span_pack_open(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "string") != LUA_TTABLE) ip_error_text(L, "byte_span needs Lua's string library");
  store(L, "pack", &pack_key);
  store(L, "unpack", &unpack_key);
  lua_pop(L, 2);
}

/* Raises the error on top of the stack, which was caught with `status`. A message gets the position of the
   calling Lua function, which Lua's function did not see, and the name and the argument of the method: a
   value of span:pack stands one place behind that of string.pack. [-1, +0, v] */
static int raise_again(lua_State *L, int status) {
  if (status != LUA_ERRRUN || lua_type(L, -1) != LUA_TSTRING) return ip_error_throw(L);
  static const char begin[] = "bad argument #", name[] = " to 'string.pack'";
  const char *message = lua_tostring(L, -1), *rest;
  long arg = 0;
  bool of_pack = strncmp(message, begin, sizeof begin - 1) == 0;
  if (of_pack) arg = strtol(message + sizeof begin - 1, (char **)(void *)&rest, 10);
  if (of_pack && strncmp(rest, name, sizeof name - 1) == 0)
    return ip_error_text(L, "%s%d to 'pack'%s", begin, (int)arg + 1, rest + sizeof name - 1);
  return ip_error_text(L, "%s", message);
}

/* Calls string.unpack with the format at index 2, a string of `length` bytes and a position in it. Returns
   the status of lua_pcall. [-0, +?, m] */
static int call_unpack(lua_State *L, const unsigned char *data, size_t length, size_t offset) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &unpack_key);
  lua_pushvalue(L, 2);
  lua_pushlstring(L, (const char *)data, length);
  lua_pushinteger(L, (lua_Integer)offset + 1);
  return lua_pcall(L, 3, LUA_MULTRET, 0);
}

/* The offset that the position at index 3 means to string.unpack; 0 where it is absent. [-0, +0, v] */
static size_t check_unpack_position(lua_State *L, const struct ip_bytes *self) {
  lua_Integer length = (lua_Integer)self->length;
  lua_Integer position = ip_argument_optional_integer(L, 3, LUA_MININTEGER, LUA_MAXINTEGER, 1);
  if (position < 0) position = position < -length ? 1 : length + position + 1;
  if (position == 0) position = 1;
  ip_argument_check(L, position <= length + 1, 3, "initial position out of span");
  return (size_t)position - 1;
}

/* span:unpack(format[, position]) -> values..., next
   format: string, as for string.unpack; position: integer -#span..#span+1 (1), a negative one counts from the
   end; 0, and a position before the begin, mean 1. The values at `position`, and the position behind the last
   one. Errors: bad argument; those of string.unpack. Suspends: no. Source: Lua's string.unpack. */
int ip_byte_span_unpack(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  ip_argument_string(L, 2, NULL);
  size_t offset = check_unpack_position(L, self);
  lua_settop(L, 3);
  /* string.unpack aligns from the begin of its string, so the string begins at a multiple of the largest
     alignment. A call that succeeds with the first bytes has the same results with all of them. */
  size_t base = offset - offset % LARGEST_ALIGNMENT;
  const unsigned char *data = self->data + base;
  size_t rest = self->length - base;
  size_t tried = rest < FIRST_TRY ? rest : FIRST_TRY;
  int status = call_unpack(L, data, tried, offset - base);
  if (status == LUA_ERRRUN && tried < rest) {
    lua_settop(L, 3);
    status = call_unpack(L, data, rest, offset - base);
  }
  if (status != LUA_OK) return raise_again(L, status);
  lua_Integer next = lua_tointeger(L, -1);
  lua_pop(L, 1);
  lua_pushinteger(L, next + (lua_Integer)base);
  return lua_gettop(L) - 3;
}

/* span:pack(position, format, ...) -> next
   position: integer 1..#span+1; format: string, as for string.pack; ...: the values, as for string.pack.
   Writes string.pack(format, ...) to the span from `position` on, and returns the position behind it.
   Alignment counts from `position`. Errors: bad argument, also where the span is too short; those of
   string.pack. An error leaves the span as it was. Suspends: no. Source: Lua's string.pack. */
int ip_byte_span_pack(lua_State *L) {
  struct ip_bytes *self = ip_byte_span_check(L, 1);
  lua_Integer position = ip_argument_integer(L, 2, 1, (lua_Integer)self->length + 1);
  ip_argument_string(L, 3, NULL);
  unsigned char *target = self->data + (position - 1);
  size_t available = self->length - (size_t)(position - 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &pack_key);
  lua_insert(L, 3);
  int status = lua_pcall(L, lua_gettop(L) - 3, 1, 0);
  if (status != LUA_OK) return raise_again(L, status);
  size_t needed;
  const char *packed = lua_tolstring(L, 3, &needed);
  if (needed > available)
    return ip_argument_error(
        L, 2,
        lua_pushfstring(L, "%I bytes needed, %I available", (lua_Integer)needed, (lua_Integer)available));
  memcpy(target, packed, needed);
  lua_pushinteger(L, position + (lua_Integer)needed);
  return 1;
}
