/* read_ahead_pool.h: the read-ahead buffers that sockets share. Does not use Lua.

   A socket has a buffer only while it has datagrams in it. So sockets that are idle hold none, and sockets that
   are busy use the same few, which stay in the caches. */
#ifndef IP_READ_AHEAD_POOL_H
#define IP_READ_AHEAD_POOL_H

#include "udp/read_ahead.h"

#include "base/util.h"

struct ip_read_ahead_pool {
  size_t users;               /* the pool is freed when the last one leaves */
  struct ip_read_ahead *free; /* empty buffers, the one that was used last first */
  size_t count;               /* of them */
};

/* Returns an empty pool with one user; NULL when memory is short. */
struct ip_read_ahead_pool *ip_read_ahead_pool_new(void);

/* Adds a user to the pool, or to a new one if that is NULL, and provides a buffer. Returns NULL when memory is
   short. */
struct ip_read_ahead_pool *ip_read_ahead_pool_join(struct ip_read_ahead_pool *pool);

/* NULL: does nothing. */
void ip_read_ahead_pool_leave(struct ip_read_ahead_pool *pool);

/* Adds a buffer to a pool that is empty. Returns it; NULL when memory is short. */
struct ip_read_ahead *ip_read_ahead_pool_grow(struct ip_read_ahead_pool *pool);

/* Returns the first buffer, which stays in the pool; NULL when memory is short. */
static inline struct ip_read_ahead *ip_read_ahead_pool_first(struct ip_read_ahead_pool *pool) {
  return IP_LIKELY(pool->free != NULL) ? pool->free : ip_read_ahead_pool_grow(pool);
}

/* Removes and returns the first buffer; there must be one. */
static inline struct ip_read_ahead *ip_read_ahead_pool_take(struct ip_read_ahead_pool *pool) {
  struct ip_read_ahead *buffer = pool->free;
  pool->free = buffer->next_free;
  pool->count--;
  return buffer;
}

/* Gives a buffer back; NULL: does nothing. Datagrams that it still has are dropped. */
void ip_read_ahead_pool_give_back(struct ip_read_ahead_pool *pool, struct ip_read_ahead *buffer);

#endif
