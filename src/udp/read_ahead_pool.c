/* read_ahead_pool.c: the read-ahead buffers that sockets share. Owns the buffers that no socket has. Does not use
   Lua and raises nothing. */
#include "udp/read_ahead_pool.h"

#include <stdlib.h>

/* Empty buffers beyond these are freed: several sockets that are busy at a time may have one each. */
enum { MOST_FREE = 8 };

struct ip_read_ahead_pool *ip_read_ahead_pool_new(void) {
  struct ip_read_ahead_pool *pool = calloc(1, sizeof *pool);
  if (pool != NULL) pool->users = 1;
  return pool;
}

struct ip_read_ahead_pool *ip_read_ahead_pool_join(struct ip_read_ahead_pool *pool) {
  if (pool != NULL)
    pool->users++;
  else
    pool = ip_read_ahead_pool_new();
  if (pool == NULL || ip_read_ahead_pool_first(pool) != NULL) return pool;
  ip_read_ahead_pool_leave(pool);
  return NULL;
}

void ip_read_ahead_pool_leave(struct ip_read_ahead_pool *pool) {
  if (pool == NULL || --pool->users != 0) return;
  while (pool->free != NULL)
    ip_read_ahead_free(ip_read_ahead_pool_take(pool));
  free(pool);
}

static void add(struct ip_read_ahead_pool *pool, struct ip_read_ahead *buffer) {
  buffer->next_free = pool->free;
  pool->free = buffer;
  pool->count++;
}

struct ip_read_ahead *ip_read_ahead_pool_grow(struct ip_read_ahead_pool *pool) {
  struct ip_read_ahead *buffer = ip_read_ahead_new();
  if (buffer != NULL) add(pool, buffer);
  return buffer;
}

void ip_read_ahead_pool_give_back(struct ip_read_ahead_pool *pool, struct ip_read_ahead *buffer) {
  if (buffer == NULL) return;
  buffer->next = buffer->end;
  if (pool->count < MOST_FREE)
    add(pool, buffer);
  else
    ip_read_ahead_free(buffer);
}
