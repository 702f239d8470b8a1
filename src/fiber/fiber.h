/* fiber.h: fibers, deadlines and shields. Layer 5. */
#ifndef IP_FIBER_H
#define IP_FIBER_H

#include "loop/runtime.h"

/* Defines the classes and pushes a table of functions for the Lua face ip.fiber. [-0, +1, m] */
void ip_fiber_open(lua_State *L, int core);

/* Has the fiber at `arg` ended? Anything else there is a bad argument. [-0, +0, v] */
bool ip_fiber_has_ended(lua_State *L, int arg);

/* Lets an ARMED operation end with IP_FIBER_ENDED (category IP_ERROR_FIBER) when the fiber at `arg`, which
   has not ended, does so. The frame that waits in the operation holds the fiber. Watching is not joining: the
   fiber's error goes where it would have gone. [-0, +0, v] */
void ip_fiber_watch(lua_State *L, int arg, struct ip_operation *operation);

/* Defines the classes and adds scope, scope_finish and shield to the table on top of the stack. [-0, +0, m]
 */
void ip_scope_open(lua_State *L, int core);

/* Add wait_fd, wait_signal and the face of the loop to the table on top of the stack. [-0, +0, m] */
void ip_descriptor_wait_open(lua_State *L, int core);
void ip_signal_open(lua_State *L, int core);
void ip_host_loop_open(lua_State *L, int core);

/* Adds what ip.fiber.coroutine is made of. [-0, +0, m] */
void ip_relay_open(lua_State *L, int core);

#endif
