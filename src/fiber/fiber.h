/* fiber.h: fibers, and watches on the end of a fiber. */
#ifndef IP_FIBER_H
#define IP_FIBER_H

#include "base/compat.h"
#include "base/queue.h"

#include <stdbool.h>
#include <stddef.h>

/* Defines the class and pushes the table of C functions that ip.fiber builds on. [-0, +1, m] */
void ip_fiber_open(lua_State *L, int core);

/* Has the fiber at `arg` ended? Any other value is a bad argument. [-0, +0, v] */
bool ip_fiber_has_ended(lua_State *L, int arg);

/* Is it the running fiber? [-0, +0, v] */
bool ip_fiber_is_current(lua_State *L, int arg);

/* An action at the end of a fiber. */
struct ip_fiber_watch {
  struct ip_queue link;                        /* detached while it watches no fiber */
  void (*ended)(struct ip_fiber_watch *watch); /* must not call Lua */
};

/* Calls `watch->ended` when the fiber at `arg` ends, which has not happened yet; ip_queue_remove of the link
   stops the watch. The caller keeps the fiber alive. A watch is not a join: the fiber's error is still
   reported or raised by join. [-0, +0, v] */
void ip_fiber_watch(lua_State *L, int arg, struct ip_fiber_watch *watch);

/* What fibers may belong to. It is the first member of a userdata, which its members keep alive. */
struct ip_fiber_group {
  struct ip_queue members; /* those that have not ended */
  size_t size;             /* their number */
  /* The fiber at index `fiber` has ended, and is a member no longer. The group's userdata and, if it has
     failed, the fiber's error are on top of the stack. Does not raise. [-0, +0, -] */
  void (*ended)(lua_State *L, struct ip_fiber_group *group, int fiber, bool failed);
};

/* Starts a fiber: the function at `first` and its arguments, up to the top of the stack, become the fiber. It
   is a member of `group`, whose userdata is at index 1; NULL: of none. [-n, +1, v] */
void ip_fiber_start(lua_State *L, int first, struct ip_fiber_group *group);

/* Is the running coroutine a member of the group? [-0, +0, -] */
bool ip_fiber_is_in(lua_State *L, const struct ip_fiber_group *group);

/* Pushes the traceback of the fiber at `index`, which has failed, or nil. [-0, +1, -] */
void ip_fiber_push_traceback(lua_State *L, int index);

/* Interrupts all members. Does not call Lua. */
void ip_fiber_interrupt_all(struct ip_fiber_group *group);

#endif
