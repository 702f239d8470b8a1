/* data.h: the bytes of one datagram that is to be sent, in parts. Layer 1: knows no Lua.

   Owns nothing: the parts point into memory that the caller keeps valid, such as strings and spans on a Lua
   stack. Raises nothing. */
#ifndef IP_DATA_H
#define IP_DATA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

enum { IP_DATA_INLINE_PARTS = 16 };

struct ip_data {
  struct iovec *parts; /* inline_parts or, where these do not suffice, a vector that the caller keeps valid */
  size_t count;
  struct iovec inline_parts[IP_DATA_INLINE_PARTS];
};

/* Makes `data` the one part bytes[0 .. length-1]. */
static inline void ip_data_set(struct ip_data *data, void *bytes, size_t length) {
  data->parts = data->inline_parts;
  data->count = 1;
  data->inline_parts[0].iov_base = bytes;
  data->inline_parts[0].iov_len = length;
}

/* The number of bytes in all parts; SIZE_MAX where a size_t cannot hold the sum, for many parts may be the
   same bytes. */
static inline size_t ip_data_size(const struct ip_data *data) {
  size_t size = 0;
  for (size_t i = 0; i < data->count; i++)
    if (__builtin_add_overflow(size, data->parts[i].iov_len, &size)) return SIZE_MAX;
  return size;
}

/* Copies the bytes of all parts to `target`. A single part may overlap it. */
static inline void ip_data_copy(unsigned char *target, const struct ip_data *data) {
  for (size_t i = 0; i < data->count; i++) {
    const struct iovec *part = &data->parts[i];
    if (part->iov_len > 0)
      memmove(target, part->iov_base, part->iov_len); /* an empty one may have no memory */
    target += part->iov_len;
  }
}

#endif
