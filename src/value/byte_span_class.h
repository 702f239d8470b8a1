/* byte_span_class.h: the Lua type byte_span. Layer 3. */
#ifndef IP_BYTE_SPAN_CLASS_H
#define IP_BYTE_SPAN_CLASS_H

#include "base/compat.h"

/* Defines the class (core at stack index `core`) and pushes the module table byte_span. [-0, +1, e] */
void ip_byte_span_open(lua_State *L, int core);

#endif
