/* byte_span.c: memory for spans, and windows on it.

   A block is a userdata of its own without metatable and user values. A span is a struct ip_bytes in a
   userdata whose one user value is the block (or, for a window, another owner of the memory), so the
   collector frees a block with its last span. Invariants: a block never moves or changes its size; a span's
   data and capacity never change; data is NULL only while a span is being made. Raises bad-argument errors
   and memory errors only. */
#include "value/byte_span.h"

#include <string.h>

/* Pushes a span without memory, for the caller to complete. [-0, +1, m] */
static struct ip_bytes *push_closed(lua_State *L) {
  struct ip_bytes *span = lua_newuserdatauv(L, sizeof *span, 1);
  *span = (struct ip_bytes){.data = NULL};
  ip_class_set(L, IP_CLASS_BYTE_SPAN);
  return span;
}

struct ip_bytes *ip_byte_span_push(lua_State *L, size_t length, size_t capacity) {
  struct ip_bytes *span = push_closed(L);
  unsigned char *block = lua_newuserdatauv(L, capacity, 0);
  memset(block, 0, capacity);
  lua_setiuservalue(L, -2, 1);
  *span = (struct ip_bytes){.data = block, .length = length, .capacity = capacity};
  return span;
}

struct ip_bytes *ip_byte_span_push_window(lua_State *L, int owner, unsigned char *data, size_t length,
                                          size_t capacity) {
  owner = lua_absindex(L, owner);
  struct ip_bytes *span = push_closed(L);
  lua_pushvalue(L, owner);
  lua_setiuservalue(L, -2, 1);
  *span = (struct ip_bytes){.data = data, .length = length, .capacity = capacity};
  return span;
}

struct ip_bytes *ip_byte_span_push_slice(lua_State *L, int span, size_t offset, size_t length,
                                         size_t capacity) {
  span = lua_absindex(L, span);
  unsigned char *data = ((struct ip_bytes *)lua_touserdata(L, span))->data;
  struct ip_bytes *slice = push_closed(L);
  lua_getiuservalue(L, span, 1);
  lua_setiuservalue(L, -2, 1);
  *slice = (struct ip_bytes){.data = data + offset, .length = length, .capacity = capacity};
  return slice;
}

struct ip_byte_span_view ip_byte_span_check_view(lua_State *L, int arg) {
  struct ip_byte_span_view view;
  if (lua_type(L, arg) == LUA_TSTRING) {
    view.data = (const unsigned char *)lua_tolstring(L, arg, &view.length);
    return view;
  }
  const struct ip_bytes *span = ip_test_class(L, arg, IP_CLASS_BYTE_SPAN);
  if (span == NULL) ip_argument_type_error(L, arg, "string or byte_span");
  view.data = span->data;
  view.length = span->length;
  return view;
}
