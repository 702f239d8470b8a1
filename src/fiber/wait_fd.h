/* wait_fd.h: waiting for descriptors that the program has opened itself. */
#ifndef IP_WAIT_FD_H
#define IP_WAIT_FD_H

#include "base/compat.h"

/* Adds wait_fd to the table on top of the stack. [-0, +0, m] */
void ip_wait_fd_open(lua_State *L, int core);

#endif
