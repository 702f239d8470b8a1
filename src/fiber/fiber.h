/* fiber.h: fibers. */
#ifndef IP_FIBER_H
#define IP_FIBER_H

#include "base/compat.h"
#include "base/queue.h"

#include <stdbool.h>

/* Defines the class and pushes a table of functions for the Lua face ip.fiber. [-0, +1, m] */
void ip_fiber_open(lua_State *L, int core);

/* Has the fiber at `arg` ended? Anything else there is a bad argument. [-0, +0, v] */
bool ip_fiber_has_ended(lua_State *L, int arg);

/* Something that is to happen at the end of a fiber. */
struct ip_fiber_watch {
  struct ip_queue link;                        /* detached: it watches nothing */
  void (*ended)(struct ip_fiber_watch *watch); /* no Lua */
};

/* Calls `watch->ended` when the fiber at `arg`, which has not ended, does so; ip_queue_remove of the link ends that. The
   caller holds the fiber. Watching is not joining: the fiber's error goes where it would have gone. [-0, +0, v] */
void ip_fiber_watch(lua_State *L, int arg, struct ip_fiber_watch *watch);

#endif
