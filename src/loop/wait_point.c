/* wait_point.c: operations that wait for something inside this program. Owns nothing: a point belongs to the
   object around it. Nothing here raises. */
#include "loop/wait_point.h"

#include "base/util.h"
#include "loop/dispatch.h"

static struct ip_operation *operation_of(struct ip_queue *link) {
  return ip_container_of(ip_container_of(link, struct ip_ready, link), struct ip_operation, ready);
}

void ip_wait_point_init(struct ip_wait_point *point, struct ip_runtime *runtime,
                        const struct ip_wait_point_type *type) {
  *point = (struct ip_wait_point){.ready = {.type = IP_READY_WAIT_POINT}, .runtime = runtime, .type = type};
  ip_queue_init(&point->ready.link);
  ip_queue_init(&point->waiters);
  ip_queue_init(&point->observers);
}

void ip_wait_point_fail(struct ip_wait_point *point, int code) {
  while (ip_wait_point_has_waiters(point))
    ip_operation_complete_with(operation_of(point->waiters.next), code);
}

void ip_wait_point_fini(struct ip_wait_point *point, int code) {
  ip_wait_point_fail(point, code);
  ip_observer_notify_all(&point->observers);
  ip_queue_remove(&point->ready.link);
}

void ip_wait_point_wait(struct ip_wait_point *point, struct ip_operation *operation, bool first) {
  operation->object = point;
  /* appending to the position of the oldest member inserts before it */
  ip_queue_append(first ? point->waiters.next : &point->waiters, &operation->ready.link);
  point->type->changed(point);
}

void ip_wait_point_unlinked(struct ip_operation *operation) {
  struct ip_wait_point *point = operation->object;
  point->type->changed(point);
}

void ip_wait_point_observe(struct ip_wait_point *point, struct ip_observer *observer) {
  ip_queue_append(&point->observers, &observer->link);
  point->type->changed(point);
}

void ip_wait_point_unobserve(struct ip_wait_point *point, struct ip_observer *observer) {
  if (!ip_queue_is_linked(&observer->link)) return;
  ip_queue_remove(&observer->link);
  point->type->changed(point);
}

void ip_wait_point_notify(struct ip_wait_point *point) {
  if (ip_wait_point_has_waiters(point)) ip_runtime_enqueue(point->runtime, &point->ready);
  ip_observer_notify_all(&point->observers);
}

static struct ip_operation *find_nonblocking(struct ip_wait_point *point) {
  for (struct ip_queue *link = point->waiters.next; link != &point->waiters; link = link->next)
    if (operation_of(link)->is.nonblocking) return operation_of(link);
  return NULL;
}

void ip_wait_point_time_out(struct ip_wait_point *point) {
  for (struct ip_operation *operation = find_nonblocking(point); operation != NULL;
       operation = find_nonblocking(point))
    ip_operation_time_out(operation);
}

/* Resumes one coroutine only, because that may end the point: what is left is served in the next
   iteration. */
static void serve(lua_State *L, struct ip_wait_point *point, struct ip_operation *operation) {
  ip_operation_complete(operation, IP_ERROR_SYSTEM, operation->failure);
  ip_queue_remove(&operation->ready.link); /* it is served now and not in the next iteration */
  if (ip_wait_point_has_waiters(point)) ip_runtime_enqueue(point->runtime, &point->ready);
  ip_operation_resume(L, operation);
}

void ip_wait_point_dispatch(lua_State *L, struct ip_wait_point *point) {
  struct ip_received received; /* each nested dispatch has its own */
  ip_queue_remove(&point->ready.link);
  while (ip_wait_point_has_waiters(point)) {
    struct ip_operation *operation = operation_of(point->waiters.next);
    if (IP_UNLIKELY(!ip_operation_is_suspended(operation))) {
      ip_operation_abandon(L, operation);
      continue;
    }
    ip_operation_set_received(operation, &received);
    if (operation->type->attempt(operation))
      serve(L, point, operation);
    else if (find_nonblocking(point) != NULL)
      point->type->expire(point);
    return;
  }
}
