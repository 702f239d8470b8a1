/* datagram_queue.h: datagrams that wait for their session, and the pool of their buffers. Knows neither Lua
   nor the loop. */
#ifndef IP_DATAGRAM_QUEUE_H
#define IP_DATAGRAM_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

enum { IP_DATAGRAM_SIZES = 11 }; /* of buffers: 64, 128, ... 65536 bytes */

struct ip_queued_datagram {
  struct ip_queued_datagram *next;
  unsigned size;   /* of the buffer: 64 << size */
  unsigned length; /* of the datagram */
  unsigned char data[];
};

/* Free buffers, which datagrams use again. */
struct ip_datagram_pool {
  struct ip_queued_datagram *free[IP_DATAGRAM_SIZES];
  size_t bytes; /* in them */
};

struct ip_datagram_queue {
  struct ip_queued_datagram *first, *last;
  size_t count;
};

/* Copies a datagram of at most 65536 bytes to the end of the queue. Returns false when memory is short. */
bool ip_datagram_queue_push(struct ip_datagram_queue *queue, struct ip_datagram_pool *pool, const void *data,
                            size_t length);

/* Drops the oldest datagram; there is one. Its buffer goes to the pool; NULL: to the system. */
void ip_datagram_queue_drop(struct ip_datagram_queue *queue, struct ip_datagram_pool *pool);
void ip_datagram_queue_clear(struct ip_datagram_queue *queue, struct ip_datagram_pool *pool);

/* Gives the free buffers back to the system. */
void ip_datagram_pool_clear(struct ip_datagram_pool *pool);

#endif
