/* signal.c: wait_signal. The first wait for a signal makes the process catch it, by a uv_signal_t that lives
   until the end of the state. A signal wakes every call that waits for it; one that arrives while no call
   waits for it is remembered once. Callbacks do not call Lua.

   Owns its state, a userdata that is the second upvalue of wait_signal. Raises bad arguments, and the errors
   of catching a signal. */
#include "fiber/signal.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/raise.h"
#include "loop/operation.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  int number;
} names[] = {
    {"SIGABRT", SIGABRT},   {"SIGALRM", SIGALRM},     {"SIGCHLD", SIGCHLD}, {"SIGCONT", SIGCONT},
    {"SIGHUP", SIGHUP},     {"SIGINT", SIGINT},       {"SIGKILL", SIGKILL}, {"SIGPIPE", SIGPIPE},
    {"SIGQUIT", SIGQUIT},   {"SIGSTOP", SIGSTOP},     {"SIGTERM", SIGTERM}, {"SIGTSTP", SIGTSTP},
    {"SIGTTIN", SIGTTIN},   {"SIGTTOU", SIGTTOU},     {"SIGURG", SIGURG},   {"SIGUSR1", SIGUSR1},
    {"SIGUSR2", SIGUSR2},   {"SIGVTALRM", SIGVTALRM}, {"SIGXCPU", SIGXCPU}, {"SIGXFSZ", SIGXFSZ},
#ifdef SIGIO
    {"SIGIO", SIGIO},
#endif
#ifdef SIGWINCH
    {"SIGWINCH", SIGWINCH},
#endif
};

struct signals {
  struct ip_resource resource; /* closes the watches at the end of the state; detached while there are none */
  struct ip_runtime *runtime;
  struct ip_queue waiters; /* operations of wait_signal */
  struct ip_queue watches; /* struct signal_watch */
};

/* A caught signal. */
struct signal_watch {
  uv_signal_t uv; /* first: free() of it frees the watch */
  struct ip_queue link;
  struct signals *signals;
  size_t woken;    /* calls that the signal has completed and that have not returned it yet */
  bool returned;   /* one of the calls that were woken together has returned the signal */
  bool remembered; /* it arrived while no call waited for it */
};

static uint32_t bit_of(int number) {
  for (size_t i = 0; i < ip_count_of(names); i++)
    if (names[i].number == number) return (uint32_t)1 << i;
  return 0;
}

static const char *name_of(int number) {
  for (size_t i = 0; i < ip_count_of(names); i++)
    if (names[i].number == number) return names[i].name;
  return NULL;
}

/* Completes all calls that wait for the signal. Returns how many there were. */
static size_t wake_all(struct signals *signals, int number) {
  uint32_t bit = bit_of(number);
  size_t count = 0;
  for (struct ip_queue *link = signals->waiters.next, *next; link != &signals->waiters; link = next) {
    next = link->next; /* completing the operation unlinks it */
    struct ip_ready *ready = ip_container_of(link, struct ip_ready, link);
    struct ip_operation *operation = ip_container_of(ready, struct ip_operation, ready);
    if ((operation->payload.signal.set & bit) == 0) continue;
    operation->payload.signal.number = number;
    ip_operation_succeed(operation);
    count++;
  }
  return count;
}

static void arrive(struct signal_watch *watch) {
  size_t count = wake_all(watch->signals, watch->uv.signum);
  if (count == 0) watch->remembered = true;
  if (watch->woken == 0) watch->returned = false;
  watch->woken += count;
}

static void on_signal(uv_signal_t *uv, int number) {
  (void)number; /* the watch has it, too */
  arrive(ip_container_of(uv, struct signal_watch, uv));
}

static struct signal_watch *watch_of(struct ip_queue *link) {
  return ip_container_of(link, struct signal_watch, link);
}

static struct signal_watch *find_watch(const struct signals *signals, int number) {
  for (struct ip_queue *link = signals->watches.next; link != &signals->watches; link = link->next)
    if (watch_of(link)->uv.signum == number) return watch_of(link);
  return NULL;
}

static void close_watches(struct ip_resource *resource) {
  struct signals *signals = ip_container_of(resource, struct signals, resource);
  ip_queue_remove(&resource->link);
  for (struct ip_queue *link = ip_queue_pop(&signals->watches); link != NULL;
       link = ip_queue_pop(&signals->watches))
    ip_runtime_close_handle((uv_handle_t *)&watch_of(link)->uv, ip_runtime_free_handle);
}

/* A child has none of the signals that its parent has not looked at (fork(2)). libuv up to 1.44 goes on
   counting those as caught, and would wait for ever for them before it closes the handle. */
static void forget_caught(struct ip_resource *resource) {
  const struct signals *signals = ip_container_of(resource, struct signals, resource);
  for (struct ip_queue *link = signals->watches.next; link != &signals->watches; link = link->next) {
    struct signal_watch *watch = watch_of(link);
    watch->remembered = false;
    watch->uv.caught_signals = watch->uv.dispatched_signals = 0;
  }
}

static const struct ip_resource_type signals_type = {
    .name = "signals", .close = close_watches, .forked = forget_caught};

/* Catches a signal from now on. Returns 0 or an errno value. */
static int catch_signal(struct signals *signals, int number) {
  if (find_watch(signals, number) != NULL) return 0;
  struct signal_watch *watch = calloc(1, sizeof *watch);
  if (watch == NULL) return ENOMEM;
  int status = uv_signal_init(signals->runtime->loop, &watch->uv);
  if (status != 0) {
    free(watch);
    return -status;
  }
  watch->uv.data = signals->runtime;
  ip_runtime_handle_opened(signals->runtime);
  status = uv_signal_start(&watch->uv, on_signal, number);
  if (status != 0) {
    ip_runtime_close_handle((uv_handle_t *)&watch->uv, ip_runtime_free_handle);
    return -status;
  }
  watch->signals = signals;
  ip_queue_append(&signals->watches, &watch->link);
  if (!ip_queue_is_linked(&signals->resource.link))
    ip_runtime_add_resource(signals->runtime, &signals->resource, &signals_type);
  return 0;
}

/* Takes note that a call which the signal has woken is over. Returns the watch; NULL at the end of the
   state. */
static struct signal_watch *end_waking(const struct signals *signals, int number) {
  struct signal_watch *watch = find_watch(signals, number);
  if (watch != NULL) watch->woken--;
  return watch;
}

static int push_name(lua_State *L, struct ip_result *result) {
  struct signal_watch *watch = end_waking(result->object, result->payload.signal.number);
  if (watch != NULL) watch->returned = true;
  lua_pushstring(L, name_of(result->payload.signal.number));
  return 1;
}

/* Where none of the calls that a signal has woken will return it, it arrives once more: a coroutine that was
   closed has taken nothing. */
static void put_back(lua_State *L, struct ip_operation *operation) {
  (void)L;
  if (operation->state != IP_OPERATION_READY || operation->failure.code != 0) return;
  struct signal_watch *watch = end_waking(operation->object, operation->payload.signal.number);
  if (watch != NULL && watch->woken == 0 && !watch->returned) arrive(watch);
}

static const struct ip_operation_type wait_signal_type = {
    .name = "wait_signal", .cancelled = put_back, .push_results = push_name};

/* Returns the number of the signal named at `arg`. [-0, +0, v] */
static int check_signal(lua_State *L, int arg) {
  size_t length;
  const char *name = ip_argument_string(L, arg, &length);
  for (size_t i = 0; i < ip_count_of(names); i++)
    if (strlen(names[i].name) == length && memcmp(names[i].name, name, length) == 0) return names[i].number;
  ip_argument_error(L, arg, lua_pushfstring(L, "unknown signal '%s'; a name is like 'SIGTERM'", name));
  return 0;
}

/* Returns a remembered signal that the arguments name, and forgets it; 0 when there is none. [-0, +0, v] */
static int pop_remembered(lua_State *L, const struct signals *signals) {
  for (int arg = 1; arg <= lua_gettop(L); arg++) {
    struct signal_watch *watch = find_watch(signals, check_signal(L, arg));
    if (watch == NULL || !watch->remembered) continue;
    watch->remembered = false;
    return watch->uv.signum;
  }
  return 0;
}

/* Catches all signals that the arguments name, and returns their set. [-0, +0, e] */
static uint32_t catch_all(lua_State *L, struct signals *signals) {
  uint32_t set = 0;
  for (int arg = 1; arg <= lua_gettop(L); arg++)
    set |= bit_of(check_signal(L, arg));
  for (int arg = 1; arg <= lua_gettop(L); arg++) {
    int error = catch_signal(signals, check_signal(L, arg));
    const char *hint = error == EINVAL ? "no program can catch it" : NULL;
    if (error != 0) ip_error_raise_about(L, error, wait_signal_type.name, arg, hint);
  }
  return set;
}

/* wait_signal(name, ...) -> name: waits for one of the signals, which wakes all calls that wait for it. From
   the first call on, the process catches them: a signal that arrives while no call waits for it is remembered
   for the next, once for each name, and SIGINT no longer stops the program by Ctrl-C. EINVAL for signals that
   cannot be caught. Suspends: yes. Source: uv_signal_start,
   signal(7). */
static int fiber_wait_signal(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct signals *signals = lua_touserdata(L, lua_upvalueindex(2));
  check_signal(L, 1);
  ip_operation_check(L, runtime, &wait_signal_type);
  ip_runtime_check(L, runtime); /* the process may have been forked */
  uint32_t set = catch_all(L, signals);
  int number = pop_remembered(L, signals);
  if (number != 0) {
    lua_pushstring(L, name_of(number));
    return 1;
  }
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &wait_signal_type, IP_NEVER, false);
  operation->object = signals; /* the suspended frame holds it: it is an upvalue of this function */
  operation->payload.signal.set = set;
  ip_operation_wait_externally(operation);
  ip_queue_append(&signals->waiters, &operation->ready.link);
  return ip_operation_suspend(L, operation);
}

void ip_signal_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  lua_pushvalue(L, core);
  struct signals *signals = lua_newuserdatauv(L, sizeof *signals, 0);
  *signals = (struct signals){.runtime = lua_touserdata(L, core)};
  ip_queue_init(&signals->resource.link);
  ip_queue_init(&signals->waiters);
  ip_queue_init(&signals->watches);
  lua_pushcclosure(L, fiber_wait_signal, 2);
  lua_setfield(L, -2, "wait_signal");
}
