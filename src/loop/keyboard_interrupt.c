/* keyboard_interrupt.c: Ctrl-C while the main thread is blocked in the loop.

   libuv retries epoll_wait when a signal interrupts it, so the debug hook that the standalone interpreter's
   SIGINT handler sets would not run before the next event. This file installs a handler in front of the
   host's: it calls the host's handler and then wakes the loops that wait. Where the host has no handler (the
   default action, or SIG_IGN), it installs nothing.

   Owns static mutable data, as fork.c does, because a signal handler has no other data: all of it is atomic,
   or is written before it is published. Nothing here calls Lua or raises. */
#include "loop/keyboard_interrupt.h"

#include "base/util.h"
#include "loop/fork.h"

#include <signal.h>

enum { MOST_RUNTIMES = 64, LONGEST_WAIT_MS = 1000 };

static _Atomic(struct ip_runtime *) watchers[MOST_RUNTIMES];
static atomic_int handlers_running;
static atomic_int installing; /* a flag; some systems exchange no smaller type (riscv64) */

/* Each of our handlers stands in front of one of the host's, and keeps it for good: a handler that the host
   installs later may call the one that it has found, which is ours. An entry is filled before it is counted,
   and counted before its handler is installed; who reads an entry reads the count first. */
enum { MOST_HANDLERS = 4 };
static struct sigaction hosts[MOST_HANDLERS];
static atomic_int hosts_count;

static void call_host(const struct sigaction *host, int number, siginfo_t *information, void *context) {
  if (host->sa_flags & SA_SIGINFO)
    host->sa_sigaction(number, information, context);
  else
    host->sa_handler(number);
}

static void wake_loops(void) {
  for (size_t i = 0; i < ip_count_of(watchers); i++) {
    struct ip_runtime *runtime = atomic_load(&watchers[i]);
    if (runtime == NULL) continue;
    atomic_store(&runtime->signalled, 1);
    if (ip_fork_happened(runtime)) continue; /* the descriptor behind the handle is still the parent's */
    /* may be called from a signal handler (libuv docs, uv_async_send); fails on no handle */
    (void)uv_async_send(&runtime->handles->wakeup);
  }
}

static void interrupt(int handler, int number, siginfo_t *information, void *context) {
  atomic_fetch_add(&handlers_running, 1);
  if (handler < atomic_load(&hosts_count)) call_host(&hosts[handler], number, information, context);
  wake_loops();
  atomic_fetch_sub(&handlers_running, 1);
}

static void on_interrupt_0(int number, siginfo_t *information, void *context) {
  interrupt(0, number, information, context);
}

static void on_interrupt_1(int number, siginfo_t *information, void *context) {
  interrupt(1, number, information, context);
}

static void on_interrupt_2(int number, siginfo_t *information, void *context) {
  interrupt(2, number, information, context);
}

static void on_interrupt_3(int number, siginfo_t *information, void *context) {
  interrupt(3, number, information, context);
}

static void (*const handlers[MOST_HANDLERS])(int, siginfo_t *, void *) = {on_interrupt_0, on_interrupt_1,
                                                                          on_interrupt_2, on_interrupt_3};

static bool has_handler(const struct sigaction *action) {
  if (action->sa_flags & SA_SIGINFO) return true;
  return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
}

/* Returns what the handler stands in front of if it is ours, or NULL. */
static const struct sigaction *host_behind(const struct sigaction *action) {
  if ((action->sa_flags & SA_SIGINFO) == 0) return NULL;
  int count = atomic_load(&hosts_count);
  for (int i = 0; i < count; i++)
    if (action->sa_sigaction == handlers[i]) return &hosts[i];
  return NULL;
}

static bool is_same(const struct sigaction *one, const struct sigaction *other) {
  if (one->sa_flags != other->sa_flags) return false;
  return (one->sa_flags & SA_SIGINFO) != 0 ? one->sa_sigaction == other->sa_sigaction
                                           : one->sa_handler == other->sa_handler;
}

/* Returns the number of the handler of ours that stands in front of `host`; -1: there are too many. */
static int handler_before(const struct sigaction *host) {
  int count = atomic_load(&hosts_count);
  for (int i = 0; i < count; i++)
    if (is_same(&hosts[i], host)) return i;
  if (count == MOST_HANDLERS) return -1;
  hosts[count] = *host;
  atomic_store(&hosts_count, count + 1);
  return count;
}

/* Installs a handler of ours in front of the current handler. */
static void install(void) {
  struct sigaction action;
  if (sigaction(SIGINT, NULL, &action) != 0 || !has_handler(&action) || host_behind(&action) != NULL) return;
  int number = handler_before(&action);
  if (number < 0) return;
  action.sa_sigaction = handlers[number];
  action.sa_flags |= SA_SIGINFO;
  sigaction(SIGINT, &action, NULL); /* cannot fail: the same call has just read the action */
}

static void watch(struct ip_runtime *runtime) {
  for (size_t i = 0; i < ip_count_of(watchers); i++)
    if (atomic_load(&watchers[i]) == runtime) return;
  for (size_t i = 0; i < ip_count_of(watchers); i++) {
    struct ip_runtime *none = NULL;
    if (atomic_compare_exchange_strong(&watchers[i], &none, runtime)) return;
  }
}

/* Does a hook wait for the next instruction, as the one that the interpreter's handler sets (lua.c, laction)?
   A signal that came after the calling function began and before our handler was there has woken no loop. */
static bool is_hook_pending(lua_State *L) {
  return (lua_gethookmask(L) & LUA_MASKCOUNT) != 0 && lua_gethookcount(L) == 1;
}

void ip_keyboard_interrupt_watch(lua_State *L, struct ip_runtime *runtime) {
  watch(runtime);
  if (atomic_exchange(&installing, 1) == 0) { /* else another thread is at it, to the same effect */
    install();
    atomic_store(&installing, 0);
  }
  if (IP_UNLIKELY(is_hook_pending(L))) atomic_store(&runtime->signalled, 1);
}

/* Restores the host's handler: this code may be unloaded together with the state. */
static void uninstall(void) {
  for (size_t i = 0; i < ip_count_of(watchers); i++)
    if (atomic_load(&watchers[i]) != NULL) return;
  struct sigaction action;
  const struct sigaction *host = sigaction(SIGINT, NULL, &action) == 0 ? host_behind(&action) : NULL;
  if (host != NULL) sigaction(SIGINT, host, NULL);
}

void ip_keyboard_interrupt_forget(struct ip_runtime *runtime) {
  for (size_t i = 0; i < ip_count_of(watchers); i++) {
    struct ip_runtime *self = runtime;
    atomic_compare_exchange_strong(&watchers[i], &self, NULL);
  }
  uninstall();
  /* A handler in another thread may still use the pointer. The wait is bounded, because a host's handler that
     leaves by longjmp never ends. */
  for (int i = 0; i < LONGEST_WAIT_MS && atomic_load(&handlers_running) != 0; i++)
    uv_sleep(1);
}

/* Other threads, which may have been installing the handler or running it, do not exist in the child. A
   signal that came before the loop was made anew has woken no loop. */
void ip_keyboard_interrupt_forked(struct ip_runtime *runtime) {
  atomic_store(&handlers_running, 0);
  atomic_store(&installing, 0);
  if (atomic_load(&runtime->signalled))
    (void)uv_async_send(&runtime->handles->wakeup); /* fails on no handle */
}
