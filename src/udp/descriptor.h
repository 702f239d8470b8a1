/* descriptor.h: moving a descriptor into and out of a socket. */
#ifndef IP_DESCRIPTOR_H
#define IP_DESCRIPTOR_H

#include "base/compat.h"

/* Methods. */
int ip_socket_assign(lua_State *L);
int ip_socket_release(lua_State *L);

#endif
