/* message_flag.c: the flags of receives and sends. Owns nothing. Raises bad arguments and ENOTSUP. */
#include "udp/message_flag.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "binding/raise.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

enum { LACKING = 0 }; /* a flag that this platform does not have */

#ifndef MSG_MORE
#define MSG_MORE LACKING
#endif
#ifndef MSG_CONFIRM
#define MSG_CONFIRM LACKING
#endif

static const struct {
  const char *name;
  int flag;
  bool receives, sends;
} message_flags[] = {
    {"peek", MSG_PEEK, true, false},       {"do_not_route", MSG_DONTROUTE, false, true},
    {"out_of_band", MSG_OOB, false, true}, {"end_of_record", MSG_EOR, false, true},
    {"more", MSG_MORE, false, true},       {"confirm", MSG_CONFIRM, false, true},
};

/* __index of ip.message_flag: a name that is not in the table. As nil it would be no flag: a misspelt "peek"
   would consume the datagram. */
static int message_flag_mt_index(lua_State *L) {
  lua_settop(L, 2);
  const char *name = luaL_tolstring(L, 2, NULL);
  for (size_t i = 0; i < ip_count_of(message_flags); i++)
    if (strcmp(message_flags[i].name, name) == 0) return ip_error_raise(L, ENOTSUP, message_flags[i].name);
  return ip_error_text(L, "ip.message_flag has no flag '%s'", name);
}

void ip_message_flag_push(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__index", message_flag_mt_index}, {NULL, NULL}};
  core = lua_absindex(L, core);
  lua_newtable(L);
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    if (message_flags[i].flag == LACKING) continue;
    lua_pushinteger(L, message_flags[i].flag);
    lua_setfield(L, -2, message_flags[i].name);
  }
  lua_newtable(L);
  ip_class_functions(L, core, metamethods);
  lua_setmetatable(L, -2);
}

static int refuse(lua_State *L, int arg, lua_Integer flags) {
  return ip_argument_error(L, arg,
                           lua_pushfstring(L, "%I is no combination of ip.message_flag values", flags));
}

/* Linux ignores the flags of the other direction; this library refuses them. */
int ip_message_flag_check(lua_State *L, int arg, bool receives, const char *operation) {
  if (lua_type(L, arg) != LUA_TNUMBER) ip_argument_type_error(L, arg, "ip.message_flag value");
  lua_Integer flags = ip_argument_integer(L, arg, LUA_MININTEGER, LUA_MAXINTEGER);
  if (flags < 0) return refuse(L, arg, flags);
  lua_Integer unknown = flags;
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    if (!(flags & message_flags[i].flag)) continue;
    unknown &= ~(lua_Integer)message_flags[i].flag;
    if (receives ? message_flags[i].receives : message_flags[i].sends) continue;
    lua_pushstring(L, message_flags[i].name);
    ip_error_raise_about(L, ENOTSUP, operation, -1, receives ? "a flag of sends" : "a flag of receives");
  }
  return unknown == 0 ? (int)flags : refuse(L, arg, flags);
}
