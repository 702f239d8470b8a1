/* flusher.h: connects the send queue of a socket with the event loop: the queue is submitted at the end of
   the iteration, and again when the descriptor is writable. Does not call Lua. */
#ifndef IP_FLUSHER_H
#define IP_FLUSHER_H

#include "loop/watcher.h"
#include "udp/channel.h"

struct ip_socket_flusher {
  struct ip_flusher flusher; /* first */
  struct ip_watcher *watcher;
  struct ip_channel *channel;
};

/* Returns NULL when memory is short. */
struct ip_socket_flusher *ip_flusher_new(struct ip_watcher *watcher, struct ip_channel *channel);
void ip_flusher_free(struct ip_socket_flusher *flusher);

/* Schedules a flush for the end of the iteration if datagrams are queued. NULL: does nothing. Does not call
   Lua. */
void ip_flusher_schedule(struct ip_socket_flusher *flusher);

/* Submits the queued datagrams. Returns false if the system does not accept all of them now; the loop then
   sends the rest. NULL: nothing is queued. Does not call Lua. */
bool ip_flusher_flush(struct ip_socket_flusher *flusher);

/* Attempts the waiting receives in the next iteration if this process has a datagram or an error for them,
   because that causes no event. Does not call Lua. */
void ip_flusher_wake_receives(struct ip_watcher *watcher, const struct ip_channel *channel);

#endif
