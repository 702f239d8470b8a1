/* signal.c: wait_signal. A signal that was once waited for stays caught, by a uv_signal_t that the runtime owns until
   its end; one that comes while nobody waits is remembered, once. Callbacks contain no Lua. */
#include "fiber/fiber.h"

#include "base/util.h"
#include "binding/argument.h"

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

/* A caught signal. */
struct signal_watch {
  uv_signal_t uv; /* first: the runtime frees it when it closes it */
  struct signal_watch *next;
  bool remembered;
};

/* Operations keep the set of names they wait for in `flags`, a bit for each. */
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

static struct ip_operation *find_waiter(struct ip_runtime *runtime, uint32_t bit) {
  for (struct ip_queue *link = runtime->signal_waiters.next; link != &runtime->signal_waiters;
       link = link->next) {
    struct ip_ready *ready = ip_container_of(link, struct ip_ready, link);
    struct ip_operation *operation = ip_container_of(ready, struct ip_operation, ready);
    if ((uint32_t)operation->flags & bit) return operation;
  }
  return NULL;
}

static void on_signal(uv_signal_t *uv, int number) {
  struct signal_watch *watch = ip_container_of(uv, struct signal_watch, uv);
  struct ip_operation *waiter = find_waiter(uv->data, bit_of(number));
  if (waiter == NULL) {
    watch->remembered = true;
    return;
  }
  waiter->flags = number;
  ip_operation_complete(waiter, IP_ERROR_SYSTEM, 0);
}

static struct signal_watch *find_watch(const struct ip_runtime *runtime, int number) {
  struct signal_watch *watch = runtime->signals;
  while (watch != NULL && watch->uv.signum != number)
    watch = watch->next;
  return watch;
}

/* Catches a signal from now on; 0 or an errno value. */
static int catch_signal(struct ip_runtime *runtime, int number) {
  if (find_watch(runtime, number) != NULL) return 0;
  struct signal_watch *watch = calloc(1, sizeof *watch);
  if (watch == NULL) return ENOMEM;
  int status = uv_signal_init(runtime->loop, &watch->uv);
  if (status != 0) {
    free(watch);
    return -status;
  }
  watch->uv.data = runtime;
  ip_runtime_handle_opened(runtime);
  status = uv_signal_start(&watch->uv, on_signal, number);
  if (status != 0) {
    ip_runtime_close_handle(runtime, (uv_handle_t *)&watch->uv, ip_runtime_free_handle);
    return -status;
  }
  watch->next = runtime->signals;
  runtime->signals = watch;
  return 0;
}

static bool never_attempted(struct ip_operation *operation) {
  (void)operation;
  return true;
}

static int push_name(lua_State *L, const struct ip_outcome *outcome) {
  lua_pushstring(L, name_of(outcome->flags));
  return 1;
}

static const struct ip_operation_kind wait_signal_kind = {
    .name = "wait_signal", .attempt = never_attempted, .push_results = push_name};

/* The number of the signal named at `arg`. [-0, +0, v] */
static int check_signal(lua_State *L, int arg) {
  size_t length;
  const char *name = ip_argument_string(L, arg, &length);
  for (size_t i = 0; i < ip_count_of(names); i++)
    if (strlen(names[i].name) == length && memcmp(names[i].name, name, length) == 0) return names[i].number;
  luaL_argerror(L, arg, lua_pushfstring(L, "unknown signal '%s'", name));
  return 0;
}

/* A signal named in the arguments that has come since the last wait; 0 when there is none. */
static int take_remembered(lua_State *L, const struct ip_runtime *runtime) {
  for (int arg = 1; arg <= lua_gettop(L); arg++) {
    struct signal_watch *watch = find_watch(runtime, check_signal(L, arg));
    if (watch == NULL || !watch->remembered) continue;
    watch->remembered = false;
    return watch->uv.signum;
  }
  return 0;
}

/* Catches all signals named in the arguments; returns their set. [-0, +0, e] */
static uint32_t catch_all(lua_State *L, struct ip_runtime *runtime) {
  uint32_t set = 0;
  for (int arg = 1; arg <= lua_gettop(L); arg++)
    set |= bit_of(check_signal(L, arg));
  for (int arg = 1; arg <= lua_gettop(L); arg++) {
    int error = catch_signal(runtime, check_signal(L, arg));
    if (error != 0) ip_error_raise(L, error, wait_signal_kind.name);
  }
  return set;
}

/* wait_signal(name, ...) -> name: waits for one of the signals. From the first call on the process catches them: one
   that comes between two waits is remembered, one of each; SIGINT is no longer Ctrl-C's. EINVAL for those that cannot
   be caught. Suspends: yes. Source: uv_signal_start, signal(7). */
static int fiber_wait_signal(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  check_signal(L, 1);
  ip_operation_check(L, runtime, &wait_signal_kind);
  uint32_t set = catch_all(L, runtime);
  int number = take_remembered(L, runtime);
  if (number != 0) {
    lua_pushstring(L, name_of(number));
    return 1;
  }
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &wait_signal_kind, -1, false);
  operation->flags = (int)set;
  operation->external = true;
  runtime->external_waits++;
  ip_queue_append(&runtime->signal_waiters, &operation->ready.link);
  return ip_operation_suspend(L, operation);
}

static const luaL_Reg functions[] = {{"wait_signal", fiber_wait_signal}, {NULL, NULL}};

void ip_signal_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
