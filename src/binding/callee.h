/* callee.h: the name of a C function of the library, for messages. Layer 2. */
#ifndef IP_CALLEE_H
#define IP_CALLEE_H

#include "base/compat.h"

#include <stdbool.h>

/* The name of the function at `index`, and whether it is a method, which is called with its object first;
   NULL where it is none of this library's. The name is that of a table's field, which lives as long as the
   library. [-0, +?, m] */
const char *ip_callee_name(lua_State *L, int index, bool *is_method);

#endif
