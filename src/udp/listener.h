/* listener.h: the class ip.udp.listener: one socket, and a session for each of its peers. */
#ifndef IP_LISTENER_H
#define IP_LISTENER_H

#include "base/compat.h"

struct ip_peers;

/* Defines the classes of listeners and sessions. [-0, +0, m] */
void ip_listener_open(lua_State *L, int core);

/* The peers of the listener at `arg`, or NULL: it is closed. Any other value is a bad argument. [-0, +0,
   v] */
struct ip_peers *ip_listener_check(lua_State *L, int arg);

/* Adds the C functions of lua/ip/udp_listen.lua and udp_fill.lua to the table on top of the stack.
   [-0, +0, m] */
void ip_listener_add_internals(lua_State *L, int core);

#endif
