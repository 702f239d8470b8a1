/* buffer_pool.c: the read-ahead buffers and send queues that sockets share. Owns those that no socket has.
   Does not use Lua and raises nothing. */
#include "udp/buffer_pool.h"

#include <stdlib.h>

/* Buffers beyond these are freed. Few sockets have datagrams in a read-ahead buffer while others read; all
   that send in an iteration have a queue until its end. */
enum { MOST_READ_AHEAD = 8, MOST_QUEUES = 64 };

struct ip_buffer_pool *ip_buffer_pool_new(void) {
  struct ip_buffer_pool *pool = calloc(1, sizeof *pool);
  if (pool != NULL) pool->users = 1;
  return pool;
}

struct ip_buffer_pool *ip_buffer_pool_join(struct ip_buffer_pool *pool) {
  if (pool == NULL) return ip_buffer_pool_new();
  pool->users++;
  return pool;
}

void ip_buffer_pool_leave(struct ip_buffer_pool *pool) {
  if (pool == NULL || --pool->users != 0) return;
  while (pool->read_ahead.first != NULL)
    ip_read_ahead_free(ip_buffer_pool_take(pool));
  while (pool->queues.first != NULL)
    free(ip_buffer_list_take(&pool->queues));
  free(pool);
}

static void add(struct ip_buffer_list *list, void *buffer) {
  *(void **)buffer = list->first;
  list->first = buffer;
  list->count++;
}

struct ip_read_ahead *ip_buffer_pool_grow(struct ip_buffer_pool *pool) {
  struct ip_read_ahead *buffer = ip_read_ahead_new();
  if (buffer != NULL) add(&pool->read_ahead, buffer);
  return buffer;
}

void ip_buffer_pool_give_back(struct ip_buffer_pool *pool, struct ip_read_ahead *buffer) {
  if (buffer == NULL) return;
  buffer->next = buffer->end;
  if (pool->read_ahead.count < MOST_READ_AHEAD)
    add(&pool->read_ahead, buffer);
  else
    ip_read_ahead_free(buffer);
}

void ip_buffer_pool_give_queue_back(struct ip_buffer_pool *pool, struct ip_send_queue *queue) {
  if (queue == NULL) return;
  if (pool->queues.count < MOST_QUEUES)
    add(&pool->queues, queue);
  else
    free(queue);
}
