/* timer.c: pooled timers. The runtime owns all of them: a timer is in the chain of free ones, or lent to one
   owner. Nothing here calls Lua or raises.

   Those that run are in a pairing heap (Fredman, Sedgewick, Sleator, Tarjan: The pairing heap, 1986): to
   start one takes a comparison, and to stop one that has no children, as most have that are stopped before
   their deadline, a few assignments. Whatever else is O(log n) in the long run. */
#include "loop/timer.h"

#include "base/util.h"
#include "loop/alarm.h"
#include "loop/runtime.h"

#include <math.h>
#include <stdlib.h>

static const double NANOSECONDS_PER_SECOND = 1e9;
static const double LONGEST =
    9e18; /* nanoseconds: 285 years, and uint64_t holds the sum of it and the clock */

enum { TIMERS_PER_BLOCK = 32 };

struct ip_timer_block {
  struct ip_timer_block *next;
  struct ip_timer timers[TIMERS_PER_BLOCK];
};

ip_deadline ip_deadline_after(double seconds) {
  double wanted = seconds * NANOSECONDS_PER_SECOND;
  if (seconds == 0) return IP_AT_ONCE;
  if (seconds < 0 || isinf(seconds)) return IP_NEVER;
  return uv_hrtime() + (uint64_t)(wanted < LONGEST ? wanted : LONGEST);
}

/* --- the heap --- */

/* Makes one heap of two, each of which may be NULL. */
static struct ip_timer *merge(struct ip_timer *a, struct ip_timer *b) {
  if (a == NULL) return b;
  if (b == NULL) return a;
  if (b->deadline < a->deadline) {
    struct ip_timer *earlier = b;
    b = a;
    a = earlier;
  }
  b->next = a->child;
  if (a->child != NULL) a->child->previous = b;
  b->previous = a;
  a->child = b;
  return a;
}

/* Takes the first heap out of a chain of siblings. */
static struct ip_timer *pop_sibling(struct ip_timer **chain) {
  struct ip_timer *heap = *chain;
  if (heap == NULL) return NULL;
  *chain = heap->next;
  heap->next = NULL;
  return heap;
}

/* Makes one heap of a chain of siblings: first of every two, and then, from the last to the first, of all. */
static struct ip_timer *merge_siblings(struct ip_timer *siblings) {
  struct ip_timer *pairs = NULL, *heap = NULL;
  while (siblings != NULL) {
    struct ip_timer *older = pop_sibling(&siblings), *younger = pop_sibling(&siblings);
    struct ip_timer *pair = merge(older, younger);
    pair->next = pairs;
    pairs = pair;
  }
  while (pairs != NULL)
    heap = merge(heap, pop_sibling(&pairs));
  return heap;
}

static void insert(struct ip_timers *timers, struct ip_timer *timer) {
  timer->child = timer->next = timer->previous = NULL;
  timers->first = merge(timers->first, timer);
}

static void take_out(struct ip_timers *timers, struct ip_timer *timer) {
  struct ip_timer *rest = timer->child != NULL ? merge_siblings(timer->child) : NULL;
  if (timer == timers->first) {
    timers->first = rest;
    return;
  }
  if (timer->previous->child == timer)
    timer->previous->child = timer->next;
  else
    timer->previous->next = timer->next;
  if (timer->next != NULL) timer->next->previous = timer->previous;
  if (rest != NULL) timers->first = merge(timers->first, rest);
}

/* --- the pool --- */

static bool extend_pool(struct ip_timers *timers) {
  struct ip_timer_block *block = malloc(sizeof *block);
  if (block == NULL) return false;
  block->next = timers->blocks;
  timers->blocks = block;
  for (size_t i = 0; i < TIMERS_PER_BLOCK; i++) {
    block->timers[i] = (struct ip_timer){.next = timers->free};
    timers->free = &block->timers[i];
  }
  return true;
}

struct ip_timer *ip_timer_new(struct ip_runtime *runtime) {
  struct ip_timers *timers = &runtime->timers;
  if (IP_UNLIKELY(timers->alarm == NULL)) timers->alarm = ip_alarm_new(runtime);
  if (IP_UNLIKELY(timers->alarm == NULL)) return NULL;
  if (IP_UNLIKELY(timers->free == NULL) && !extend_pool(timers)) return NULL;
  struct ip_timer *timer = timers->free;
  timers->free = timer->next;
  return timer;
}

void ip_timers_fini(struct ip_timers *timers) {
  while (timers->blocks != NULL) {
    struct ip_timer_block *block = timers->blocks;
    timers->blocks = block->next;
    free(block);
  }
  *timers = (struct ip_timers){.first = NULL};
}

/* --- running --- */

static void stop(struct ip_runtime *runtime, struct ip_timer *timer) {
  take_out(&runtime->timers, timer);
  timer->fire = NULL;
  ip_runtime_end_external_wait(runtime);
  if (runtime->timers.first == NULL) ip_alarm_rest(runtime->timers.alarm);
}

void ip_timer_start(struct ip_runtime *runtime, struct ip_timer *timer, ip_deadline deadline,
                    void (*fire)(struct ip_runtime *runtime, struct ip_timer *timer), void *owner) {
  timer->deadline = deadline;
  timer->fire = fire;
  timer->owner = owner;
  insert(&runtime->timers, timer);
  ip_runtime_begin_external_wait(runtime);
  if (runtime->timers.first == timer) ip_alarm_hasten(runtime->timers.alarm, deadline);
}

void ip_timer_free(struct ip_runtime *runtime, struct ip_timer *timer) {
  if (timer->fire != NULL) stop(runtime, timer);
  timer->next = runtime->timers.free;
  runtime->timers.free = timer;
}

ip_deadline ip_timers_next(const struct ip_timers *timers) {
  return timers->first != NULL ? timers->first->deadline : IP_NEVER;
}

bool ip_timers_fire(struct ip_runtime *runtime) {
  uint64_t now = uv_hrtime();
  bool some = false;
  while (ip_timers_next(&runtime->timers) <= now) {
    struct ip_timer *timer = runtime->timers.first;
    void (*fire)(struct ip_runtime *, struct ip_timer *) = timer->fire;
    stop(runtime, timer);
    fire(runtime, timer);
    some = true;
  }
  return some;
}
