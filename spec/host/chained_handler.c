/* chained_handler.c: a Lua module that installs a handler for SIGINT as other libraries do: it calls the handler
   that it has found. The module is a function that installs it, once in a process, and returns another that
   tells how often it has run. */
#include <lauxlib.h>
#include <lua.h>
#include <signal.h>
#include <stddef.h>

static struct sigaction former;
static volatile sig_atomic_t runs;

static void on_interrupt(int number, siginfo_t *information, void *context) {
  runs++;
  if (runs > 100) return; /* it has been called by the handler that it calls */
  if (former.sa_flags & SA_SIGINFO)
    former.sa_sigaction(number, information, context);
  else if (former.sa_handler != SIG_DFL && former.sa_handler != SIG_IGN)
    former.sa_handler(number);
}

static int count_runs(lua_State *L) {
  lua_pushinteger(L, runs);
  return 1;
}

static int install(lua_State *L) {
  struct sigaction action = {.sa_flags = SA_SIGINFO, .sa_sigaction = on_interrupt};
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGINT, &action, &former) != 0) return luaL_error(L, "sigaction failed");
  lua_pushcfunction(L, count_runs);
  return 1;
}

int luaopen_chained_handler(lua_State *L);

int luaopen_chained_handler(lua_State *L) {
  lua_pushcfunction(L, install);
  return 1;
}
