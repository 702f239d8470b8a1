/* message_flag.c: the flags of receives and sends. Owns nothing. Raises bad arguments and ENOTSUP. */
#include "udp/message_flag.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

static const struct {
  const char *name;
  int flag;
  bool receives, sends;
} message_flags[] = {
    {"peek", MSG_PEEK, true, false},       {"do_not_route", MSG_DONTROUTE, false, true},
    {"out_of_band", MSG_OOB, false, true}, {"end_of_record", MSG_EOR, false, true},
#ifdef MSG_MORE
    {"more", MSG_MORE, false, true},
#endif
#ifdef MSG_CONFIRM
    {"confirm", MSG_CONFIRM, false, true},
#endif
};

void ip_message_flag_push(lua_State *L) {
  lua_newtable(L);
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    lua_pushinteger(L, message_flags[i].flag);
    lua_setfield(L, -2, message_flags[i].name);
  }
}

/* Linux ignores the flags of the other direction; this library refuses them. */
int ip_message_flag_check(lua_State *L, int arg, bool receives, const char *operation) {
  lua_Integer flags = ip_argument_integer(L, arg, 0, INT_MAX);
  lua_Integer unknown = flags;
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    if (!(flags & message_flags[i].flag)) continue;
    unknown &= ~(lua_Integer)message_flags[i].flag;
    if (receives ? !message_flags[i].receives : !message_flags[i].sends)
      ip_error_raise(L, ENOTSUP, operation);
  }
  ip_argument_check(L, unknown == 0, arg, "not a combination of ip.message_flag values");
  return (int)flags;
}
