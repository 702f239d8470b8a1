/* udp_socket.c: ip.udp.socket, its life and its properties.

   The descriptor is this library's own: libuv only tells readiness. A socket is made closed, gets its class,
   and only then its descriptor. Closing never yields, resumes or raises. */
#include "udp/socket.h"

#include "base/util.h"
#include "binding/argument.h"
#include "udp/message.h"
#include "value/address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- checks --- */

struct ip_socket_box *ip_socket_check(lua_State *L, int arg) {
  struct ip_socket_box *box = ip_check_class(L, arg, IP_CLASS_SOCKET);
  if (IP_UNLIKELY(ip_runtime(L)->closed)) box->socket = NULL; /* the runtime has freed it */
  return box;
}

struct ip_socket_box *ip_socket_check_open(lua_State *L, const char *operation) {
  struct ip_socket_box *box = ip_check_class(L, 1, IP_CLASS_SOCKET);
  if (IP_UNLIKELY(ip_runtime(L)->closed)) box->socket = NULL; /* the runtime has freed it */
  if (IP_UNLIKELY(box->socket == NULL)) ip_error_raise(L, EBADF, operation);
  return box;
}

static void check_result(lua_State *L, int error, const char *operation) {
  if (error != 0) ip_error_raise(L, error, operation);
}

/* --- opening and closing --- */

static struct ip_socket *new_socket(struct ip_runtime *runtime, int fd, bool is_v6) {
  struct ip_socket *socket = calloc(1, sizeof *socket);
  if (socket == NULL) return NULL;
  ip_readiness_init(&socket->readiness, runtime, fd);
  socket->is_v6 = is_v6;
  return socket;
}

/* Opens the box on a descriptor; 0 or an errno value. */
static int adopt(struct ip_runtime *runtime, struct ip_socket_box *box, int fd, bool is_v6) {
  struct ip_socket *socket = new_socket(runtime, fd, is_v6);
  if (socket == NULL) return ENOMEM;
  box->socket = socket;
  ip_queue_append(&runtime->open_sockets, &socket->link);
  runtime->sockets++;
  return 0;
}

/* Opens the box; 0 or an errno value. */
static int open_socket(struct ip_runtime *runtime, struct ip_socket_box *box, bool is_v6) {
  int fd;
  int error = ip_datagram_open(is_v6 ? AF_INET6 : AF_INET, &fd);
  if (error != 0) return error;
  error = adopt(runtime, box, fd, is_v6);
  if (error != 0) ip_datagram_close(fd);
  return error;
}

static void release_socket(struct ip_readiness *readiness) {
  free(readiness); /* the readiness is the socket's first member */
}

static void drop_connection(struct ip_socket *socket) {
  free(socket->connection);
  socket->connection = NULL;
  socket->filtering = false;
}

int ip_socket_disown(struct ip_socket_box *box) {
  struct ip_socket *socket = box->socket;
  int fd = socket->readiness.fd;
  box->socket = NULL;
  box->life++;
  ip_readiness_fail(&socket->readiness, IP_SIDE_READ, ECANCELED);
  ip_readiness_fail(&socket->readiness, IP_SIDE_WRITE, ECANCELED);
  drop_connection(socket);
  ip_messages_free(socket->messages);
  socket->messages = NULL;
  ip_queue_remove(&socket->link);
  socket->readiness.runtime->sockets--;
  ip_readiness_fini(&socket->readiness, release_socket);
  return fd;
}

/* sock:close(): closes the socket; pending operations raise ECANCELED; closing again does nothing. Also
   __close and
   __gc. Suspends: no. Source: close(2). */
static int socket_close(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  if (box->socket == NULL) return 0;
  ip_gather_end(box->socket);
  int fd = ip_socket_disown(box);
  ip_datagram_close(fd); /* what it could report (EIO) leaves the descriptor closed all the same */
  return 0;
}

/* For what was opened while the state was ending already: such a box has no finalizer. */
static void close_at_end(struct ip_queue *link) {
  struct ip_socket *socket = ip_container_of(link, struct ip_socket, link);
  struct ip_socket_box box = {.socket = socket};
  ip_gather_end(socket);
  ip_datagram_close(ip_socket_disown(&box));
}

/* The cached addresses of the socket's own two ends; the last peer's stays true whatever happens to them. */
static void forget_addresses(lua_State *L) {
  lua_pushnil(L);
  lua_setiuservalue(L, 1, IP_SOCKET_ENDS);
}

/* Opens the box at index 1, which may still have addresses of its former life. [-0, +0, e] */
static void open_box(lua_State *L, struct ip_socket_box *box, bool is_v6, const char *operation) {
  check_result(L, open_socket(ip_runtime(L), box, is_v6), operation);
  forget_addresses(L);
}

struct ip_socket *ip_socket_adopt(lua_State *L, struct ip_socket_box *box, int fd, bool is_v6,
                                  const char *operation) {
  check_result(L, adopt(ip_runtime(L), box, fd, is_v6), operation);
  forget_addresses(L);
  return box->socket;
}

/* ip.udp.socket.new() -> socket, not open. Suspends: no. */
static int socket_new(lua_State *L) {
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
  if (lua_type(L, arg) != LUA_TSTRING) luaL_typeerror(L, arg, "\"v4\", \"v6\" or ip.address");
  return ip_argument_choice(L, arg, families) == 1;
}

/* sock:open(family): opens the socket. `family`: "v4", "v6" or an ip.address. EALREADY when it is open.
   Nothing is set implicitly. Suspends: no. Source: socket(2). */
static int socket_open(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  bool is_v6 = ip_socket_check_family(L, 2);
  ip_runtime_check(L, ip_runtime(L));
  if (box->socket != NULL) return ip_error_raise(L, EALREADY, "open");
  open_box(L, box, is_v6, "open");
  return 0;
}

/* Reads (addr, port) at 2 and 3, opens the socket when it is not open, fills the endpoint. [-0, +0, e] */
static struct ip_socket *prepare(lua_State *L, struct ip_endpoint *endpoint, const char *operation) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  struct ip_address address;
  ip_address_argument(L, 2, &address);
  uint16_t port = ip_argument_port(L, 3);
  ip_runtime_check(L, ip_runtime(L));
  if (box->socket == NULL) open_box(L, box, address.version == 6, operation);
  ip_endpoint_set(endpoint, ip_socket_family(box->socket), &address, port);
  return box->socket;
}

/* sock:bind(addr, port): binds the socket to a local endpoint; opens it first when it is not open. Port 0
   lets the system choose. Raises EADDRINUSE, EADDRNOTAVAIL, EACCES, EINVAL (bound already) and what else
   bind(2) reports. Suspends: no. */
static int socket_bind(lua_State *L) {
  struct ip_endpoint local;
  struct ip_socket *socket = prepare(L, &local, "bind");
  check_result(L, ip_datagram_bind(socket->readiness.fd, &local), "bind");
  socket->bound = true;
  forget_addresses(L);
  return 0;
}

/* The endpoint to go back to when the association is dissolved. */
static void note_local(struct ip_socket *socket, struct ip_connection *connection) {
  connection->local.length = 0;
  if (!socket->bound) return;
  if (ip_datagram_local(socket->readiness.fd, &connection->local) != 0) connection->local.length = 0;
}

/* Linux forgets a port that it chose itself when the association is dissolved, and the socket would be deaf.
 */
static int bind_again(const struct ip_socket *socket, const struct ip_endpoint *before) {
  struct ip_endpoint now;
  int error = ip_datagram_local(socket->readiness.fd, &now);
  if (error != 0) return error;
  bool kept = ip_endpoint_port(&now) == ip_endpoint_port(before);
  return kept ? 0 : ip_datagram_bind(socket->readiness.fd, before);
}

static int dissolve(struct ip_socket *socket) {
  int error = ip_datagram_disconnect(socket->readiness.fd);
  if (error != 0) return error;
  struct ip_endpoint local = socket->connection->local;
  drop_connection(socket);
  return local.length != 0 ? bind_again(socket, &local) : 0;
}

/* Linux keeps the source address of the first association, which is no good for a peer of the other family:
   that one would be refused, or leave the socket deaf. */
static int leave_other_family(struct ip_socket *socket, const struct ip_endpoint *remote) {
  if (socket->connection == NULL || !socket->is_v6) return 0;
  bool same =
      ip_socket_is_v4_path(socket, &socket->connection->remote) == ip_socket_is_v4_path(socket, remote);
  return same ? 0 : dissolve(socket);
}

/* Port 0 succeeds on Linux and leaves a socket that says it is not connected. */
static int connect_socket(struct ip_socket *socket, const struct ip_endpoint *remote) {
  if (ip_endpoint_port(remote) == 0) return EINVAL;
  int error = leave_other_family(socket, remote);
  if (error != 0) return error;
  struct ip_connection *connection = socket->connection;
  if (connection == NULL) {
    connection = calloc(1, sizeof *connection);
    if (connection == NULL) return ENOMEM;
    note_local(socket, connection);
  }
  error = ip_datagram_connect(socket->readiness.fd, remote);
  if (error == 0) error = ip_datagram_remote(socket->readiness.fd, &connection->remote);
  if (error != 0) {
    if (socket->connection == NULL) free(connection);
    return error;
  }
  socket->connection = connection;
  socket->filtering = true;
  return 0;
}

/* sock:connect(addr, port): sets the peer that `send` sends to and that alone is received from; opens the
   socket first when it is not open; connecting again replaces the peer. Port 0 is EINVAL. Datagrams of others
   that were queued before are not delivered. Raises ENETUNREACH, EAFNOSUPPORT and what else connect(2)
   reports. Suspends: no. */
static int socket_connect(lua_State *L) {
  struct ip_endpoint remote;
  struct ip_socket *socket = prepare(L, &remote, "connect");
  forget_addresses(L);
  ip_gather_leave_peer(socket);
  check_result(L, connect_socket(socket, &remote), "connect");
  return 0;
}

/* sock:disconnect(): dissolves the association; a bound socket keeps its local port. Does nothing on a socket
   that is not connected. Suspends: no. Source: connect(2) with AF_UNSPEC. */
static int socket_disconnect(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "disconnect")->socket;
  if (socket->connection == NULL) return 0;
  forget_addresses(L);
  ip_gather_leave_peer(socket);
  check_result(L, dissolve(socket), "disconnect");
  return 0;
}

/* sock:shutdown("receive" | "send" | "both"): from now on receives raise ESHUTDOWN, suspended ones too, and
   sends raise EPIPE. Linux goes on delivering after SHUT_RD, so the receives are refused here. ENOTCONN when
   not connected. Suspends: no. Source: shutdown(2). */
static int socket_shutdown(lua_State *L) {
  static const char *const sides[] = {"receive", "send", "both", NULL};
  struct ip_socket *socket = ip_socket_check_open(L, "shutdown")->socket;
  int side = ip_argument_choice(L, 2, sides);
  bool receive = side != 1, send = side != 0;
  /* Linux reports ENOTCONN only after it has shut the socket, which would then be readable for ever */
  if (socket->connection == NULL) return ip_error_raise(L, ENOTCONN, "shutdown");
  if (send) ip_gather_end(socket);
  check_result(L, ip_datagram_shutdown(socket->readiness.fd, receive, send), "shutdown");
  socket->shut_receive |= receive;
  socket->shut_send |= send;
  if (receive) ip_readiness_fail(&socket->readiness, IP_SIDE_READ, ESHUTDOWN);
  if (send) ip_readiness_fail(&socket->readiness, IP_SIDE_WRITE, EPIPE);
  return 0;
}

/* sock:cancel(): every pending operation of the socket raises ECANCELED. Suspends: no. Source: Emilua. */
static int socket_cancel(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "cancel")->socket;
  ip_readiness_fail(&socket->readiness, IP_SIDE_READ, ECANCELED);
  ip_readiness_fail(&socket->readiness, IP_SIDE_WRITE, ECANCELED);
  return 0;
}

/* sock:io_control("bytes_readable") -> size in bytes of the datagram that the next receive gets, 0 when there
   is none or it is empty. ENOTSUP for another command. Suspends: no. Source: FIONREAD in udp(7). */
static int socket_io_control(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "io_control")->socket;
  static const char *const commands[] = {"bytes_readable", NULL};
  if (ip_argument_find(L, 2, commands) < 0) return ip_error_raise(L, ENOTSUP, "io_control");
  int bytes;
  check_result(L, ip_intake_bytes_readable(socket, &bytes), "io_control");
  lua_pushinteger(L, bytes);
  return 1;
}

/* --- properties --- */

static int socket_get_is_open(lua_State *L) {
  lua_pushboolean(L, ip_socket_check(L, 1)->socket != NULL);
  return 1;
}

/* Pushes the cached address of an end of the socket at index 1; false, and nothing, when there is none. [-0,
   +(0|1), -] */
static bool push_cached(lua_State *L, enum ip_socket_end end) {
  if (lua_getiuservalue(L, 1, IP_SOCKET_ENDS) == LUA_TTABLE && lua_rawgeti(L, -1, (int)end) != LUA_TNIL) {
    lua_remove(L, -2);
    return true;
  }
  lua_settop(L, 2); /* self and the property's name */
  return false;
}

/* Keeps the address on top of the stack. [-0, +0, m] */
static void cache(lua_State *L, enum ip_socket_end end) {
  if (lua_getiuservalue(L, 1, IP_SOCKET_ENDS) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_createtable(L, IP_SOCKET_REMOTE, 0);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, IP_SOCKET_ENDS);
  }
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (int)end);
  lua_pop(L, 1);
}

static void push_address(lua_State *L, const struct ip_endpoint *endpoint) {
  struct ip_address address;
  ip_endpoint_get_address(endpoint, &address);
  ip_address_push(L, &address);
}

/* The local endpoint. [-0, +0, e] */
static struct ip_endpoint get_local(lua_State *L, const char *property) {
  struct ip_socket *socket = ip_socket_check_open(L, property)->socket;
  struct ip_endpoint local;
  check_result(L, ip_datagram_local(socket->readiness.fd, &local), property);
  return local;
}

static int socket_get_local_address(lua_State *L) {
  ip_socket_check_open(L, "local_address");
  if (push_cached(L, IP_SOCKET_LOCAL)) return 1;
  struct ip_endpoint local = get_local(L, "local_address");
  push_address(L, &local);
  if (ip_endpoint_port(&local) != 0) cache(L, IP_SOCKET_LOCAL); /* else the first send chooses one */
  return 1;
}

static int socket_get_local_port(lua_State *L) {
  struct ip_endpoint local = get_local(L, "local_port");
  lua_pushinteger(L, ip_endpoint_port(&local));
  return 1;
}

static const struct ip_endpoint *check_remote(lua_State *L, const char *property) {
  struct ip_socket *socket = ip_socket_check_open(L, property)->socket;
  if (socket->connection == NULL) ip_error_raise(L, ENOTCONN, property);
  return &socket->connection->remote;
}

static int socket_get_remote_address(lua_State *L) {
  const struct ip_endpoint *remote = check_remote(L, "remote_address");
  if (push_cached(L, IP_SOCKET_REMOTE)) return 1;
  push_address(L, remote);
  cache(L, IP_SOCKET_REMOTE);
  return 1;
}

static int socket_get_remote_port(lua_State *L) {
  lua_pushinteger(L, ip_endpoint_port(check_remote(L, "remote_port")));
  return 1;
}

static int socket_get_family(lua_State *L) {
  lua_pushstring(L, ip_socket_check_open(L, "family")->socket->is_v6 ? "v6" : "v4");
  return 1;
}

static int socket_get_native_handle(lua_State *L) {
  lua_pushinteger(L, ip_socket_check_open(L, "native_handle")->socket->readiness.fd);
  return 1;
}

/* The datagrams that the system has not taken: kept here, or in calls that wait. Adds their bytes. */
static size_t count_unsent(const struct ip_socket *socket, size_t *bytes) {
  return ip_gather_count(socket, bytes) + ip_readiness_count(&socket->readiness, IP_SIDE_WRITE, bytes);
}

static int socket_get_send_queue_count(lua_State *L) {
  const struct ip_socket *socket = ip_socket_check(L, 1)->socket;
  size_t bytes = 0, count = 0;
  if (socket != NULL) count = count_unsent(socket, &bytes);
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

static int socket_get_send_queue_size(lua_State *L) {
  const struct ip_socket *socket = ip_socket_check(L, 1)->socket;
  size_t bytes = 0;
  if (socket != NULL) count_unsent(socket, &bytes);
  lua_pushinteger(L, (lua_Integer)bytes);
  return 1;
}

static int push_timeout(lua_State *L, double timeout) {
  if (timeout < 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, timeout);
  return 1;
}

static double check_timeout(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return -1;
  double seconds = ip_argument_seconds(L, arg);
  luaL_argcheck(L, seconds >= 0, arg, "seconds must not be negative");
  return seconds;
}

static int socket_get_receive_timeout(lua_State *L) {
  return push_timeout(L, ip_socket_check(L, 1)->receive_timeout);
}

static int socket_set_receive_timeout(lua_State *L) {
  ip_socket_check(L, 1)->receive_timeout = check_timeout(L, 3);
  return 0;
}

static int socket_get_send_timeout(lua_State *L) {
  return push_timeout(L, ip_socket_check(L, 1)->send_timeout);
}

static int socket_set_send_timeout(lua_State *L) {
  ip_socket_check(L, 1)->send_timeout = check_timeout(L, 3);
  return 0;
}

static int socket_mt_tostring(lua_State *L) {
  const struct ip_socket *socket = ip_socket_check(L, 1)->socket;
  if (socket == NULL)
    lua_pushfstring(L, "ip.udp.socket (closed): %p", lua_topointer(L, 1));
  else
    lua_pushfstring(L, "ip.udp.socket (%s, descriptor %d): %p", socket->is_v6 ? "v6" : "v4",
                    socket->readiness.fd, lua_topointer(L, 1));
  return 1;
}

/* --- registration --- */

static const luaL_Reg methods[] = {
    {"open", socket_open},
    {"bind", socket_bind},
    {"connect", socket_connect},
    {"disconnect", socket_disconnect},
    {"shutdown", socket_shutdown},
    {"cancel", socket_cancel},
    {"close", socket_close},
    {"io_control", socket_io_control},
    {"receive", ip_socket_receive},
    {"receive_from", ip_socket_receive_from},
    {"receive_string", ip_socket_receive_string},
    {"send", ip_socket_send},
    {"send_to", ip_socket_send_to},
    {"flush", ip_socket_flush},
    {"try_receive", ip_socket_try_receive},
    {"try_receive_from", ip_socket_try_receive_from},
    {"try_send", ip_socket_try_send},
    {"try_send_to", ip_socket_try_send_to},
    {"receive_error", ip_socket_receive_error},
    {"receive_many", ip_socket_receive_many},
    {"send_many", ip_socket_send_many},
    {"set_option", ip_socket_set_option},
    {"get_option", ip_socket_get_option},
    {"assign", ip_socket_assign},
    {"release", ip_socket_release},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", socket_close},
    {"__close", socket_close},
    {"__tostring", socket_mt_tostring},
    {NULL, NULL},
};

static const struct ip_property properties[] = {
    {"is_open", socket_get_is_open, NULL},
    {"local_address", socket_get_local_address, NULL},
    {"local_port", socket_get_local_port, NULL},
    {"remote_address", socket_get_remote_address, NULL},
    {"remote_port", socket_get_remote_port, NULL},
    {"family", socket_get_family, NULL},
    {"native_handle", socket_get_native_handle, NULL},
    {"send_queue_size", socket_get_send_queue_size, NULL},
    {"send_queue_count", socket_get_send_queue_count, NULL},
    {"receive_timeout", socket_get_receive_timeout, socket_set_receive_timeout},
    {"send_timeout", socket_get_send_timeout, socket_set_send_timeout},
    {NULL, NULL, NULL},
};

static const luaL_Reg functions[] = {{"new", socket_new}, {NULL, NULL}};

void ip_socket_open_class(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.udp.socket",
      .id = IP_CLASS_SOCKET,
      .methods = methods,
      .metamethods = metamethods,
      .properties = properties,
  };
  ip_class_define(L, core, &definition);
  struct ip_runtime *runtime = lua_touserdata(L, core);
  runtime->close_socket = close_at_end;
  runtime->flush_gathered = ip_gather_flush_all;
  runtime->write_ready = ip_gather_write_ready;
  ip_socket_add_messages(L, core);
  lua_newtable(L);
  ip_class_functions(L, core, functions);
}
