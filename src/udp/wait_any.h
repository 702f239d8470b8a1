/* wait_any.h: waiting for the first of several sources. It is a function of ip.fiber, but sockets are among
   the sources. */
#ifndef IP_WAIT_ANY_H
#define IP_WAIT_ANY_H

#include "base/compat.h"

/* Adds wait_any to the table on top of the stack. [-0, +0, m] */
void ip_wait_any_open(lua_State *L, int core);

#endif
