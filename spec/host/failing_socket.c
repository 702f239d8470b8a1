/* failing_socket.c: a library that is loaded before the others (LD_PRELOAD) and makes socket fail with the
   error whose number is in the file that the environment variable FAILING_SOCKET names, while there is such a
   file. The resolver of glibc has sockets all the same: it does not call this function. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int wanted_error(void) {
  const char *path = getenv("FAILING_SOCKET");
  FILE *file = path != NULL ? fopen(path, "r") : NULL;
  int error = 0;
  if (file == NULL) return 0;
  if (fscanf(file, "%d", &error) != 1) error = 0;
  fclose(file);
  return error;
}

int socket(int domain, int type, int protocol) {
  int error = wanted_error();
  if (error == 0) return (int)syscall(SYS_socket, domain, type, protocol);
  errno = error;
  return -1;
}
