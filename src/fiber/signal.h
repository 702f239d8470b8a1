/* signal.h: waiting for signals. */
#ifndef IP_SIGNAL_H
#define IP_SIGNAL_H

#include "base/compat.h"

/* Adds wait_signal to the table on top of the stack. [-0, +0, m] */
void ip_signal_open(lua_State *L, int core);

#endif
