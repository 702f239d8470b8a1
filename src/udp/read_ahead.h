/* udp_stage.h: datagrams that were read ahead and have not been handed out. Layer 5.

   One read fills several slots. What the system has joined (GRO) lies in one slot and is handed out datagram by
   datagram, like the rest. */
#ifndef IP_UDP_STAGE_H
#define IP_UDP_STAGE_H

#include "net/control_message.h"
#include "net/datagram_io.h"

enum {
  IP_STAGE_MOST = 32
}; /* slots; their memory is 2 MiB of addresses, of which the system gives what is used */

struct ip_stage {
  size_t slots;
  size_t wanted;             /* slots that the next read offers: fewer while datagrams are large */
  size_t next, end;          /* slots that hold something; `next` is the one that is handed out */
  size_t at, length, stride; /* in that one: what is handed out, what was read, the size of its datagrams */
  bool drained;              /* the last read took all that the system had */
  bool is_v6;
  unsigned char *data; /* of that one */
  const struct ip_endpoint *source;
  struct ip_control control; /* beside that one */
  struct ip_stage_memory *memory;
};

/* An empty stage of 1..IP_STAGE_MOST slots; NULL when memory is short. */
struct ip_stage *ip_stage_new(size_t slots);
void ip_stage_free(struct ip_stage *stage);

/* Moves what `from`, which has one slot, still holds to an empty stage. */
void ip_stage_take_over(struct ip_stage *stage, const struct ip_stage *from);

/* Reads into an empty stage. Returns 0 or an errno value. */
int ip_stage_fill(struct ip_stage *stage, int fd, bool is_v6);

static inline bool ip_stage_is_empty(const struct ip_stage *stage) {
  return stage->next == stage->end;
}

/* Size of the next datagram; there is one. */
static inline size_t ip_stage_next_length(const struct ip_stage *stage) {
  size_t left = stage->length - stage->at;
  return left < stage->stride ? left : stage->stride;
}

/* Goes on behind the next `length` bytes, which are one datagram or all that were joined with it. */
void ip_stage_advance(struct ip_stage *stage, size_t length);

#endif
