/* interface_mtu.c: SIOCGIFMTU, see netdevice(7). Owns nothing; raises nothing. */
#include "net/interface_mtu.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int get_mtu(int fd, const char *name, int *mtu) {
  struct ifreq request = {.ifr_mtu = 0};
  size_t length = strlen(name);
  if (length >= sizeof request.ifr_name) return ENODEV;
  memcpy(request.ifr_name, name, length);
  if (ioctl(fd, SIOCGIFMTU, &request) != 0) return errno == ENXIO ? ENODEV : errno; /* BSD reports ENXIO */
  *mtu = request.ifr_mtu;
  return 0;
}

int ip_interface_mtu(const char *name, int *mtu) {
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0); /* a socket of any family can be asked */
  if (fd < 0) return errno;
  int error = get_mtu(fd, name, mtu);
  close(fd);
  return error;
}
