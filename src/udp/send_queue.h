/* send_queue.h: `coalesce`: the sends of one loop iteration leave together. Does not use Lua.

   These functions accept any channel, with or without a queue. */
#ifndef IP_SEND_QUEUE_H
#define IP_SEND_QUEUE_H

#include "udp/send_path.h"

/* Starts or stops queueing the sends of the channel. The queues are those of `pool`; NULL: the socket's own.
   Returns 0 or ENOMEM. */
int ip_send_queue_set(struct ip_channel *channel, struct ip_buffer_pool *pool, bool on);

/* Frees the send state with its queue. */
void ip_send_queue_free(struct ip_channel *channel);

/* Notes the iteration of the event loop in which the next sends are made. */
static inline void ip_send_queue_note_iteration(const struct ip_channel *channel, uint32_t iteration) {
  if (channel->send != NULL) channel->send->iteration = iteration;
}

/* Queues the datagram, or sends it at once where iterations keep bringing one. A datagram that must not wait,
   or whose error is not predictable, goes through the send path after the queued ones; so does every datagram
   of a channel without a queue. If an error is deferred, returns that instead. EAGAIN: the send has to wait.
   Requires a channel with a send state, or a call with ancillary data. */
struct ip_failure ip_send_queue_send(struct ip_channel *channel, struct ip_send *call, size_t *sent);

/* After a send: has it left at once, so that nothing is queued or deferred? */
static inline bool ip_send_queue_sends_at_once(const struct ip_channel *channel) {
  return channel->send != NULL && channel->send->at_once;
}

/* Submits the queued datagrams. Returns false when the system does not accept all of them now. Errors are
   deferred. */
bool ip_send_queue_flush(struct ip_channel *channel);

/* Flushes, and drops the datagrams that cannot be sent now. */
void ip_send_queue_end(struct ip_channel *channel);

/* Flushes before the peer changes. Datagrams that cannot be sent now still go to the old peer. */
void ip_send_queue_leave_peer(struct ip_channel *channel);

/* Reads the options that affect the queue; called when they may have changed. */
void ip_send_queue_read_options(struct ip_channel *channel);

/* Returns the number of queued datagrams and adds their bytes to `bytes`. */
size_t ip_send_queue_count(const struct ip_channel *channel, size_t *bytes);

/* Stores a failure for the next send or flush, unless one is stored already. */
void ip_send_queue_defer(struct ip_channel *channel, struct ip_failure failure);

/* Removes and returns the deferred failure; code 0: there is none. */
struct ip_failure ip_send_queue_pop_failure(struct ip_channel *channel);

#endif
