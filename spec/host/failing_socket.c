/* failing_socket.c: a library that is loaded before the others (LD_PRELOAD) and makes socket fail with the
   error whose number is in the file that the environment variable FAILING_SOCKET names, while there is such a
   file. The resolver of glibc has sockets all the same: it does not call this function. */
#include "wanted_error.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int socket(int domain, int type, int protocol) {
  int error = wanted_error("FAILING_SOCKET");
  if (error == 0) return (int)syscall(SYS_socket, domain, type, protocol);
  errno = error;
  return -1;
}
