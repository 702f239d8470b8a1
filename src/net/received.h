/* received.h: one receive: what it wants, and what it brings. */
#ifndef IP_RECEIVED_H
#define IP_RECEIVED_H

#include "net/control_message.h"
#include "net/datagram_io.h"

#include <stddef.h>
#include <stdint.h>

enum ip_wants {
  IP_WANTS_SOURCE = 1,
  IP_WANTS_CONTROL = 2, /* the ancillary data, and with it the source */
  IP_WANTS_JOINED = 4,  /* several datagrams in one buffer, where the system has joined them (GRO) */
  IP_WANTS_MORE = 8     /* the caller takes more at once, and several may be read for it */
};

struct ip_receive {
  void *data;
  size_t size;
  int flags;     /* MSG_PEEK, or 0 */
  uint8_t wants; /* of enum ip_wants */
};

struct ip_received {
  struct ip_datagram datagram;
  struct ip_control control; /* where it was asked for */
};

#endif
