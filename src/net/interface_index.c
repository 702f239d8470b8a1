/* interface_index.c: if_nametoindex with an error that can be told. Owns nothing. */
#include "net/interface_index.h"

#include <errno.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where glibc finds no descriptor, it reports what it met last when it tried one family after another, such
   as ENOENT (glibc 2.36, __opensock). So a socket is tried here. */
static int find_shortage(int error) {
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0) return errno;
  close(fd);
  return error;
}

int ip_interface_index(const char *name, unsigned *index) {
  errno = 0;
  *index = if_nametoindex(name);
  int error = errno;
  if (*index != 0) return 0;
  if (error == 0 || error == ENODEV || error == ENXIO) return ENODEV; /* BSD reports ENXIO */
  return find_shortage(error);
}
