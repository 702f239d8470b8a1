/* fork_host.c: a C program that runs a Lua program which forks. With CORE, the path of ip/core.so, the
   library runs on a loop of the host's, which goes on after PROGRAM until nothing is left in it, in both
   processes.

   Ctrl-C raises the error "interrupted!" in Lua, as in the standalone interpreter. The name slow.test is
   looked up for SLOW_SECONDS, and is then that of localhost.

   usage: fork_host PROGRAM [CORE] */
#include <dlfcn.h>
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lua_ip.h>
#include <lualib.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

enum { SLOW_SECONDS = 2 };

typedef int (*use_loop)(lua_State *L, struct uv_loop_s *loop);
typedef int (*look_up)(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result);

static uv_loop_t loop;
static lua_State *state;

/* Takes the place of the C library's for libuv. */
int getaddrinfo(const char *restrict node, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict result) {
  look_up next;
  void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
  memcpy(&next, &symbol, sizeof next);
  if (node == NULL || strcmp(node, "slow.test") != 0) return next(node, service, hints, result);
  sleep(SLOW_SECONDS);
  return next("localhost", service, hints, result);
}

/* fork() -> process id; 0 in the child. */
static int host_fork(lua_State *L) {
  fflush(NULL);
  lua_pushinteger(L, fork());
  return 1;
}

/* wait(pid) -> exit code, or -1 for a child that a signal has ended. */
static int host_wait(lua_State *L) {
  int status = 0;
  pid_t pid = (pid_t)luaL_checkinteger(L, 1);
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return luaL_error(L, "waitpid: %s", strerror(errno));
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return 1;
}

/* pid() -> process id. */
static int host_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

/* limit(descriptors): no descriptor of that number or above can be opened any more. */
static int host_limit(lua_State *L) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = (rlim_t)luaL_checkinteger(L, 1);
  setrlimit(RLIMIT_NOFILE, &limit);
  return 0;
}

/* loop_fork() -> status of uv_loop_fork on the host's loop. */
static int host_loop_fork(lua_State *L) {
  lua_pushinteger(L, uv_loop_fork(&loop));
  return 1;
}

static void stop(lua_State *L, lua_Debug *activation) {
  (void)activation;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted!");
}

static void on_interrupt(int number) {
  (void)number;
  lua_sethook(state, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static const luaL_Reg functions[] = {{"fork", host_fork},   {"wait", host_wait},           {"pid", host_pid},
                                     {"limit", host_limit}, {"loop_fork", host_loop_fork}, {NULL, NULL}};

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

static int adopt_loop(lua_State *L, void *core) {
  use_loop use;
  void *symbol = dlsym(core, "lua_ip_use_loop");
  memcpy(&use, &symbol, sizeof use);
  if (luaL_dostring(L, "require 'ip'") != LUA_OK) return fail("require", lua_tostring(L, -1));
  int status = use(L, &loop);
  return status == 0 ? 0 : fail("use_loop", uv_strerror(status));
}

static int run(lua_State *L, const char *program, void *core) {
  luaL_openlibs(L);
  luaL_newlib(L, functions);
  lua_setglobal(L, "host");
  if (core != NULL && adopt_loop(L, core) != 0) return 1;
  if (luaL_dofile(L, program) != LUA_OK) return fail("program", lua_tostring(L, -1));
  if (core != NULL) uv_run(&loop, UV_RUN_DEFAULT);
  return 0;
}

int main(int count, char **arguments) {
  if (count < 2) return fail("usage", "fork_host PROGRAM [CORE]");
  void *core = count > 2 ? dlopen(arguments[2], RTLD_NOW) : NULL;
  if (count > 2 && core == NULL) return fail("dlopen", dlerror());
  uv_loop_init(&loop);
  struct sigaction interrupt = {.sa_handler = on_interrupt};
  sigaction(SIGINT, &interrupt, NULL);
  state = luaL_newstate();
  int result = run(state, arguments[1], core);
  lua_close(state);
  uv_run(&loop, UV_RUN_NOWAIT);
  int status = uv_loop_close(&loop);
  if (status != 0 && result == 0) result = fail("uv_loop_close", uv_strerror(status));
  return result;
}
