/* read_ahead.h: a read-ahead buffer: datagrams that were read and have not been received. Knows no Lua.

   One read fills several slots. What the system has joined (GRO) lies in one slot and is popped datagram by datagram, like
   the rest. */
#ifndef IP_READ_AHEAD_H
#define IP_READ_AHEAD_H

#include "net/control_message.h"
#include "net/datagram_io.h"

/* Slots at the most. Their memory is 2 MiB of addresses, of which the system backs what is used. */
enum { IP_READ_AHEAD_MOST = 32 };

struct ip_read_ahead {
  size_t slots;
  size_t wanted;             /* slots that the next read offers: fewer while datagrams are large */
  size_t next, end;          /* slots that hold something; `next` is the current one */
  size_t at, length, stride; /* in the current one: the position, what was read, the size of its datagrams */
  bool drained;              /* the last read took all that the system had */
  bool is_v6;
  unsigned char *data; /* of the current slot */
  const struct ip_endpoint *source;
  struct ip_control control;
  struct ip_read_ahead_memory *memory;
};

/* An empty buffer of 1..IP_READ_AHEAD_MOST slots; NULL when memory is short. */
struct ip_read_ahead *ip_read_ahead_new(size_t slots);
void ip_read_ahead_free(struct ip_read_ahead *buffer);

/* Moves what `from`, which has one slot, still holds to an empty buffer. */
void ip_read_ahead_move(struct ip_read_ahead *buffer, const struct ip_read_ahead *from);

/* Reads into an empty buffer. Returns 0 or an errno value. */
int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6);

static inline bool ip_read_ahead_is_empty(const struct ip_read_ahead *buffer) {
  return buffer->next == buffer->end;
}

/* The size of the next datagram; there is one. */
static inline size_t ip_read_ahead_next_length(const struct ip_read_ahead *buffer) {
  size_t left = buffer->length - buffer->at;
  return left < buffer->stride ? left : buffer->stride;
}

/* The next `length` bytes, which are one datagram or all that were joined with it, are popped. */
void ip_read_ahead_advance(struct ip_read_ahead *buffer, size_t length);

#endif
