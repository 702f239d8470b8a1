/* datagram_io.h: the system calls of a datagram socket without ancillary data. Layer 1: knows no Lua.

   Owns nothing: descriptors belong to the caller. Every function returns 0 or an errno value, and never
   blocks: EAGAIN says that it would have. EINTR is retried. */
#ifndef IP_DATAGRAM_IO_H
#define IP_DATAGRAM_IO_H

#include "net/endpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

struct ip_datagram {
  size_t length; /* bytes in the buffer */
  bool truncated;
  struct ip_endpoint source; /* of length 0 where the caller did not ask for it */
};

/* A new non-blocking, close-on-exec datagram socket of `family`. */
int ip_datagram_open(int family, int *fd);
int ip_datagram_close(int fd);

/* Sets O_NONBLOCK on a descriptor that was opened elsewhere, and changes nothing else of it. */
int ip_datagram_set_nonblocking(int fd);

int ip_datagram_bind(int fd, const struct ip_endpoint *local);
int ip_datagram_connect(int fd, const struct ip_endpoint *remote);
int ip_datagram_disconnect(int fd);
int ip_datagram_shutdown(int fd, bool receive, bool send);
int ip_datagram_local(int fd, struct ip_endpoint *local);
int ip_datagram_remote(int fd, struct ip_endpoint *remote);

/* Has receiving been shut down, through this descriptor or a twin of it? Then the socket stays readable.
   False where the system does not say. */
bool ip_datagram_is_shut(int fd);
int ip_datagram_bytes_readable(int fd, int *bytes);

/* Receives one datagram into data[0 .. size-1]; with MSG_PEEK among `flags` it stays in the queue. `size` may
   be 0. */
int ip_datagram_receive(int fd, void *data, size_t size, int flags, struct ip_datagram *datagram,
                        bool with_source);

/* Sends the parts as one datagram to `remote`, or to the connected peer where that is NULL. Raises no
   signal. */
int ip_datagram_send(int fd, const struct iovec *parts, size_t count, const struct ip_endpoint *remote,
                     int flags, size_t *sent);

/* An integer socket option. */
int ip_datagram_get_option(int fd, int level, int name, int *value);
int ip_datagram_set_option(int fd, int level, int name, int value);

#endif
