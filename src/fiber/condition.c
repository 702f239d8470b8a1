/* condition.c: ip.fiber.condition: coroutines that wait until another one notifies them. A notification that
   meets nobody is not remembered. One that was for a single waiter goes to the next if the coroutine of that
   waiter is closed before it continues. Raises bad arguments, memory errors, and what the methods say. */
#include "fiber/condition.h"

#include "base/util.h"
#include "binding/class.h"
#include "fiber/meeting.h"

struct condition {
  struct ip_queue waiters; /* operations, oldest first */
};

static struct condition *check_condition(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_CONDITION);
}

/* Wakes the waiter that has waited longest; false: nobody waits. [-0, +0, -] */
static bool notify_oldest(lua_State *L, struct condition *condition, bool passes_on) {
  struct ip_operation *operation = ip_meeting_oldest(L, &condition->waiters);
  if (operation == NULL) return false;
  operation->payload.meeting.passes_on = passes_on;
  ip_operation_succeed(operation);
  return true;
}

static void wait_cancelled(lua_State *L, struct ip_operation *operation) {
  if (ip_meeting_was_given(operation) && operation->payload.meeting.passes_on)
    notify_oldest(L, operation->object, true);
  ip_meeting_end(L, operation);
}

static int push_nothing(lua_State *L, struct ip_result *result) {
  ip_meeting_end(L, result->payload.meeting.operation);
  return 0;
}

static const struct ip_operation_type wait_type = {.name = "wait",
                                                   .cancelled = wait_cancelled,
                                                   .failed = ip_meeting_failed,
                                                   .anchors = true,
                                                   .push_results = push_nothing};

/* condition:wait(): waits until a notification. Suspends: yes. */
static int condition_wait(lua_State *L) {
  struct condition *condition = check_condition(L);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &wait_type);
  lua_settop(L, 1);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &wait_type, IP_NEVER, false);
  operation->object = condition;
  ip_meeting_wait(L, operation, &condition->waiters, 1);
  return ip_operation_suspend(L, operation);
}

/* condition:notify_one() -> integer: wakes the coroutine that has waited longest; how many were woken, 0 or
   1. Suspends: no. */
static int condition_notify_one(lua_State *L) {
  lua_pushinteger(L, notify_oldest(L, check_condition(L), true) ? 1 : 0);
  return 1;
}

/* condition:notify_all() -> integer: wakes all that wait now; how many. Suspends: no. */
static int condition_notify_all(lua_State *L) {
  struct condition *condition = check_condition(L);
  lua_Integer count = 0;
  while (notify_oldest(L, condition, false))
    count++;
  lua_pushinteger(L, count);
  return 1;
}

/* condition() -> condition. Suspends: no. */
static int condition_new(lua_State *L) {
  ip_runtime_check(L, ip_runtime(L));
  struct condition *condition = lua_newuserdatauv(L, sizeof *condition, 0);
  ip_queue_init(&condition->waiters);
  ip_class_set(L, IP_CLASS_CONDITION);
  return 1;
}

static const luaL_Reg methods[] = {{"wait", condition_wait},
                                   {"notify_one", condition_notify_one},
                                   {"notify_all", condition_notify_all},
                                   {NULL, NULL}};

static const luaL_Reg functions[] = {{"condition", condition_new}, {NULL, NULL}};

void ip_condition_open(lua_State *L, int core) {
  static const struct ip_class_definition definition = {
      .name = "ip.fiber.condition", .id = IP_CLASS_CONDITION, .methods = methods};
  core = lua_absindex(L, core);
  ip_class_define(L, core, &definition);
  ip_class_functions(L, core, functions);
}
