/* bytes.h: search and trim on (pointer, length). Layer 1: knows no Lua.

   Offsets count from 0. Nothing outside data[0 .. length-1] and needle[0 .. count-1] is read. */
#ifndef IP_BYTES_H
#define IP_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A window on memory that somebody else owns. The Lua type byte_span begins with one, so that rooms which
   only read or fill bytes need not know that type. */
struct ip_bytes {
  unsigned char *data;
  size_t length;
  size_t capacity;
};

/* What a search returns instead of an offset when there is no match. */
#define IP_BYTES_NONE SIZE_MAX

/* A set of byte values, one bit each. */
struct ip_byte_set {
  uint32_t words[8];
};

/* The set of the bytes in members[0 .. count-1]; repetitions do no harm. */
struct ip_byte_set ip_byte_set_of(const unsigned char *members, size_t count);

static inline bool ip_byte_set_has(const struct ip_byte_set *set, unsigned char byte) {
  return (set->words[byte >> 5] >> (byte & 31u)) & 1u;
}

bool ip_bytes_equal(const unsigned char *a, size_t a_length, const unsigned char *b, size_t b_length);
bool ip_bytes_starts_with(const unsigned char *data, size_t length, const unsigned char *prefix,
                          size_t count);
bool ip_bytes_ends_with(const unsigned char *data, size_t length, const unsigned char *suffix, size_t count);

/* The least offset >= from where the needle begins and lies wholly in the data. An empty needle is found at
   `from` where from <= length. */
size_t ip_bytes_find(const unsigned char *data, size_t length, const unsigned char *needle, size_t count,
                     size_t from);

/* The greatest offset <= last where the needle begins and lies wholly in the data. An empty needle is found
   at the lesser of `last` and `length`. */
size_t ip_bytes_rfind(const unsigned char *data, size_t length, const unsigned char *needle, size_t count,
                      size_t last);

/* The least offset >= from of a byte in the set, or not in it. */
size_t ip_bytes_find_first_of(const unsigned char *data, size_t length, const struct ip_byte_set *set,
                              size_t from);
size_t ip_bytes_find_first_not_of(const unsigned char *data, size_t length, const struct ip_byte_set *set,
                                  size_t from);

/* The greatest offset < length of a byte in the set, or not in it: a search that is to begin earlier passes a
   smaller length. */
size_t ip_bytes_find_last_of(const unsigned char *data, size_t length, const struct ip_byte_set *set);
size_t ip_bytes_find_last_not_of(const unsigned char *data, size_t length, const struct ip_byte_set *set);

/* The offset where the data begins once the bytes of the set are taken off both ends; *length becomes the
   length of what remains. Where nothing remains, the offset is 0 and *length too. */
size_t ip_bytes_trim(const unsigned char *data, size_t *length, const struct ip_byte_set *set);

#endif
