/* wait_point.h: a place where calls wait for something inside this program, such as a datagram that has been
   read already: a queue of operations, first come, first served, and of observers.

   The owner of a point says when it is ready (ip_wait_point_notify). The dispatcher then attempts the oldest
   operation and resumes its coroutine at once, as it does for a watcher: between the attempt and the
   coroutine nothing else runs. An operation that ends otherwise has taken nothing. */
#ifndef IP_WAIT_POINT_H
#define IP_WAIT_POINT_H

#include "loop/observer.h"
#include "loop/operation.h"

struct ip_wait_point;

/* None of these calls Lua. */
struct ip_wait_point_type {
  /* Would an operation that waits here complete? */
  bool (*is_ready)(const struct ip_wait_point *point);
  /* Operations or observers have come or gone. */
  void (*changed)(struct ip_wait_point *point);
  /* Operations that must not wait any longer found nothing: arranges a final attempt, and then
     ip_wait_point_time_out. */
  void (*expire)(struct ip_wait_point *point);
};

struct ip_wait_point {
  struct ip_ready ready;
  struct ip_queue waiters;   /* struct ip_operation, oldest first; their object is the point */
  struct ip_queue observers; /* struct ip_observer: who wants to know when the point is ready */
  struct ip_runtime *runtime;
  const struct ip_wait_point_type *type;
};

void ip_wait_point_init(struct ip_wait_point *point, struct ip_runtime *runtime,
                        const struct ip_wait_point_type *type);

/* Ends the point: completes its operations with `code`, and notifies its observers. Does not call Lua. */
void ip_wait_point_fini(struct ip_wait_point *point, int code);

static inline bool ip_wait_point_has_waiters(const struct ip_wait_point *point) {
  return !ip_queue_is_empty(&point->waiters);
}

static inline bool ip_wait_point_is_awaited(const struct ip_wait_point *point) {
  return ip_wait_point_has_waiters(point) || !ip_queue_is_empty(&point->observers);
}

static inline bool ip_wait_point_is_ready(const struct ip_wait_point *point) {
  return point->type->is_ready(point);
}

/* Queues an acquired operation: behind the others or, if it was woken and has to wait again, before them.
   Does not call Lua. */
void ip_wait_point_wait(struct ip_wait_point *point, struct ip_operation *operation, bool first);

/* The `unlinked` of every operation type that waits at a point. */
void ip_wait_point_unlinked(struct ip_operation *operation);

/* Notifies `observer` once, when the point becomes ready or ends. Does not call Lua. */
void ip_wait_point_observe(struct ip_wait_point *point, struct ip_observer *observer);

/* Ends that without a notification; does nothing after one, when the point may be gone. Does not call Lua. */
void ip_wait_point_unobserve(struct ip_wait_point *point, struct ip_observer *observer);

/* The point is ready: its oldest operation is attempted in the next iteration, and its observers are
   notified. Does not call Lua. */
void ip_wait_point_notify(struct ip_wait_point *point);

/* Completes all operations with an error. Does not call Lua. */
void ip_wait_point_fail(struct ip_wait_point *point, int code);

/* Times out the operations that must not wait any longer. Does not call Lua. */
void ip_wait_point_time_out(struct ip_wait_point *point);

/* The dispatcher's part: serves the oldest operation. Resumes its coroutine, which may end the point. */
void ip_wait_point_dispatch(lua_State *L, struct ip_wait_point *point);

#endif
