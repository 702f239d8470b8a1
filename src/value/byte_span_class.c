/* byte_span_class.c: the Lua type byte_span: its own methods, and the tables of all of them.

   Owns nothing: the memory of a span belongs to its block (byte_span.c). Invariant: the length of a span
   changes only in resize, and never exceeds the capacity. An allocation may run a finalizer, which may resize
   any span: a length that was read before an allocation is still safe to use after it, but may be out of
   date. Raises bad-argument errors and memory errors only. */
#include "value/byte_span_class.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/value_text.h"
#include "value/byte_span.h"
#include "value/byte_span_append.h"
#include "value/byte_span_pack.h"
#include "value/byte_span_search.h"

#include <string.h>

/* byte_span.new(length[, capacity]) -> span
   length: integer 0..2^47-1, bytes; capacity: integer length..2^47-1, bytes (length).
   A span on memory of its own, all zeros. Errors: bad argument; "not enough memory". Suspends: no.
   Source: Emilua byte_span.new, Go's make([]byte, length, capacity). */
static int byte_span_new(lua_State *L) {
  lua_Integer most = (lua_Integer)IP_BYTE_SPAN_MAX;
  lua_Integer length = ip_argument_integer(L, 1, 0, most);
  lua_Integer capacity = ip_argument_optional_integer(L, 2, length, most, length);
  ip_byte_span_push(L, (size_t)length, (size_t)capacity);
  return 1;
}

/* span:slice([first[, last]]) -> span
   first: integer 1..capacity+1 (1); last: integer first-1..capacity (#span; then first is at most #span+1).
   A span on bytes first..last of the same memory; its capacity reaches to the end of this one's. Bytes
   between #span and the capacity keep their values. Errors: bad argument. Suspends: no. Source: Emilua
   byte_span.slice, Go's slice expressions. */
static int byte_span_slice(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  lua_Integer last = (lua_Integer)self->length;
  lua_Integer capacity = (lua_Integer)self->capacity;
  bool to_end = lua_isnoneornil(L, 3);
  lua_Integer first = ip_argument_optional_integer(L, 2, 1, (to_end ? last : capacity) + 1, 1);
  if (!to_end) last = ip_argument_integer(L, 3, first - 1, capacity);
  lua_Integer offset = first - 1;
  ip_byte_span_push_slice(L, 1, (size_t)offset, (size_t)(last - offset), (size_t)(capacity - offset));
  return 1;
}

/* span:resize(length) -> span
   length: integer 0..capacity, bytes.
   Changes the length of this span, and of no other, and returns the span itself. No byte changes. Errors: bad
   argument; on the span of an entry of a batch, whose length batch:resize sets. Suspends: no. */
static int byte_span_resize(lua_State *L) {
  struct ip_bytes *self = lua_gettop(L) == 2 ? ip_peek_class_of(L, ip_core(L), 1, IP_CLASS_BYTE_SPAN) : NULL;
  if (IP_UNLIKELY(self == NULL)) self = ip_byte_span_check(L, 1);
  if (IP_UNLIKELY(self->is_entry))
    ip_error_text(L, "a span of a batch's entry cannot be resized: batch:resize(i, length) sets its length");
  self->length = (size_t)ip_argument_integer(L, 2, 0, (lua_Integer)self->capacity);
  lua_pushvalue(L, 1);
  return 1;
}

/* span:copy(source) -> count
   source: string or byte_span, which may share memory with the span.
   Copies the first min(#span, #source) bytes of source to the begin of the span; count is their number.
   Errors: bad argument. Suspends: no. Source: Emilua byte_span.copy, Go's copy. */
static int byte_span_copy(lua_State *L) {
  struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_span_view source = ip_byte_span_check_view(L, 2);
  size_t count = source.length < self->length ? source.length : self->length;
  memmove(self->data, source.data, count);
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

/* span:fill(byte) -> span
   byte: integer 0..255.
   Sets each of the bytes 1..#span to `byte` and returns the span itself. Errors: bad argument. Suspends:
   no. */
static int byte_span_fill(lua_State *L) {
  struct ip_bytes *self = ip_byte_span_check(L, 1);
  int byte = (int)ip_argument_integer(L, 2, 0, 255);
  memset(self->data, byte, self->length);
  lua_settop(L, 1);
  return 1;
}

/* The first position, 1 or more, that `index` means to string.sub. */
static lua_Integer sub_first(lua_Integer index, lua_Integer length) {
  if (index > 0) return index;
  if (index == 0 || index < -length) return 1;
  return length + index + 1;
}

/* The last position, 0..length, that `index` means to string.sub. */
static lua_Integer sub_last(lua_Integer index, lua_Integer length) {
  if (index > length) return length;
  if (index >= 0) return index;
  return index < -length ? 0 : length + index + 1;
}

/* span:sub(first[, last]) -> string
   first, last (-1): any integers; a negative one counts from the end, one outside the span is moved to its
   edge. A copy of bytes first..last; empty where last < first. Errors: bad argument; "not enough memory".
   Suspends: no. Source: Lua's string.sub, but a string is no integer here. */
static int byte_span_sub(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  lua_Integer length = (lua_Integer)self->length;
  lua_Integer first = sub_first(ip_argument_integer(L, 2, LUA_MININTEGER, LUA_MAXINTEGER), length);
  lua_Integer last = ip_argument_optional_integer(L, 3, LUA_MININTEGER, LUA_MAXINTEGER, -1);
  last = sub_last(last, length);
  if (first > last) {
    lua_pushliteral(L, "");
    return 1;
  }
  lua_pushlstring(L, (const char *)self->data + (first - 1), (size_t)(last - first + 1));
  return 1;
}

/* span.capacity -> integer: bytes from the begin of the span to the end of its memory. Read-only. */
static int get_capacity(lua_State *L) {
  const struct ip_bytes *self = lua_touserdata(L, 1);
  lua_pushinteger(L, (lua_Integer)self->capacity);
  return 1;
}

/* Returns the offset that the number at index 2 means. [-0, +0, v] */
static size_t check_index(lua_State *L, const struct ip_bytes *self) {
  int is_integer;
  lua_Integer index = lua_tointegerx(L, 2, &is_integer);
  if (IP_LIKELY(is_integer && index >= 1 && index <= (lua_Integer)self->length)) return (size_t)index - 1;
  if (!is_integer) ip_error_text(L, "byte_span index: integer expected, got %s", ip_value_text_push(L, 2));
  ip_error_text(L, "byte_span index %I is outside 1..%I", index, (lua_Integer)self->length);
}

/* span[index] -> byte
   index: integer 1..#span. Errors: bad argument where it is outside; "byte_span has no property '...'" for a
   key that is neither a number nor the name of a member. Suspends: no. */
static int byte_span_mt_index(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) return ip_class_index(L);
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  lua_pushinteger(L, self->data[check_index(L, self)]);
  return 1;
}

/* span[index] = byte
   index: integer 1..#span; byte: integer 0..255. Errors: bad argument; for any other key as in
   ip_class_newindex. Suspends: no. */
static int byte_span_mt_newindex(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) return ip_class_newindex(L);
  struct ip_bytes *self = ip_byte_span_check(L, 1);
  size_t offset = check_index(L, self);
  int is_integer;
  lua_Integer byte = lua_type(L, 3) == LUA_TNUMBER ? lua_tointegerx(L, 3, &is_integer) : -1;
  if (byte < 0 || byte > 255 || !is_integer)
    return ip_error_text(L, "byte of a byte_span: integer within 0..255 expected, got %s",
                         ip_value_text_push(L, 3));
  self->data[offset] = (unsigned char)byte;
  return 0;
}

/* #span -> integer: its length in bytes. Suspends: no. */
static int byte_span_mt_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)ip_byte_span_check(L, 1)->length);
  return 1;
}

/* span == other -> boolean: are both spans of equal bytes, whatever their capacities? Suspends: no. */
static int byte_span_mt_eq(lua_State *L) {
  const struct ip_bytes *a = ip_test_class(L, 1, IP_CLASS_BYTE_SPAN);
  const struct ip_bytes *b = ip_test_class(L, 2, IP_CLASS_BYTE_SPAN);
  bool equal = a != NULL && b != NULL && ip_bytes_equal(a->data, a->length, b->data, b->length);
  lua_pushboolean(L, equal);
  return 1;
}

/* tostring(span) -> string: a copy of its bytes. Errors: "not enough memory". Suspends: no. */
static int byte_span_mt_tostring(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  lua_pushlstring(L, (const char *)self->data, self->length);
  return 1;
}

static const luaL_Reg methods[] = {
    {"append", ip_byte_span_append},
    {"copy", byte_span_copy},
    {"ends_with", ip_byte_span_ends_with},
    {"fill", byte_span_fill},
    {"find", ip_byte_span_find},
    {"find_first_not_of", ip_byte_span_find_first_not_of},
    {"find_first_of", ip_byte_span_find_first_of},
    {"find_last_not_of", ip_byte_span_find_last_not_of},
    {"find_last_of", ip_byte_span_find_last_of},
    {"pack", ip_byte_span_pack},
    {"resize", byte_span_resize},
    {"rfind", ip_byte_span_rfind},
    {"slice", byte_span_slice},
    {"starts_with", ip_byte_span_starts_with},
    {"sub", byte_span_sub},
    {"trimmed", ip_byte_span_trimmed},
    {"unpack", ip_byte_span_unpack},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__len", byte_span_mt_len},
    {"__eq", byte_span_mt_eq},
    {"__tostring", byte_span_mt_tostring},
    {NULL, NULL},
};

static const struct ip_property properties[] = {
    {"capacity", get_capacity, NULL},
    {NULL, NULL, NULL},
};

static const struct ip_class_definition definition = {
    .name = "byte_span",
    .id = IP_CLASS_BYTE_SPAN,
    .methods = methods,
    .metamethods = metamethods,
    .properties = properties,
    .index = byte_span_mt_index,
    .newindex = byte_span_mt_newindex,
};

static const luaL_Reg functions[] = {
    {"new", byte_span_new},
    {"append", ip_byte_span_append_module},
    {NULL, NULL},
};

void ip_byte_span_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  ip_byte_span_pack_open(L);
  ip_class_define(L, core, &definition);
  lua_createtable(L, 0, (int)ip_count_of(functions) - 1);
  ip_class_functions(L, core, functions);
}
