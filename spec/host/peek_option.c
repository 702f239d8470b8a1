/* peek_option.c: prints the values of integer options of another process's socket, one a line. It duplicates
   the descriptor from that process with pidfd_getfd(2) (Linux 5.6).

   usage: peek_option PID DESCRIPTOR LEVEL:NUMBER... */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* These numbers are the same on every architecture. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

static int fail(const char *what) {
  perror(what);
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  long process = syscall(SYS_pidfd_open, atol(argv[1]), 0);
  if (process < 0) return fail("pidfd_open");
  int fd = (int)syscall(SYS_pidfd_getfd, process, atol(argv[2]), 0);
  if (fd < 0) return fail("pidfd_getfd");
  for (int i = 3; i < argc; i++) {
    int level, number, value;
    if (sscanf(argv[i], "%d:%d", &level, &number) != 2) return 2;
    socklen_t length = sizeof value;
    if (getsockopt(fd, level, number, &value, &length) != 0) return fail(argv[i]);
    printf("%d\n", value);
  }
  return 0;
}
