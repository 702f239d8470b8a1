/* byte_span_method.h: what the files of the class byte_span share. Layer 3; nobody else includes it. */
#ifndef IP_BYTE_SPAN_METHOD_H
#define IP_BYTE_SPAN_METHOD_H

#include "base/compat.h"

#include <stddef.h>

/* Bytes to read: of a string or of a span. Valid while the argument is on the stack. */
struct byte_span_view {
  const unsigned char *data;
  size_t length;
};

/* The bytes of the string or span at `arg`, or a bad-argument error. A number is no string here. [-0, +0, v]
 */
struct byte_span_view byte_span_check_view(lua_State *L, int arg);

/* byte_span_append.c */
int byte_span_append(lua_State *L);
int byte_span_append_module(lua_State *L);

/* byte_span_search.c */
int byte_span_starts_with(lua_State *L);
int byte_span_ends_with(lua_State *L);
int byte_span_find(lua_State *L);
int byte_span_rfind(lua_State *L);
int byte_span_find_first_of(lua_State *L);
int byte_span_find_last_of(lua_State *L);
int byte_span_find_first_not_of(lua_State *L);
int byte_span_find_last_not_of(lua_State *L);
int byte_span_trimmed(lua_State *L);

/* byte_span_pack.c */
void byte_span_pack_open(lua_State *L); /* keeps string.pack and string.unpack; once per state. [-0, +0, e] */
int byte_span_unpack(lua_State *L);
int byte_span_pack(lua_State *L);

#endif
