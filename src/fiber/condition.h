/* condition.h: ip.fiber.condition. */
#ifndef IP_CONDITION_H
#define IP_CONDITION_H

#include "base/compat.h"

/* Defines the class, and adds `condition` to the table on top of the stack. [-0, +0, m] */
void ip_condition_open(lua_State *L, int core);

#endif
