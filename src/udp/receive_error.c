/* receive_error.c: receive_error, which returns the entries of a socket's error queue to Lua. Owns nothing.
   Raises EBADF, bad arguments and memory errors. */
#include "udp/receive_error.h"

#include "binding/error.h"
#include "udp/error_queue.h"
#include "udp/socket.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void set_integer(lua_State *L, const char *key, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

/* Copies the payload that the error quotes into the span at 2, if there is one. [-0, +0, m] */
static void set_payload(lua_State *L, const struct ip_queued_error *error) {
  struct ip_bytes *span = lua_isnoneornil(L, 2) ? NULL : ip_byte_span_check(L, 2);
  size_t length = span == NULL ? 0 : span->length < error->length ? span->length : error->length;
  if (length != 0) memcpy(span->data, error->payload, length);
  set_integer(L, "length", (lua_Integer)length);
  lua_pushboolean(L, error->truncated || length < error->length);
  lua_setfield(L, -2, "truncated");
}

static void set_address(lua_State *L, const char *key, const struct ip_address *address) {
  ip_address_push(L, address);
  lua_setfield(L, -2, key);
}

/* Fills the table on top of the stack. [-0, +0, m] */
static void describe(lua_State *L, const struct ip_queued_error *error) {
  static const char *const origins[] = {
      [IP_ORIGIN_LOCAL] = "local", [IP_ORIGIN_ICMP] = "icmp", [IP_ORIGIN_ICMP6] = "icmp6"};
  const struct ip_control_error *what = &error->what;
  ip_error_push(L, IP_ERROR_SYSTEM, what->error, "receive_error")->mtu = what->mtu;
  lua_setfield(L, -2, "error");
  lua_pushstring(L, origins[what->origin]);
  lua_setfield(L, -2, "origin");
  set_integer(L, "type", what->type);
  set_integer(L, "code", what->code);
  if (what->mtu != 0) set_integer(L, "mtu", what->mtu);
  if (what->offender.version != 0) set_address(L, "offender", &what->offender);
  struct ip_address destination;
  ip_endpoint_get_address(&error->destination, &destination);
  set_address(L, "address", &destination);
  set_integer(L, "port", ip_endpoint_port(&error->destination));
  set_payload(L, error);
}

static bool has_entry(const struct ip_socket *socket) {
  const struct ip_error_queue *queue = socket->channel.errors;
  return queue != NULL && queue->count != 0;
}

static void look_for_entry(struct ip_socket *socket) {
  if (has_entry(socket)) return;
  ip_error_queue_drain(&socket->channel);
  ip_flusher_wake_receives(&socket->watcher, &socket->channel);
}

/* sock:receive_error([buf]) -> info | nil: pops the oldest entry of the socket's error queue; nil when it is
   empty or receive_errors is off. buf: byte_span for the bytes of the datagram that the error quotes. info:
   error (error value), origin ("local", "icmp", "icmp6"), type, code (of the ICMP message), mtu (with
   EMSGSIZE), offender (address of the reporter; nil for local errors), address and port (destination of the
   datagram), length (bytes written to buf), truncated. Suspends: no. Source: recvmsg(2) MSG_ERRQUEUE,
   ip(7). */
int ip_socket_receive_error(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check_open(L, "receive_error");
  if (!lua_isnoneornil(L, 2)) ip_byte_span_check(L, 2);
  lua_settop(L, 2);
  look_for_entry(box->socket);
  if (!has_entry(box->socket)) {
    lua_pushnil(L);
    return 1;
  }
  /* Lua owns this copy: the code below allocates, and may run a finalizer that closes the socket, opens it
     again or reads errors */
  struct ip_queued_error *copy = lua_newuserdatauv(L, sizeof *copy + IP_ERROR_PAYLOAD, 0);
  lua_createtable(L, 0, 10);
  if (box->socket == NULL) return ip_error_raise(L, EBADF, "receive_error");
  if (!has_entry(box->socket)) {
    lua_pushnil(L);
    return 1;
  }
  struct ip_queued_error *oldest = ip_error_queue_pop(box->socket->channel.errors);
  memcpy(copy, oldest, sizeof *oldest + oldest->length);
  free(oldest);
  describe(L, copy);
  return 1;
}
