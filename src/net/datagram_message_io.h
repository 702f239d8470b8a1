/* datagram_message_io.h: the system calls of a datagram socket that carry ancillary data. Layer 1: knows no
   Lua.

   Every function returns 0 or an errno value, and never blocks: EAGAIN says that it would have. EINTR is
   retried. */
#ifndef IP_DATAGRAM_MESSAGE_IO_H
#define IP_DATAGRAM_MESSAGE_IO_H

#include "net/control_message.h"
#include "net/datagram_io.h"

/* Receives as ip_datagram_receive does, with the source and the ancillary data of the datagram. */
int ip_datagram_receive_message(int fd, bool is_v6, void *data, size_t size, int flags,
                                struct ip_datagram *datagram, struct ip_control *control);

/* Sends as ip_datagram_send does, with what `control` asks for. v4_path: see ip_control_build. */
int ip_datagram_send_message(int fd, const struct iovec *parts, size_t count,
                             const struct ip_endpoint *remote, int flags, const struct ip_control *control,
                             bool v4_path, size_t *sent);

/* Receives one entry of the error queue: in `datagram` the bytes that are left of the datagram that failed,
   and its destination. EAGAIN when there is none. */
int ip_datagram_receive_error(int fd, bool is_v6, void *data, size_t size, struct ip_datagram *datagram,
                              struct ip_control_error *error);

#endif
