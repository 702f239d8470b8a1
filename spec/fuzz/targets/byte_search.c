/* byte_search.c: searches in bytes against the obvious way to do them. */
#include "target.h"

#include "net/bytes.h"

struct search {
  const unsigned char *data, *needle;
  size_t length, count, from;
};

static bool begins_at(const struct search *search, size_t at) {
  if (search->count > search->length || at > search->length - search->count) return false;
  return search->count == 0 || memcmp(search->data + at, search->needle, search->count) == 0;
}

static size_t find(const struct search *search) {
  for (size_t at = search->from; at <= search->length; at++)
    if (begins_at(search, at)) return at;
  return IP_BYTES_NONE;
}

static size_t rfind(const struct search *search) {
  size_t last = search->from < search->length ? search->from : search->length;
  for (size_t at = last + 1; at-- > 0;)
    if (begins_at(search, at)) return at;
  return IP_BYTES_NONE;
}

static bool is_member(const struct search *search, unsigned char byte) {
  return search->count != 0 && memchr(search->needle, byte, search->count) != NULL;
}

static size_t first_of(const struct search *search, bool wanted) {
  for (size_t at = search->from; at < search->length; at++)
    if (is_member(search, search->data[at]) == wanted) return at;
  return IP_BYTES_NONE;
}

static size_t last_of(const struct search *search, bool wanted) {
  for (size_t at = search->length; at-- > 0;)
    if (is_member(search, search->data[at]) == wanted) return at;
  return IP_BYTES_NONE;
}

static void check_trim(const struct search *search, const struct ip_byte_set *set) {
  size_t length = search->length;
  size_t offset = ip_bytes_trim(search->data, &length, set);
  size_t from = 0, to = search->length;
  while (from < to && is_member(search, search->data[from]))
    from++;
  while (to > from && is_member(search, search->data[to - 1]))
    to--;
  bool empty = from == to;
  PROMISE(length == to - from && offset == (empty ? 0 : from), "trim removes the set from both ends");
}

static void check(const struct search *s) {
  PROMISE(ip_bytes_find(s->data, s->length, s->needle, s->count, s->from) == find(s), "find");
  PROMISE(ip_bytes_rfind(s->data, s->length, s->needle, s->count, s->from) == rfind(s), "rfind");
  struct ip_byte_set set = ip_byte_set_of(s->needle, s->count);
  PROMISE(ip_bytes_find_first_of(s->data, s->length, &set, s->from) == first_of(s, true), "first of");
  PROMISE(ip_bytes_find_first_not_of(s->data, s->length, &set, s->from) == first_of(s, false),
          "first not of");
  PROMISE(ip_bytes_find_last_of(s->data, s->length, &set) == last_of(s, true), "last of");
  PROMISE(ip_bytes_find_last_not_of(s->data, s->length, &set) == last_of(s, false), "last not of");
  PROMISE(ip_bytes_starts_with(s->data, s->length, s->needle, s->count) == begins_at(s, 0), "starts with");
  bool ends = s->count <= s->length && begins_at(s, s->length - s->count);
  PROMISE(ip_bytes_ends_with(s->data, s->length, s->needle, s->count) == ends, "ends with");
  bool equal = s->length == s->count && begins_at(s, 0);
  PROMISE(ip_bytes_equal(s->data, s->length, s->needle, s->count) == equal, "equal");
  check_trim(s, &set);
}

/* Two bytes say where the search begins, and how long the needle is, which follows; the rest is searched. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 4096) return 0;
  size_t from = data[0], count = data[1] < size - 2 ? data[1] : size - 2, length = size - 2 - count;
  unsigned char *needle = copy_exactly(data + 2, count), *bytes = copy_exactly(data + 2 + count, length);
  struct search search = {.data = bytes, .needle = needle, .length = length, .count = count, .from = from};
  check(&search);
  search.from = length - (length < from ? length : from); /* from the end, too */
  check(&search);
  free(needle);
  free(bytes);
  return 0;
}
