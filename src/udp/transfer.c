/* udp_transfer.c: what receiving (udp_receive.c) and sending (udp_send.c) share: flags, errors, and the way from a call to
   an operation. */
#include "udp/transfer.h"

#include "base/util.h"

#include <errno.h>
#include <limits.h>

/* --- flags --- */

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

void ip_socket_push_message_flags(lua_State *L) {
  lua_newtable(L);
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    lua_pushinteger(L, message_flags[i].flag);
    lua_setfield(L, -2, message_flags[i].name);
  }
}

/* Linux ignores the flags of the other direction. A flag is never ignored here: ENOTSUP. [-0, +0, e] */
static int check_flags(lua_State *L, int arg, bool receives, const char *operation) {
  lua_Integer flags = ip_argument_integer(L, arg, 0, INT_MAX);
  lua_Integer unknown = flags;
  for (size_t i = 0; i < ip_count_of(message_flags); i++) {
    if (!(flags & message_flags[i].flag)) continue;
    unknown &= ~(lua_Integer)message_flags[i].flag;
    if (receives ? !message_flags[i].receives : !message_flags[i].sends)
      ip_error_raise(L, ENOTSUP, operation);
  }
  luaL_argcheck(L, unknown == 0, arg, "not a combination of ip.message_flag values");
  return (int)flags;
}

int ip_transfer_flags(lua_State *L, int arg, bool receives, const char *operation) {
  return IP_LIKELY(lua_isnoneornil(L, arg)) ? 0 : check_flags(L, arg, receives, operation);
}

int ip_transfer_raise(lua_State *L, struct ip_runtime *runtime, int error, const char *operation) {
  int mtu = error == EMSGSIZE ? runtime->error_mtu : 0;
  ip_error_push(L, IP_ERROR_SYSTEM, error, operation)->mtu = mtu;
  lua_error(L);
  __builtin_unreachable();
}

/* Ties an operation that was just acquired to its socket. Acquiring allocates, and so may have run a
   finalizer that closed the socket. [-0, +0, e] */
struct ip_socket *ip_transfer_tie(lua_State *L, struct ip_operation *operation,
                                  const struct ip_socket_box *box) {
  struct ip_socket *socket = box->socket;
  int error = socket == NULL ? EBADF : ip_readiness_prepare(&socket->readiness);
  if (error != 0) ip_operation_fail(L, operation, error);
  operation->object = socket;
  return socket;
}
