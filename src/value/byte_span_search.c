/* byte_span_search.c: the methods that search a span.

   Owns nothing. Positions in Lua count from 1, offsets in bytes.h from 0. A search forward may begin one past
   the end, and a search backward one before the begin; both then find nothing. So a loop that goes on behind
   a match needs no check for the end of the span. Raises bad-argument errors and, in trimmed, memory errors
   only. */
#include "value/byte_span_search.h"

#include "binding/argument.h"
#include "value/byte_span.h"

/* Pushes the position of an offset, or nil. [-0, +1, -] */
static int push_position(lua_State *L, size_t offset) {
  if (offset == IP_BYTES_NONE)
    luaL_pushfail(L);
  else
    lua_pushinteger(L, (lua_Integer)offset + 1);
  return 1;
}

/* The offset that a position 1..#span+1 at `arg` names; 0 where it is absent. [-0, +0, v] */
static size_t check_first(lua_State *L, int arg, const struct ip_bytes *self) {
  return (size_t)ip_argument_optional_integer(L, arg, 1, (lua_Integer)self->length + 1, 1) - 1;
}

/* The number of bytes up to the position 0..#span at `arg`; all of them where it is absent. [-0, +0, v] */
static size_t check_last(lua_State *L, int arg, const struct ip_bytes *self) {
  lua_Integer length = (lua_Integer)self->length;
  return (size_t)ip_argument_optional_integer(L, arg, 0, length, length);
}

/* The set of the bytes of the string or span at `arg`. [-0, +0, v] */
static struct ip_byte_set check_set(lua_State *L, int arg) {
  struct ip_byte_span_view members = ip_byte_span_check_view(L, arg);
  return ip_byte_set_of(members.data, members.length);
}

/* span:starts_with(prefix) -> boolean
   prefix: string or byte_span; an empty one always matches. Errors: bad argument. Suspends: no.
   Source: Emilua byte_span.starts_with. */
int ip_byte_span_starts_with(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_span_view prefix = ip_byte_span_check_view(L, 2);
  lua_pushboolean(L, ip_bytes_starts_with(self->data, self->length, prefix.data, prefix.length));
  return 1;
}

/* span:ends_with(suffix) -> boolean
   suffix: string or byte_span; an empty one always matches. Errors: bad argument. Suspends: no.
   Source: Emilua byte_span.ends_with. */
int ip_byte_span_ends_with(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_span_view suffix = ip_byte_span_check_view(L, 2);
  lua_pushboolean(L, ip_bytes_ends_with(self->data, self->length, suffix.data, suffix.length));
  return 1;
}

/* span:find(target[, first]) -> integer | nil
   target: string or byte_span, no pattern; first: integer 1..#span+1 (1).
   The least position >= first where target begins; an empty target is found at `first`. Errors: bad argument.
   Suspends: no. Source: Emilua byte_span.find, but Emilua finds nothing at #span+1. */
int ip_byte_span_find(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_span_view target = ip_byte_span_check_view(L, 2);
  size_t from = check_first(L, 3, self);
  return push_position(L, ip_bytes_find(self->data, self->length, target.data, target.length, from));
}

/* span:rfind(target[, last]) -> integer | nil
   target: string or byte_span, no pattern; last: integer 0..#span (#span).
   The greatest position 1..last where target begins; its end may lie behind `last`. An empty target is found
   at `last`, and nothing is found at 0. Errors: bad argument. Suspends: no. Source: Emilua
   byte_span.rfind. */
int ip_byte_span_rfind(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_span_view target = ip_byte_span_check_view(L, 2);
  size_t last = check_last(L, 3, self);
  if (last == 0) return push_position(L, IP_BYTES_NONE);
  return push_position(L, ip_bytes_rfind(self->data, self->length, target.data, target.length, last - 1));
}

/* span:find_first_of(set[, first]) -> integer | nil
   set: string or byte_span, the bytes to look for; first: integer 1..#span+1 (1).
   The least position >= first of a byte that is in set. Errors: bad argument. Suspends: no.
   Source: Emilua byte_span.find_first_of. */
int ip_byte_span_find_first_of(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_set set = check_set(L, 2);
  size_t from = check_first(L, 3, self);
  return push_position(L, ip_bytes_find_first_of(self->data, self->length, &set, from));
}

/* span:find_last_of(set[, last]) -> integer | nil
   set: string or byte_span, the bytes to look for; last: integer 0..#span (#span).
   The greatest position <= last of a byte that is in set. Errors: bad argument. Suspends: no.
   Source: Emilua byte_span.find_last_of. */
int ip_byte_span_find_last_of(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_set set = check_set(L, 2);
  return push_position(L, ip_bytes_find_last_of(self->data, check_last(L, 3, self), &set));
}

/* span:find_first_not_of(set[, first]) -> integer | nil
   set: string or byte_span, the bytes to pass over; first: integer 1..#span+1 (1).
   The least position >= first of a byte that is not in set. Errors: bad argument. Suspends: no.
   Source: Emilua byte_span.find_first_not_of. */
int ip_byte_span_find_first_not_of(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_set set = check_set(L, 2);
  size_t from = check_first(L, 3, self);
  return push_position(L, ip_bytes_find_first_not_of(self->data, self->length, &set, from));
}

/* span:find_last_not_of(set[, last]) -> integer | nil
   set: string or byte_span, the bytes to pass over; last: integer 0..#span (#span).
   The greatest position <= last of a byte that is not in set. Errors: bad argument. Suspends: no.
   Source: Emilua byte_span.find_last_not_of. */
int ip_byte_span_find_last_not_of(lua_State *L) {
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  struct ip_byte_set set = check_set(L, 2);
  return push_position(L, ip_bytes_find_last_not_of(self->data, check_last(L, 3, self), &set));
}

/* span:trimmed([set]) -> span
   set: string or byte_span (" \f\n\r\t\v"), the bytes to remove.
   A slice without the bytes of set at both ends; its capacity reaches to the end of this one's. Where nothing
   is left, an empty span with capacity 0. Errors: bad argument; "not enough memory". Suspends: no.
   Source: Emilua byte_span.trimmed. */
int ip_byte_span_trimmed(lua_State *L) {
  static const unsigned char white_space[] = {' ', '\f', '\n', '\r', '\t', '\v'};
  const struct ip_bytes *self = ip_byte_span_check(L, 1);
  bool is_default = lua_isnoneornil(L, 2);
  struct ip_byte_set set = is_default ? ip_byte_set_of(white_space, sizeof white_space) : check_set(L, 2);
  size_t length = self->length;
  size_t offset = ip_bytes_trim(self->data, &length, &set);
  ip_byte_span_push_slice(L, 1, offset, length, length == 0 ? 0 : self->capacity - offset);
  return 1;
}
