/* byte_span.h: the Lua type byte_span. Layer 3. */
#ifndef IP_BYTE_SPAN_H
#define IP_BYTE_SPAN_H

#include "bytes.h"
#include "compat.h"

/* Defines the class (core at stack index `core`) and pushes the module table byte_span. [-0, +1, m] */
void ip_byte_span_open(lua_State *L, int core);

/* Pushes a new span of `length` zero bytes with `capacity` bytes behind it; its memory never moves. [-0, +1, m] */
struct ip_bytes *ip_byte_span_push(lua_State *L, size_t length, size_t capacity);

/* The span at `arg`, or a bad-argument error. Its userdata begins with a struct ip_bytes. [-0, +0, v] */
struct ip_bytes *ip_byte_span_check(lua_State *L, int arg);

#endif
