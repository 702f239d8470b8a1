/* byte_span_append.h: span:append and byte_span.append. Layer 3. */
#ifndef IP_BYTE_SPAN_APPEND_H
#define IP_BYTE_SPAN_APPEND_H

#include "base/compat.h"

/* The method and the function of the module table. [-0, +1, v] */
int ip_byte_span_append(lua_State *L);
int ip_byte_span_append_module(lua_State *L);

#endif
