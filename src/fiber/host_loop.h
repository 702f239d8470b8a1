/* host_loop.h: the event loop, driven by another loop. */
#ifndef IP_HOST_LOOP_H
#define IP_HOST_LOOP_H

#include "base/compat.h"

/* Adds the functions of ip.fiber's loop to the table on top of the stack. [-0, +0, m] */
void ip_host_loop_open(lua_State *L, int core);

#endif
