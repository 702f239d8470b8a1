/* fiber.h: fibers, deadlines and shields. Layer 5. */
#ifndef IP_FIBER_H
#define IP_FIBER_H

#include "runtime.h"

/* Defines the classes and pushes a table of functions for the Lua face ip.fiber. [-0, +1, m] */
void ip_fiber_open(lua_State *L, int core);

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
