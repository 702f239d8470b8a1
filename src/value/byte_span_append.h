/* byte_span_append.h: the methods that put bytes behind others. Layer 3. */
#ifndef IP_BYTE_SPAN_APPEND_H
#define IP_BYTE_SPAN_APPEND_H

#include "base/compat.h"

/* The method span:append and the function byte_span.append; both are described in byte_span_append.c. [-0, +1, v] */
int ip_byte_span_append(lua_State *L);
int ip_byte_span_append_module(lua_State *L);

#endif
