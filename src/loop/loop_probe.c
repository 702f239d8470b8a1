/* loop_probe.c: opens what the first uv_loop_init of a process opens, and closes it again. Owns nothing
   afterwards.

   Counted with strace on libuv 1.44.2: an epoll, the pipe that is a lock of the signal handlers, the pipe
   that signals arrive by, and an eventfd; the last two are registered. */
#include "loop/loop_probe.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

/* The pipes come first, so that each of them is a pair. */
enum { FIRST_PIPE = 0, SECOND_PIPE = 2, EPOLL = 4, EVENT = 5, COUNT = 6 };

static int last_error(int result) {
  return result < 0 ? errno : 0;
}

#ifdef __linux__
static int open_pipe(int *ends) {
  return last_error(pipe2(ends, O_CLOEXEC));
}

static int open_rest(int *fds) {
  fds[EPOLL] = epoll_create1(EPOLL_CLOEXEC);
  int error = last_error(fds[EPOLL]);
  if (error != 0) return error;
  fds[EVENT] = eventfd(0, EFD_CLOEXEC);
  return last_error(fds[EVENT]);
}

static int register_all(const int *fds) {
  struct epoll_event event = {.events = EPOLLIN};
  int error = last_error(epoll_ctl(fds[EPOLL], EPOLL_CTL_ADD, fds[SECOND_PIPE], &event));
  if (error != 0) return error;
  return last_error(epoll_ctl(fds[EPOLL], EPOLL_CTL_ADD, fds[EVENT], &event));
}
#else
static int open_pipe(int *ends) {
  return last_error(pipe(ends));
}

static int open_rest(int *fds) {
  return open_pipe(&fds[EPOLL]);
}

static int register_all(const int *fds) {
  (void)fds;
  return 0;
}
#endif

static int open_all(int *fds) {
  int error = open_pipe(&fds[FIRST_PIPE]);
  if (error == 0) error = open_pipe(&fds[SECOND_PIPE]);
  if (error == 0) error = open_rest(fds);
  return error != 0 ? error : register_all(fds);
}

int ip_loop_probe(void) {
  int fds[COUNT] = {-1, -1, -1, -1, -1, -1};
  int error = open_all(fds);
  for (size_t i = 0; i < ip_count_of(fds); i++)
    if (fds[i] >= 0) close(fds[i]);
  return error;
}
