/* udp_transfer.h: the course of a receive, for the rooms that make theirs of it. Layer 5. */
#ifndef IP_UDP_TRANSFER_H
#define IP_UDP_TRANSFER_H

#include "udp_socket.h"

struct ip_receive_call {
  struct ip_socket_box *box; /* at index 1 of the frame */
  void *data;
  size_t size;
  int flags;
  bool with_source;
};

/* The common course of the suspending receives: false when the call has to wait, which it then does with
   ip_operation_acquire, ip_receive_queue and ip_operation_suspend. `gives_way`: in: it has to wait in any case; out: pass it on.
   [-0, +0, e] */
bool ip_receive_start(lua_State *L, const struct ip_operation_kind *kind, const struct ip_receive_call *call,
                      struct ip_datagram *datagram, bool *gives_way);

/* Lets an operation that was just acquired wait for its socket; EBADF when that has been closed meanwhile.
   [-0, +0, e] */
void ip_receive_queue(lua_State *L, struct ip_operation *operation, const struct ip_receive_call *call,
                      bool gives_way);

/* For the kinds of receives that want the sender. No Lua. */
bool ip_receive_attempt_from(struct ip_operation *operation);
void ip_receive_try_last(struct ip_operation *operation);

/* Pushes address, port, truncated; the socket's box is at index 1. [-0, +3, m] */
int ip_receive_push_sender(lua_State *L, const struct ip_datagram *datagram);

#endif
