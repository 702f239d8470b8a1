/* bytes.h: search and trim bytes. Layer 1: knows no Lua.

   Owns nothing, raises nothing. Offsets count from 0. No function reads outside data[0 .. length-1] and
   needle[0 .. count-1]. */
#ifndef IP_BYTES_H
#define IP_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A window on memory that another object owns. The Lua type byte_span begins with one, so that files which
   only read or fill bytes need not know that type. */
struct ip_bytes {
  unsigned char *data;
  size_t length;
  size_t capacity;
  bool is_entry; /* its length is that of an entry of a batch, which sets it */
};

/* The result of a search without a match. */
#define IP_BYTES_NONE SIZE_MAX

/* A set of byte values, one bit each. */
struct ip_byte_set {
  uint32_t words[8];
};

/* The set of the bytes in members[0 .. count-1], each of which may stand there more than once. */
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

/* The greatest offset < length of a byte in the set, or not in it. A search that begins before the end of the
   data passes a smaller length. */
size_t ip_bytes_find_last_of(const unsigned char *data, size_t length, const struct ip_byte_set *set);
size_t ip_bytes_find_last_not_of(const unsigned char *data, size_t length, const struct ip_byte_set *set);

/* The offset where the data begins once the bytes of the set are removed from both ends; *length becomes the
   length of the rest. Where nothing is left, the offset and *length are 0. */
size_t ip_bytes_trim(const unsigned char *data, size_t *length, const struct ip_byte_set *set);

#endif
