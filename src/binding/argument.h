/* argument.h: checked arguments: ranged integers, ports, seconds, data. Layer 2.

   Owns nothing. A Lua integer becomes a narrower type only after it was compared as a lua_Integer here. All
   functions raise Lua's standard bad-argument error. */
#ifndef IP_ARGUMENT_H
#define IP_ARGUMENT_H

#include "base/compat.h"
#include "binding/raise.h"
#include "net/data.h"

#include <stdbool.h>
#include <stdint.h>

/* A value of that Lua type; nothing is converted. [-0, +0, v] */
void ip_argument_check_type(lua_State *L, int arg, int type);

/* The part of ip_argument_integer that is seldom needed: converts a float that has an integral value, or
   raises. [-0, +0, v] */
lua_Integer ip_argument_convert_integer(lua_State *L, int arg, lua_Integer low, lua_Integer high);

/* The integer at `arg`, within low..high. A string is no integer here, whatever it spells. [-0, +0, v] */
static inline lua_Integer ip_argument_integer(lua_State *L, int arg, lua_Integer low, lua_Integer high) {
  if (lua_isinteger(L, arg)) {
    lua_Integer value = lua_tointegerx(L, arg, NULL);
    if (value >= low && value <= high) return value;
  }
  return ip_argument_convert_integer(L, arg, low, high);
}

/* The integer at `arg`, within low..high; `fallback` where the argument is nil or absent. [-0, +0, v] */
lua_Integer ip_argument_optional_integer(lua_State *L, int arg, lua_Integer low, lua_Integer high,
                                         lua_Integer fallback);

/* A UDP port, 0..65535. [-0, +0, v] */
static inline uint16_t ip_argument_port(lua_State *L, int arg) {
  return (uint16_t)ip_argument_integer(L, arg, 0, UINT16_MAX);
}

/* A boolean; a value of another type is not converted. [-0, +0, v] */
bool ip_argument_boolean(lua_State *L, int arg);

/* Seconds: a number that is not NaN; it may be negative or infinite. A string is no number. [-0, +0, v] */
double ip_argument_seconds(lua_State *L, int arg);

/* A string; a number is not converted. [-0, +0, v] */
const char *ip_argument_string(lua_State *L, int arg, size_t *length);

/* The index of the string at `arg` among `names`, which end with NULL; -1 where it is none of them.
   [-0, +0, v] */
int ip_argument_find(lua_State *L, int arg, const char *const names[]);

/* The index of the string at `arg` among `names`; a bad argument where it is none of them. [-0, +0, v] */
int ip_argument_choice(lua_State *L, int arg, const char *const names[]);

/* Reads a data argument: a string, a byte_span or a sequence of those. A sequence of more than
   IP_DATA_INLINE_PARTS parts leaves one value on the stack, which holds the vector. [-0, +(0|1), v] */
void ip_argument_data(lua_State *L, int arg, struct ip_data *data);

#endif
