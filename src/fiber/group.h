/* group.h: ip.fiber.group: fibers that end together. */
#ifndef IP_GROUP_H
#define IP_GROUP_H

#include "base/compat.h"

/* Defines the class, and adds `group` to the table on top of the stack. [-0, +0, m] */
void ip_group_open(lua_State *L, int core);

#endif
