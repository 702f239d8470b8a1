/* receive_error.h: the entries of a socket's error queue, as Lua sees them. */
#ifndef IP_RECEIVE_ERROR_H
#define IP_RECEIVE_ERROR_H

#include "base/compat.h"

/* Method. */
int ip_socket_receive_error(lua_State *L);

#endif
