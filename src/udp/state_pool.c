/* state_pool.c: the pool of buffers that all sockets of a Lua state share.

   A userdata in the registry is one user of the pool, and each socket that queues datagrams is another: in
   whatever order they end, the last one frees it. */
#include "udp/state_pool.h"

#include <lauxlib.h>

static const char pool_key = 0;

struct user {
  struct ip_buffer_pool *pool; /* NULL: memory was short, or the state is ending */
};

static int collect(lua_State *L) {
  struct user *user = lua_touserdata(L, 1);
  ip_buffer_pool_leave(user->pool);
  user->pool = NULL;
  return 0;
}

void ip_state_pool_open(lua_State *L) {
  struct user *user = lua_newuserdatauv(L, sizeof *user, 0);
  user->pool = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pool_key);
  user->pool = ip_buffer_pool_new();
  lua_pop(L, 1);
}

struct ip_buffer_pool *ip_state_pool(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
  const struct user *user = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return user != NULL ? user->pool : NULL;
}
