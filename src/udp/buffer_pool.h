/* buffer_pool.h: the read-ahead buffers and send queues that sockets share. Does not use Lua.

   A socket has a buffer only while it has datagrams in it. So sockets that are idle hold none, and sockets
   that are busy use the same few, which stay in the caches. */
#ifndef IP_BUFFER_POOL_H
#define IP_BUFFER_POOL_H

#include "base/util.h"
#include "udp/read_ahead.h"

/* Unused buffers, the one that was used last first. The first bytes of each are the address of the next
   one. */
struct ip_buffer_list {
  void *first;
  size_t count;
};

struct ip_send_queue;

struct ip_buffer_pool {
  size_t users; /* the pool is freed when the last one leaves */
  struct ip_buffer_list read_ahead;
  struct ip_buffer_list queues; /* struct ip_send_queue, which `free` frees */
};

/* Returns an empty pool with one user; NULL when memory is short. */
struct ip_buffer_pool *ip_buffer_pool_new(void);

/* Adds a user to the pool, or to a new one if that is NULL. Returns NULL when memory is short. */
struct ip_buffer_pool *ip_buffer_pool_join(struct ip_buffer_pool *pool);

/* NULL: does nothing. */
void ip_buffer_pool_leave(struct ip_buffer_pool *pool);

/* Removes and returns the first buffer of a list; NULL: there is none. */
static inline void *ip_buffer_list_take(struct ip_buffer_list *list) {
  void *buffer = list->first;
  if (buffer == NULL) return NULL;
  list->first = *(void **)buffer;
  list->count--;
  return buffer;
}

/* --- read-ahead buffers --- */

/* Adds a buffer to a pool that has none. Returns it; NULL when memory is short. */
struct ip_read_ahead *ip_buffer_pool_grow(struct ip_buffer_pool *pool);

/* Returns the first buffer, which stays in the pool; NULL when memory is short. */
static inline struct ip_read_ahead *ip_buffer_pool_first(struct ip_buffer_pool *pool) {
  return IP_LIKELY(pool->read_ahead.first != NULL) ? pool->read_ahead.first : ip_buffer_pool_grow(pool);
}

/* Removes and returns the first buffer; there must be one. */
static inline struct ip_read_ahead *ip_buffer_pool_take(struct ip_buffer_pool *pool) {
  return ip_buffer_list_take(&pool->read_ahead);
}

/* Gives a buffer back; NULL: does nothing. Datagrams that it still has are dropped. */
void ip_buffer_pool_give_back(struct ip_buffer_pool *pool, struct ip_read_ahead *buffer);

/* --- send queues --- */

/* Gives an empty queue back; NULL: does nothing. */
void ip_buffer_pool_give_queue_back(struct ip_buffer_pool *pool, struct ip_send_queue *queue);

#endif
