/* semaphore.c: ip.fiber.semaphore: a number of permits that coroutines acquire and release.

   A permit that is released while somebody waits is not counted as free: it belongs to the oldest waiter, and
   goes to the next if the coroutine of that waiter is closed before it continues. The guard of `hold` is one
   userdata per semaphore, whose __close releases a permit. Semaphore and guard are user values of each other.
   Raises bad arguments, memory errors, and what the methods say. */
#include "fiber/semaphore.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "fiber/meeting.h"

enum { OTHER = 1 }; /* of a semaphore: its guard, or nil; of a guard: its semaphore */

struct semaphore {
  struct ip_queue waiters; /* operations, oldest first; while there are some, no permit is free */
  lua_Integer permits;     /* free ones */
};

static struct semaphore *check_semaphore(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_SEMAPHORE);
}

/* Gives free permits to those who wait. [-0, +0, -] */
static void settle(lua_State *L, struct semaphore *semaphore) {
  while (semaphore->permits > 0) {
    struct ip_operation *operation = ip_meeting_oldest(L, &semaphore->waiters);
    if (operation == NULL) return;
    semaphore->permits--;
    ip_operation_succeed(operation);
  }
}

static void release(lua_State *L, struct semaphore *semaphore) {
  if (semaphore->permits < LUA_MAXINTEGER) semaphore->permits++;
  settle(L, semaphore);
}

static void acquire_cancelled(lua_State *L, struct ip_operation *operation) {
  if (ip_meeting_was_given(operation)) release(L, operation->object);
  ip_meeting_end(L, operation);
}

static int push_nothing(lua_State *L, struct ip_result *result) {
  ip_meeting_end(L, result->payload.meeting.operation);
  return 0;
}

static int push_guard(lua_State *L, struct ip_result *result) {
  ip_meeting_end(L, result->payload.meeting.operation);
  lua_getiuservalue(L, 1, OTHER);
  return 1;
}

static const struct ip_operation_type acquire_type = {.name = "acquire",
                                                      .cancelled = acquire_cancelled,
                                                      .failed = ip_meeting_failed,
                                                      .anchors = true,
                                                      .push_results = push_nothing};
static const struct ip_operation_type hold_type = {.name = "hold",
                                                   .cancelled = acquire_cancelled,
                                                   .failed = ip_meeting_failed,
                                                   .anchors = true,
                                                   .push_results = push_guard};

/* Takes a permit without waiting if it can; false: `return wait_for_permit(...)`. [-0, +0, e] */
static bool take_at_once(lua_State *L, const struct ip_operation_type *type, struct semaphore *semaphore) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, type);
  if (semaphore->permits == 0 || runtime->budget <= 0) return false;
  semaphore->permits--;
  runtime->budget--;
  return true;
}

static int wait_for_permit(lua_State *L, const struct ip_operation_type *type, struct semaphore *semaphore) {
  lua_settop(L, 1);
  struct ip_operation *operation =
      ip_operation_acquire(L, ip_runtime(L), type, IP_NEVER, semaphore->permits > 0);
  operation->object = semaphore;
  ip_meeting_wait(L, operation, &semaphore->waiters, 1);
  settle(L, semaphore);
  return ip_meeting_suspend(L, operation);
}

/* semaphore:acquire(): takes a permit; waits while none is free. Suspends: yes. */
static int semaphore_acquire(lua_State *L) {
  struct semaphore *semaphore = check_semaphore(L);
  if (take_at_once(L, &acquire_type, semaphore)) return 0;
  return wait_for_permit(L, &acquire_type, semaphore);
}

/* semaphore:try_acquire() -> boolean: takes a permit if one is free. Suspends: no. */
static int semaphore_try_acquire(lua_State *L) {
  struct semaphore *semaphore = check_semaphore(L);
  bool is_free = semaphore->permits > 0;
  if (is_free) semaphore->permits--;
  lua_pushboolean(L, is_free);
  return 1;
}

/* semaphore:release(): gives a permit, to whoever has waited longest or as a free one. Any coroutine may,
   also beyond the number at the start. Suspends: no. */
static int semaphore_release(lua_State *L) {
  release(L, check_semaphore(L));
  return 0;
}

/* Makes the guard of the semaphore at index 1 if it has none. [-0, +0, m] */
static void ensure_guard(lua_State *L) {
  bool is_there = lua_getiuservalue(L, 1, OTHER) != LUA_TNIL;
  lua_pop(L, 1);
  if (IP_LIKELY(is_there)) return;
  lua_newuserdatauv(L, 0, OTHER);
  ip_class_set(L, IP_CLASS_SEMAPHORE_GUARD);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, OTHER);
  lua_setiuservalue(L, 1, OTHER);
}

/* semaphore:hold() -> guard: acquires a permit, and returns a to-be-closed value that releases it. Suspends:
   yes. */
static int semaphore_hold(lua_State *L) {
  struct semaphore *semaphore = check_semaphore(L);
  ensure_guard(L);
  if (!take_at_once(L, &hold_type, semaphore)) return wait_for_permit(L, &hold_type, semaphore);
  lua_getiuservalue(L, 1, OTHER);
  return 1;
}

static int guard_mt_close(lua_State *L) {
  ip_check_class(L, 1, IP_CLASS_SEMAPHORE_GUARD);
  lua_getiuservalue(L, 1, OTHER);
  release(L, lua_touserdata(L, -1));
  return 0;
}

static int semaphore_get_permits(lua_State *L) {
  lua_pushinteger(L, check_semaphore(L)->permits);
  return 1;
}

/* semaphore(permits) -> semaphore: `permits`: an integer of at least 0. Suspends: no. */
static int semaphore_new(lua_State *L) {
  lua_Integer permits = ip_argument_integer(L, 1, 0, LUA_MAXINTEGER);
  ip_runtime_check(L, ip_runtime(L));
  struct semaphore *semaphore = lua_newuserdatauv(L, sizeof *semaphore, OTHER);
  semaphore->permits = permits;
  ip_queue_init(&semaphore->waiters);
  ip_class_set(L, IP_CLASS_SEMAPHORE);
  return 1;
}

static const luaL_Reg methods[] = {{"acquire", semaphore_acquire},
                                   {"try_acquire", semaphore_try_acquire},
                                   {"release", semaphore_release},
                                   {"hold", semaphore_hold},
                                   {NULL, NULL}};

static const luaL_Reg guard_metamethods[] = {{"__close", guard_mt_close}, {NULL, NULL}};

static const struct ip_property properties[] = {{"permits", semaphore_get_permits, NULL}, {NULL, NULL, NULL}};

static const luaL_Reg functions[] = {{"semaphore", semaphore_new}, {NULL, NULL}};

void ip_semaphore_open(lua_State *L, int core) {
  static const struct ip_class_definition definition = {
      .name = "ip.fiber.semaphore", .id = IP_CLASS_SEMAPHORE, .methods = methods, .properties = properties};
  static const struct ip_class_definition guard_definition = {
      .name = "ip.fiber.semaphore.guard", .id = IP_CLASS_SEMAPHORE_GUARD, .metamethods = guard_metamethods};
  core = lua_absindex(L, core);
  ip_class_define(L, core, &definition);
  ip_class_define(L, core, &guard_definition);
  ip_class_functions(L, core, functions);
}
