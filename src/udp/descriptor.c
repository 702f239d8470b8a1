/* descriptor.c: assign and release, which move a descriptor into and out of a socket. Owns nothing.

   A refused descriptor is unchanged and stays with the caller. A socket that this library opened knows its
   own state (bound, connected, shut); here, the system is asked for it. Each method says what it raises. */
#include "udp/descriptor.h"

#include "binding/argument.h"
#include "binding/error.h"
#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/flusher.h"
#include "udp/parts.h"
#include "udp/receive_path.h"
#include "udp/socket.h"
#include "udp/state_pool.h"
#include "value/file_descriptor.h"

#include <errno.h>

/* Returns 0 if the integer option has that value, EINVAL if it has another or the descriptor is no socket. */
static int expect(int fd, int name, int value) {
  int actual;
  int error = ip_datagram_get_option(fd, SOL_SOCKET, name, &actual);
  if (error != 0) return error == ENOTSOCK ? EINVAL : error;
  return actual == value ? 0 : EINVAL;
}

/* Returns 0 for a UDP socket of IPv4 or IPv6, else an errno value. UDP-Lite counts as UDP; other datagram
   sockets, such as ICMP sockets, do not. */
static int expect_socket(int fd, struct ip_endpoint *local) {
  int error = expect(fd, SO_TYPE, SOCK_DGRAM);
  if (error != 0) return error;
#ifdef SO_PROTOCOL
  error = expect(fd, SO_PROTOCOL, IPPROTO_UDP);
#ifdef IPPROTO_UDPLITE
  if (error == EINVAL) error = expect(fd, SO_PROTOCOL, IPPROTO_UDPLITE);
#endif
  if (error != 0) return error;
#endif
  error = ip_datagram_local(fd, local); /* tells the family of an unbound socket, too */
  if (error != 0) return error;
  int family = ip_endpoint_family(local);
  return family == AF_INET || family == AF_INET6 ? 0 : EINVAL;
}

enum { ANY_FAMILY = AF_UNSPEC };

/* Reads the arguments (family, fd) or (fd) from index 2 on: the family, and the index of the descriptor.
   [-0, +0, v] */
static int check_arguments(lua_State *L, int *descriptor) {
  bool alone = lua_type(L, 2) == LUA_TNUMBER || ip_file_descriptor_test(L, 2) != NULL;
  *descriptor = alone && lua_isnoneornil(L, 3) ? 2 : 3;
  if (*descriptor == 2) return ANY_FAMILY;
  return ip_socket_check_family(L, 2) ? AF_INET6 : AF_INET;
}

IP_NO_RETURN static void refuse(lua_State *L, int fd, int error, const char *hint) {
  lua_pushinteger(L, fd);
  ip_error_raise_about(L, error, "assign", -1, hint);
}

/* Who bound the socket cannot be asked: it keeps its port when it is disconnected. */
static int note_state(struct ip_channel *channel, const struct ip_endpoint *local,
                      struct ip_buffer_pool *pool) {
  int error = ip_association_adopt(channel);
  if (error == 0) error = ip_parts_adopt(channel, pool);
  if (error != 0) return error;
  channel->has_port = ip_endpoint_port(local) != 0;
  channel->shut_receive = ip_datagram_is_shut(channel->fd); /* sends tell by themselves */
  return ip_datagram_set_nonblocking(channel->fd);          /* last: what fails must leave no trace */
}

/* sock:assign([family,] fd): moves an open UDP socket into this one. family: "v4", "v6" or an ip.address that
   the descriptor must match; fd: an ip.file_descriptor, which is emptied, or an integer. Sets O_NONBLOCK and
   nothing else. EALREADY when the socket is open; EBADF when the descriptor is not; EINVAL when it is no UDP
   socket of that family; EEXIST when an open socket of this state has it. A refused descriptor stays with the
   caller, unchanged. Suspends: no. Source: Emilua; socket(7). */
int ip_socket_assign(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_socket_box *box = ip_socket_check(L, 1);
  int descriptor;
  int family = check_arguments(L, &descriptor);
  int fd = ip_file_descriptor_argument(L, descriptor, "assign");
  ip_runtime_check(L, runtime);
  if (box->socket != NULL)
    return ip_error_raise_with_hint(L, EALREADY, "assign", "the socket is open already");
  struct ip_endpoint local;
  int error = expect_socket(fd, &local);
  if (error != 0) refuse(L, fd, error, error == EINVAL ? "it is no UDP socket over IPv4 or IPv6" : NULL);
  if (family != ANY_FAMILY && family != ip_endpoint_family(&local))
    refuse(L, fd, EINVAL,
           family == AF_INET ? "the socket is for IPv6 addresses" : "the socket is for IPv4 addresses");
  if (ip_socket_holds(runtime, fd)) refuse(L, fd, EEXIST, "another open socket has it");
  bool is_v6 = ip_endpoint_family(&local) == AF_INET6;
  struct ip_socket *socket = ip_socket_adopt(L, box, fd, is_v6, "assign");
  error = note_state(&socket->channel, &local, ip_state_pool(L));
  if (error != 0) {
    ip_socket_disown(box);
    return ip_error_raise(L, error, "assign");
  }
  struct ip_file_descriptor *object = ip_file_descriptor_test(L, descriptor);
  if (object != NULL) object->fd = IP_NO_DESCRIPTOR;
  return 0;
}

/* sock:release() -> fd: moves the descriptor out of the socket as it is: bound, connected, non-blocking, with
   its queued datagrams. Datagrams that coalesce has queued are sent first, and GRO is disabled if no datagram
   waits. The socket is closed afterwards and may be opened again. Pending operations raise ECANCELED. EBADF
   when the socket is not open; EBUSY while read-ahead datagrams have not been received or queued datagrams
   cannot be sent. Suspends: no. Source: Emilua. */
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
