/* scope.h: deadlines (with_timeout) and shields. */
#ifndef IP_SCOPE_H
#define IP_SCOPE_H

#include "base/compat.h"

/* Defines the classes, and adds scope, scope_finish and shield to the table on top of the stack.
   [-0, +0, m] */
void ip_scope_open(lua_State *L, int core);

#endif
