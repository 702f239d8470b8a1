/* descriptor_probe.c: counts the descriptors that this process may still open, and tries whether the system
   has one. Owns nothing afterwards.

   The count opens none: a descriptor that is open for a moment here would be missing in a thread. */
#include "resolve/descriptor_probe.h"

#include "net/datagram_io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

enum {
  MOST_NUMBERS = 1 << 20, /* where there is no limit: the default of fs.nr_open in Linux */
  LONGEST_SEARCH = 1 << 16
};

/* The number behind the last descriptor that this process may have. */
static int end_of_numbers(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > MOST_NUMBERS) return MOST_NUMBERS;
  return (int)limit.rlim_cur;
}

/* The system gives the lowest free number, so the highest ones are the last to be taken. */
static bool has_numbers(unsigned needed) {
  int end = end_of_numbers();
  int begin = end > LONGEST_SEARCH ? end - LONGEST_SEARCH : 0;
  for (int fd = end - 1; fd >= begin && needed > 0; fd--)
    if (fcntl(fd, F_GETFD) < 0) needed--;
  return needed == 0;
}

int ip_descriptor_probe(unsigned needed) {
  if (!has_numbers(needed)) return EMFILE;
  int fd;
  int error = ip_datagram_open(AF_INET, &fd);
  if (error == 0) return ip_datagram_close(fd);
  return error == EMFILE || error == ENFILE ? error : 0; /* other refusals are about sockets */
}
