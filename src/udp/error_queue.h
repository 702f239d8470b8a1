/* error_queue.h: what the network said of datagrams sent earlier. Knows no Lua. */
#ifndef IP_ERROR_QUEUE_H
#define IP_ERROR_QUEUE_H

#include "net/control_message.h"
#include "net/failure.h"
#include "udp/channel.h"

#include <stddef.h>

enum {
  IP_ERRORS_KEPT = 32,    /* the oldest makes way for the newest */
  IP_ERROR_PAYLOAD = 2048 /* of the datagram that an error speaks of; ICMP quotes less */
};

/* One entry of the system's error queue, as drained. */
struct ip_queued_error {
  struct ip_queued_error *next;
  struct ip_control_error what;
  struct ip_endpoint destination;
  size_t length;
  bool truncated;
  unsigned char payload[];
};

/* The details, for receive_error, and the reports, for receives: each is delivered once, whatever becomes of the other. */
struct ip_error_queue {
  struct ip_queued_error *first, *last;
  size_t count;
  struct ip_failure reports[IP_ERRORS_KEPT];
  size_t first_report, report_count;
};

/* What one drain has found. */
struct ip_drained {
  size_t reports; /* ICMP errors */
  int local_mtu;  /* of the last EMSGSIZE that this system said itself; 0: none */
};

/* An empty one, or NULL when memory is short. */
struct ip_error_queue *ip_error_queue_new(void);
void ip_error_queue_free(struct ip_error_queue *queue);

/* Moves the system's error queue here; does nothing where the channel has no error queue. */
struct ip_drained ip_error_queue_drain(struct ip_channel *channel);

/* Discards what others have brought into the system's error queue, such as transmit timestamps that the maker
   of an adopted descriptor asked for; with an error queue, drains it. */
void ip_error_queue_clear(struct ip_channel *channel);

static inline bool ip_error_queue_has_report(const struct ip_channel *channel) {
  return channel->errors != NULL && channel->errors->report_count != 0;
}

/* The oldest error that no receive has raised; there is one. */
struct ip_failure ip_error_queue_pop_report(struct ip_channel *channel);

/* The oldest entry, which is the caller's to free; NULL: there is none. */
struct ip_queued_error *ip_error_queue_pop(struct ip_error_queue *queue);

/* A failure of this channel: with EMSGSIZE the mtu is `local_mtu`, or, where that is 0, the path's where it is known. */
struct ip_failure ip_error_queue_failure(const struct ip_channel *channel, int code, int local_mtu);

#endif
