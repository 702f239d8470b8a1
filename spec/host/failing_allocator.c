/* failing_allocator.c: runs a Lua program many times. In run k, the k-th allocation and all later ones fail;
   a single failure would be hidden, because Lua collects garbage and tries again. A run may fail only with an
   error; the state must close, and no descriptor may stay open. When a run succeeds, prints its number of
   allocations and ends with exit code 0.

   usage: failing_allocator PROGRAM [FIRST [STEP]] */
#include "base/compat.h"

#include <dirent.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct budget {
  long left; /* the number of allocations that still succeed; negative: all */
  long used;
};

static void *allocate(void *context, void *block, size_t old_size, size_t new_size) {
  struct budget *budget = context;
  (void)old_size;
  if (new_size == 0) {
    free(block);
    return NULL;
  }
  if (block == NULL || new_size > old_size) { /* shrinking never fails (Lua manual, lua_Alloc) */
    budget->used++;
    if (budget->left == 0) return NULL;
    if (budget->left > 0) budget->left--;
  }
  return realloc(block, new_size);
}

/* Refers to libuv, so that it stays loaded between the runs. */
static unsigned keep_libuv(void) {
  return uv_version();
}

static int count_descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  if (directory == NULL) return 0;
  int count = 0;
  /* cppcheck-suppress readdirCalled ; readdir_r is deprecated (readdir_r(3)), and there is one thread */
  while (readdir(directory) != NULL)
    count++;
  closedir(directory);
  return count;
}

/* Runs the program with `allowed` allocations. 1: success; 0: an expected error; -1: an unexpected one. */
static int run(const char *path, long allowed, long *used) {
  struct budget budget = {.left = -1};
  lua_State *L = ip_compat_new_state(allocate, &budget);
  if (L == NULL) return -1;
  luaL_openlibs(L);
  int result = -1;
  if (luaL_loadfile(L, path) == LUA_OK) {
    budget.left = allowed;
    budget.used = 0;
    int status = lua_pcall(L, 0, 0, 0);
    *used = budget.used;
    /* cppcheck-suppress redundantAssignment ; the allocator has read it during the call */
    budget.left = -1;
    result = status == LUA_OK ? 1 : 0;
    if (status != LUA_OK) {
      const char *message = luaL_tolstring(L, -1, NULL);
      if (strstr(message, "not enough memory") == NULL && strstr(message, "allow") == NULL) {
        fprintf(stderr, "with %ld allocations: %s\n", allowed, message);
        if (strstr(message, "promise") != NULL) result = -1;
      }
    }
  } else {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  }
  lua_close(L);
  return result;
}

int main(int count, char **arguments) {
  if (count < 2) {
    fprintf(stderr, "usage: %s PROGRAM [FIRST [STEP]]\n", arguments[0]);
    return 2;
  }
  long first = count > 2 ? atol(arguments[2]) : 0;
  long step = count > 3 ? atol(arguments[3]) : 1;
  /* The first run has no limit: libuv opens descriptors in it that stay open until the process ends. */
  long warm_up;
  if (keep_libuv() == 0) return 1;
  if (run(arguments[1], -1, &warm_up) != 1) return 1;
  int before = count_descriptors();
  for (long allowed = first;; allowed += step) {
    long used = 0;
    int result = run(arguments[1], allowed, &used);
    int after = count_descriptors();
    if (after != before)
      fprintf(stderr, "with %ld allocations: %d descriptors left\n", allowed, after - before);
    if (result < 0 || after != before) return 1;
    if (result == 0) continue;
    printf("%ld allocations\n", used);
    return 0;
  }
}
