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

/* An option that the system lacks is off. Any other failure says nothing about the option: it must not count
   as off, for with UDP_GRO unknown, datagrams that the system has joined would be delivered as one. */
static int read_option(const struct ip_channel *channel, int level, int number, int *value) {
  int error = ip_datagram_get_option(channel->fd, level, number, value);
  if (error == 0) return 0;
  *value = 0;
  return error == ENOPROTOOPT || error == EOPNOTSUPP ? 0 : error;
}

static int adopt_receive(struct ip_channel *channel, struct ip_buffer_pool *pool) {
  int counts, joins;
  int error = read_option(channel, SOL_SOCKET, SO_RXQ_OVFL, &counts);
  if (error == 0) error = read_option(channel, IPPROTO_UDP, UDP_GRO, &joins);
  if (error != 0) return error;
  if (counts == 0 && joins == 0) return 0;
  struct ip_receive_state *state = ip_receive_path_state(channel);
  if (state == NULL) return ENOMEM;
  state->counts_drops = counts != 0;
  return joins != 0 ? ip_receive_path_set_offload(channel, pool, true) : 0;
}

static int adopt_send(struct ip_channel *channel) {
  int segment_size;
  int error = read_option(channel, IPPROTO_UDP, UDP_SEGMENT, &segment_size);
  if (error != 0 || segment_size == 0) return error;
  struct ip_send_state *state = ip_send_path_state(channel);
  if (state == NULL) return ENOMEM;
  state->segment_size = segment_size;
  return 0;
}

/* The errors of v4 traffic on a v6 socket obey the option of v4. */
static int adopt_errors(struct ip_channel *channel) {
  int v4, v6 = 0;
  int error = read_option(channel, IPPROTO_IP, IP_RECVERR, &v4);
  if (error == 0 && channel->is_v6) error = read_option(channel, IPPROTO_IPV6, IPV6_RECVERR, &v6);
  if (error != 0) return error;
  return v4 != 0 || v6 != 0 ? ip_parts_set_errors(channel, true) : 0;
}

int ip_parts_adopt(struct ip_channel *channel, struct ip_buffer_pool *pool) {
  int error = adopt_errors(channel);
  if (error == 0) error = adopt_receive(channel, pool);
  return error != 0 ? error : adopt_send(channel);
}

#else

int ip_parts_adopt(struct ip_channel *channel, struct ip_buffer_pool *pool) {
  (void)channel, (void)pool;
  return 0;
}

#endif
