/* meeting.h: what queues, conditions and semaphores share: operations that another coroutine completes.

   A value or a permit that is released while somebody waits belongs to the waiter from that moment on. The
   waiter's operation is READY then, and whoever closes its coroutine before it continues gives it back.

   While an operation waits here, and until its call goes on, its anchors keep alive the object that it is
   linked in and the value that it waits with or was given. The frame of the call is not enough: it is gone
   before the operation is cancelled when somebody closes the coroutine. */
#ifndef IP_MEETING_H
#define IP_MEETING_H

#include "base/util.h"
#include "loop/operation.h"

/* Lets an acquired operation wait at the end of `waiters`, which belongs to the object at `index`. Its
   `object` is the struct of that. [-0, +0, -] */
void ip_meeting_wait(lua_State *L, struct ip_operation *operation, struct ip_queue *waiters, int index);

/* Suspends the running call in its operation: `return ip_meeting_suspend(...)`. Where the call only meant to
   yield, and has to wait after all, a deadline of zero ends it. [-0, +?, e] */
int ip_meeting_suspend(lua_State *L, struct ip_operation *operation);

/* The oldest waiter; there is one. */
static inline struct ip_operation *ip_meeting_first(const struct ip_queue *waiters) {
  return ip_container_of(ip_container_of(waiters->next, struct ip_ready, link), struct ip_operation, ready);
}

/* Returns the oldest waiter whose coroutine is still suspended, or NULL; abandons the others. The operation
   of the running coroutine, which is about to suspend, counts. [-0, +0, -] */
struct ip_operation *ip_meeting_oldest(lua_State *L, const struct ip_queue *waiters);

/* Has the operation, whose coroutine is being closed, been given something? */
static inline bool ip_meeting_was_given(const struct ip_operation *operation) {
  return operation->state == IP_OPERATION_READY && operation->failure.code == 0;
}

/* Pops a value, which the operation anchors from now on. [-1, +0, -] */
void ip_meeting_set_value(lua_State *L, const struct ip_operation *operation);

/* Pushes the object that the operation anchors. [-0, +1, -] */
void ip_meeting_push_object(lua_State *L, const struct ip_operation *operation);

/* Pushes the value that the operation anchors, or nil, and lets go of that and of the object. [-0, +1, -] */
void ip_meeting_take(lua_State *L, const struct ip_operation *operation);

/* Lets go of both. [-0, +0, -] */
void ip_meeting_end(lua_State *L, const struct ip_operation *operation);

/* Ends the meeting of an operation that has failed: for `failed` of an operation type. [-0, +0, -] */
void ip_meeting_failed(lua_State *L, struct ip_result *result);

#endif
