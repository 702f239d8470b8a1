/* send.h: the sends that Lua calls, and the course that all of them share. */
#ifndef IP_SEND_H
#define IP_SEND_H

#include "udp/send_path.h"
#include "udp/socket.h"

struct ip_send_call {
  struct ip_socket_box *box;
  struct ip_send send;
};

/* The type of an operation that waits to send. */
struct ip_send_type {
  struct ip_operation_type operation; /* first */
  /* Checks the arguments and fills the call, once more after a wait: they are still in the frame. [-0, +?, e] */
  void (*read)(lua_State *L, const char *operation, struct ip_send_call *call);
};

/* An operation type of a send that `read` reads. */
#define IP_SEND_TYPE(text, reader)                                                                           \
  {                                                                                                          \
    .operation = {.name = (text),                                                                            \
                  .attempt = ip_send_attempt,                                                                \
                  .final_attempt = ip_send_final_attempt,                                                    \
                  .push_results = ip_send_continue},                                                         \
    .read = (reader)                                                                                         \
  }

/* For operation types. */
bool ip_send_attempt(struct ip_operation *operation);
void ip_send_final_attempt(struct ip_operation *operation);
int ip_send_continue(lua_State *L, struct ip_result *result);

/* Reads the socket and the flags of a send with `needed` arguments before those: no ancillary data, to the connected peer.
   From here on what is looked at may be pushed above all of them; where there are too few, nothing is above those that there
   are, so that the message says "no value". [-?, +?, e] */
void ip_send_read_call(lua_State *L, const char *operation, int needed, struct ip_send_call *call);

/* The data argument at 2, looking again at the socket. [-0, +(0|1), e] */
void ip_send_read_data(lua_State *L, const char *operation, struct ip_send_call *call);

/* Reads the call, and sends or waits for it: `return ip_send_start(...)`. [-0, +?, e] */
int ip_send_start(lua_State *L, const struct ip_send_type *type);

/* Suspends a send in an operation: `payload` says what it has to send. [-0, +?, e] */
int ip_send_suspend(lua_State *L, const struct ip_operation_type *type, const struct ip_socket_box *box,
                    union ip_payload payload, enum ip_wait wait);

/* After an attempt by the send path or the queue: what is queued leaves at the end of the iteration, and errors that came
   with it wake the receives. No Lua. */
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
