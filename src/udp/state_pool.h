/* state_pool.h: the pool of buffers that all sockets of a Lua state share. */
#ifndef IP_STATE_POOL_H
#define IP_STATE_POOL_H

#include "udp/buffer_pool.h"

#include <lua.h>

/* Creates the pool. [-0, +0, m] */
void ip_state_pool_open(lua_State *L);

/* Returns the pool; NULL if memory was short, or if the state is ending and its pool has ended. [-0, +0,
   -] */
struct ip_buffer_pool *ip_state_pool(lua_State *L);

#endif
