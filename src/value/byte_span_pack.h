/* byte_span_pack.h: the methods that read and write numbers in the formats of string.pack. Layer 3. */
#ifndef IP_BYTE_SPAN_PACK_H
#define IP_BYTE_SPAN_PACK_H

#include "base/compat.h"

/* Stores string.pack and string.unpack for the methods below; called once per state. [-0, +0, e] */
void ip_byte_span_pack_open(lua_State *L);

/* The methods span:pack and span:unpack. [-0, +n, v] */
int ip_byte_span_pack(lua_State *L);
int ip_byte_span_unpack(lua_State *L);

#endif
