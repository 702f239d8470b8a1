/* udp_error_queue.c: what the network said about datagrams sent earlier; receive_error.

   The system's error queue is emptied into a bounded list that the socket owns, wherever an attempt meets it: while
   it holds something the descriptor counts as broken (POLLERR, level-triggered), and a loop that waits for it would
   spin. Source: ip(7) IP_RECVERR, ipv6(7). */
#include "udp/message.h"

#include "net/datagram_message_io.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <errno.h>
#include <netinet/ip.h>
#include <stdlib.h>
#include <string.h>

enum { DRAIN_AT_ONCE = 256 };

/* --- the socket's state --- */

struct ip_messages *ip_messages_of(struct ip_socket *socket) {
  if (socket->messages == NULL) socket->messages = calloc(1, sizeof *socket->messages);
  return socket->messages;
}

void ip_messages_free(struct ip_messages *messages) {
  if (messages == NULL) return;
  ip_errors_clear(messages);
  ip_stage_free(messages->stage);
  ip_gather_free(messages->gather);
  free(messages);
}

/* --- the lists --- */

static struct ip_queued_error *unlink_oldest(struct ip_messages *messages) {
  struct ip_queued_error *oldest = messages->first_error;
  messages->first_error = oldest->next;
  if (oldest->next == NULL) messages->last_error = NULL;
  messages->error_count--;
  return oldest;
}

void ip_errors_clear(struct ip_messages *messages) {
  while (messages->error_count != 0)
    free(unlink_oldest(messages));
  messages->report_count = 0;
}

/* The details; where memory is short they are lost, and the receive is told all the same. */
static void keep(struct ip_messages *messages, const struct ip_control_error *what,
                 const struct ip_datagram *datagram, const unsigned char *payload) {
  struct ip_queued_error *error = malloc(sizeof *error + datagram->length);
  if (error == NULL) return;
  *error = (struct ip_queued_error){.what = *what,
                                    .destination = datagram->source,
                                    .length = datagram->length,
                                    .truncated = datagram->truncated};
  memcpy(error->payload, payload, datagram->length);
  if (messages->error_count == IP_ERRORS_KEPT) free(unlink_oldest(messages));
  if (messages->last_error != NULL)
    messages->last_error->next = error;
  else
    messages->first_error = error;
  messages->last_error = error;
  messages->error_count++;
}

static void report(struct ip_messages *messages, const struct ip_control_error *what) {
  if (messages->report_count == IP_ERRORS_KEPT) {
    messages->first_report = (messages->first_report + 1) % IP_ERRORS_KEPT;
    messages->report_count--;
  }
  size_t position = (messages->first_report + messages->report_count) % IP_ERRORS_KEPT;
  messages->reports[position] = (struct ip_report){.error = what->error, .mtu = what->mtu};
  messages->report_count++;
}

size_t ip_errors_drain(struct ip_socket *socket) {
  struct ip_messages *messages = socket->messages;
  size_t reported = 0;
  if (messages == NULL || !messages->errors) return 0;
  for (int i = 0; i < DRAIN_AT_ONCE; i++) {
    unsigned char payload[IP_ERROR_PAYLOAD];
    struct ip_datagram datagram;
    struct ip_control_error what;
    if (ip_datagram_receive_error(socket->readiness.fd, socket->is_v6, payload, sizeof payload, &datagram,
                                  &what) != 0)
      break;
    if (what.origin == IP_ORIGIN_OTHER) continue; /* time stamps and the like, which nobody here asks for */
    keep(messages, &what, &datagram, payload);
    if (what.origin == IP_ORIGIN_LOCAL) {
      if (what.error == EMSGSIZE) messages->local_mtu = what.mtu;
      continue;
    }
    report(messages, &what);
    reported++;
  }
  /* the system no longer tells those who wait */
  if (reported != 0 && ip_readiness_has_waiters(&socket->readiness, IP_SIDE_READ))
    ip_readiness_try_last(&socket->readiness, IP_SIDE_READ);
  return reported;
}

int ip_errors_next_report(struct ip_socket *socket) {
  struct ip_messages *messages = socket->messages;
  struct ip_report next = messages->reports[messages->first_report];
  messages->first_report = (messages->first_report + 1) % IP_ERRORS_KEPT;
  messages->report_count--;
  socket->readiness.runtime->error_mtu = next.mtu;
  return next.error;
}

/* 0 where the system does not know it. */
static int path_mtu(const struct ip_socket *socket) {
  int mtu = 0;
#if defined(IP_MTU) && defined(IPV6_MTU)
  if (socket->connection == NULL) return 0;
  bool v4_path = ip_socket_is_v4_path(socket, &socket->connection->remote);
  if (ip_datagram_get_option(socket->readiness.fd, v4_path ? IPPROTO_IP : IPPROTO_IPV6,
                             v4_path ? IP_MTU : IPV6_MTU, &mtu) != 0)
    return 0;
#else
  (void)socket;
#endif
  return mtu;
}

int ip_errors_note(struct ip_socket *socket, int error) {
  if (error != EMSGSIZE) return error;
  int local = socket->messages != NULL ? socket->messages->local_mtu : 0;
  socket->readiness.runtime->error_mtu = local != 0 ? local : path_mtu(socket);
  if (socket->messages != NULL) socket->messages->local_mtu = 0;
  return error;
}

/* --- receive_error --- */

static void set_integer(lua_State *L, const char *key, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

/* The sender's payload that the error quotes, into the span at 2, if there is one. [-0, +0, m] */
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

/* sock:receive_error([buf]) -> info | nil: the oldest entry of the socket's error queue, nil when there is none or
   receive_errors is off. buf: byte_span for the bytes of the datagram that the error quotes. info: error (error
   value), origin ("local", "icmp", "icmp6"), type, code (of the ICMP message), mtu (with EMSGSIZE), offender (who
   reported it; nil for local errors), address and port (where the datagram was going), length (bytes put into
   buf), truncated.
   Suspends: no. Source: recvmsg(2) MSG_ERRQUEUE, ip(7). */
int ip_socket_receive_error(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check_open(L, "receive_error");
  if (!lua_isnoneornil(L, 2)) ip_byte_span_check(L, 2);
  lua_settop(L, 2);
  struct ip_messages *messages = box->socket->messages;
  if (messages != NULL && messages->error_count == 0) ip_errors_drain(box->socket);
  if (messages == NULL || messages->error_count == 0) {
    lua_pushnil(L);
    return 1;
  }
  /* a copy that Lua owns: what follows allocates, and so may run a finalizer that closes the socket, opens it again
     or reads errors */
  struct ip_queued_error *copy = lua_newuserdatauv(L, sizeof *copy + IP_ERROR_PAYLOAD, 0);
  lua_createtable(L, 0, 10);
  if (box->socket == NULL) return ip_error_raise(L, EBADF, "receive_error");
  messages = box->socket->messages;
  if (messages == NULL || messages->error_count == 0) {
    lua_pushnil(L);
    return 1;
  }
  struct ip_queued_error *oldest = unlink_oldest(messages);
  memcpy(copy, oldest, sizeof *oldest + oldest->length);
  free(oldest);
  describe(L, copy);
  return 1;
}
