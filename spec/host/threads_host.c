/* threads_host.c: runs a program of Lua in many threads, each with a state of its own, round after round, while
   the main thread sends SIGINT to all of them and forks. A state is closed while others wait. Is meant for
   ThreadSanitizer (scripts/threads.sh). Exit code 0: each program and each child has succeeded.

   usage: threads_host PROGRAM ROUNDS [THREADS] */
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What ThreadSanitizer ends a child with that makes threads, whose numbers the parent's have ("dup thread"). */
enum { MOST_THREADS = 64, USUAL_THREADS = 8, THREAD_REPORT = 66 };

static const char *program;
static int rounds;
static atomic_int failures, running, interrupts;

static void on_interrupt(int number) {
  (void)number;
  atomic_fetch_add(&interrupts, 1);
}

static bool run_once(int thread, int round) {
  lua_State *L = luaL_newstate();
  if (L == NULL) return false;
  luaL_openlibs(L);
  bool ok = luaL_loadfile(L, program) == LUA_OK;
  lua_pushinteger(L, thread);
  lua_pushinteger(L, round);
  ok = ok && lua_pcall(L, 2, 0, 0) == LUA_OK;
  if (!ok) fprintf(stderr, "thread %d, round %d: %s\n", thread, round, luaL_tolstring(L, -1, NULL));
  lua_close(L);
  return ok;
}

static void *run(void *argument) {
  int thread = (int)(size_t)argument;
  for (int round = 0; round < rounds; round++)
    if (!run_once(thread, round)) atomic_fetch_add(&failures, 1);
  atomic_fetch_sub(&running, 1);
  return NULL;
}

static void sleep_milliseconds(long milliseconds) {
  struct timespec time = {.tv_nsec = milliseconds * 1000000};
  int status;
  do
    status = nanosleep(&time, &time);
  while (status != 0 && errno == EINTR);
}

/* The child has the states of all threads, none of which runs, and makes one of its own. */
static void fork_once(bool child_runs) {
  pid_t child = fork();
  if (child == 0) {
    bool ok = !child_runs || run_once(0, 0);
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  bool waited = child > 0 && waitpid(child, &status, 0) == child;
  bool ended =
      waited && WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == THREAD_REPORT);
  if (!ended) {
    fprintf(stderr, "a child has ended with %d\n", status);
    atomic_fetch_add(&failures, 1);
  }
}

int main(int count, char **arguments) {
  if (count < 3) {
    fprintf(stderr, "usage: %s PROGRAM ROUNDS [THREADS]\n", arguments[0]);
    return 2;
  }
  program = arguments[1];
  rounds = atoi(arguments[2]);
  int threads = count > 3 ? atoi(arguments[3]) : USUAL_THREADS;
  if (threads < 1 || threads > MOST_THREADS) return 2;
  struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
  if (sigaction(SIGINT, &action, NULL) != 0) return 2;
  /* Keeps the library loaded: ThreadSanitizer would take what is loaded again at an address for the same. */
  lua_State *keeper = luaL_newstate();
  if (keeper == NULL) return 2;
  luaL_openlibs(keeper);
  if (luaL_dostring(keeper, "require 'ip'") != LUA_OK) return 2;
  pthread_t all[MOST_THREADS];
  atomic_store(&running, threads);
  for (int i = 0; i < threads; i++)
    if (pthread_create(&all[i], NULL, run, (void *)(size_t)(i + 1)) != 0) return 2;
  int forks = 0, sent = 0;
  while (atomic_load(&running) > 0) {
    sleep_milliseconds(2);
    if (kill(getpid(), SIGINT) == 0) sent++;
    if (sent % 10 == 0) fork_once(false), forks++;
  }
  for (int i = 0; i < threads; i++)
    pthread_join(all[i], NULL);
  fork_once(true);
  lua_close(keeper);
  printf("%d threads, %d rounds, %d signals, %d forks, %d failures\n", threads, rounds, sent, forks + 1,
         atomic_load(&failures));
  return atomic_load(&failures) != 0;
}
