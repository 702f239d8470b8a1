/* error_queue.h: the network's errors for datagrams sent earlier. Does not use Lua. */
#ifndef IP_ERROR_QUEUE_H
#define IP_ERROR_QUEUE_H

#include "net/control_message.h"
#include "net/failure.h"
#include "udp/channel.h"

#include <stddef.h>

enum {
  IP_ERRORS_KEPT = 32,    /* beyond that, the newest entry replaces the oldest */
  IP_ERROR_PAYLOAD = 2048 /* of the datagram that caused the error; ICMP quotes less */
};

/* One entry drained from the system's error queue. */
struct ip_queued_error {
  struct ip_queued_error *next;
  struct ip_control_error what;
  struct ip_endpoint destination;
  size_t length;
  bool truncated;
  unsigned char payload[];
};

/* The entries are for receive_error, the reports for receives: each error is delivered once to each of them,
   independently. */
struct ip_error_queue {
  struct ip_queued_error *first, *last;
  size_t count;
  struct ip_failure reports[IP_ERRORS_KEPT];
  size_t first_report, report_count;
  int deferred_mtu; /* of the channel's deferred error, as in struct ip_failure */
};

/* The result of one drain. */
struct ip_drained {
  size_t reports; /* ICMP errors */
  int local_mtu;  /* the MTU of the last EMSGSIZE from this system; 0: none */
};

/* Returns an empty queue, or NULL when memory is short. */
struct ip_error_queue *ip_error_queue_new(void);
void ip_error_queue_free(struct ip_error_queue *queue);

/* Moves the entries of the system's error queue into the channel's; does nothing if the channel has no error
   queue. */
struct ip_drained ip_error_queue_drain(struct ip_channel *channel);

/* Discards what others have brought into the system's error queue, such as transmit timestamps that the maker
   of an adopted descriptor asked for; with an error queue, drains it. */
void ip_error_queue_clear(struct ip_channel *channel);

static inline bool ip_error_queue_has_report(const struct ip_channel *channel) {
  return channel->errors != NULL && channel->errors->report_count != 0;
}

/* Pops the oldest error that no receive has raised yet; there must be one. */
struct ip_failure ip_error_queue_pop_report(struct ip_channel *channel);

/* Pops the oldest entry, which the caller frees; NULL: the queue is empty. */
struct ip_queued_error *ip_error_queue_pop(struct ip_error_queue *queue);

/* Returns a failure of this channel. With EMSGSIZE its mtu is `local_mtu` or, if that is 0, the MTU of the
   path if it is known. */
struct ip_failure ip_error_queue_failure(const struct ip_channel *channel, int code, int local_mtu);

#endif
