/* error_queue.c: the network's errors for datagrams sent earlier. Owns the queue's memory. Does not use Lua
   and raises nothing.

   Every attempt that meets the system's error queue drains it into a bounded list: while it has entries, the
   descriptor reports POLLERR (level-triggered), and a loop that waits for the descriptor would spin. Source:
   ip(7) IP_RECVERR, ipv6(7). */
#include "udp/error_queue.h"

#include "net/datagram_message_io.h"
#include "udp/association.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DRAIN_AT_ONCE = 256 };

struct ip_error_queue *ip_error_queue_new(void) {
  return calloc(1, sizeof(struct ip_error_queue));
}

struct ip_queued_error *ip_error_queue_pop(struct ip_error_queue *queue) {
  struct ip_queued_error *oldest = queue->first;
  if (oldest == NULL) return NULL;
  queue->first = oldest->next;
  if (oldest->next == NULL) queue->last = NULL;
  queue->count--;
  return oldest;
}

void ip_error_queue_free(struct ip_error_queue *queue) {
  if (queue == NULL) return;
  while (queue->first != NULL)
    free(ip_error_queue_pop(queue));
  free(queue);
}

/* Appends an entry. Without memory its details are lost, but a receive still raises the error. */
static void append(struct ip_error_queue *queue, const struct ip_control_error *what,
                   const struct ip_datagram *datagram, const unsigned char *payload) {
  struct ip_queued_error *error = malloc(sizeof *error + datagram->length);
  if (error == NULL) return;
  *error = (struct ip_queued_error){.what = *what,
                                    .destination = datagram->source,
                                    .length = datagram->length,
                                    .truncated = datagram->truncated};
  memcpy(error->payload, payload, datagram->length);
  if (queue->count == IP_ERRORS_KEPT) free(ip_error_queue_pop(queue));
  if (queue->last != NULL)
    queue->last->next = error;
  else
    queue->first = error;
  queue->last = error;
  queue->count++;
}

static void append_report(struct ip_error_queue *queue, const struct ip_control_error *what) {
  if (queue->report_count == IP_ERRORS_KEPT) {
    queue->first_report = (queue->first_report + 1) % IP_ERRORS_KEPT;
    queue->report_count--;
  }
  size_t position = (queue->first_report + queue->report_count) % IP_ERRORS_KEPT;
  queue->reports[position] = (struct ip_failure){.code = what->error, .mtu = what->mtu};
  queue->report_count++;
}

struct ip_failure ip_error_queue_pop_report(struct ip_channel *channel) {
  struct ip_error_queue *queue = channel->errors;
  struct ip_failure report = queue->reports[queue->first_report];
  queue->first_report = (queue->first_report + 1) % IP_ERRORS_KEPT;
  queue->report_count--;
  return report;
}

struct ip_drained ip_error_queue_drain(struct ip_channel *channel) {
  struct ip_drained drained = {.reports = 0, .local_mtu = 0};
  if (channel->errors == NULL) return drained;
  for (int i = 0; i < DRAIN_AT_ONCE; i++) {
    unsigned char payload[IP_ERROR_PAYLOAD];
    struct ip_datagram datagram;
    struct ip_control_error what;
    if (ip_datagram_receive_error(channel->fd, channel->is_v6, payload, sizeof payload, &datagram, &what) !=
        0)
      break;
    if (what.origin == IP_ORIGIN_OTHER) continue; /* time stamps and the like, which nothing requests */
    append(channel->errors, &what, &datagram, payload);
    if (what.origin == IP_ORIGIN_LOCAL) {
      if (what.error == EMSGSIZE) drained.local_mtu = what.mtu;
      continue;
    }
    append_report(channel->errors, &what);
    drained.reports++;
  }
  return drained;
}

void ip_error_queue_clear(struct ip_channel *channel) {
  if (channel->errors != NULL) {
    (void)ip_error_queue_drain(channel);
    return;
  }
  unsigned char byte;
  struct ip_datagram datagram;
  struct ip_control_error what;
  for (int i = 0; i < DRAIN_AT_ONCE; i++)
    if (ip_datagram_receive_error(channel->fd, channel->is_v6, &byte, 1, &datagram, &what) != 0) return;
}

struct ip_failure ip_error_queue_failure(const struct ip_channel *channel, int code, int local_mtu) {
  struct ip_failure failure = {.code = code, .mtu = local_mtu};
  if (code != EMSGSIZE) failure.mtu = 0;
  if (code != EMSGSIZE || local_mtu != 0 || channel->connection == NULL) return failure;
  if (ip_association_path_mtu(channel, &failure.mtu) != 0) failure.mtu = 0;
  return failure;
}
