/* failing_epoll.c: a library that is loaded before the others (LD_PRELOAD) and makes epoll_ctl fail:
   EPOLL_CTL_ADD gives the error whose number is in the file that the environment variable FAILING_EPOLL
   names, while there is such a file. */
#include "wanted_error.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
  int error = operation == EPOLL_CTL_ADD ? wanted_error("FAILING_EPOLL") : 0;
  if (error == 0) return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
  errno = error;
  return -1;
}
