/* fuzz_host.c: runs a program of Lua whose allocations, those of libuv and the system calls under it fail now
   and then. faulty_system.so, which is loaded before, decides which; the program says when, with the module
   "fault_host". Exit code: the program's, or 1 for an error.

   usage: fuzz_host PROGRAM [ARGUMENT...] */
#include "base/compat.h"
#include "faulty_system.h"

#include <dlfcn.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static void (*set_faults)(const struct fault_plan *plan);
static void (*fail_next)(const char *calls, int code, unsigned after);
static void (*hold_faults)(int change);
static bool (*fails)(void);
static const struct fault_counts *(*counts)(void);

static void find(const char *name, void *function, size_t size) {
  void *found = dlsym(RTLD_DEFAULT, name);
  if (found == NULL) {
    fprintf(stderr, "%s is missing: faulty_system.so has to be loaded before (LD_PRELOAD)\n", name);
    exit(2);
  }
  memcpy(function, &found, size);
}

/* --- memory --- */

static void *allocate(void *context, void *block, size_t old_size, size_t new_size) {
  (void)context;
  if (new_size == 0) {
    free(block);
    return NULL;
  }
  bool grows = block == NULL || new_size > old_size; /* shrinking never fails (Lua manual, lua_Alloc) */
  return grows && fails() ? NULL : realloc(block, new_size);
}

static void *uv_allocate(size_t size) {
  return fails() ? NULL : malloc(size);
}

static void *uv_reallocate(void *block, size_t size) {
  return fails() ? NULL : realloc(block, size);
}

static void *uv_allocate_zeroed(size_t count, size_t size) {
  return fails() ? NULL : calloc(count, size);
}

/* --- the module "fault_host" --- */

/* play(seed, system, memory, soft, fn, ...) -> pcall(fn, ...): faults are played meanwhile; see struct
   fault_plan. In C, for a function of Lua could fail before or after. */
static int fault_play(lua_State *L) {
  static const struct fault_plan nothing = {.soft = true};
  struct fault_plan plan = {.seed = (uint64_t)luaL_checkinteger(L, 1),
                            .system = (unsigned)luaL_checkinteger(L, 2),
                            .memory = (unsigned)luaL_checkinteger(L, 3),
                            .soft = lua_toboolean(L, 4)};
  set_faults(&plan);
  int status = lua_pcall(L, lua_gettop(L) - 5, LUA_MULTRET, 0);
  set_faults(&nothing);
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 4);
  return lua_gettop(L) - 3;
}

/* fail_next(calls, code[, after]): see faults_fail_next. */
static int fault_fail_next(lua_State *L) {
  fail_next(luaL_checkstring(L, 1), (int)luaL_checkinteger(L, 2), (unsigned)luaL_optinteger(L, 3, 0));
  return 0;
}

/* hold(), release(): faults are held back between the two, which nest. They need no memory. */
static int fault_hold(lua_State *L) {
  (void)L;
  hold_faults(1);
  return 0;
}

static int fault_release(lua_State *L) {
  (void)L;
  hold_faults(-1);
  return 0;
}

/* counts() -> calls, failed, hard, allocations, no_memory, polls */
static int fault_counts(lua_State *L) {
  const struct fault_counts *now = counts();
  const uint64_t values[] = {now->calls,       now->failed,    now->hard,
                             now->allocations, now->no_memory, now->polls};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    lua_pushinteger(L, (lua_Integer)values[i]);
  return sizeof values / sizeof values[0];
}

/* injected(code) -> how many calls have failed with that errno value */
static int fault_injected(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)counts()->codes[luaL_checkinteger(L, 1) & 255]);
  return 1;
}

static int open_module(lua_State *L) {
  static const luaL_Reg functions[] = {{"play", fault_play},
                                       {"fail_next", fault_fail_next},
                                       {"hold", fault_hold},
                                       {"release", fault_release},
                                       {"counts", fault_counts},
                                       {"injected", fault_injected},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}

/* --- the program --- */

static int add_traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

static void set_arguments(lua_State *L, int count, char **arguments) {
  lua_createtable(L, count, 1);
  for (int i = 1; i < count; i++) {
    lua_pushstring(L, arguments[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
}

static int run(lua_State *L, int count, char **arguments) {
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_module);
  lua_setfield(L, -2, "fault_host");
  lua_pop(L, 1);
  set_arguments(L, count, arguments);
  lua_pushcfunction(L, add_traceback);
  int status = luaL_loadfile(L, arguments[1]);
  if (status == LUA_OK) status = lua_pcall(L, 0, 0, 1);
  if (status != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  return status != LUA_OK;
}

int main(int count, char **arguments) {
  if (count < 2) {
    fprintf(stderr, "usage: %s PROGRAM [ARGUMENT...]\n", arguments[0]);
    return 2;
  }
  find("faults_set", &set_faults, sizeof set_faults);
  find("faults_fail_next", &fail_next, sizeof fail_next);
  find("faults_hold", &hold_faults, sizeof hold_faults);
  find("faults_allocation", &fails, sizeof fails);
  find("faults_counts", &counts, sizeof counts);
  uv_replace_allocator(uv_allocate, uv_reallocate, uv_allocate_zeroed, free); /* fails only without one */
  lua_State *L = ip_compat_new_state(allocate, NULL);
  if (L == NULL) return 1;
  int result = run(L, count, arguments);
  lua_close(L);
  return result;
}
