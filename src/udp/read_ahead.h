/* read_ahead.h: a read-ahead buffer: datagrams that were read from the system and have not been received yet.
   Does not use Lua.

   One read fills one slot or several. Datagrams that the system has joined (GRO) share one slot, and are
   popped one by one. */
#ifndef IP_READ_AHEAD_H
#define IP_READ_AHEAD_H

#include "net/control_message.h"
#include "net/datagram_io.h"

#include <stdint.h>

/* The number of slots. They reserve 2 MiB of addresses; the system provides memory for the used pages
   only. */
enum { IP_READ_AHEAD_MOST = 32 };

struct ip_read_ahead {
  struct ip_read_ahead *next_free; /* first: in the pool */
  size_t next, end;                /* filled slots; `next` is the current one */
  size_t at, length, stride;       /* of the current slot: position, bytes read, datagram size */
  bool is_v6;
  unsigned char *data; /* of the current slot */
  const struct ip_endpoint *source;
  struct ip_control control;
  struct ip_read_ahead_memory *memory;
};

/* Returns an empty buffer; NULL when memory is short. */
struct ip_read_ahead *ip_read_ahead_new(void);
void ip_read_ahead_free(struct ip_read_ahead *buffer);

/* Reads up to `*wanted` datagrams or joined buffers into an empty buffer, and adapts that number to their
   size. Returns 0 or an errno value. */
int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6, uint8_t *wanted);

/* Reads one datagram or joined buffer into an empty buffer. `source`: the only possible sender, which is then
   not asked for; NULL: not known. Returns 0 or an errno value. */
int ip_read_ahead_read(struct ip_read_ahead *buffer, int fd, bool is_v6, const struct ip_endpoint *source);

static inline bool ip_read_ahead_is_empty(const struct ip_read_ahead *buffer) {
  return buffer->next == buffer->end;
}

/* Returns the size of the next datagram; there must be one. */
static inline size_t ip_read_ahead_next_length(const struct ip_read_ahead *buffer) {
  size_t left = buffer->length - buffer->at;
  return left < buffer->stride ? left : buffer->stride;
}

/* Is it one datagram? There must be one. */
static inline bool ip_read_ahead_is_lone(const struct ip_read_ahead *buffer) {
  return buffer->end - buffer->next == 1 && buffer->length - buffer->at <= buffer->stride;
}

/* Pops the next `length` bytes: one datagram, or the rest of a joined buffer. */
void ip_read_ahead_advance(struct ip_read_ahead *buffer, size_t length);

#endif
