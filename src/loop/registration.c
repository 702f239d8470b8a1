/* registration.c: see registration.h. Owns nothing; raises nothing. */
#include "loop/registration.h"

#include <errno.h>
#include <stdbool.h>

#ifdef __linux__
#include <sys/epoll.h>

/* libuv registers with EPOLL_CTL_ADD what it has just started, and modifies the registration where it meets
   EEXIST (uv__io_poll): so it may find the descriptor registered. */
int ip_registration_make(uv_loop_t *loop, int fd, int events) {
  struct epoll_event event = {.data.fd = fd};
  if (events & UV_READABLE) event.events |= EPOLLIN;
  if (events & UV_WRITABLE) event.events |= EPOLLOUT;
  bool registered = epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_ADD, fd, &event) == 0;
  return registered || errno == EEXIST ? 0 : errno;
}

#else
#include <fcntl.h>

int ip_registration_make(uv_loop_t *loop, int fd, int events) {
  (void)loop, (void)events;
  return fcntl(fd, F_GETFD) < 0 ? errno : 0;
}

#endif
