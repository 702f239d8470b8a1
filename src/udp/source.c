/* source.c: the kinds of sources of wait_any: sockets, listeners, sessions, queues, fibers, descriptors. Owns
   nothing. Each function says what it may raise. */
#include "udp/source.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "fiber/queue.h"
#include "udp/listener.h"
#include "udp/peers.h"
#include "udp/readiness.h"
#include "udp/session.h"
#include "udp/socket.h"
#include "value/file_descriptor.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

void ip_source_fire(struct ip_source *source) {
  source->operation->payload.sources.fired = source->number;
  ip_operation_succeed(source->operation);
}

static void on_observed(struct ip_observer *observer) {
  ip_source_fire(ip_container_of(observer, struct ip_source, by.observer));
}

/* --- sockets --- */

static struct ip_socket *socket_at(lua_State *L, int index) {
  return ip_socket_check(L, index)->socket;
}

static int look_at_socket(lua_State *L, int index) {
  const struct ip_socket *socket = socket_at(L, index);
  if (socket == NULL || ip_readiness_is_known(&socket->watcher, &socket->channel)) return IP_SOURCE_READY;
  bool others_wait = ip_watcher_has_waiters(&socket->watcher, IP_SIDE_READ);
  return others_wait ? IP_SOURCE_WAITS : socket->channel.fd;
}

static bool confirm_socket(lua_State *L, int index, int events) {
  struct ip_socket *socket = socket_at(L, index);
  return socket == NULL || ip_readiness_confirm(&socket->watcher, &socket->channel, events);
}

static void unwatch_socket(struct ip_source *source) {
  struct ip_socket *socket = source->object;
  ip_watcher_unobserve(&socket->watcher, &source->by.observer);
}

static bool is_socket_ready(struct ip_source *source) {
  struct ip_socket *socket = source->object;
  return ip_readiness_poll(&socket->watcher, &socket->channel);
}

static bool is_socket_ready_unseen(const struct ip_source *source) {
  const struct ip_socket *socket = source->object;
  return ip_readiness_is_known(&socket->watcher, &socket->channel);
}

static int watch_socket(lua_State *L, int index, struct ip_source *source);

static const struct ip_source_type socket_source = {.look = look_at_socket,
                                                    .confirm = confirm_socket,
                                                    .watch = watch_socket,
                                                    .unwatch = unwatch_socket,
                                                    .is_ready = is_socket_ready,
                                                    .is_ready_unseen = is_socket_ready_unseen,
                                                    .external = true};

static int watch_socket(lua_State *L, int index, struct ip_source *source) {
  struct ip_socket *socket = socket_at(L, index);
  if (socket == NULL) { /* a finalizer has closed it */
    ip_source_fire(source);
    return 0;
  }
  source->type = &socket_source;
  source->object = socket;
  ip_observer_init(&source->by.observer, on_observed);
  return ip_watcher_observe(&socket->watcher, &source->by.observer);
}

/* --- listeners and their sessions --- */

/* Observes the point of open peers, which is not ready. Returns 0 or an errno value. */
static int watch_point(struct ip_peer_point *point, const struct ip_source_type *type,
                       struct ip_source *source) {
  int error = ip_watcher_prepare(&point->peers->socket.socket->watcher);
  if (error != 0) return error;
  source->type = type;
  source->object = point;
  ip_observer_init(&source->by.observer, on_observed);
  ip_wait_point_observe(&point->wait, &source->by.observer);
  return 0;
}

static void unwatch_point(struct ip_source *source) {
  struct ip_peer_point *point = source->object;
  ip_wait_point_unobserve(&point->wait, &source->by.observer);
}

static int look_at_listener(lua_State *L, int index) {
  struct ip_peers *peers = ip_listener_check(L, index);
  if (peers == NULL) return IP_SOURCE_READY;
  if (ip_wait_point_has_waiters(&peers->point.wait)) return IP_SOURCE_WAITS;
  return ip_peers_look(L, peers, NULL) ? IP_SOURCE_READY : IP_SOURCE_WAITS;
}

static bool is_listener_ready(struct ip_source *source) {
  const struct ip_peer_point *point = source->object;
  return ip_peers_look(NULL, point->peers, NULL);
}

static int watch_listener(lua_State *L, int index, struct ip_source *source);

static const struct ip_source_type listener_source = {.look = look_at_listener,
                                                      .watch = watch_listener,
                                                      .unwatch = unwatch_point,
                                                      .is_ready = is_listener_ready,
                                                      .external = true};

static int watch_listener(lua_State *L, int index, struct ip_source *source) {
  struct ip_peers *peers = ip_listener_check(L, index);
  if (peers != NULL && !ip_wait_point_is_ready(&peers->point.wait))
    return watch_point(&peers->point, &listener_source, source);
  ip_source_fire(source);
  return 0;
}

/* Does a receive of the session have to look at the socket? It has not ended. */
static bool is_live(const struct ip_session_box *box) {
  return box->socket.socket != NULL;
}

static int look_at_session(lua_State *L, int index) {
  struct ip_session_box *box = ip_session_check(L, index);
  if (!is_live(box)) return IP_SOURCE_READY;
  if (ip_wait_point_has_waiters(&box->session->point.wait)) return IP_SOURCE_WAITS;
  if (ip_peers_look(L, box->session->point.peers, box)) return IP_SOURCE_READY;
  ip_session_expire(box->session);
  return is_live(box) ? IP_SOURCE_WAITS : IP_SOURCE_READY;
}

static bool is_session_ready(struct ip_source *source) {
  struct ip_session *session =
      ip_container_of((struct ip_peer_point *)source->object, struct ip_session, point);
  return ip_peers_look(NULL, session->point.peers, session->box);
}

static int watch_session(lua_State *L, int index, struct ip_source *source);

static const struct ip_source_type session_source = {.look = look_at_session,
                                                     .watch = watch_session,
                                                     .unwatch = unwatch_point,
                                                     .is_ready = is_session_ready,
                                                     .external = true};

static int watch_session(lua_State *L, int index, struct ip_source *source) {
  struct ip_session_box *box = ip_session_check(L, index);
  if (is_live(box) && !ip_wait_point_is_ready(&box->session->point.wait))
    return watch_point(&box->session->point, &session_source, source);
  ip_source_fire(source);
  return 0;
}

/* --- queues --- */

static int look_at_queue(lua_State *L, int index) {
  return ip_fiber_queue_is_ready(L, index) ? IP_SOURCE_READY : IP_SOURCE_WAITS;
}

static void unwatch_queue(struct ip_source *source) {
  ip_queue_remove(&source->by.observer.link);
}

static int watch_queue(lua_State *L, int index, struct ip_source *source);

static const struct ip_source_type queue_source = {
    .look = look_at_queue, .watch = watch_queue, .unwatch = unwatch_queue};

static int watch_queue(lua_State *L, int index, struct ip_source *source) {
  if (ip_fiber_queue_is_ready(L, index)) {
    ip_source_fire(source);
    return 0;
  }
  source->type = &queue_source;
  ip_observer_init(&source->by.observer, on_observed);
  ip_fiber_queue_observe(L, index, &source->by.observer);
  return 0;
}

/* --- fibers --- */

static int look_at_fiber(lua_State *L, int index) {
  if (ip_fiber_is_current(L, index))
    ip_error_raise_with_hint(L, EDEADLK, "wait_any", "the fiber would wait for its own end");
  return ip_fiber_has_ended(L, index) ? IP_SOURCE_READY : IP_SOURCE_WAITS;
}

static void unwatch_fiber(struct ip_source *source) {
  ip_queue_remove(&source->by.fiber.link);
}

static void on_fiber_ended(struct ip_fiber_watch *watch) {
  ip_source_fire(ip_container_of(watch, struct ip_source, by.fiber));
}

static int watch_fiber(lua_State *L, int index, struct ip_source *source);

static const struct ip_source_type fiber_source = {
    .look = look_at_fiber, .watch = watch_fiber, .unwatch = unwatch_fiber};

/* Only the dispatcher ends fibers, so it has not ended since the look. */
static int watch_fiber(lua_State *L, int index, struct ip_source *source) {
  source->type = &fiber_source;
  source->by.fiber.ended = on_fiber_ended;
  ip_fiber_watch(L, index, &source->by.fiber);
  return 0;
}

/* --- descriptors --- */

/* A descriptor number, as an integer or as a float that has its value. */
static bool is_number_of_descriptor(lua_State *L, int index) {
  int is_integer;
  lua_Integer number = lua_tointegerx(L, index, &is_integer);
  return is_integer && number >= 0 && number <= INT_MAX;
}

static int look_at_descriptor(lua_State *L, int index) {
  return ip_file_descriptor_argument(L, index, "wait_any");
}

static bool confirm_descriptor(lua_State *L, int index, int events) {
  if ((events & POLLNVAL) == 0) return true;
  lua_pushinteger(L, look_at_descriptor(L, index));
  ip_error_raise_about(L, EBADF, "wait_any", -1, NULL);
}

static void unwatch_descriptor(struct ip_source *source) {
  ip_poll_set_remove(&source->by.descriptor);
}

static void on_descriptor_ready(struct ip_poll_wait *wait, int events, int error) {
  struct ip_source *source = ip_container_of(wait, struct ip_source, by.descriptor);
  (void)events;
  if (error == 0)
    ip_source_fire(source);
  else /* the poll set says ECANCELED of a descriptor that is closed */
    ip_operation_complete_with(source->operation, error == ECANCELED ? EBADF : error);
}

static bool is_descriptor_ready(struct ip_source *source) {
  struct pollfd descriptor = {.fd = (int)(intptr_t)source->object, .events = POLLIN};
  return poll(&descriptor, 1, 0) == 1;
}

static int watch_descriptor(lua_State *L, int index, struct ip_source *source);

static const struct ip_source_type descriptor_source = {.look = look_at_descriptor,
                                                        .confirm = confirm_descriptor,
                                                        .watch = watch_descriptor,
                                                        .unwatch = unwatch_descriptor,
                                                        .is_ready = is_descriptor_ready,
                                                        .external = true,
                                                        .uses_poll_set = true};

/* Does a source before this one watch the number? Two waits for one number would end within each other. */
static bool is_watched(const struct ip_source *source, int fd) {
  const struct ip_source *first = source - (source->number - 1);
  for (const struct ip_source *other = first; other != source; other++)
    if (other->type == &descriptor_source && other->object == (void *)(intptr_t)fd) return true;
  return false;
}

static int watch_descriptor(lua_State *L, int index, struct ip_source *source) {
  const struct ip_file_descriptor *object = ip_file_descriptor_test(L, index);
  int fd = object != NULL ? object->fd : (int)lua_tointeger(L, index);
  if (is_watched(source, fd)) return 0;
  source->by.descriptor = (struct ip_poll_wait){.events = UV_READABLE, .ready = on_descriptor_ready};
  source->object = (void *)(intptr_t)fd;
  int error = fd < 0 ? EBADF : ip_poll_set_add(source->operation->runtime, &source->by.descriptor, fd);
  if (error == 0) source->type = &descriptor_source;
  return error;
}

/* --- all kinds --- */

static const struct {
  enum ip_class class;
  const struct ip_source_type *type;
} types[] = {
    {IP_CLASS_SOCKET, &socket_source},   {IP_CLASS_LISTENER, &listener_source},
    {IP_CLASS_SESSION, &session_source}, {IP_CLASS_QUEUE, &queue_source},
    {IP_CLASS_FIBER, &fiber_source},     {IP_CLASS_FILE_DESCRIPTOR, &descriptor_source},
};

const struct ip_source_type *ip_source_type_of(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TNUMBER) return is_number_of_descriptor(L, index) ? &descriptor_source : NULL;
  if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index)) return NULL;
  const void *metatable = lua_topointer(L, -1);
  lua_pop(L, 1);
  const struct ip_core *core = ip_core(L);
  for (size_t i = 0; i < ip_count_of(types); i++)
    if (core->metatable[types[i].class] == metatable) return types[i].type;
  return NULL;
}
