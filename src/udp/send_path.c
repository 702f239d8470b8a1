/* udp_split.c: one attempt to send on a socket that does more than send: ancillary data, splitting (GSO), and
   errors of older datagrams that stand in the way.

   Owns nothing; raises nothing; no Lua. The system splits what a path can checksum and what is at most 64 datagrams
   (udp(7) UDP_SEGMENT, Linux 4.18; 128 on newer ones): more goes in several calls, and where the path refuses
   (EIO), each datagram in a call of its own, from then on for that socket. */
#include "udp/message.h"

#include "base/util.h"
#include "net/datagram_message_io.h"

#include <errno.h>

bool ip_split_can_cut(struct ip_socket *socket) {
  if (IP_LIKELY(socket->asked_to_cut)) return !socket->sends_singly;
  socket->asked_to_cut = true;
#ifdef UDP_SEGMENT
  int size;
  if (ip_datagram_get_option(socket->readiness.fd, IPPROTO_UDP, UDP_SEGMENT, &size) != 0)
    socket->sends_singly = true;
#else
  socket->sends_singly = true;
#endif
  return !socket->sends_singly;
}

static bool is_v4_path(const struct ip_socket *socket, const struct ip_send_call *call) {
  return ip_socket_is_v4_path(socket, call->to != NULL ? call->to : &socket->connection->remote);
}

static int put_once(struct ip_socket *socket, const struct ip_send_call *call, const struct iovec *parts,
                    size_t count, const struct ip_control *control, size_t *sent) {
  int fd = socket->readiness.fd;
  if (control->items == 0) return ip_datagram_send(fd, parts, count, call->to, call->flags, sent);
  return ip_datagram_send_message(fd, parts, count, call->to, call->flags, control, is_v4_path(socket, call),
                                  sent);
}

/* An error of an older datagram makes the next send fail, whomever that is for: then it is sent again, and the error
   waits. An error that is not in the queue either came too late for it or did not fit. */
bool ip_split_met_older(struct ip_socket *socket, int error, int again) {
  if (socket->messages == NULL || !socket->messages->errors) return false;
  bool older = ip_errors_drain(socket) != 0 || (again == 0 && error != EMSGSIZE);
  return older && again < IP_SEND_RETRIES;
}

static int put(struct ip_socket *socket, const struct ip_send_call *call, const struct iovec *parts,
               size_t count, const struct ip_control *control, size_t *sent) {
  struct ip_messages *messages = socket->messages;
  if (messages != NULL) messages->local_mtu = 0;
  for (int again = 0;; again++) {
    int error = put_once(socket, call, parts, count, control, sent);
    if (error == 0 || error == EAGAIN || !ip_split_met_older(socket, error, again)) return error;
  }
}

/* Sends `length` bytes of the data from `from` on. The vector is this call's own and is narrowed for the time. */
static int put_range(struct ip_socket *socket, struct ip_send_call *call, size_t from, size_t length,
                     const struct ip_control *control) {
  struct iovec *first = call->data.parts;
  while (from >= first->iov_len)
    from -= (first++)->iov_len;
  struct iovec *last = first;
  size_t end = from + length;
  while (end > last->iov_len)
    end -= (last++)->iov_len;
  struct iovec whole_first = *first, whole_last = *last;
  last->iov_len = end;
  first->iov_base = (char *)first->iov_base + from;
  first->iov_len -= from;
  size_t sent;
  int error = put(socket, call, first, (size_t)(last - first) + 1, control, &sent);
  *last = whole_last;
  *first = whole_first;
  return error;
}

static size_t total_of(const struct ip_data *data) {
  size_t total = 0;
  for (size_t i = 0; i < data->count; i++)
    total += data->parts[i].iov_len;
  return total;
}

static size_t segment_of(const struct ip_socket *socket, const struct ip_send_call *call) {
  if (call->control.items & IP_CONTROL_SEGMENT_SIZE) return (size_t)call->control.segment_size;
  return socket->messages != NULL ? (size_t)socket->messages->segment_size : 0;
}

/* In calls of at most `piece` bytes, from where an earlier attempt had to stop. */
static int put_pieces(struct ip_socket *socket, struct ip_send_call *call, size_t total, size_t piece,
                      const struct ip_control *control, size_t *sent) {
  while (call->done < total) {
    size_t left = total - call->done;
    size_t length = left < piece ? left : piece;
    int error = put_range(socket, call, call->done, length, control);
    if (error != 0) return error;
    call->done += length;
  }
  *sent = total;
  return 0;
}

static int put_singly(struct ip_socket *socket, struct ip_send_call *call, size_t total, size_t segment,
                      size_t *sent) {
  struct ip_control control = call->control;
  control.items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
  return put_pieces(socket, call, total, segment, &control, sent);
}

/* The path refuses: from now on this socket's datagrams are split here. */
static void remember_refusal(struct ip_socket *socket) {
  socket->sends_singly = true;
#ifdef UDP_SEGMENT
  if (socket->messages != NULL && socket->messages->segment_size != 0)
    (void)ip_datagram_set_option(socket->readiness.fd, IPPROTO_UDP, UDP_SEGMENT, 0);
#endif
}

static int put_whole(struct ip_socket *socket, const struct ip_send_call *call, size_t *sent) {
  struct ip_control control = call->control;
  if (socket->sends_singly) control.items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
  return put(socket, call, call->data.parts, call->data.count, &control, sent);
}

static int put_split(struct ip_socket *socket, struct ip_send_call *call, size_t total, size_t segment,
                     size_t *sent) {
  size_t piece = segment * IP_MOST_SEGMENTS;
  if (!ip_split_can_cut(socket)) return put_singly(socket, call, total, segment, sent);
  int error = total > piece || call->done != 0 ? put_pieces(socket, call, total, piece, &call->control, sent)
                                               : put_whole(socket, call, sent);
  if (error != EIO) return error;
  remember_refusal(socket);
  return put_singly(socket, call, total, segment, sent);
}

int ip_split_send_now(struct ip_socket *socket, struct ip_send_call *call, size_t *sent) {
  size_t segment = segment_of(socket, call);
  size_t total = total_of(&call->data);
  if (segment == 0 || total <= segment) return put_whole(socket, call, sent);
  size_t largest = is_v4_path(socket, call) ? IP_LARGEST_V4 : IP_LARGEST_V6;
  return total > largest ? EMSGSIZE : put_split(socket, call, total, segment, sent);
}

int ip_split_send(struct ip_socket *socket, struct ip_send_call *call, size_t *sent) {
  bool gathers = socket->messages != NULL && socket->messages->gather != NULL;
  return gathers ? ip_gather_send(socket, call, sent) : ip_split_send_now(socket, call, sent);
}
