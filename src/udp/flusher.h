/* flusher.h: the send queue of a socket in the event loop: it is submitted at the end of the iteration, and again when the
   descriptor takes data. */
#ifndef IP_FLUSHER_H
#define IP_FLUSHER_H

#include "loop/watcher.h"
#include "udp/channel.h"

struct ip_socket_flusher {
  struct ip_flusher flusher; /* first */
  struct ip_watcher *watcher;
  struct ip_channel *channel;
};

/* NULL when memory is short. */
struct ip_socket_flusher *ip_flusher_new(struct ip_watcher *watcher, struct ip_channel *channel);
void ip_flusher_free(struct ip_socket_flusher *flusher);

/* Something may have been queued: it leaves at the end of the iteration. NULL is fine. No Lua. */
void ip_flusher_schedule(struct ip_socket_flusher *flusher);

/* Submits what is queued; false where the system does not take all of it now: the loop goes on with that. NULL is fine: then
   nothing is queued. No Lua. */
bool ip_flusher_flush(struct ip_socket_flusher *flusher);

/* What waits in this process for a receive makes no event: the waiting receives are attempted in the next iteration. No
   Lua. */
void ip_flusher_wake_receives(struct ip_watcher *watcher, const struct ip_channel *channel);

#endif
