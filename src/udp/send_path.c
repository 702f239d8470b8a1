/* send_path.c: one attempt to send with ancillary data, segmentation (GSO), and another try after an error of
   an older datagram.

   Owns the channel's struct ip_send_state; send_queue.c frees it, because it contains the queue. Does not use
   Lua and raises nothing. The system segments at most 64 datagrams, and only on paths with checksum support
   (udp(7) UDP_SEGMENT, Linux 4.18; 128 datagrams on newer versions): more data is sent in several calls. If
   the path refuses (EIO), the socket sends each datagram in a call of its own from then on. */
#include "udp/send_path.h"

#include "base/util.h"
#include "net/datagram_io.h"
#include "net/datagram_message_io.h"
#include "udp/error_queue.h"

#include <errno.h>
#include <stdlib.h>

enum { MOST_RETRIES = 8 }; /* retries of a send that meets errors of older datagrams */

struct ip_send_state *ip_send_path_state(struct ip_channel *channel) {
  if (channel->send == NULL) channel->send = calloc(1, sizeof *channel->send);
  return channel->send;
}

bool ip_send_path_can_segment(struct ip_channel *channel) {
  if (IP_LIKELY(channel->gso_probed)) return !channel->gso_refused;
#ifdef UDP_SEGMENT
  int size;
  int error = ip_datagram_get_option(channel->fd, IPPROTO_UDP, UDP_SEGMENT, &size);
  channel->gso_refused = error == ENOPROTOOPT || error == EOPNOTSUPP;
  channel->gso_probed =
      error == 0 || channel->gso_refused; /* any other failure says nothing about the system */
  return error == 0;
#else
  channel->gso_probed = channel->gso_refused = true;
  return false;
#endif
}

bool ip_send_path_names_other_link(const struct ip_channel *channel, const struct ip_endpoint *to) {
  uint32_t link = ip_endpoint_link_scope(to);
  return link != 0 && link != channel->device;
}

static int use_interface(struct ip_control *control, uint32_t index) {
  if ((control->items & IP_CONTROL_INTERFACE) != 0 && control->interface_index != index) return EINVAL;
  control->interface_index = index;
  control->items |= IP_CONTROL_INTERFACE;
  return 0;
}

/* The system compares an interface in ancillary data with the device, and knows which interfaces belong to a
   device that is a VRF (net/ipv6/datagram.c). */
int ip_send_path_use_scope(const struct ip_channel *channel, struct ip_send *call) {
  if (call->to == NULL) return 0;
  uint32_t index = ip_endpoint_wide_scope(call->to);
  if (index == 0 && ip_send_path_leaves_device(channel, call->to)) {
    index = call->remote.name.v6.sin6_scope_id;
    call->remote.name.v6.sin6_scope_id = 0;
  }
  return index != 0 ? use_interface(&call->control, index) : 0;
}

/* --- classifying a failed send --- */

/* Linux says EAGAIN for a full buffer, and where it finds no free local port for an unbound socket
   (inet_autobind in net/ipv4/af_inet.c), which would never end: that the socket still has none tells them
   apart. */
static int explain_again(struct ip_channel *channel) {
  if (IP_LIKELY(channel->has_port)) return EAGAIN;
  struct ip_endpoint local;
  int error = ip_datagram_local(channel->fd, &local);
  if (error != 0) return error;
  channel->has_port = ip_endpoint_port(&local) != 0;
  return channel->has_port ? EAGAIN : EADDRINUSE;
}

struct ip_failure ip_send_path_failure(struct ip_channel *channel, int code, int local_mtu) {
  if (code == EAGAIN) code = explain_again(channel);
  return ip_error_queue_failure(channel, code, local_mtu);
}

/* An error of an older datagram makes the next send fail, whomever that is for, once. With an error queue it
   is in there, unless it came too late for that or did not fit; an error of the send itself is met again. */
static bool is_older(struct ip_channel *channel, struct ip_send_retry *retry, int code) {
  if (channel->errors == NULL && !retry->defers) return false;
  struct ip_drained drained = ip_error_queue_drain(channel);
  if (drained.local_mtu != 0) retry->local_mtu = drained.local_mtu;
  if (retry->attempts++ == MOST_RETRIES) return false;
  if (drained.reports == 0 && code == retry->suspected) return false;
  if (drained.reports == 0 && code == EMSGSIZE && channel->errors != NULL)
    return false; /* an error of an older datagram would be in the queue */
  retry->suspected = code;
  return true;
}

enum ip_send_verdict ip_send_path_classify(struct ip_channel *channel, struct ip_send_retry *retry,
                                           size_t segments, struct ip_failure *failure) {
  int code = failure->code;
  if (IP_LIKELY(code == 0)) return IP_SENT;
  if (code == EAGAIN) {
    *failure = ip_send_path_failure(channel, code, 0);
    return failure->code == EAGAIN ? IP_SEND_WOULD_BLOCK : IP_SEND_OWN_ERROR;
  }
  bool names_no_icmp_error = code == EIO || code == EINVAL || code == ENOBUFS;
  bool segmented = segments > 1;
  if ((!segmented || !names_no_icmp_error) && is_older(channel, retry, code))
    return IP_SEND_RETRY_OLDER_ERROR;
  *failure = ip_error_queue_failure(channel, code, retry->local_mtu);
  return segmented ? IP_SEND_NOT_SEGMENTABLE : IP_SEND_OWN_ERROR;
}

/* --- one message --- */

/* The parts of the call's data that leave in one system call. */
struct message {
  const struct iovec *parts;
  size_t count;
  size_t segments; /* datagrams in it */
  const struct ip_control *control;
};

static int attempt(struct ip_channel *channel, const struct ip_send *call, const struct message *message,
                   size_t *sent) {
  if (message->control->items == 0)
    return ip_datagram_send(channel->fd, message->parts, message->count, call->to, call->flags, sent);
  return ip_datagram_send_message(channel->fd, message->parts, message->count, call->to, call->flags,
                                  message->control, ip_channel_is_v4_path(channel, call->to), sent);
}

static struct ip_failure send_message(struct ip_channel *channel, const struct ip_send *call,
                                      const struct message *message, size_t *sent) {
  struct ip_send_retry retry = {.attempts = 0};
  struct ip_failure failure;
  do
    failure = ip_failure(attempt(channel, call, message, sent));
  while (ip_send_path_classify(channel, &retry, message->segments, &failure) == IP_SEND_RETRY_OLDER_ERROR);
  return failure;
}

/* --- several messages --- */

/* A range of the call's data, and the size of the datagrams in it. */
struct range {
  size_t from, length, segment;
};

static size_t segments_of(const struct range *range) {
  return range->segment == 0 ? 1 : (range->length + range->segment - 1) / range->segment;
}

/* Sends a range of the data. The vector belongs to this call, and is narrowed during the system call. */
static struct ip_failure send_range(struct ip_channel *channel, struct ip_send *call,
                                    const struct ip_control *control, const struct range *range) {
  size_t from = range->from;
  struct iovec *first = call->data.parts;
  while (from >= first->iov_len)
    from -= (first++)->iov_len;
  struct iovec *last = first;
  size_t end = from + range->length;
  while (end > last->iov_len)
    end -= (last++)->iov_len;
  struct iovec whole_first = *first, whole_last = *last;
  last->iov_len = end;
  first->iov_base = (char *)first->iov_base + from;
  first->iov_len -= from;
  struct message message = {first, (size_t)(last - first) + 1, segments_of(range), control};
  size_t sent;
  struct ip_failure failure = send_message(channel, call, &message, &sent);
  *last = whole_last;
  *first = whole_first;
  return failure;
}

/* Sends messages of at most `piece` bytes, from the position where an earlier attempt had to stop. */
static struct ip_failure send_pieces(struct ip_channel *channel, struct ip_send *call,
                                     const struct ip_control *control, struct range whole, size_t piece) {
  while (call->done < whole.length) {
    size_t left = whole.length - call->done;
    struct range range = {call->done, left < piece ? left : piece, whole.segment};
    struct ip_failure failure = send_range(channel, call, control, &range);
    if (failure.code != 0) return failure;
    call->done += range.length;
  }
  return ip_failure(0);
}

static struct ip_failure send_one_by_one(struct ip_channel *channel, struct ip_send *call,
                                         struct range whole) {
  struct ip_control control = call->control;
  control.items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
  return send_pieces(channel, call, &control, whole, whole.segment);
}

/* The path refuses segments: this library segments the socket's datagrams from now on. */
static void remember_refusal(struct ip_channel *channel) {
  channel->gso_refused = true;
#ifdef UDP_SEGMENT
  if (channel->send != NULL && channel->send->segment_size != 0)
    (void)ip_datagram_set_option(channel->fd, IPPROTO_UDP, UDP_SEGMENT, 0);
#endif
}

static struct ip_failure send_segmented(struct ip_channel *channel, struct ip_send *call,
                                        struct range whole) {
  if (!ip_send_path_can_segment(channel)) return send_one_by_one(channel, call, whole);
  struct ip_failure failure =
      send_pieces(channel, call, &call->control, whole, whole.segment * IP_MOST_SEGMENTS);
  if (failure.code != EIO) return failure;
  remember_refusal(channel);
  return send_one_by_one(channel, call, whole);
}

/* Sends one datagram, without a segment size if segmentation is refused: a system without GSO would reject
   the option. */
static struct ip_failure send_whole(struct ip_channel *channel, const struct ip_send *call, size_t *sent) {
  struct ip_control control = call->control;
  if (channel->gso_refused) control.items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
  struct message message = {call->data.parts, call->data.count, 1, &control};
  return send_message(channel, call, &message, sent);
}

static size_t segment_of(const struct ip_channel *channel, const struct ip_send *call) {
  if (call->control.items & IP_CONTROL_SEGMENT_SIZE) return (size_t)call->control.segment_size;
  return channel->send != NULL ? (size_t)channel->send->segment_size : 0;
}

struct ip_failure ip_send_path_send(struct ip_channel *channel, struct ip_send *call, size_t *sent) {
  struct range whole = {0, ip_data_size(&call->data), segment_of(channel, call)};
  if (whole.segment == 0 || whole.length <= whole.segment) return send_whole(channel, call, sent);
  size_t largest = ip_channel_is_v4_path(channel, call->to) ? IP_LARGEST_V4 : IP_LARGEST_V6;
  if (whole.length > largest) return ip_error_queue_failure(channel, EMSGSIZE, 0);
  struct ip_failure failure = send_segmented(channel, call, whole);
  if (failure.code == 0) *sent = whole.length;
  return failure;
}
