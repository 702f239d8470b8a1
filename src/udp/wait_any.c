/* wait_any.c: waiting for the first of several sources (source.h).

   A call looks at all sources in order, and polls the descriptors of those that only the system knows, many
   at a time. If none is ready it watches them all. The wait is malloc'ed; it belongs to the operation that is
   armed with it, and is freed when that leaves ARMED. Sockets stay armed in the event loop afterwards, so
   that the next wait for them costs no system call. Raises bad arguments, memory errors, and what wait_any
   says. */
#include "udp/wait_any.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "binding/value_text.h"
#include "udp/source.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

enum { POLLED_AT_ONCE = 64 };

/* The arguments of a call: the sources themselves, or a list of them at index 1. */
struct sources {
  size_t count;
  bool in_list;
};

struct wait {
  struct ip_flusher flusher; /* looks in each iteration for what the system does not know */
  size_t count;
  struct ip_source sources[];
};

/* Descriptors that are to be polled. */
struct polled {
  nfds_t count;
  struct pollfd descriptors[POLLED_AT_ONCE];
  size_t numbers[POLLED_AT_ONCE]; /* of the sources */
};

/* --- arguments --- */

static void push_source(lua_State *L, const struct sources *sources, size_t number) {
  if (sources->in_list)
    lua_rawgeti(L, 1, (lua_Integer)number);
  else
    lua_pushvalue(L, (int)number);
}

static const char kinds_of_sources[] =
    "socket, listener, session, queue, fiber, ip.file_descriptor or integer";

static struct sources read_arguments(lua_State *L) {
  struct sources sources = {.in_list = lua_type(L, 1) == LUA_TTABLE};
  if (sources.in_list) lua_settop(L, 1);
  sources.count = sources.in_list ? (size_t)lua_rawlen(L, 1) : (size_t)lua_gettop(L);
  if (sources.count == 0 && sources.in_list) ip_argument_error(L, 1, "the list is empty");
  if (sources.count == 0) ip_argument_type_error(L, 1, kinds_of_sources);
  luaL_checkstack(L, LUA_MINSTACK, "too many sources");
  return sources;
}

/* Raises the bad argument that the value on top of the stack is. [-0, +0, v] */
IP_NO_RETURN static void refuse(lua_State *L, const struct sources *sources, size_t number) {
  if (!sources->in_list) ip_argument_type_error(L, (int)number, kinds_of_sources);
  const char *got = ip_value_text_push(L, -1);
  lua_Integer position = (lua_Integer)number;
  ip_argument_error(L, 1,
                    lua_pushfstring(L, "source %I: %s expected, got %s", position, kinds_of_sources, got));
}

/* Pushes a source and returns its kind. [-0, +1, v] */
static const struct ip_source_type *check_source(lua_State *L, const struct sources *sources, size_t number) {
  push_source(L, sources, number);
  const struct ip_source_type *type = ip_source_type_of(L, -1);
  if (type == NULL) refuse(L, sources, number);
  return type;
}

/* --- looking --- */

/* Returns the number of the first source that poll(2) has found ready, or 0; forgets them all. [-0, +0, e] */
static size_t poll_now(lua_State *L, const struct sources *sources, struct polled *polled) {
  nfds_t count = polled->count;
  polled->count = 0;
  if (count == 0 || poll(polled->descriptors, count, 0) <= 0)
    return 0; /* an error: they are watched instead */
  for (nfds_t i = 0; i < count; i++) {
    if (polled->descriptors[i].revents == 0) continue;
    const struct ip_source_type *type = check_source(L, sources, polled->numbers[i]);
    bool ready = type->confirm == NULL || type->confirm(L, lua_gettop(L), polled->descriptors[i].revents);
    lua_pop(L, 1);
    if (ready) return polled->numbers[i];
  }
  return 0;
}

/* Returns the number of the first source that is ready, or 0. [-0, +0, e] */
static size_t find_ready(lua_State *L, const struct sources *sources) {
  struct polled polled;
  polled.count = 0;
  for (size_t number = 1; number <= sources->count; number++) {
    int found = check_source(L, sources, number)->look(L, lua_gettop(L));
    lua_pop(L, 1);
    if (found == IP_SOURCE_WAITS) continue;
    if (found != IP_SOURCE_READY) {
      polled.descriptors[polled.count] = (struct pollfd){.fd = found, .events = POLLIN};
      polled.numbers[polled.count++] = number;
      if (polled.count < POLLED_AT_ONCE) continue;
    }
    size_t ready = poll_now(L, sources, &polled);
    if (ready != 0) return ready;
    if (found == IP_SOURCE_READY) return number;
  }
  return poll_now(L, sources, &polled);
}

static int push_found(lua_State *L, const struct sources *sources, size_t number) {
  push_source(L, sources, number);
  if (!sources->in_list) return 1;
  lua_pushinteger(L, (lua_Integer)number);
  return 2;
}

/* --- waiting --- */

static void on_unlinked(struct ip_operation *operation) {
  struct wait *wait = operation->object;
  operation->object = NULL;
  ip_queue_remove(&wait->flusher.link);
  for (size_t i = 0; i < wait->count; i++)
    if (wait->sources[i].type != NULL) wait->sources[i].type->unwatch(&wait->sources[i]);
  free(wait);
}

/* What came in time must not be missed because a timer runs before the poll. */
static void attempt_last(struct ip_operation *operation) {
  struct wait *wait = operation->object;
  for (size_t i = 0; i < wait->count; i++) {
    struct ip_source *source = &wait->sources[i];
    if (source->type == NULL || source->type->is_ready == NULL) continue;
    bool ready = source->type->is_ready(source);
    if (operation->state != IP_OPERATION_ARMED) return; /* to look has completed and freed the wait */
    if (!ready) continue;
    ip_source_fire(source);
    return;
  }
  ip_operation_time_out(operation);
}

/* Pushes the first source that is ready now, or else the one that ended the wait: somebody else may have
   taken what made it ready. [-0, +?, e] */
static int push_ready(lua_State *L, struct ip_result *result) {
  struct sources sources = {.count = result->payload.sources.count,
                            .in_list = result->payload.sources.in_list};
  size_t number = find_ready(L, &sources);
  return push_found(L, &sources, number != 0 ? number : result->payload.sources.fired);
}

static const struct ip_operation_type wait_any_type = {
    .name = "wait_any", .unlinked = on_unlinked, .final_attempt = attempt_last, .push_results = push_ready};

static bool has_unseen(const struct ip_source *source) {
  return source->type != NULL && source->type->is_ready_unseen != NULL;
}

/* At the end of each iteration. */
static void look_for_unseen(struct ip_flusher *flusher) {
  struct wait *wait = ip_container_of(flusher, struct wait, flusher);
  struct ip_source *sources = wait->sources;
  for (size_t i = 0; i < wait->count; i++) {
    if (!has_unseen(&sources[i]) || !sources[i].type->is_ready_unseen(&sources[i])) continue;
    ip_source_fire(&sources[i]);
    return;
  }
  ip_runtime_schedule(sources[0].operation->runtime, flusher);
}

static struct wait *new_wait(struct ip_operation *operation, size_t count) {
  struct wait *wait = malloc(sizeof *wait + count * sizeof wait->sources[0]);
  if (wait == NULL) return NULL;
  wait->count = count;
  wait->flusher.flush = look_for_unseen;
  ip_queue_init(&wait->flusher.link);
  for (size_t i = 0; i < count; i++)
    wait->sources[i] = (struct ip_source){.operation = operation, .number = i + 1};
  return wait;
}

/* Watches all sources; 0 or an errno value. The wait ends, and is freed, as soon as one of them is ready. A
   list may have been changed by a finalizer: what is no source any more is not watched. [-0, +0, -] */
static int watch_all(lua_State *L, struct ip_operation *operation, const struct sources *sources) {
  struct wait *wait = operation->object;
  bool external = false, unseen = false;
  for (size_t number = 1; number <= sources->count; number++) {
    struct ip_source *source = &wait->sources[number - 1];
    push_source(L, sources, number);
    const struct ip_source_type *type = ip_source_type_of(L, -1);
    int error = type != NULL ? type->watch(L, lua_gettop(L), source) : 0;
    lua_pop(L, 1);
    if (error != 0) return error;
    if (operation->state != IP_OPERATION_ARMED) return 0;
    external = external || (type != NULL && type->external);
    unseen = unseen || has_unseen(source);
  }
  if (external) ip_operation_wait_externally(operation);
  if (unseen) ip_runtime_schedule(operation->runtime, &wait->flusher);
  return 0;
}

/* Descriptors are watched in the poll set, which has to be there before the operation is. [-0, +0, e] */
static void open_set(lua_State *L, struct ip_runtime *runtime) {
  int error = ip_poll_set_open(runtime);
  if (ip_collect_descriptors(L, error)) error = ip_poll_set_open(runtime);
  if (error != 0) ip_error_raise(L, error, wait_any_type.name);
}

static void prepare(lua_State *L, struct ip_runtime *runtime, const struct sources *sources) {
  if (runtime->poll_set != NULL) return;
  for (size_t number = 1; number <= sources->count; number++) {
    bool is_descriptor = check_source(L, sources, number)->uses_poll_set;
    lua_pop(L, 1);
    if (!is_descriptor) continue;
    open_set(L, runtime);
    return;
  }
}

/* `ready`: a source that is ready although the call suspends, because its budget is spent; 0: none is. */
static int suspend(lua_State *L, struct ip_runtime *runtime, const struct sources *sources, size_t ready) {
  prepare(L, runtime, sources);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &wait_any_type, IP_NEVER, ready != 0);
  operation->payload.sources.count = sources->count;
  operation->payload.sources.in_list = sources->in_list;
  operation->payload.sources.fired = ready;
  if (ready != 0) {
    ip_operation_succeed(operation);
    return ip_operation_suspend(L, operation);
  }
  struct wait *wait = new_wait(operation, sources->count);
  if (wait == NULL) return ip_operation_fail(L, operation, ENOMEM);
  operation->object = wait;
  int error = watch_all(L, operation, sources);
  if (error != 0) return ip_operation_fail(L, operation, error);
  return ip_operation_suspend(L, operation);
}

/* wait_any(source, ...) -> source | wait_any(list) -> source, index: waits until one of the sources is ready,
   and takes nothing. A source is a socket or a session (a receive would not wait), a listener (accept would
   not wait), an ip.fiber.queue (get would not wait), a fiber (it has ended), or a descriptor (an integer or
   ip.file_descriptor: it is readable). Of several that are ready the first is returned. What the accept
   function of a listener raises stays for accept. EBADF for a descriptor that is closed, EDEADLK for the
   running fiber; EMFILE, ENFILE, ENOMEM, ENOSPC where the system cannot watch more. Suspends: yes. Source:
   poll(2). */
static int fiber_wait_any(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct sources sources = read_arguments(L);
  for (size_t number = 1; number <= sources.count; number++) {
    check_source(L, &sources, number);
    lua_pop(L, 1);
  }
  ip_operation_check(L, runtime, &wait_any_type);
  size_t ready = find_ready(L, &sources);
  if (IP_UNLIKELY(ready == 0 || runtime->budget <= 0)) return suspend(L, runtime, &sources, ready);
  runtime->budget--;
  return push_found(L, &sources, ready);
}

static const luaL_Reg functions[] = {{"wait_any", fiber_wait_any}, {NULL, NULL}};

void ip_wait_any_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
