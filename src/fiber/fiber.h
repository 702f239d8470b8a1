/* fiber.h: fibers, and watches on the end of a fiber. */
#ifndef IP_FIBER_H
#define IP_FIBER_H

#include "base/compat.h"
#include "base/queue.h"

#include <stdbool.h>

/* Defines the class and pushes the table of C functions that ip.fiber builds on. [-0, +1, m] */
void ip_fiber_open(lua_State *L, int core);

/* Has the fiber at `arg` ended? Any other value is a bad argument. [-0, +0, v] */
bool ip_fiber_has_ended(lua_State *L, int arg);

/* An action at the end of a fiber. */
struct ip_fiber_watch {
  struct ip_queue link;                        /* detached while it watches no fiber */
  void (*ended)(struct ip_fiber_watch *watch); /* must not call Lua */
};

/* Calls `watch->ended` when the fiber at `arg` ends, which has not happened yet; ip_queue_remove of the link
   stops the watch. The caller keeps the fiber alive. A watch is not a join: the fiber's error is still
   reported or raised by join. [-0, +0, v] */
void ip_fiber_watch(lua_State *L, int arg, struct ip_fiber_watch *watch);

#endif
