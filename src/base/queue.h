/* queue.h: an intrusive, circular, doubly linked FIFO. Layer 0.

   A queue owns none of its members. A node is either linked in exactly one queue or points to itself
   ("detached"); a queue is a node whose `next` is its oldest member and whose `previous` is its newest.
   Nothing is allocated, and nothing can fail. Code that walks a queue whose members a program may change
   meanwhile moves all members to a queue of its own first (ip_queue_move). */
#ifndef IP_QUEUE_H
#define IP_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

struct ip_queue {
  struct ip_queue *next;
  struct ip_queue *previous;
};

static inline void ip_queue_init(struct ip_queue *node) {
  node->next = node;
  node->previous = node;
}

static inline bool ip_queue_is_empty(const struct ip_queue *queue) {
  return queue->next == queue;
}

static inline bool ip_queue_is_linked(const struct ip_queue *node) {
  return node->next != node;
}

static inline void ip_queue_append(struct ip_queue *queue, struct ip_queue *node) {
  node->next = queue;
  node->previous = queue->previous;
  queue->previous->next = node;
  queue->previous = node;
}

/* Removes a node from the queue that it is linked in; a detached node stays detached. */
static inline void ip_queue_remove(struct ip_queue *node) {
  node->previous->next = node->next;
  node->next->previous = node->previous;
  ip_queue_init(node);
}

/* Removes and returns the oldest member; NULL when there is none. */
static inline struct ip_queue *ip_queue_pop(struct ip_queue *queue) {
  struct ip_queue *node = queue->next;
  if (node == queue) return NULL;
  ip_queue_remove(node);
  return node;
}

/* Moves all members of `from` behind those of `to`, in order. */
static inline void ip_queue_move(struct ip_queue *to, struct ip_queue *from) {
  if (ip_queue_is_empty(from)) return;
  from->next->previous = to->previous;
  to->previous->next = from->next;
  from->previous->next = to;
  to->previous = from->previous;
  ip_queue_init(from);
}

#endif
