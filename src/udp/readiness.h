/* readiness.h: would a receive of a socket wait? A socket is its watcher and its channel here. Nothing here
   receives or calls Lua. */
#ifndef IP_READINESS_H
#define IP_READINESS_H

#include "loop/watcher.h"
#include "udp/channel.h"

/* Does this process know that a receive would not wait: has it a datagram or an error for it, or has
   receiving ended? */
bool ip_readiness_is_known(const struct ip_watcher *watcher, const struct ip_channel *channel);

/* Do these events of poll(2), of the socket's descriptor, mean that a receive would not wait? Discards what
   no receive would return: datagrams of others than the peer, and what others brought into the error
   queue. */
bool ip_readiness_confirm(const struct ip_watcher *watcher, struct ip_channel *channel, int events);

/* Asks the system, unless it is known. False while receives wait: they come first. */
bool ip_readiness_poll(const struct ip_watcher *watcher, struct ip_channel *channel);

#endif
