/* descriptor.c: assign and release, the ways in and out of a socket for a descriptor. Owns nothing.

   A descriptor that is refused has not been touched and stays with the caller. What a socket of ours would know of its own
   doing (bound, connected, shut) is asked of the system here. */
#include "udp/descriptor.h"

#include "binding/argument.h"
#include "binding/error.h"
#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/flusher.h"
#include "udp/parts.h"
#include "udp/receive_path.h"
#include "udp/socket.h"
#include "value/file_descriptor.h"

#include <errno.h>
#include <poll.h>

/* 0 where the integer option has that value, EINVAL where it has another or the descriptor is no socket. */
static int expect(int fd, int name, int value) {
  int actual;
  int error = ip_datagram_get_option(fd, SOL_SOCKET, name, &actual);
  if (error != 0) return error == ENOTSOCK ? EINVAL : error;
  return actual == value ? 0 : EINVAL;
}

/* Is it a UDP socket of that family? 0 or an errno value. UDP-Lite counts; what merely has datagrams, such as
   an ICMP socket, does not. */
static int expect_socket(int fd, bool is_v6, struct ip_endpoint *local) {
  int error = expect(fd, SO_TYPE, SOCK_DGRAM);
  if (error != 0) return error;
#ifdef SO_PROTOCOL
  error = expect(fd, SO_PROTOCOL, IPPROTO_UDP);
#ifdef IPPROTO_UDPLITE
  if (error == EINVAL) error = expect(fd, SO_PROTOCOL, IPPROTO_UDPLITE);
#endif
  if (error != 0) return error;
#endif
  error = ip_datagram_local(fd, local);
  if (error != 0) return error;
  return ip_endpoint_family(local) == (is_v6 ? AF_INET6 : AF_INET) ? 0 : EINVAL;
}

/* Receiving is shut down: polling for data would never sleep. Sends tell by themselves. */
static bool is_shut(int fd) {
#ifdef POLLRDHUP
  struct pollfd entry = {.fd = fd, .events = POLLRDHUP};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP)) != 0;
#else
  (void)fd;
  return false;
#endif
}

/* Who bound the socket cannot be asked: it keeps its port when it is disconnected. */
static int note_state(struct ip_channel *channel, const struct ip_endpoint *local) {
  int error = ip_association_adopt(channel, local);
  if (error == 0) error = ip_parts_adopt(channel);
  if (error != 0) return error;
  channel->bound = ip_endpoint_port(local) != 0;
  channel->shut_receive = is_shut(channel->fd);
  return ip_datagram_set_nonblocking(channel->fd); /* last: what fails must leave no trace */
}

/* sock:assign(family, fd): takes over an open UDP socket. family: "v4", "v6" or an ip.address; fd: an
   ip.file_descriptor, which is emptied, or an integer. Sets O_NONBLOCK and nothing else. EALREADY when the
   socket is open; EBADF when the descriptor is not; EINVAL when it is no UDP socket of that family; EEXIST
   when an open socket of this state holds it. Whatever is refused stays with the caller as it was. Suspends:
   no. Source: Emilua; socket(7). */
int ip_socket_assign(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_socket_box *box = ip_socket_check(L, 1);
  bool is_v6 = ip_socket_check_family(L, 2);
  int fd = ip_file_descriptor_argument(L, 3, "assign");
  ip_runtime_check(L, runtime);
  if (box->socket != NULL) return ip_error_raise(L, EALREADY, "assign");
  struct ip_endpoint local;
  int error = expect_socket(fd, is_v6, &local);
  if (error == 0 && ip_socket_holds(runtime, fd)) error = EEXIST;
  if (error != 0) return ip_error_raise(L, error, "assign");
  struct ip_socket *socket = ip_socket_adopt(L, box, fd, is_v6, "assign");
  error = note_state(&socket->channel, &local);
  if (error != 0) {
    ip_socket_disown(box);
    return ip_error_raise(L, error, "assign");
  }
  struct ip_file_descriptor *object = ip_file_descriptor_test(L, 3);
  if (object != NULL) object->fd = IP_NO_DESCRIPTOR;
  return 0;
}

/* sock:release() -> fd: gives the descriptor away, as it is: bound, connected, non-blocking, with what has
   arrived still in it. What coalesce has queued to be sent leaves before, and GRO is disabled where nothing waits.
   The socket is closed afterwards and may be opened again. Pending operations raise ECANCELED. EBADF when the socket
   is not open; EBUSY while read-ahead datagrams are not all received, or queued ones cannot leave. Suspends:
   no. Source: Emilua. */
int ip_socket_release(lua_State *L) {
  ip_socket_check_open(L, "release");
  struct ip_file_descriptor *object = ip_file_descriptor_push(L);
  struct ip_socket_box *box = ip_socket_check_open(L, "release"); /* a finalizer may have closed it */
  struct ip_channel *channel = &box->socket->channel;
  if (channel->fd < 0) return ip_error_raise(L, EBADF, "release"); /* others have closed it */
  if (ip_receive_path_has_read_ahead(channel) || !ip_flusher_flush(box->socket->flusher))
    return ip_error_raise(L, EBUSY, "release");
  if (channel->receive != NULL) {
    channel->receive->coalesce = false;
    ip_receive_path_disable_gro(channel);
  }
  object->fd = ip_socket_disown(box);
  return 1;
}
