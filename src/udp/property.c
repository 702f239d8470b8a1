/* property.c: the properties of ip.udp.socket. Owns the cached addresses of the socket's two ends, which are
   a user value of the box. Raises EBADF on a closed socket, and the errors of the system. */
#include "udp/property.h"

#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "net/datagram_io.h"
#include "udp/send_queue.h"
#include "udp/socket.h"
#include "value/address.h"

#include <errno.h>

/* Keys of the table of cached addresses. */
enum end { LOCAL = 1, REMOTE };

static int socket_get_is_open(lua_State *L) {
  lua_pushboolean(L, ip_socket_check(L, 1)->socket != NULL);
  return 1;
}

static int socket_get_is_connected(lua_State *L) {
  const struct ip_socket *socket = ip_socket_check(L, 1)->socket;
  lua_pushboolean(L, socket != NULL && socket->channel.connection != NULL);
  return 1;
}

/* Pushes the cached address of an end of the socket at index 1 and returns true; pushes nothing and returns
   false if there is none. [-0, +(0|1), -] */
static bool push_cached(lua_State *L, enum end end) {
  if (lua_getiuservalue(L, 1, IP_SOCKET_ENDS) == LUA_TTABLE && lua_rawgeti(L, -1, (int)end) != LUA_TNIL) {
    lua_remove(L, -2);
    return true;
  }
  lua_settop(L, 2); /* self and the property's name */
  return false;
}

/* Caches the address on top of the stack. [-0, +0, m] */
static void cache(lua_State *L, enum end end) {
  if (lua_getiuservalue(L, 1, IP_SOCKET_ENDS) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_createtable(L, REMOTE, 0);
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

/* Returns the local endpoint. [-0, +0, e] */
static struct ip_endpoint get_local(lua_State *L, const char *property) {
  struct ip_socket *socket = ip_socket_check_open(L, property)->socket;
  struct ip_endpoint local;
  int error = ip_datagram_local(socket->channel.fd, &local);
  if (error != 0) ip_error_raise(L, error, property);
  return local;
}

static int socket_get_local_address(lua_State *L) {
  ip_socket_check_open(L, "local_address");
  if (push_cached(L, LOCAL)) return 1;
  struct ip_endpoint local = get_local(L, "local_address");
  push_address(L, &local);
  if (ip_endpoint_port(&local) != 0) cache(L, LOCAL); /* else the first send chooses one */
  return 1;
}

static int socket_get_local_port(lua_State *L) {
  struct ip_endpoint local = get_local(L, "local_port");
  lua_pushinteger(L, ip_endpoint_port(&local));
  return 1;
}

static const struct ip_endpoint *check_remote(lua_State *L, const char *property) {
  struct ip_socket *socket = ip_socket_check_open(L, property)->socket;
  if (socket->channel.connection == NULL) ip_error_raise(L, ENOTCONN, property);
  return &socket->channel.connection->remote;
}

static int socket_get_remote_address(lua_State *L) {
  const struct ip_endpoint *remote = check_remote(L, "remote_address");
  if (push_cached(L, REMOTE)) return 1;
  push_address(L, remote);
  cache(L, REMOTE);
  return 1;
}

static int socket_get_remote_port(lua_State *L) {
  lua_pushinteger(L, ip_endpoint_port(check_remote(L, "remote_port")));
  return 1;
}

static int socket_get_family(lua_State *L) {
  lua_pushstring(L, ip_socket_check_open(L, "family")->socket->channel.is_v6 ? "v6" : "v4");
  return 1;
}

static int socket_get_native_handle(lua_State *L) {
  lua_pushinteger(L, ip_socket_check_open(L, "native_handle")->socket->channel.fd);
  return 1;
}

/* Counts the datagrams that the system has not accepted yet, in the send queue and in waiting calls, and adds
   their bytes. */
static size_t count_unsent(const struct ip_socket *socket, size_t *bytes) {
  return ip_send_queue_count(&socket->channel, bytes) + ip_watcher_count_sends(&socket->watcher, bytes);
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

int ip_socket_push_timeout(lua_State *L, double timeout) {
  if (timeout < 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, timeout);
  return 1;
}

double ip_socket_check_timeout(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return -1;
  double seconds = ip_argument_seconds(L, arg);
  if (seconds < 0) ip_argument_type_error(L, arg, "seconds of at least 0");
  return seconds;
}

static int socket_get_receive_timeout(lua_State *L) {
  return ip_socket_push_timeout(L, ip_socket_check(L, 1)->receive_timeout);
}

static int socket_set_receive_timeout(lua_State *L) {
  ip_socket_check(L, 1)->receive_timeout = ip_socket_check_timeout(L, 3);
  return 0;
}

static int socket_get_send_timeout(lua_State *L) {
  return ip_socket_push_timeout(L, ip_socket_check(L, 1)->send_timeout);
}

static int socket_set_send_timeout(lua_State *L) {
  ip_socket_check(L, 1)->send_timeout = ip_socket_check_timeout(L, 3);
  return 0;
}

static const char *const truncation_words[] = {"report", "raise", NULL};

static int socket_get_on_truncation(lua_State *L) {
  lua_pushstring(L, truncation_words[ip_socket_check(L, 1)->raises_truncation]);
  return 1;
}

static int socket_set_on_truncation(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check(L, 1);
  box->raises_truncation = ip_argument_choice(L, 3, truncation_words) == 1;
  if (box->socket != NULL) box->socket->channel.raises_truncation = box->raises_truncation;
  return 0;
}

int ip_socket_tostring(lua_State *L) {
  const struct ip_socket *socket = ip_socket_check(L, 1)->socket;
  if (socket == NULL)
    lua_pushfstring(L, "ip.udp.socket (closed): %p", lua_topointer(L, 1));
  else
    lua_pushfstring(L, "ip.udp.socket (%s, descriptor %d): %p", socket->channel.is_v6 ? "v6" : "v4",
                    socket->channel.fd, lua_topointer(L, 1));
  return 1;
}

const struct ip_property ip_socket_properties[] = {
    {"is_open", socket_get_is_open, NULL},
    {"is_connected", socket_get_is_connected, NULL},
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
    {"on_truncation", socket_get_on_truncation, socket_set_on_truncation},
    {NULL, NULL, NULL},
};
