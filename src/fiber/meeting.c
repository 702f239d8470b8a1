/* meeting.c: operations that another coroutine completes. Owns nothing; nothing here raises, because the
   anchors are user values that exist already. */
#include "fiber/meeting.h"

void ip_meeting_wait(lua_State *L, struct ip_operation *operation, struct ip_queue *waiters, int index) {
  index = lua_absindex(L, index);
  operation->payload.meeting.operation = operation;
  operation->payload.meeting.passes_on = false;
  ip_operation_push_owner(L, operation);
  lua_pushvalue(L, index);
  lua_setiuservalue(L, -2, IP_ANCHOR_OBJECT);
  lua_pop(L, 1);
  ip_queue_append(waiters, &operation->ready.link);
}

int ip_meeting_suspend(lua_State *L, struct ip_operation *operation) {
  if (IP_UNLIKELY(operation->is.nonblocking)) ip_operation_time_out(operation);
  return ip_operation_suspend(L, operation);
}

/* The running coroutine is not suspended yet in the operation that it has just queued. */
static bool is_waiting(const lua_State *L, const struct ip_operation *operation) {
  return operation->thread == L || ip_operation_is_suspended(operation);
}

struct ip_operation *ip_meeting_oldest(lua_State *L, const struct ip_queue *waiters) {
  while (!ip_queue_is_empty(waiters)) {
    struct ip_operation *operation = ip_meeting_first(waiters);
    if (IP_LIKELY(is_waiting(L, operation))) return operation;
    ip_operation_abandon(L, operation);
  }
  return NULL;
}

void ip_meeting_set_value(lua_State *L, const struct ip_operation *operation) {
  ip_operation_push_owner(L, operation);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, IP_ANCHOR_VALUE);
  lua_pop(L, 1);
}

void ip_meeting_push_object(lua_State *L, const struct ip_operation *operation) {
  ip_operation_push_owner(L, operation);
  lua_getiuservalue(L, -1, IP_ANCHOR_OBJECT);
  lua_remove(L, -2);
}

/* Lets go of what the owner on top of the stack anchors. [-0, +0, -] */
static void clear(lua_State *L) {
  lua_pushnil(L);
  lua_setiuservalue(L, -2, IP_ANCHOR_OBJECT);
  lua_pushnil(L);
  lua_setiuservalue(L, -2, IP_ANCHOR_VALUE);
}

void ip_meeting_take(lua_State *L, const struct ip_operation *operation) {
  ip_operation_push_owner(L, operation);
  lua_getiuservalue(L, -1, IP_ANCHOR_VALUE);
  lua_insert(L, -2);
  clear(L);
  lua_pop(L, 1);
}

void ip_meeting_end(lua_State *L, const struct ip_operation *operation) {
  ip_operation_push_owner(L, operation);
  clear(L);
  lua_pop(L, 1);
}

void ip_meeting_failed(lua_State *L, struct ip_result *result) {
  ip_meeting_end(L, result->payload.meeting.operation);
}
