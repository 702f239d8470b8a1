/* message_flag.h: the flags of receives and sends. */
#ifndef IP_MESSAGE_FLAG_H
#define IP_MESSAGE_FLAG_H

#include "base/compat.h"
#include "base/util.h"

#include <stdbool.h>

/* Pushes the table ip.message_flag. A name that no platform has raises there, and one that this platform
   lacks raises ENOTSUP. The core is at stack index `core`. [-0, +1, m] */
void ip_message_flag_push(lua_State *L, int core);

/* Returns the flags at `arg`. Raises a bad argument unless it is an integer of known flags, and ENOTSUP,
   which names `operation`, for a flag of the other direction. [-0, +0, e] */
int ip_message_flag_check(lua_State *L, int arg, bool receives, const char *operation);

/* Like ip_message_flag_check; returns 0 if the argument is nil or absent. [-0, +0, e] */
static inline int ip_message_flag_optional(lua_State *L, int arg, bool receives, const char *operation) {
  return IP_LIKELY(lua_isnoneornil(L, arg)) ? 0 : ip_message_flag_check(L, arg, receives, operation);
}

#endif
