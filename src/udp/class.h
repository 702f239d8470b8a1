/* class.h: the class ip.udp.socket. */
#ifndef IP_UDP_CLASS_H
#define IP_UDP_CLASS_H

#include "base/compat.h"

/* Defines the class and pushes a table of its module functions: `new`. [-0, +1, m] */
void ip_socket_open_class(lua_State *L, int core);

/* Adds the C functions of lua/ip/udp.lua, udp_loop.lua and udp_fill.lua to the table on top of the stack.
   [-0, +0, m] */
void ip_socket_add_internals(lua_State *L, int core);

#endif
