/* socket.c: the life of ip.udp.socket: opening, binding, connecting, closing.

   Owns the descriptor; libuv only reports that it is ready. A socket is created closed, gets its class, and
   only then its descriptor. Closing never yields, resumes or raises. Each method says what it raises. */
#include "udp/socket.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "loop/poll_set.h"
#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/error_queue.h"
#include "udp/parts.h"
#include "udp/readiness.h"
#include "udp/receive_path.h"
#include "udp/send_queue.h"
#include "value/address.h"

#include <errno.h>
#include <stdlib.h>

/* --- checks --- */

struct ip_socket_box *ip_socket_check(lua_State *L, int arg) {
  struct ip_socket_box *box = ip_check_class(L, arg, IP_CLASS_SOCKET);
  if (IP_UNLIKELY(ip_runtime(L)->closed)) box->socket = NULL; /* the runtime has freed it */
  return box;
}

struct ip_socket_box *ip_socket_check_open(lua_State *L, const char *operation) {
  struct ip_socket_box *box = ip_check_class(L, 1, IP_CLASS_SOCKET);
  if (IP_UNLIKELY(ip_runtime(L)->closed)) box->socket = NULL; /* the runtime has freed it */
  if (IP_UNLIKELY(box->socket == NULL))
    ip_error_raise_with_hint(L, EBADF, operation, "the socket is not open");
  return box;
}

static void check_result(lua_State *L, int error, const char *operation) {
  if (error != 0) ip_error_raise(L, error, operation);
}

int ip_socket_raise(lua_State *L, struct ip_failure failure, const char *operation) {
  struct ip_error *error = ip_error_push(L, IP_ERROR_SYSTEM, failure.code, operation);
  error->mtu = ip_failure_mtu(failure);
  ip_error_throw_new(L, error);
}

struct ip_socket *ip_socket_tie(lua_State *L, struct ip_operation *operation,
                                const struct ip_socket_box *box) {
  struct ip_socket *socket = box->socket;
  int error = socket == NULL ? EBADF : ip_watcher_prepare(&socket->watcher);
  if (error != 0) ip_operation_fail(L, operation, error);
  operation->object = socket;
  return socket;
}

/* --- opening and closing --- */

static struct ip_socket *socket_of(struct ip_resource *resource) {
  return ip_container_of(resource, struct ip_socket, watcher.resource);
}

/* Closes a socket that was opened while the state was ending: its box has no finalizer. */
static void close_at_end(struct ip_resource *resource) {
  struct ip_socket_box box = {.socket = socket_of(resource)};
  ip_send_queue_end(&box.socket->channel);
  ip_datagram_close(ip_socket_disown(&box));
}

static void release_socket(struct ip_watcher *watcher) {
  free(watcher); /* the first member of the socket */
}

/* What is left waits again. */
static void on_writable(struct ip_watcher *watcher) {
  if (!ip_flusher_flush(((struct ip_socket *)watcher)->flusher)) ip_watcher_note_fruitless(watcher);
}

/* What keeps a socket ready: entries of the system's error queue that nobody here has asked for, or that came
   while only the send queue waits; and the end of receiving, which a twin of the descriptor has brought
   about. */
static void end_fruitless_events(struct ip_watcher *watcher) {
  struct ip_channel *channel = &((struct ip_socket *)watcher)->channel;
  ip_error_queue_clear(channel);
  ip_flusher_wake_receives(watcher, channel);
  if (!ip_datagram_is_shut(channel->fd)) return;
  channel->shut_receive = true;
  ip_watcher_fail(watcher, IP_SIDE_READ, ESHUTDOWN);
  ip_watcher_notify(watcher);
}

/* The number is not ours any more: nothing of what it may mean by now is to be read, written or closed. */
static void on_lost(struct ip_watcher *watcher) {
  ((struct ip_socket *)watcher)->channel.fd = -1;
}

static bool is_readable(struct ip_watcher *watcher) {
  return ip_readiness_poll(watcher, &((struct ip_socket *)watcher)->channel);
}

static const struct ip_watcher_type socket_type = {
    .resource = {.name = "socket", .close = close_at_end, .forked = ip_watcher_forked},
    .release = release_socket,
    .writable = on_writable,
    .readable = is_readable,
    .fruitless = end_fruitless_events,
    .lost = on_lost};

bool ip_socket_holds(const struct ip_runtime *runtime, int fd) {
  const struct ip_queue *end = &runtime->resources;
  for (struct ip_queue *link = end->next; link != end; link = link->next) {
    struct ip_resource *resource = ip_container_of(link, struct ip_resource, link);
    if (resource->type == &socket_type.resource && socket_of(resource)->channel.fd == fd) return true;
  }
  return false;
}

/* Opens the box on a descriptor. Returns 0 or an errno value. */
static int adopt(struct ip_runtime *runtime, struct ip_socket_box *box, int fd, bool is_v6) {
  struct ip_socket *socket = calloc(1, sizeof *socket);
  if (socket == NULL) return ENOMEM;
  ip_watcher_init(&socket->watcher, runtime, fd, &socket_type);
  socket->channel.fd = fd;
  socket->channel.is_v6 = is_v6;
  socket->channel.raises_truncation = box->raises_truncation;
  box->socket = socket;
  return 0;
}

/* Opens the box; 0 or an errno value. Whoever waits for the number that the socket gets waits for what others
   have closed. */
static int open_socket(struct ip_runtime *runtime, struct ip_socket_box *box, bool is_v6) {
  int fd;
  int error = ip_datagram_open(is_v6 ? AF_INET6 : AF_INET, &fd);
  if (error != 0) return error;
  ip_poll_set_end(runtime, fd);
  error = adopt(runtime, box, fd, is_v6);
  if (error != 0) ip_datagram_close(fd);
  return error;
}

int ip_socket_disown(struct ip_socket_box *box) {
  struct ip_socket *socket = box->socket;
  int fd = socket->channel.fd;
  box->socket = NULL;
  box->generation++;
  ip_watcher_fail(&socket->watcher, IP_SIDE_READ, ECANCELED);
  ip_watcher_fail(&socket->watcher, IP_SIDE_WRITE, ECANCELED);
  ip_flusher_free(socket->flusher);
  socket->flusher = NULL;
  ip_parts_free(&socket->channel);
  ip_watcher_fini(&socket->watcher);
  return fd;
}

void ip_socket_end(struct ip_socket_box *box) {
  struct ip_runtime *runtime = box->socket->watcher.runtime;
  ip_send_queue_end(&box->socket->channel);
  int fd = ip_socket_disown(box);
  ip_poll_set_end(runtime, fd);
  ip_datagram_close(fd); /* what it could report (EIO) leaves the descriptor closed all the same */
}

/* sock:close(): closes the socket; pending operations and waits for its descriptor raise ECANCELED; closing
   again does nothing. Also __close and __gc. Suspends: no. Source: close(2). */
int ip_socket_close(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  if (box->socket != NULL) ip_socket_end(box);
  return 0;
}

/* Drops the cached addresses of the socket's two ends. The address of the last peer stays valid. */
static void forget_addresses(lua_State *L) {
  lua_pushnil(L);
  lua_setiuservalue(L, 1, IP_SOCKET_ENDS);
}

/* Opens the box at index 1, which may have cached addresses from an earlier socket. [-0, +0, e] */
static void open_box(lua_State *L, struct ip_socket_box *box, bool is_v6, const char *operation) {
  struct ip_runtime *runtime = ip_runtime(L);
  int error = open_socket(runtime, box, is_v6);
  if (ip_collect_descriptors(L, error)) /* a finalizer may have opened it meanwhile */
    error = box->socket != NULL ? EALREADY : open_socket(runtime, box, is_v6);
  check_result(L, error, operation);
  forget_addresses(L);
}

struct ip_socket *ip_socket_adopt(lua_State *L, struct ip_socket_box *box, int fd, bool is_v6,
                                  const char *operation) {
  check_result(L, adopt(ip_runtime(L), box, fd, is_v6), operation);
  forget_addresses(L);
  return box->socket;
}

/* ip.udp.socket.new() -> socket, not open. Suspends: no. */
int ip_socket_new(lua_State *L) {
  ip_runtime_check(L, ip_runtime(L));
  struct ip_socket_box *box = lua_newuserdatauv(L, sizeof *box, IP_SOCKET_USER_VALUES);
  *box = (struct ip_socket_box){.socket = NULL, .receive_timeout = -1, .send_timeout = -1};
  ip_class_set(L, IP_CLASS_SOCKET);
  return 1;
}

bool ip_socket_check_family(lua_State *L, int arg) {
  const struct ip_address *address = ip_test_class(L, arg, IP_CLASS_ADDRESS);
  if (address != NULL) return address->version == 6;
  static const char *const families[] = {"v4", "v6", NULL};
  if (lua_type(L, arg) != LUA_TSTRING) ip_argument_type_error(L, arg, "\"v4\", \"v6\" or ip.address");
  return ip_argument_choice(L, arg, families) == 1;
}

/* sock:open(family): opens the socket. `family`: "v4", "v6" or an ip.address. EALREADY when it is open.
   Nothing is set implicitly. Suspends: no. Source: socket(2). */
int ip_socket_open(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  bool is_v6 = ip_socket_check_family(L, 2);
  ip_runtime_check(L, ip_runtime(L));
  if (box->socket != NULL) return ip_error_raise_with_hint(L, EALREADY, "open", "the socket is open already");
  open_box(L, box, is_v6, "open");
  return 0;
}

/* The arguments (addr, port) at 2 and 3, and the endpoint that they make for the socket. */
struct target {
  struct ip_address address;
  uint16_t port;
  struct ip_endpoint endpoint;
};

static void check_target(lua_State *L, int error, const char *operation, const struct target *target,
                         const char *hint) {
  if (error == 0) return;
  struct ip_error_detail *detail = ip_error_push_detail(L, IP_ERROR_SYSTEM, error, operation);
  ip_error_set_endpoint(detail, &target->address, target->port);
  detail->hint = hint;
  ip_error_throw_new(L, &detail->error);
}

/* Reads the arguments, and opens the socket if it is not open. [-0, +0, e] */
static struct ip_socket *prepare(lua_State *L, struct target *target, const char *operation) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  ip_address_argument(L, 2, &target->address);
  target->port = ip_argument_port(L, 3);
  ip_runtime_check(L, ip_runtime(L));
  if (box->socket == NULL) open_box(L, box, target->address.version == 6, operation);
  ip_endpoint_set(&target->endpoint, ip_channel_family(&box->socket->channel), &target->address,
                  target->port);
  return box->socket;
}

/* sock:bind(addr, port): binds the socket to a local endpoint; opens it first if it is not open. With port 0,
   the system chooses one. Raises EADDRINUSE, EADDRNOTAVAIL, EACCES, EINVAL (bound already) and other errors
   of bind(2). Suspends: no. */
int ip_socket_bind(lua_State *L) {
  struct target local;
  struct ip_socket *socket = prepare(L, &local, "bind");
  int error = ip_datagram_bind(socket->channel.fd, &local.endpoint);
  bool again = error == EINVAL && socket->channel.has_port;
  check_target(L, error, "bind", &local, again ? "the socket is bound already" : NULL);
  socket->channel.has_port = true;
  uint32_t link = ip_endpoint_link_scope(&local.endpoint);
  if (link != 0) socket->channel.device = link; /* the system binds to it, too (net/ipv6/af_inet6.c) */
  forget_addresses(L);
  return 0;
}

/* sock:connect(addr, port): sets the peer: `send` sends to it, and receives return only its datagrams. Opens
   the socket first if it is not open; connecting again replaces the peer. Port 0 is EINVAL. Non-peer
   datagrams that were queued before are not delivered. Raises ENETUNREACH, EAFNOSUPPORT and other errors of
   connect(2). Suspends: no. */
int ip_socket_connect(lua_State *L) {
  struct target remote;
  struct ip_socket *socket = prepare(L, &remote, "connect");
  forget_addresses(L);
  ip_send_queue_leave_peer(&socket->channel);
  ip_flusher_wake_receives(&socket->watcher, &socket->channel);
  int error = ip_association_connect(&socket->channel, &remote.endpoint);
  bool to_port_0 = error == EINVAL && remote.port == 0;
  check_target(L, error, "connect", &remote, to_port_0 ? "port 0 is no destination" : NULL);
  return 0;
}

/* sock:disconnect(): dissolves the association; a bound socket keeps its local port. Does nothing on a socket
   that is not connected. Suspends: no. Source: connect(2) with AF_UNSPEC. */
int ip_socket_disconnect(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "disconnect")->socket;
  if (socket->channel.connection == NULL) return 0;
  forget_addresses(L);
  ip_send_queue_leave_peer(&socket->channel);
  ip_flusher_wake_receives(&socket->watcher, &socket->channel);
  check_result(L, ip_association_dissolve(&socket->channel), "disconnect");
  return 0;
}

/* sock:shutdown("receive" | "send" | "both"): from now on receives raise ESHUTDOWN, suspended ones too, and
   sends raise EPIPE. Linux still delivers datagrams after SHUT_RD, so this library refuses the receives.
   ENOTCONN when not connected. Suspends: no. Source: shutdown(2). */
int ip_socket_shutdown(lua_State *L) {
  static const char *const sides[] = {"receive", "send", "both", NULL};
  struct ip_socket *socket = ip_socket_check_open(L, "shutdown")->socket;
  int side = ip_argument_choice(L, 2, sides);
  bool receive = side != 1, send = side != 0;
  /* Linux reports ENOTCONN only after it has shut the socket down, which would then be readable for ever */
  if (socket->channel.connection == NULL) return ip_error_raise(L, ENOTCONN, "shutdown");
  if (send) ip_send_queue_end(&socket->channel);
  check_result(L, ip_datagram_shutdown(socket->channel.fd, receive, send), "shutdown");
  socket->channel.shut_receive |= receive;
  socket->channel.shut_send |= send;
  if (receive) {
    ip_watcher_fail(&socket->watcher, IP_SIDE_READ, ESHUTDOWN);
    ip_watcher_notify(&socket->watcher);
  }
  if (send) ip_watcher_fail(&socket->watcher, IP_SIDE_WRITE, EPIPE);
  return 0;
}

/* sock:cancel(): every pending operation of the socket raises ECANCELED. Suspends: no. Source: Emilua. */
int ip_socket_cancel(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "cancel")->socket;
  ip_watcher_fail(&socket->watcher, IP_SIDE_READ, ECANCELED);
  ip_watcher_fail(&socket->watcher, IP_SIDE_WRITE, ECANCELED);
  return 0;
}

/* sock:io_control("bytes_readable") -> size in bytes of the datagram that the next receive returns; 0 when
   there is none or it is empty. ENOTSUP for another command. Suspends: no. Source: FIONREAD in udp(7). */
int ip_socket_io_control(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "io_control")->socket;
  static const char *const commands[] = {"bytes_readable", NULL};
  if (ip_argument_find(L, 2, commands) < 0)
    return ip_error_raise_similar(L, ENOTSUP, "io_control", 2, commands[0]);
  int bytes;
  check_result(L, ip_receive_path_bytes_readable(&socket->channel, &bytes), "io_control");
  lua_pushinteger(L, bytes);
  return 1;
}
