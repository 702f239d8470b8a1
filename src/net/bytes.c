/* bytes.c: search and trim bytes.

   Owns nothing, allocates nothing, raises nothing. Sizes are compared by subtraction, so no sum can overflow.
   A call with a length of 0 reads no memory, so its pointer may be any. */
#include "net/bytes.h"

#include <string.h>

struct ip_byte_set ip_byte_set_of(const unsigned char *members, size_t count) {
  struct ip_byte_set set = {{0}};
  for (size_t i = 0; i < count; i++)
    set.words[members[i] >> 5] |= UINT32_C(1) << (members[i] & 31u);
  return set;
}

bool ip_bytes_equal(const unsigned char *a, size_t a_length, const unsigned char *b, size_t b_length) {
  if (a_length != b_length) return false;
  return a_length == 0 || memcmp(a, b, a_length) == 0;
}

bool ip_bytes_starts_with(const unsigned char *data, size_t length, const unsigned char *prefix,
                          size_t count) {
  return count <= length && ip_bytes_equal(data, count, prefix, count);
}

bool ip_bytes_ends_with(const unsigned char *data, size_t length, const unsigned char *suffix, size_t count) {
  return count <= length && ip_bytes_equal(data + (length - count), count, suffix, count);
}

size_t ip_bytes_find(const unsigned char *data, size_t length, const unsigned char *needle, size_t count,
                     size_t from) {
  if (from > length || count > length - from) return IP_BYTES_NONE;
  if (count == 0) return from;
  size_t end = length - count + 1; /* one past the last offset where the needle fits */
  while (from < end) {
    const unsigned char *hit = memchr(data + from, needle[0], end - from);
    if (hit == NULL) return IP_BYTES_NONE;
    from = (size_t)(hit - data);
    if (memcmp(hit, needle, count) == 0) return from;
    from++;
  }
  return IP_BYTES_NONE;
}

size_t ip_bytes_rfind(const unsigned char *data, size_t length, const unsigned char *needle, size_t count,
                      size_t last) {
  if (count > length) return IP_BYTES_NONE;
  size_t offset = length - count;
  if (last < offset) offset = last;
  if (count == 0) return offset;
  for (;; offset--) {
    if (data[offset] == needle[0] && memcmp(data + offset, needle, count) == 0) return offset;
    if (offset == 0) return IP_BYTES_NONE;
  }
}

/* The least offset >= from of a byte whose membership is `member`. */
static inline size_t scan_forward(const unsigned char *data, size_t length, const struct ip_byte_set *set,
                                  size_t from, bool member) {
  for (size_t i = from; i < length; i++)
    if (ip_byte_set_has(set, data[i]) == member) return i;
  return IP_BYTES_NONE;
}

/* The greatest offset < length of a byte whose membership is `member`. */
static inline size_t scan_backward(const unsigned char *data, size_t length, const struct ip_byte_set *set,
                                   bool member) {
  for (size_t i = length; i > 0; i--)
    if (ip_byte_set_has(set, data[i - 1]) == member) return i - 1;
  return IP_BYTES_NONE;
}

size_t ip_bytes_find_first_of(const unsigned char *data, size_t length, const struct ip_byte_set *set,
                              size_t from) {
  return scan_forward(data, length, set, from, true);
}

size_t ip_bytes_find_first_not_of(const unsigned char *data, size_t length, const struct ip_byte_set *set,
                                  size_t from) {
  return scan_forward(data, length, set, from, false);
}

size_t ip_bytes_find_last_of(const unsigned char *data, size_t length, const struct ip_byte_set *set) {
  return scan_backward(data, length, set, true);
}

size_t ip_bytes_find_last_not_of(const unsigned char *data, size_t length, const struct ip_byte_set *set) {
  return scan_backward(data, length, set, false);
}

size_t ip_bytes_trim(const unsigned char *data, size_t *length, const struct ip_byte_set *set) {
  size_t first = scan_forward(data, *length, set, 0, false);
  if (first == IP_BYTES_NONE) {
    *length = 0;
    return 0;
  }
  size_t last = scan_backward(data, *length, set, false); /* it finds at least the byte at `first` */
  *length = last - first + 1;
  return first;
}
