/* send.h: the sends that Lua calls, and the steps that all of them share. */
#ifndef IP_SEND_H
#define IP_SEND_H

#include "udp/send_path.h"
#include "udp/socket.h"

struct ip_send_call {
  struct ip_socket_box *box;
  const void *owner; /* a session that sends; NULL: the socket does */
  struct ip_send send;
};

/* The type of an operation that waits to send. */
struct ip_send_type {
  struct ip_operation_type operation; /* first */
  /* Checks the arguments and fills the call; called again after a wait, with the arguments still in the
     frame. [-0, +?, e] */
  void (*read)(lua_State *L, const char *operation, struct ip_send_call *call);
};

/* The operation type of a send whose arguments `reader` reads. `describer` names their endpoint in errors;
   NULL: they have none. */
#define IP_SEND_TYPE(text, reader, describer)                                                                \
  {                                                                                                          \
    .operation = {.name = (text),                                                                            \
                  .attempt = ip_send_attempt,                                                                \
                  .final_attempt = ip_send_final_attempt,                                                    \
                  .push_results = ip_send_continue,                                                          \
                  .describe = (describer),                                                                   \
                  .sends = true},                                                                            \
    .read = (reader)                                                                                         \
  }

/* Functions of operation types. */
bool ip_send_attempt(struct ip_operation *operation);
void ip_send_final_attempt(struct ip_operation *operation);
int ip_send_continue(lua_State *L, struct ip_result *result);

/* Reads the socket and the flags of a send that has `needed` arguments before the flags; the destination is
   the connected peer, without ancillary data. From here on, checked values may be pushed above the arguments.
   If arguments are missing, nothing is pushed, so that the error message says "no value". [-?, +?, e] */
void ip_send_read_call(lua_State *L, const char *operation, int needed, struct ip_send_call *call);

/* Reads the data argument at 2, and then checks the socket again. [-0, +(0|1), e] */
void ip_send_read_data(lua_State *L, const char *operation, struct ip_send_call *call);

/* Reads the call, and sends or waits: `return ip_send_start(...)`. [-0, +?, e] */
int ip_send_start(lua_State *L, const struct ip_send_type *type);

/* The same for a try_ form, which returns nil and EAGAIN instead of waiting. [-0, +?, e] */
int ip_send_at_once(lua_State *L, const struct ip_send_type *type);

/* Completes the waiting sends of an owner with an error. Does not call Lua. */
void ip_send_fail_owner(struct ip_watcher *watcher, const void *owner, int code);

/* Sets the endpoint of an error of a send, by which a send to port 0 is known, and what else explains the
   error. The socket is at 1. [-0, +0, -] */
void ip_send_describe(lua_State *L, const struct ip_address *address, lua_Integer port,
                      struct ip_error_detail *detail);

/* The same from the values at `address` and `port`, if they are an endpoint. [-0, +0, -] */
void ip_send_describe_endpoint(lua_State *L, int address, int port, struct ip_error_detail *detail);

/* Suspends a send in an operation; `payload` describes its unsent data. [-0, +?, e] */
int ip_send_suspend(lua_State *L, const struct ip_operation_type *type, const struct ip_socket_box *box,
                    union ip_payload payload, enum ip_wait wait);

/* Tries once to send: sets the number of bytes that were sent, or returns the failure. EAGAIN: the call has
   to wait. EPIPE after shutdown. Does not call Lua. */
struct ip_failure ip_send_try(struct ip_socket *socket, struct ip_send *send, size_t *sent);

/* What a send waits with: its unsent data, and its deadline. */
union ip_payload ip_send_payload(const struct ip_send *send, ip_deadline deadline);

/* Ends an attempt by the send path or the queue: schedules the queued datagrams for the end of the iteration,
   and wakes receives if errors have been drained. Does not call Lua. */
void ip_send_finish(struct ip_socket *socket);

/* Methods. */
int ip_socket_send(lua_State *L);
int ip_socket_send_to(lua_State *L);
int ip_socket_try_send(lua_State *L);
int ip_socket_try_send_to(lua_State *L);
int ip_socket_flush(lua_State *L);

/* For lua/ip/udp_fill.lua. */
int ip_socket_prepare_fill(lua_State *L);
int ip_socket_send_filled(lua_State *L);
int ip_socket_send_to_filled(lua_State *L);

#endif
