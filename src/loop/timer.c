/* timer.c: pooled libuv timers. The runtime owns all timers: each one is in the chain of free timers, or is
   lent to one owner. Nothing here calls Lua or raises. */
#include "loop/timer.h"

#include "base/util.h"
#include "loop/runtime.h"

#include <math.h>
#include <stdlib.h>

static const double NANOSECONDS_PER_SECOND = 1e9;
static const double LONGEST = 9e18; /* nanoseconds: 285 years; its sum with the clock fits uint64_t */
enum { NANOSECONDS_PER_TICK = 1000000 };

ip_deadline ip_deadline_after(double seconds) {
  double wanted = seconds * NANOSECONDS_PER_SECOND;
  if (seconds == 0) return IP_AT_ONCE;
  if (seconds < 0 || isinf(seconds)) return IP_NEVER;
  return uv_hrtime() + (uint64_t)(wanted < LONGEST ? wanted : LONGEST);
}

struct ip_timer *ip_timer_new(struct ip_runtime *runtime) {
  struct ip_timer *timer = runtime->free_timers;
  if (timer != NULL) {
    runtime->free_timers = timer->next_free;
    return timer;
  }
  timer = malloc(sizeof *timer);
  if (timer == NULL) return NULL;
  if (uv_timer_init(runtime->loop, &timer->uv) != 0) {
    free(timer);
    return NULL;
  }
  timer->uv.data = runtime;
  ip_runtime_handle_opened(runtime);
  return timer;
}

static void on_timer(uv_timer_t *uv) {
  struct ip_timer *timer = ip_container_of(uv, struct ip_timer, uv);
  struct ip_runtime *runtime = uv->data;
  runtime->external_waits--;
  timer->fire(timer);
}

/* The loop counts whole milliseconds of uv_hrtime's clock. The deadline is rounded up on that clock, so that
   a timer never fires early. */
void ip_timer_start(struct ip_timer *timer, ip_deadline deadline, void (*fire)(struct ip_timer *timer),
                    void *owner) {
  struct ip_runtime *runtime = timer->uv.data;
  uint64_t tick = deadline / NANOSECONDS_PER_TICK + (deadline % NANOSECONDS_PER_TICK != 0);
  uv_update_time(runtime->loop);
  uint64_t now = uv_now(runtime->loop);
  timer->fire = fire;
  timer->owner = owner;
  /* fails only without a callback or on a closing handle (libuv src/timer.c) */
  (void)uv_timer_start(&timer->uv, on_timer, tick > now ? tick - now : 0, 0);
  runtime->external_waits++;
}

void ip_timer_free(struct ip_timer *timer) {
  struct ip_runtime *runtime = timer->uv.data;
  if (uv_is_active((const uv_handle_t *)&timer->uv)) {
    (void)uv_timer_stop(&timer->uv); /* always 0 (libuv src/timer.c) */
    runtime->external_waits--;
  }
  timer->next_free = runtime->free_timers;
  runtime->free_timers = timer;
}
