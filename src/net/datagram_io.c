/* datagram_io.c: the system calls of a datagram socket. Owns nothing; raises nothing.

   Sources: socket(2), recv(2), send(2), udp(7), POSIX.1-2017. */
#include "net/datagram_io.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

int ip_datagram_set_nonblocking(int fd) {
  int status = fcntl(fd, F_GETFL);
  if (status < 0) return errno;
  if (status & O_NONBLOCK) return 0;
  return fcntl(fd, F_SETFL, status | O_NONBLOCK) < 0 ? errno : 0;
}

#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
int ip_datagram_open(int family, int *fd) {
  *fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);
  return *fd < 0 ? errno : 0;
}
#else
static int set_flags(int fd) {
  int error = ip_datagram_set_nonblocking(fd);
  if (error != 0) return error;
  return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? errno : 0;
}

int ip_datagram_open(int family, int *fd) {
  *fd = socket(family, SOCK_DGRAM, IPPROTO_UDP);
  if (*fd < 0) return errno;
  int error = set_flags(*fd);
  if (error != 0) close(*fd);
  return error;
}
#endif

/* EINTR: on Linux the descriptor is closed, elsewhere it may be. So close is never retried (close(2)). */
int ip_datagram_close(int fd) {
  return close(fd) != 0 && errno != EINTR ? errno : 0;
}

int ip_datagram_bind(int fd, const struct ip_endpoint *local) {
  return bind(fd, &local->name.any, local->length) != 0 ? errno : 0;
}

int ip_datagram_connect(int fd, const struct ip_endpoint *remote) {
  return connect(fd, &remote->name.any, remote->length) != 0 ? errno : 0;
}

/* BSD and macOS dissolve the association and then report EAFNOSUPPORT or EINVAL all the same (connect(2)
   there). */
int ip_datagram_disconnect(int fd) {
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  if (connect(fd, &none, sizeof none) == 0) return 0;
#ifdef __linux__
  return errno;
#else
  return errno == EAFNOSUPPORT || errno == EINVAL ? 0 : errno;
#endif
}

int ip_datagram_shutdown(int fd, bool receive, bool send) {
  int how = receive && send ? SHUT_RDWR : receive ? SHUT_RD : SHUT_WR;
  return shutdown(fd, how) != 0 ? errno : 0;
}

bool ip_datagram_is_shut(int fd) {
#ifdef POLLRDHUP
  struct pollfd entry = {.fd = fd, .events = POLLRDHUP};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP)) != 0;
#else
  (void)fd;
  return false;
#endif
}

int ip_datagram_local(int fd, struct ip_endpoint *local) {
  local->length = sizeof local->name;
  return getsockname(fd, &local->name.any, &local->length) != 0 ? errno : 0;
}

int ip_datagram_remote(int fd, struct ip_endpoint *remote) {
  remote->length = sizeof remote->name;
  return getpeername(fd, &remote->name.any, &remote->length) != 0 ? errno : 0;
}

int ip_datagram_bytes_readable(int fd, int *bytes) {
  return ioctl(fd, FIONREAD, bytes) != 0 ? errno : 0;
}

#ifdef __linux__

/* With MSG_TRUNC the result is the datagram's real length, which shows a truncation without a msghdr
   (recv(2), for UDP over both families since Linux 3.4). */
static ssize_t receive_once(int fd, void *data, size_t size, int flags, struct ip_datagram *datagram,
                            bool with_source) {
  struct ip_endpoint *source = &datagram->source;
  source->length = with_source ? sizeof source->name : 0;
  ssize_t real = with_source ? recvfrom(fd, data, size, flags | MSG_TRUNC, &source->name.any, &source->length)
                             : recv(fd, data, size, flags | MSG_TRUNC);
  datagram->truncated = real > 0 && (size_t)real > size;
  return datagram->truncated ? (ssize_t)size : real;
}

#else

static ssize_t receive_once(int fd, void *data, size_t size, int flags, struct ip_datagram *datagram,
                            bool with_source) {
  struct iovec part = {.iov_base = data, .iov_len = size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (with_source) {
    message.msg_name = &datagram->source.name;
    message.msg_namelen = sizeof datagram->source.name;
  }
  ssize_t received = recvmsg(fd, &message, flags);
  datagram->source.length = with_source ? message.msg_namelen : 0;
  datagram->truncated = received >= 0 && (message.msg_flags & MSG_TRUNC) != 0;
  return received;
}

#endif

int ip_datagram_receive(int fd, void *data, size_t size, int flags, struct ip_datagram *datagram,
                        bool with_source) {
  ssize_t received;
  do
    received = receive_once(fd, data, size, flags, datagram, with_source);
  while (IP_UNLIKELY(received < 0) && errno == EINTR);
  if (received < 0) return errno;
  datagram->length = (size_t)received;
  return 0;
}

static ssize_t send_parts(int fd, const struct iovec *parts, size_t count, const struct ip_endpoint *remote,
                          int flags) {
  struct msghdr message = {.msg_iov = (struct iovec *)(size_t)parts, .msg_iovlen = count};
  if (remote != NULL) {
    message.msg_name = (void *)(size_t)&remote->name;
    message.msg_namelen = remote->length;
  }
  return sendmsg(fd, &message, flags);
}

static ssize_t send_part(int fd, const struct iovec *part, const struct ip_endpoint *remote, int flags) {
  const struct sockaddr *name = remote != NULL ? &remote->name.any : NULL;
  return sendto(fd, part->iov_base, part->iov_len, flags, name, remote != NULL ? remote->length : 0);
}

/* MSG_NOSIGNAL: a send after shutdown reports EPIPE, and raises no SIGPIPE (send(2)). */
int ip_datagram_send(int fd, const struct iovec *parts, size_t count, const struct ip_endpoint *remote,
                     int flags, size_t *sent) {
  ssize_t result;
  do {
    if (IP_LIKELY(count == 1))
      result = send_part(fd, parts, remote, flags | MSG_NOSIGNAL);
    else
      result = send_parts(fd, parts, count, remote, flags | MSG_NOSIGNAL);
  } while (IP_UNLIKELY(result < 0) && errno == EINTR);
  if (result < 0) return errno;
  *sent = (size_t)result;
  return 0;
}

int ip_datagram_get_option(int fd, int level, int name, int *value) {
  socklen_t length = sizeof *value;
  return getsockopt(fd, level, name, value, &length) != 0 ? errno : 0;
}

int ip_datagram_set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) != 0 ? errno : 0;
}
