/* address_info_flag.c: ip.address_info_flag. The AI_ values of getaddrinfo(3) and the NI_ values of
   getnameinfo(3) overlap, so a flag here is a bit of its own. Owns nothing. Raises bad arguments, and ENOTSUP
   for a flag that this platform lacks. */
#include "resolve/address_info_flag.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "binding/raise.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <string.h>

enum { NONE = 0 }; /* the function, or this platform, has no such flag */

#ifndef AI_ADDRCONFIG
#define AI_ADDRCONFIG NONE
#endif
#ifndef AI_ALL
#define AI_ALL NONE
#endif
#ifndef AI_V4MAPPED
#define AI_V4MAPPED NONE
#endif

/* The value of a flag is the bit of its position. */
static const struct flag {
  const char *name;
  int addresses; /* AI_ */
  int names;     /* NI_ */
} flags[] = {
    {"address_configured", AI_ADDRCONFIG, NONE},
    {"all_matching", AI_ALL, NONE},
    {"canonical_name", AI_CANONNAME, NONE},
    {"name_required", NONE, NI_NAMEREQD},
    {"numeric_host", AI_NUMERICHOST, NI_NUMERICHOST},
    {"numeric_service", AI_NUMERICSERV, NI_NUMERICSERV},
    {"passive", AI_PASSIVE, NONE},
    {"v4_mapped", AI_V4MAPPED, NONE},
};

static bool is_lacking(const struct flag *flag) {
  return flag->addresses == NONE && flag->names == NONE;
}

static int of_addresses(const struct flag *flag) {
  return flag->addresses;
}

static int of_names(const struct flag *flag) {
  return flag->names;
}

static int refuse(lua_State *L, int arg, lua_Integer given) {
  return ip_argument_error(L, arg,
                           lua_pushfstring(L, "%I is no combination of ip.address_info_flag values", given));
}

static int check(lua_State *L, int arg, int (*value_of)(const struct flag *flag), const char *function) {
  if (!lua_isnoneornil(L, arg) && lua_type(L, arg) != LUA_TNUMBER)
    ip_argument_type_error(L, arg, "ip.address_info_flag value");
  lua_Integer given = ip_argument_optional_integer(L, arg, LUA_MININTEGER, LUA_MAXINTEGER, 0);
  if (given < 0) return refuse(L, arg, given);
  lua_Integer unknown = given;
  int result = 0;
  for (size_t i = 0; i < ip_count_of(flags); i++) {
    lua_Integer bit = (lua_Integer)1 << i;
    if ((given & bit) == 0 || is_lacking(&flags[i])) continue;
    unknown &= ~bit;
    int value = value_of(&flags[i]);
    if (value == NONE)
      ip_argument_error(L, arg, lua_pushfstring(L, "%s has no flag '%s'", function, flags[i].name));
    result |= value;
  }
  return unknown == 0 ? result : refuse(L, arg, given);
}

int ip_address_info_flag_check_addresses(lua_State *L, int arg) {
  return check(L, arg, of_addresses, "get_address_info");
}

int ip_address_info_flag_check_names(lua_State *L, int arg) {
  return check(L, arg, of_names, "get_name_info");
}

/* __index of ip.address_info_flag: a name that is not in the table. As nil it would be no flag. */
static int address_info_flag_mt_index(lua_State *L) {
  lua_settop(L, 2);
  const char *name = luaL_tolstring(L, 2, NULL);
  for (size_t i = 0; i < ip_count_of(flags); i++)
    if (strcmp(flags[i].name, name) == 0) return ip_error_raise(L, ENOTSUP, flags[i].name);
  return ip_error_text(L, "ip.address_info_flag has no flag '%s'", name);
}

void ip_address_info_flag_push(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__index", address_info_flag_mt_index}, {NULL, NULL}};
  core = lua_absindex(L, core);
  lua_newtable(L);
  for (size_t i = 0; i < ip_count_of(flags); i++) {
    if (is_lacking(&flags[i])) continue;
    lua_pushinteger(L, (lua_Integer)1 << i);
    lua_setfield(L, -2, flags[i].name);
  }
  lua_newtable(L);
  ip_class_functions(L, core, metamethods);
  lua_setmetatable(L, -2);
}
