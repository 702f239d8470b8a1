/* timer.h: pooled libuv timers with absolute deadlines. */
#ifndef IP_TIMER_H
#define IP_TIMER_H

#include <stdint.h>
#include <uv.h>

struct ip_runtime;

/* A point on uv_hrtime's clock, in nanoseconds. */
typedef uint64_t ip_deadline;

#define IP_NEVER UINT64_MAX /* no deadline */
#define IP_AT_ONCE 0        /* a call that would wait times out */

struct ip_timer {
  uv_timer_t uv; /* its data is the runtime */
  struct ip_timer *next_free;
  void (*fire)(struct ip_timer *timer); /* called inside uv_run; must not call Lua */
  void *owner;
};

/* Returns the deadline of a call that may last `seconds`: IP_NEVER for a negative or infinite number,
   IP_AT_ONCE for 0. */
ip_deadline ip_deadline_after(double seconds);

/* Returns a stopped timer, or NULL when memory is short. */
struct ip_timer *ip_timer_new(struct ip_runtime *runtime);

/* Calls `fire` at the deadline or later, never earlier. The deadline is not IP_NEVER. */
void ip_timer_start(struct ip_timer *timer, ip_deadline deadline, void (*fire)(struct ip_timer *timer),
                    void *owner);

/* Stops the timer and returns it to the pool. */
void ip_timer_free(struct ip_timer *timer);

#endif
