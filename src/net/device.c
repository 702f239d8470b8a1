/* device.c: the network device that a datagram socket is bound to, or sends from. Owns nothing; raises
   nothing.

   SO_BINDTOIFINDEX (Linux 5.1) works for a device that is gone, too; systems without it bind by name.
   Sources: SO_BINDTODEVICE in socket(7), net/core/sock.c of Linux. */
#include "net/device.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#ifdef SO_BINDTODEVICE

static int get_by_name(int fd, unsigned *index) {
  char name[IFNAMSIZ + 1] = {0};
  socklen_t length = IFNAMSIZ;
  *index = 0;
  if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &length) != 0)
    return errno == ENOPROTOOPT || errno == EOPNOTSUPP ? 0 : errno;
  if (length == 0 || name[0] == '\0') return 0;
  *index = if_nametoindex(name);
  return *index != 0 ? 0 : errno;
}

static int set_by_name(int fd, unsigned index) {
  char name[IFNAMSIZ] = {0};
  if (index != 0 && if_indextoname(index, name) == NULL) return errno;
  return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, sizeof name) != 0 ? errno : 0;
}

int ip_device_get(int fd, unsigned *index) {
#ifdef SO_BINDTOIFINDEX
  int value = 0;
  socklen_t length = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &value, &length) == 0) {
    *index = (unsigned)value;
    return 0;
  }
  if (errno != ENOPROTOOPT) return errno;
#endif
  return get_by_name(fd, index);
}

int ip_device_set(int fd, unsigned index) {
#ifdef SO_BINDTOIFINDEX
  int value = (int)index;
  if (setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &value, sizeof value) == 0) return 0;
  if (errno != ENOPROTOOPT) return errno;
#endif
  return set_by_name(fd, index);
}

#else

int ip_device_get(int fd, unsigned *index) {
  (void)fd;
  *index = 0;
  return 0;
}

int ip_device_set(int fd, unsigned index) {
  (void)fd;
  return index == 0 ? 0 : ENOTSUP;
}

#endif

/* A sticky option (RFC 3542 section 6). Unlike IPV6_MULTICAST_IF, it counts for unicast, too, and it is no
   option of this library that a program might have set. */
int ip_device_send_from(int fd, unsigned index) {
#ifdef IPV6_PKTINFO
  struct in6_pktinfo info = {.ipi6_ifindex = index};
  return setsockopt(fd, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info) != 0 ? errno : 0;
#else
  (void)fd;
  return index == 0 ? 0 : ENOTSUP;
#endif
}
