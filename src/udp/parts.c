/* parts.c: all parts of a channel together. Owns nothing: each part belongs to the file of its name. Does not
   use Lua and raises nothing. */
#include "udp/parts.h"

#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/error_queue.h"
#include "udp/receive_path.h"
#include "udp/send_queue.h"

#include <errno.h>
#include <netinet/in.h>

int ip_parts_set_errors(struct ip_channel *channel, bool on) {
  if (!on) { /* drops queued errors, as the system does */
    ip_error_queue_free(channel->errors);
    channel->errors = NULL;
    return 0;
  }
  if (ip_receive_path_state(channel) == NULL || ip_send_path_state(channel) == NULL) return ENOMEM;
  if (channel->errors == NULL) channel->errors = ip_error_queue_new();
  return channel->errors == NULL ? ENOMEM : 0;
}

void ip_parts_free(struct ip_channel *channel) {
  ip_association_free(channel);
  ip_receive_path_free(channel);
  ip_send_queue_free(channel);
  ip_error_queue_free(channel->errors);
  channel->errors = NULL;
}

#if defined(UDP_GRO) && defined(UDP_SEGMENT) && defined(SO_RXQ_OVFL)

/* Returns the value of an option, or 0 if the platform does not have it. */
static int option_of(const struct ip_channel *channel, int level, int number) {
  int value;
  return ip_datagram_get_option(channel->fd, level, number, &value) == 0 ? value : 0;
}

static int adopt_receive(struct ip_channel *channel) {
  bool counts = option_of(channel, SOL_SOCKET, SO_RXQ_OVFL) != 0;
  bool joins = option_of(channel, IPPROTO_UDP, UDP_GRO) != 0;
  if (!counts && !joins) return 0;
  struct ip_receive_state *state = ip_receive_path_state(channel);
  if (state == NULL) return ENOMEM;
  state->counts_drops = counts;
  return joins ? ip_receive_path_set_offload(channel, true) : 0;
}

static int adopt_send(struct ip_channel *channel) {
  int segment_size = option_of(channel, IPPROTO_UDP, UDP_SEGMENT);
  if (segment_size == 0) return 0;
  struct ip_send_state *state = ip_send_path_state(channel);
  if (state == NULL) return ENOMEM;
  state->segment_size = segment_size;
  return 0;
}

int ip_parts_adopt(struct ip_channel *channel) {
  bool errors = channel->is_v6 ? option_of(channel, IPPROTO_IPV6, IPV6_RECVERR) != 0
                               : option_of(channel, IPPROTO_IP, IP_RECVERR) != 0;
  int error = errors ? ip_parts_set_errors(channel, true) : 0;
  if (error == 0) error = adopt_receive(channel);
  return error != 0 ? error : adopt_send(channel);
}

#else

int ip_parts_adopt(struct ip_channel *channel) {
  (void)channel;
  return 0;
}

#endif
