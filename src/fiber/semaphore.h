/* semaphore.h: ip.fiber.semaphore. */
#ifndef IP_SEMAPHORE_H
#define IP_SEMAPHORE_H

#include "base/compat.h"

/* Defines the classes, and adds `semaphore` to the table on top of the stack. [-0, +0, m] */
void ip_semaphore_open(lua_State *L, int core);

#endif
