/* udp_transfer.h: the course that every transfer of ip.udp.socket takes, for the rooms that add to it. Layer 5. */
#ifndef IP_UDP_TRANSFER_H
#define IP_UDP_TRANSFER_H

#include "binding/argument.h"
#include "net/control_message.h"
#include "udp/socket.h"

/* What a receive wants. The last two want the ancillary data, in runtime->control; an entry is one datagram also where the
   system has joined several. */
enum ip_take { IP_TAKE_BYTES, IP_TAKE_SOURCE, IP_TAKE_MESSAGE, IP_TAKE_ENTRY };

enum { IP_SKIP_AFTER = 4 }; /* receives in a row that met EAGAIN before the next ones suspend without a try */

struct ip_receive_call {
  struct ip_socket_box *box;
  void *data;
  size_t size;
  int flags;
  enum ip_take what; /* IP_TAKE_MESSAGE: the ancillary data is in runtime->control, to be read at once */
};

struct ip_send_call {
  struct ip_socket_box *box;
  struct ip_data data;
  struct ip_endpoint remote;
  const struct ip_endpoint *to; /* NULL: the connected peer */
  struct ip_control control;    /* items 0: nothing beside the bytes */
  size_t done;                  /* bytes that a split call has sent before it had to wait */
  int flags;
};

/* The flags argument, or 0. A flag of the other direction is ENOTSUP. [-0, +0, e] */
int ip_transfer_flags(lua_State *L, int arg, bool receives, const char *operation);

/* Pushes the sender's address; the socket is at index 1. [-0, +1, m] */
void ip_transfer_push_source(lua_State *L, const struct ip_endpoint *source);

/* `gives_way`: in: the call has to wait in any case; out: pass it on. True when there is a datagram; false: `return ip_transfer_wait_to_receive(...)`. [-0, +0, e] */
bool ip_transfer_start_receive(lua_State *L, const struct ip_operation_kind *kind,
                               const struct ip_receive_call *call, struct ip_datagram *datagram,
                               bool *gives_way);
int ip_transfer_wait_to_receive(lua_State *L, const struct ip_operation_kind *kind,
                                const struct ip_receive_call *call, bool gives_way);

/* Checks the arguments of a receive: the socket at 1, the buffer at 2, the flags at `flags`, which is where they end.
   Leaves on the stack what it has looked at. [-0, +2, e] */
void ip_transfer_read_receive(lua_State *L, const char *operation, int flags, enum ip_take what,
                              struct ip_receive_call *call);

/* Lets an operation that was just acquired wait for its socket; EBADF when that has been closed meanwhile.
   [-0, +0, e] */
void ip_transfer_queue_receive(lua_State *L, struct ip_operation *operation,
                               const struct ip_receive_call *call, bool gives_way);

/* Pushes address, port, truncated; the socket's box is at `index`, which may be a pseudo-index. [-0, +3, m] */
int ip_transfer_push_sender(lua_State *L, int index, const struct ip_socket_box *box,
                            const struct ip_datagram *datagram);

/* Ties an operation that was just acquired to its socket. Acquiring allocates, and so may have run a finalizer that
   closed the socket. [-0, +0, e] */
struct ip_socket *ip_transfer_tie(lua_State *L, struct ip_operation *operation,
                                  const struct ip_socket_box *box);

/* Takes one datagram for the socket; 0 or an errno value. No Lua. */
int ip_transfer_take(struct ip_socket *socket, void *data, size_t size, int flags,
                     struct ip_datagram *datagram, enum ip_take what);

/* What is left of the time of a send that was woken: seconds, negative for no bound. */
static inline double ip_transfer_time_left(const struct ip_outcome *outcome) {
  return outcome->flags < 0 ? -1 : outcome->flags / 1000.0;
}

/* For operation kinds. */
bool ip_transfer_attempt_take(struct ip_operation *operation, enum ip_take what);
void ip_transfer_try_last_receive(struct ip_operation *operation);
bool ip_transfer_attempt_send(struct ip_operation *operation);
void ip_transfer_try_last_send(struct ip_operation *operation);

/* Reads the socket and the flags of a send with `needed` arguments before those: no ancillary data, to the connected peer.
   From here on what is looked at may be pushed above all of them; where there are too few, nothing is above those that
   there are, so that the message says "no value". [-?, +?, e] */
void ip_transfer_start_call(lua_State *L, const char *operation, int needed, struct ip_send_call *call);

/* The data argument at 2, looking again at the socket. [-0, +(0|1), e] */
void ip_transfer_read_data(lua_State *L, const char *operation, struct ip_send_call *call);

/* Sends, or waits for it: `return ip_transfer_start_send(...)`; and the same for who was woken. [-0, +?, e] */
int ip_transfer_start_send(lua_State *L, const struct ip_operation_kind *kind, struct ip_send_call *call);
int ip_transfer_retry_send(lua_State *L, const struct ip_operation_kind *kind, struct ip_send_call *call,
                           const struct ip_outcome *outcome);

/* Raises what a transfer has met; EMSGSIZE with the mtu that was noted. [-0, +0, e] */
IP_NO_RETURN int ip_transfer_raise(lua_State *L, struct ip_runtime *runtime, int error,
                                   const char *operation);

#endif
