/* serve.h: the C part of `serve`. */
#ifndef IP_UDP_SERVE_H
#define IP_UDP_SERVE_H

#include "base/compat.h"

/* For lua/ip/udp_serve.lua: check_server, new_server, serve. */
int ip_socket_check_server(lua_State *L);
int ip_socket_new_server(lua_State *L);
int ip_socket_serve(lua_State *L);

#endif
