/* message_flag.h: the flags of receives and sends. */
#ifndef IP_MESSAGE_FLAG_H
#define IP_MESSAGE_FLAG_H

#include "base/compat.h"
#include "base/util.h"

#include <stdbool.h>

/* Pushes the table ip.message_flag. [-0, +1, m] */
void ip_message_flag_push(lua_State *L);

/* The flags at `arg`: a bad argument unless they are an integer of known flags; ENOTSUP, called `operation`, for a flag of
   the other direction. [-0, +0, e] */
int ip_message_flag_check(lua_State *L, int arg, bool receives, const char *operation);

/* As above; 0 where the argument is nil or absent. [-0, +0, e] */
static inline int ip_message_flag_optional(lua_State *L, int arg, bool receives, const char *operation) {
  return IP_LIKELY(lua_isnoneornil(L, arg)) ? 0 : ip_message_flag_check(L, arg, receives, operation);
}

#endif
