/* argument.c: checked arguments.

   Owns nothing: a vector of many parts is a userdata on the stack. Raises bad-argument errors and, for such a
   vector, memory errors. */
#include "binding/argument.h"

#include "base/util.h"
#include "binding/class.h"
#include "binding/value_text.h"
#include "net/bytes.h"

#include <math.h>
#include <string.h>

void ip_argument_check_type(lua_State *L, int arg, int type) {
  if (IP_UNLIKELY(lua_type(L, arg) != type)) ip_argument_type_error(L, arg, lua_typename(L, type));
}

static lua_Integer check_integer(lua_State *L, int arg) {
  int is_integer = 0;
  lua_Integer value = lua_type(L, arg) == LUA_TNUMBER ? lua_tointegerx(L, arg, &is_integer) : 0;
  if (!is_integer) ip_argument_type_error(L, arg, "integer");
  return value;
}

lua_Integer ip_argument_convert_integer(lua_State *L, int arg, lua_Integer low, lua_Integer high) {
  lua_Integer value = check_integer(L, arg);
  if (IP_LIKELY(value >= low && value <= high)) return value;
  return ip_argument_error(L, arg,
                           high == LUA_MAXINTEGER
                               ? lua_pushfstring(L, "%I is less than %I", value, low)
                               : lua_pushfstring(L, "%I is outside %I..%I", value, low, high));
}

lua_Integer ip_argument_optional_integer(lua_State *L, int arg, lua_Integer low, lua_Integer high,
                                         lua_Integer fallback) {
  return lua_isnoneornil(L, arg) ? fallback : ip_argument_integer(L, arg, low, high);
}

bool ip_argument_boolean(lua_State *L, int arg) {
  ip_argument_check_type(L, arg, LUA_TBOOLEAN);
  return lua_toboolean(L, arg);
}

double ip_argument_seconds(lua_State *L, int arg) {
  ip_argument_check_type(L, arg, LUA_TNUMBER);
  double seconds = lua_tonumber(L, arg);
  ip_argument_check(L, !isnan(seconds), arg, "seconds expected, got NaN");
  return seconds;
}

const char *ip_argument_string(lua_State *L, int arg, size_t *length) {
  ip_argument_check_type(L, arg, LUA_TSTRING);
  return lua_tolstring(L, arg, length);
}

int ip_argument_find(lua_State *L, int arg, const char *const names[]) {
  size_t length;
  const char *text = ip_argument_string(L, arg, &length);
  for (int i = 0; names[i] != NULL; i++)
    if (strlen(names[i]) == length && memcmp(names[i], text, length) == 0) return i;
  return -1;
}

/* Raises the error for a name that is none of `names`. [-0, +0, v] */
static int choice_error(lua_State *L, int arg, const char *const names[]) {
  const char *got = ip_value_text_push(L, arg); /* before anything stands where the argument is missing */
  luaL_Buffer list;
  luaL_buffinit(L, &list);
  for (int i = 0; names[i] != NULL; i++) {
    if (i > 0) luaL_addstring(&list, names[i + 1] == NULL ? " or " : ", ");
    luaL_addchar(&list, '"');
    luaL_addstring(&list, names[i]);
    luaL_addchar(&list, '"');
  }
  luaL_pushresult(&list);
  return ip_argument_error(L, arg, lua_pushfstring(L, "%s expected, got %s", lua_tostring(L, -1), got));
}

int ip_argument_choice(lua_State *L, int arg, const char *const names[]) {
  int index = lua_type(L, arg) == LUA_TSTRING ? ip_argument_find(L, arg, names) : -1;
  return index >= 0 ? index : choice_error(L, arg, names);
}

/* Sets `part` to the bytes of the string or span at `index`; false when it is neither. */
static bool test_part(lua_State *L, int index, struct iovec *part) {
  if (lua_type(L, index) == LUA_TSTRING) {
    size_t length;
    const char *text = lua_tolstring(L, index, &length);
    part->iov_base = (void *)(size_t)text; /* sendmsg does not write through it */
    part->iov_len = length;
    return true;
  }
  const struct ip_bytes *span = ip_test_class(L, index, IP_CLASS_BYTE_SPAN);
  if (span == NULL) return false;
  part->iov_base = span->data;
  part->iov_len = span->length;
  return true;
}

/* An empty table is an empty datagram; a table with keys but without a sequence is a mistake. */
static void check_empty(lua_State *L, int arg) {
  lua_pushnil(L);
  if (lua_next(L, arg) != 0) ip_argument_error(L, arg, "sequence expected, got a table with other keys");
}

static void read_sequence(lua_State *L, int arg, struct ip_data *data) {
  size_t count = (size_t)lua_rawlen(L, arg);
  if (count == 0) check_empty(L, arg);
  if (count > IP_DATA_INLINE_PARTS)
    data->parts =
        lua_newuserdatauv(L, count * sizeof(struct iovec), 0); /* no table is so large that this overflows */
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    if (!test_part(L, -1, &data->parts[i])) {
      const char *type = ip_value_text_push(L, -1);
      ip_argument_error(
          L, arg,
          lua_pushfstring(L, "part %I: string or byte_span expected, got %s", (lua_Integer)i + 1, type));
    }
    lua_pop(L, 1); /* the table still holds the part */
  }
  data->count = count;
}

void ip_argument_data(lua_State *L, int arg, struct ip_data *data) {
  data->parts = data->inline_parts;
  data->count = 1;
  if (IP_LIKELY(test_part(L, arg, data->parts))) return;
  if (lua_type(L, arg) != LUA_TTABLE)
    ip_argument_type_error(L, arg, "string, byte_span or sequence of those");
  read_sequence(L, arg, data);
}
