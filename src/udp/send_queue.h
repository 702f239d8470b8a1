/* send_queue.h: `coalesce`: sends of one loop iteration leave together. Knows no Lua.

   These functions are for any channel, whether it has a queue or not. */
#ifndef IP_SEND_QUEUE_H
#define IP_SEND_QUEUE_H

#include "udp/send_path.h"

/* Queues the sends of the channel from now on, or no more. Returns 0 or ENOMEM. */
int ip_send_queue_set(struct ip_channel *channel, bool on);

/* Frees the send state with its queue. */
void ip_send_queue_free(struct ip_channel *channel);

/* Queues the datagram, or, where it has something that must not wait or cannot be foretold, sends it behind the queued
   ones by the send path. A channel without a queue sends it by the send path. A deferred error is returned instead. EAGAIN:
   it has to wait. The channel has a send state, or the call has ancillary data. */
struct ip_failure ip_send_queue_send(struct ip_channel *channel, struct ip_send *call, size_t *sent);

/* Submits what is queued. False when the system does not take all of it now. What goes wrong is deferred. */
bool ip_send_queue_flush(struct ip_channel *channel);

/* Flushes; what cannot leave is lost. */
void ip_send_queue_end(struct ip_channel *channel);

/* Flushes before the peer changes: what cannot leave now goes to the peer that it was meant for. */
void ip_send_queue_leave_peer(struct ip_channel *channel);

/* The options of the socket may have changed. */
void ip_send_queue_read_options(struct ip_channel *channel);

/* How many datagrams are queued; adds their bytes to `bytes`. */
size_t ip_send_queue_count(const struct ip_channel *channel, size_t *bytes);

/* Keeps a failure for the next send or flush, unless there is one already. */
void ip_send_queue_defer(struct ip_channel *channel, struct ip_failure failure);

/* Removes and returns the deferred failure; code 0: there is none. */
struct ip_failure ip_send_queue_pop_failure(struct ip_channel *channel);

#endif
