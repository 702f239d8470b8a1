/* timer.h: pooled timers with absolute deadlines. One alarm of the system's serves all timers of a runtime
   (alarm.h). */
#ifndef IP_TIMER_H
#define IP_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct ip_alarm;
struct ip_runtime;
struct ip_timer_block;

/* A point on uv_hrtime's clock, in nanoseconds. */
typedef uint64_t ip_deadline;

#define IP_NEVER UINT64_MAX /* no deadline */
#define IP_AT_ONCE 0        /* a call that would wait times out */

struct ip_timer {
  /* in the heap: its oldest child, its younger sibling, and its older sibling or, of a first child, its
     parent */
  struct ip_timer *child;
  struct ip_timer *next; /* in the chain of free timers: the next one */
  struct ip_timer *previous;
  ip_deadline deadline;
  /* Called inside uv_run: no Lua. NULL: the timer does not run. */
  void (*fire)(struct ip_runtime *runtime, struct ip_timer *timer);
  void *owner;
};

/* The timers of one runtime. */
struct ip_timers {
  struct ip_timer *first;        /* of those that run, the one with the earliest deadline */
  struct ip_timer *free;         /* neither running nor lent */
  struct ip_timer_block *blocks; /* the memory of all */
  struct ip_alarm *alarm;        /* made with the first timer */
};

/* The deadline of a call that may take so many seconds: negative or infinite, IP_NEVER; 0, IP_AT_ONCE. */
ip_deadline ip_deadline_after(double seconds);

/* A stopped timer, or NULL when memory is short. The loop is open. */
struct ip_timer *ip_timer_new(struct ip_runtime *runtime);

/* Calls `fire` at the deadline, which is not IP_NEVER, or later, never earlier. */
void ip_timer_start(struct ip_runtime *runtime, struct ip_timer *timer, ip_deadline deadline,
                    void (*fire)(struct ip_runtime *runtime, struct ip_timer *timer), void *owner);

/* Stops the timer and returns it to the pool. */
void ip_timer_free(struct ip_runtime *runtime, struct ip_timer *timer);

/* The earliest deadline, or IP_NEVER. */
ip_deadline ip_timers_next(const struct ip_timers *timers);

/* Stops the timers whose deadline has come and calls their `fire`. False: there were none. */
bool ip_timers_fire(struct ip_runtime *runtime);

/* Gives the memory of all timers back, the lent ones included; not the alarm's. */
void ip_timers_fini(struct ip_timers *timers);

#endif
