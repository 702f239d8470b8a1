/* datagram_queue.c: a FIFO of datagrams. A queue owns its datagrams, and the pool the free buffers. Raises
   nothing.

   Buffers have sizes that are powers of two, so that a short datagram takes little memory, and any free
   buffer of its size serves a datagram. The pool keeps at most KEPT bytes: what a burst needed goes back to
   the system. */
#include "udp/datagram_queue.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 64, KEPT = 256 * 1024 };

static size_t bytes_of(unsigned size) {
  return (size_t)SMALLEST << size;
}

static struct ip_queued_datagram *take(struct ip_datagram_pool *pool, size_t length) {
  unsigned size = 0;
  while (bytes_of(size) < length)
    size++;
  struct ip_queued_datagram *datagram = pool->free[size];
  if (datagram != NULL) {
    pool->free[size] = datagram->next;
    pool->bytes -= bytes_of(size);
    return datagram;
  }
  datagram = malloc(sizeof *datagram + bytes_of(size));
  if (datagram != NULL) datagram->size = size;
  return datagram;
}

static void give_back(struct ip_datagram_pool *pool, struct ip_queued_datagram *datagram) {
  size_t bytes = bytes_of(datagram->size);
  if (pool == NULL || pool->bytes + bytes > KEPT) {
    free(datagram);
    return;
  }
  datagram->next = pool->free[datagram->size];
  pool->free[datagram->size] = datagram;
  pool->bytes += bytes;
}

bool ip_datagram_queue_push(struct ip_datagram_queue *queue, struct ip_datagram_pool *pool, const void *data,
                            size_t length) {
  struct ip_queued_datagram *datagram = take(pool, length);
  if (datagram == NULL) return false;
  datagram->next = NULL;
  datagram->length = (unsigned)length;
  memcpy(datagram->data, data, length);
  if (queue->last != NULL)
    queue->last->next = datagram;
  else
    queue->first = datagram;
  queue->last = datagram;
  queue->count++;
  return true;
}

void ip_datagram_queue_drop(struct ip_datagram_queue *queue, struct ip_datagram_pool *pool) {
  struct ip_queued_datagram *oldest = queue->first;
  queue->first = oldest->next;
  if (queue->first == NULL) queue->last = NULL;
  queue->count--;
  give_back(pool, oldest);
}

void ip_datagram_queue_clear(struct ip_datagram_queue *queue, struct ip_datagram_pool *pool) {
  while (queue->first != NULL)
    ip_datagram_queue_drop(queue, pool);
}

void ip_datagram_pool_clear(struct ip_datagram_pool *pool) {
  for (int size = 0; size < IP_DATAGRAM_SIZES; size++)
    while (pool->free[size] != NULL) {
      struct ip_queued_datagram *datagram = pool->free[size];
      pool->free[size] = datagram->next;
      free(datagram);
    }
  pool->bytes = 0;
}
