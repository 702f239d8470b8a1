/* session.h: the class ip.udp.session: one peer of a listener. */
#ifndef IP_SESSION_H
#define IP_SESSION_H

#include "base/compat.h"

struct ip_session_box;

/* Defines the class. [-0, +0, m] */
void ip_session_open(lua_State *L, int core);

/* Pushes the userdata of a session, still without one, which keeps the value at `listener` alive (it may be a
   pseudo-index). [-0, +1, m] */
struct ip_session_box *ip_session_push(lua_State *L, int listener);

/* The box of the session at `arg`; any other value is a bad argument. [-0, +0, v] */
struct ip_session_box *ip_session_check(lua_State *L, int arg);

/* Adds the C functions of lua/ip/udp_listen.lua and udp_fill.lua to the table on top of the stack.
   [-0, +0, m] */
void ip_session_add_internals(lua_State *L, int core);

#endif
