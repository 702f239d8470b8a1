/* receive_loop.h: the C part of `datagrams` and receive_loop. */
#ifndef IP_UDP_RECEIVE_LOOP_H
#define IP_UDP_RECEIVE_LOOP_H

#include "base/compat.h"

/* For lua/ip/udp_loop.lua: check_loop, new_loop, loop_iterator, loop_receive. */
int ip_socket_loop_check(lua_State *L);
int ip_socket_loop_new(lua_State *L);
int ip_socket_loop_iterator(lua_State *L);
int ip_socket_loop_receive(lua_State *L);

#endif
