/* byte_span.h: spans for C code: make one, share its memory, check an argument. Layer 3.

   A span keeps its memory alive. Of its struct ip_bytes only the length may be changed. */
#ifndef IP_BYTE_SPAN_H
#define IP_BYTE_SPAN_H

#include "base/compat.h"
#include "binding/class.h"
#include "net/bytes.h"

#include <stdint.h>

/* The largest capacity of a span: 2^47 - 1 bytes where addresses have 64 bits, which is the whole address
   space of a process there, and 2^30 - 1 where they have 32. So the sum of a size and a header never
   overflows. */
#define IP_BYTE_SPAN_MAX ((size_t)PTRDIFF_MAX >> (sizeof(size_t) > 4 ? 16 : 1))

/* The bytes of a string or of a span, to be read while the argument is on the stack. */
struct ip_byte_span_view {
  const unsigned char *data;
  size_t length;
};

/* Pushes a new span of `length` bytes with memory of `capacity` bytes, all zero. [-0, +1, m] */
struct ip_bytes *ip_byte_span_push(lua_State *L, size_t length, size_t capacity);

/* Pushes a span on memory that the value at stack index `owner` keeps valid, and keeps that value alive.
   [-0, +1, m] */
struct ip_bytes *ip_byte_span_push_window(lua_State *L, int owner, unsigned char *data, size_t length,
                                          size_t capacity);

/* Pushes a span that shares the memory of the span at stack index `span`, from `offset` on. The caller has
   checked that offset + capacity is within that span's capacity. [-0, +1, m] */
struct ip_bytes *ip_byte_span_push_slice(lua_State *L, int span, size_t offset, size_t length,
                                         size_t capacity);

/* The span at `arg`, or a bad-argument error. Its userdata begins with a struct ip_bytes. [-0, +0, v] */
static inline struct ip_bytes *ip_byte_span_check(lua_State *L, int arg) {
  return (struct ip_bytes *)ip_check_class(L, arg, IP_CLASS_BYTE_SPAN);
}

/* The bytes of the string or span at `arg`, or a bad-argument error. A number is no string here.
   [-0, +0, v] */
struct ip_byte_span_view ip_byte_span_check_view(lua_State *L, int arg);

#endif
