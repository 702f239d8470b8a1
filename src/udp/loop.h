/* loop.h: the C functions of lua/ip/udp_loop.lua. */
#ifndef IP_UDP_LOOP_H
#define IP_UDP_LOOP_H

#include "base/compat.h"

/* Defines the class of loops (core at stack index `core`). [-0, +0, m] */
void ip_socket_loop_open(lua_State *L, int core);

/* check_loop, new_loop, loop_iterator, loop_receive. */
int ip_socket_loop_check(lua_State *L);
int ip_socket_loop_new(lua_State *L);
int ip_socket_loop_iterator(lua_State *L);
int ip_socket_loop_receive(lua_State *L);

#endif
