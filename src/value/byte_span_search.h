/* byte_span_search.h: the methods that search a span. Layer 3. */
#ifndef IP_BYTE_SPAN_SEARCH_H
#define IP_BYTE_SPAN_SEARCH_H

#include "base/compat.h"

/* The methods span:starts_with, span:ends_with and so on. [-0, +1, v] */
int ip_byte_span_starts_with(lua_State *L);
int ip_byte_span_ends_with(lua_State *L);
int ip_byte_span_find(lua_State *L);
int ip_byte_span_rfind(lua_State *L);
int ip_byte_span_find_first_of(lua_State *L);
int ip_byte_span_find_last_of(lua_State *L);
int ip_byte_span_find_first_not_of(lua_State *L);
int ip_byte_span_find_last_not_of(lua_State *L);
int ip_byte_span_trimmed(lua_State *L);

#endif
