/* datagram_message_io.c: the system calls of a datagram socket that carry ancillary data. Owns nothing;
   raises nothing.

   Sources: recvmsg(2), sendmsg(2), ip(7). */
#include "net/datagram_message_io.h"

#include <errno.h>
#include <string.h>

/* Receives one datagram, and its source and ancillary data, with a message that has parts and a control
   buffer. */
static int receive_message(int fd, struct msghdr *message, int flags, struct ip_datagram *datagram) {
  ssize_t received;
  message->msg_name = &datagram->source.name;
  message->msg_namelen = sizeof datagram->source.name;
  do
    received = recvmsg(fd, message, flags);
  while (received < 0 && errno == EINTR);
  if (received < 0) return errno;
  datagram->length = (size_t)received;
  datagram->truncated = (message->msg_flags & MSG_TRUNC) != 0;
  datagram->source.length = message->msg_namelen;
  return 0;
}

int ip_datagram_receive_message(int fd, bool is_v6, void *data, size_t size, int flags,
                                struct ip_datagram *datagram, struct ip_control *control) {
  union ip_control_buffer buffer;
  struct iovec part = {.iov_base = data, .iov_len = size};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &buffer, .msg_controllen = sizeof buffer};
  int error = receive_message(fd, &message, flags, datagram);
  if (error == 0) ip_control_parse(&message, is_v6, control);
  return error;
}

int ip_datagram_send_message(int fd, const struct iovec *parts, size_t count,
                             const struct ip_endpoint *remote, int flags, const struct ip_control *control,
                             bool v4_path, size_t *sent) {
  union ip_control_buffer buffer;
  struct msghdr message = {.msg_iov = (struct iovec *)(size_t)parts, .msg_iovlen = count};
  if (remote != NULL) {
    message.msg_name = (void *)(size_t)&remote->name;
    message.msg_namelen = remote->length;
  }
  int error = ip_control_build(&message, &buffer, control, v4_path);
  if (error != 0) return error;
  ssize_t result;
  do
    result = sendmsg(fd, &message, flags | MSG_NOSIGNAL);
  while (result < 0 && errno == EINTR);
  if (result < 0) return errno;
  *sent = (size_t)result;
  return 0;
}

#ifdef MSG_ERRQUEUE

int ip_datagram_receive_error(int fd, bool is_v6, void *data, size_t size, struct ip_datagram *datagram,
                              struct ip_control_error *error) {
  union ip_control_buffer buffer;
  struct iovec part = {.iov_base = data, .iov_len = size};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &buffer, .msg_controllen = sizeof buffer};
  int status = receive_message(fd, &message, MSG_ERRQUEUE, datagram);
  if (status != 0) return status;
  if (message.msg_namelen == 0) memset(&datagram->source, 0, sizeof datagram->source);
  if (!ip_control_parse_error(&message, is_v6, error))
    *error = (struct ip_control_error){.origin = IP_ORIGIN_OTHER};
  return 0;
}

#else

int ip_datagram_receive_error(int fd, bool is_v6, void *data, size_t size, struct ip_datagram *datagram,
                              struct ip_control_error *error) {
  (void)fd, (void)is_v6, (void)data, (void)size, (void)datagram, (void)error;
  return EAGAIN;
}

#endif
