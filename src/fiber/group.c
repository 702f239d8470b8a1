/* group.c: ip.fiber.group: fibers that belong together: one that fails ends the others.

   Each member keeps the group alive, so nobody else need. The error of the first member that failed is a user
   value of the group until the group is collected. It goes to every join, or, if there is none until the
   group is closed or collected, to on_error. Raises bad arguments, memory errors, and what the methods
   say. */
#include "fiber/group.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "fiber/fiber.h"
#include "fiber/meeting.h"
#include "loop/dispatch.h"
#include "loop/pooled_operation.h"

#include <errno.h>

/* The user values of a group: the first error, and the fiber that raised it. */
enum { FIRST_ERROR = 1, FAILED_FIBER, GROUP_USER_VALUES = FAILED_FIBER };

struct group {
  struct ip_fiber_group fibers; /* first */
  struct ip_queue waiters;      /* operations that wait until no member is left */
  bool failed;                  /* there is a first error */
  bool delivered;               /* somebody has got it */
  bool ending;                  /* interrupted or closed: no member may be added */
  bool closed;                  /* by __close: on_error gets an error that comes now */
};

static struct group *check_group(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_GROUP);
}

static void interrupt_all(struct group *group) {
  group->ending = true;
  ip_fiber_interrupt_all(&group->fibers);
}

/* Reports the first error of the group at index `self` if nobody has got it. [-0, +0, -] */
static void report_undelivered(lua_State *L, struct group *group, int self) {
  if (!group->failed || group->delivered) return;
  group->delivered = true;
  lua_getiuservalue(L, self, FIRST_ERROR);
  lua_getiuservalue(L, self, FAILED_FIBER);
  ip_fiber_push_traceback(L, -1);
  lua_insert(L, -2); /* error, traceback, fiber */
  ip_loop_report(L);
}

/* Keeps the first error, which is on top of the stack, above the group's userdata. [-0, +0, -] */
static void note_failure(lua_State *L, struct group *group, int fiber) {
  int self = lua_gettop(L) - 1;
  group->failed = true;
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, self, FIRST_ERROR);
  lua_pushvalue(L, fiber);
  lua_setiuservalue(L, self, FAILED_FIBER);
  interrupt_all(group);
}

/* A member has ended: see struct ip_fiber_group. */
static void member_ended(lua_State *L, struct ip_fiber_group *fibers, int fiber, bool failed) {
  struct group *group = (struct group *)fibers;
  if (failed && !group->failed) note_failure(L, group, fiber);
  if (group->closed && ip_queue_is_empty(&group->waiters)) report_undelivered(L, group, lua_gettop(L) - 1);
  if (fibers->size != 0) return;
  while (!ip_queue_is_empty(&group->waiters))
    ip_operation_succeed(ip_meeting_first(&group->waiters));
}

/* --- operations --- */

static void wait_cancelled(lua_State *L, struct ip_operation *operation) {
  ip_meeting_end(L, operation);
}

/* Raises the first error of the group at index 1, if there is one. [-0, +0, e] */
static int finish_join(lua_State *L, struct group *group) {
  if (!group->failed) return 0;
  group->delivered = true;
  lua_getiuservalue(L, 1, FIRST_ERROR);
  return ip_error_throw(L);
}

static int push_joined(lua_State *L, struct ip_result *result) {
  ip_meeting_end(L, result->payload.meeting.operation);
  return finish_join(L, result->object);
}

static int push_closed(lua_State *L, struct ip_result *result) {
  ip_meeting_end(L, result->payload.meeting.operation);
  report_undelivered(L, result->object, 1);
  return 0;
}

static const struct ip_operation_type join_type = {.name = "join",
                                                   .cancelled = wait_cancelled,
                                                   .failed = ip_meeting_failed,
                                                   .anchors = true,
                                                   .push_results = push_joined};
static const struct ip_operation_type close_type = {.name = "close",
                                                    .endures = true,
                                                    .cancelled = wait_cancelled,
                                                    .failed = ip_meeting_failed,
                                                    .anchors = true,
                                                    .push_results = push_closed};

/* --- methods --- */

/* group:spawn(fn, ...) -> fiber: starts a member, as spawn does. ECANCELED after a member has failed, and
   after interrupt or the end of the group's scope. Suspends: no. */
static int group_spawn(lua_State *L) {
  struct group *group = check_group(L);
  ip_argument_check_type(L, 2, LUA_TFUNCTION);
  if (group->ending)
    return ip_error_raise_with_hint(
        L, ECANCELED, "spawn", group->failed ? "a fiber of the group has failed" : "the group has ended");
  ip_fiber_start(L, 2, &group->fibers);
  if (IP_UNLIKELY(group->ending)) interrupt_all(group); /* a finalizer has ended it meanwhile */
  return 1;
}

/* group:join(): waits until all members have ended; raises the first error of a member, which has interrupted
   the others. May be repeated. EDEADLK in a member. Suspends: yes. */
static int group_join(lua_State *L) {
  struct group *group = check_group(L);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &join_type);
  if (ip_fiber_is_in(L, &group->fibers))
    return ip_error_raise_with_hint(L, EDEADLK, join_type.name, "the fiber belongs to the group");
  lua_settop(L, 1);
  if (group->fibers.size == 0) return finish_join(L, group);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &join_type, IP_NEVER, false);
  operation->object = group;
  ip_meeting_wait(L, operation, &group->waiters, 1);
  return ip_operation_suspend(L, operation);
}

/* group:interrupt(): interrupts all members; none may be added afterwards. Suspends: no. */
static int group_interrupt(lua_State *L) {
  interrupt_all(check_group(L));
  return 0;
}

/* Can the running code wait for the members? */
static bool can_wait(lua_State *L, const struct ip_runtime *runtime, const struct group *group) {
  if (runtime->closed || ip_fiber_is_in(L, &group->fibers)) return false;
  return ip_operation_can_suspend(L, runtime);
}

/* __close: interrupts the members and, where it can wait, waits for their end, whatever becomes of its own
   fiber meanwhile. An error of a member that no join has raised goes to on_error. Raises EDEADLK where
   nothing can end the members, and what acquiring raises. */
static int group_mt_close(lua_State *L) {
  struct group *group = check_group(L);
  struct ip_runtime *runtime = ip_runtime(L);
  interrupt_all(group);
  group->closed = true;
  lua_settop(L, 1);
  if (group->fibers.size == 0 || !can_wait(L, runtime, group)) {
    report_undelivered(L, group, 1);
    return 0;
  }
  ip_runtime_check(L, runtime);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &close_type, IP_NEVER, true);
  operation->object = group;
  ip_meeting_wait(L, operation, &group->waiters, 1);
  return ip_operation_suspend(L, operation);
}

/* A group without members: an error that nobody has got is reported before it is gone. */
static int group_mt_gc(lua_State *L) {
  report_undelivered(L, check_group(L), 1);
  return 0;
}

static int group_get_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_group(L)->fibers.size);
  return 1;
}

/* group() -> group, without members. Suspends: no. */
static int group_new(lua_State *L) {
  ip_runtime_check(L, ip_runtime(L));
  struct group *group = lua_newuserdatauv(L, sizeof *group, GROUP_USER_VALUES);
  *group = (struct group){.fibers = {.ended = member_ended}};
  ip_queue_init(&group->fibers.members);
  ip_queue_init(&group->waiters);
  ip_class_set(L, IP_CLASS_GROUP);
  return 1;
}

static const luaL_Reg methods[] = {
    {"spawn", group_spawn}, {"join", group_join}, {"interrupt", group_interrupt}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__close", group_mt_close}, {"__gc", group_mt_gc}, {NULL, NULL}};

static const struct ip_property properties[] = {{"size", group_get_size, NULL}, {NULL, NULL, NULL}};

static const luaL_Reg functions[] = {{"group", group_new}, {NULL, NULL}};

void ip_group_open(lua_State *L, int core) {
  static const struct ip_class_definition definition = {.name = "ip.fiber.group",
                                                        .id = IP_CLASS_GROUP,
                                                        .methods = methods,
                                                        .metamethods = metamethods,
                                                        .properties = properties};
  core = lua_absindex(L, core);
  ip_class_define(L, core, &definition);
  ip_class_functions(L, core, functions);
}
