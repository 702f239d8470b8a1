/* queue.h: ip.fiber.queue, a queue of Lua values between coroutines. */
#ifndef IP_FIBER_QUEUE_H
#define IP_FIBER_QUEUE_H

#include "base/compat.h"
#include "loop/observer.h"

#include <stdbool.h>

/* Defines the class, and adds `queue` to the table on top of the stack. [-0, +0, m] */
void ip_fiber_queue_open(lua_State *L, int core);

/* Would `get` of the queue at `index` not wait? [-0, +0, -] */
bool ip_fiber_queue_is_ready(lua_State *L, int index);

/* Notifies `observer` when `get` would not wait any more, which it does now; ip_queue_remove of its link ends
   that. A queue that is collected only forgets its observers. [-0, +0, -] */
void ip_fiber_queue_observe(lua_State *L, int index, struct ip_observer *observer);

#endif
