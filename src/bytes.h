/* bytes.h: search and trim on (pointer, length). Layer 1: knows no Lua. */
#ifndef IP_BYTES_H
#define IP_BYTES_H

#include <stddef.h>

/* A window on memory that somebody else owns. The Lua type byte_span begins with one, so that rooms which only
   read or fill bytes need not know that type. */
struct ip_bytes {
  unsigned char *data;
  size_t length;
  size_t capacity;
};

#endif
