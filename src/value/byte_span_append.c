/* byte_span_append.c: span:append and byte_span.append.

   Owns nothing: results are ordinary spans. Invariant: all parts are checked and measured before a byte is
   written. Raises bad-argument errors and memory errors only. */
#include "value/byte_span_append.h"

#include "binding/argument.h"
#include "binding/class.h"
#include "value/byte_span.h"

#include <string.h>

/* A new block has at least this spare capacity, so that not every small append makes a block. */
enum { MINIMUM_SPARE = 32 };

/* The bytes of a part: a string, a span, or nil, which stands for no bytes. [-0, +0, v] */
static struct ip_byte_span_view check_part(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return (struct ip_byte_span_view){(const unsigned char *)"", 0};
  if (lua_type(L, arg) != LUA_TSTRING && ip_test_class(L, arg, IP_CLASS_BYTE_SPAN) == NULL)
    ip_argument_type_error(L, arg, "string, byte_span or nil");
  return ip_byte_span_check_view(L, arg);
}

/* Checks the parts at first..last and returns the number of their bytes. [-0, +0, v] */
static size_t measure_parts(lua_State *L, int first, int last) {
  size_t total = 0;
  for (int arg = first; arg <= last; arg++) {
    struct ip_byte_span_view part = check_part(L, arg);
    ip_argument_check(L, part.length <= IP_BYTE_SPAN_MAX - total, arg, "resulting span too large");
    total += part.length;
  }
  return total;
}

/* Copies the parts at first..last behind the end of `result`. [-0, +0, v] */
static void append_parts(lua_State *L, struct ip_bytes *result, int first, int last) {
  for (int arg = first; arg <= last; arg++) {
    struct ip_byte_span_view part = check_part(L, arg);
    size_t count = result->capacity - result->length;
    /* the part fits, unless a finalizer has resized a span since the parts were measured */
    if (part.length < count) count = part.length;
    memmove(result->data + result->length, part.data, count);
    result->length += count;
  }
}

static size_t grown_capacity(size_t length) {
  if (length == 0) return 0;
  size_t spare = length / 2 < MINIMUM_SPARE ? MINIMUM_SPARE : length / 2;
  return spare < IP_BYTE_SPAN_MAX - length ? length + spare : IP_BYTE_SPAN_MAX;
}

/* Pushes the parts at first..last, `length` bytes, as a span on a new block. [-0, +1, v] */
static int append_to_new(lua_State *L, int first, int last, size_t length) {
  struct ip_bytes *result = ip_byte_span_push(L, 0, grown_capacity(length));
  append_parts(L, result, first, last);
  return 1;
}

/* Does one of the parts at first..last overlap target[0 .. length-1], which is to be written? [-0, +0, v] */
static bool overlaps(lua_State *L, int first, int last, const unsigned char *target, size_t length) {
  uintptr_t begin = (uintptr_t)target;
  for (int arg = first; arg <= last; arg++) {
    struct ip_byte_span_view part = check_part(L, arg);
    uintptr_t data = (uintptr_t)part.data;
    if (data < begin ? begin - data < part.length : data - begin < length) return true;
  }
  return false;
}

/* span:append(...) -> span
   ...: strings, spans and nils; a nil contributes nothing. Spans may share memory with this one.
   A new span with the bytes of this one and of all arguments, as they were before the call. Where the
   capacity suffices it shares this one's memory, and the bytes behind the end of this one are overwritten;
   else it has memory of its own with spare capacity. This span does not change. Errors: bad argument, before
   anything is written; "not enough memory". Suspends: no. Source: Emilua byte_span.append, Go's append. */
int ip_byte_span_append(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  int last = lua_gettop(L);
  size_t total = measure_parts(L, 1, last);
  if (total > self->capacity) return append_to_new(L, 1, last, total);
  size_t length = self->length;
  size_t added = total - length;
  /* memmove allows the first part to overlap the target; a later one would be overwritten before it is
     read */
  if (overlaps(L, 3, last, self->data + length, added)) {
    append_to_new(L, 2, last, added);
    lua_replace(L, 2);
    last = 2;
  }
  struct ip_bytes *result = ip_byte_span_push_slice(L, 1, 0, length, self->capacity);
  append_parts(L, result, 2, last);
  return 1;
}

/* byte_span.append(...) -> span
   ...: strings, spans and nils; a nil contributes nothing.
   A span on memory of its own, with spare capacity, that has the bytes of all arguments; no argument's memory
   is written to. Errors: bad argument; "not enough memory". Suspends: no. Source: Emilua byte_span.append. */
int ip_byte_span_append_module(lua_State *L) {
  int last = lua_gettop(L);
  return append_to_new(L, 1, last, measure_parts(L, 1, last));
}
