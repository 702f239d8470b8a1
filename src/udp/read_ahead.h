/* read_ahead.h: a read-ahead buffer: datagrams that were read from the system and have not been received yet.
   Does not use Lua.

   One read fills several slots. Datagrams that the system has joined (GRO) share one slot, and are popped one
   by one. */
#ifndef IP_READ_AHEAD_H
#define IP_READ_AHEAD_H

#include "net/control_message.h"
#include "net/datagram_io.h"

/* The largest number of slots. They reserve 2 MiB of addresses; the system provides memory for the used pages
   only. */
enum { IP_READ_AHEAD_MOST = 32 };

struct ip_read_ahead {
  size_t slots;
  size_t wanted;             /* slots that the next read offers: fewer while datagrams are large */
  size_t next, end;          /* filled slots; `next` is the current one */
  size_t at, length, stride; /* of the current slot: position, bytes read, datagram size */
  bool drained;              /* the last read emptied the socket */
  bool is_v6;
  unsigned char *data; /* of the current slot */
  const struct ip_endpoint *source;
  struct ip_control control;
  struct ip_read_ahead_memory *memory;
};

/* Returns an empty buffer of 1..IP_READ_AHEAD_MOST slots; NULL when memory is short. */
struct ip_read_ahead *ip_read_ahead_new(size_t slots);
void ip_read_ahead_free(struct ip_read_ahead *buffer);

/* Moves the rest of `from`, which has one slot, to an empty buffer. */
void ip_read_ahead_move(struct ip_read_ahead *buffer, const struct ip_read_ahead *from);

/* Reads into an empty buffer. Returns 0 or an errno value. */
int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6);

static inline bool ip_read_ahead_is_empty(const struct ip_read_ahead *buffer) {
  return buffer->next == buffer->end;
}

/* Returns the size of the next datagram; there must be one. */
static inline size_t ip_read_ahead_next_length(const struct ip_read_ahead *buffer) {
  size_t left = buffer->length - buffer->at;
  return left < buffer->stride ? left : buffer->stride;
}

/* Pops the next `length` bytes: one datagram, or the rest of a joined buffer. */
void ip_read_ahead_advance(struct ip_read_ahead *buffer, size_t length);

#endif
