/* nested_wait.h: coroutines that wait inside other ones. */
#ifndef IP_NESTED_WAIT_H
#define IP_NESTED_WAIT_H

#include "base/compat.h"

/* Adds the C functions of ip.fiber.coroutine to the table on top of the stack. [-0, +0, m] */
void ip_nested_wait_open(lua_State *L, int core);

#endif
