/* state_pool.h: the pool of read-ahead buffers that all sockets of a Lua state share. */
#ifndef IP_STATE_POOL_H
#define IP_STATE_POOL_H

#include "udp/read_ahead_pool.h"

#include <lua.h>

/* Creates the pool. [-0, +0, m] */
void ip_state_pool_open(lua_State *L);

/* Returns the pool; NULL if memory was short, or if the state is ending and its pool has ended. [-0, +0, -] */
struct ip_read_ahead_pool *ip_state_pool(lua_State *L);

#endif
