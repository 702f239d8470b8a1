/* receive_error.h: the method receive_error. */
#ifndef IP_RECEIVE_ERROR_H
#define IP_RECEIVE_ERROR_H

#include "base/compat.h"

/* Method. */
int ip_socket_receive_error(lua_State *L);

#endif
