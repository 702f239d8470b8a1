/* readiness.c: would a receive of a socket wait? Owns nothing, and raises nothing. */
#include "udp/readiness.h"

#include "udp/error_queue.h"
#include "udp/receive_path.h"

#include <poll.h>

bool ip_readiness_is_known(const struct ip_watcher *watcher, const struct ip_channel *channel) {
  if (channel->shut_receive || channel->fd < 0) return true;
  if (ip_watcher_has_waiters(watcher, IP_SIDE_READ)) return false;
  return ip_error_queue_has_report(channel) || ip_receive_path_has_read_ahead(channel);
}

/* 0 where the system cannot tell. */
static int poll_events(const struct ip_channel *channel) {
  struct pollfd descriptor = {.fd = channel->fd, .events = POLLIN};
  return poll(&descriptor, 1, 0) == 1 ? descriptor.revents : 0;
}

/* The error that a drop meets is for nobody else, so it makes the socket ready. */
static bool confirm_from_peer(const struct ip_watcher *watcher, struct ip_channel *channel) {
  int bytes;
  if (ip_receive_path_bytes_readable(channel, &bytes) != 0) return true;
  return ip_readiness_is_known(watcher, channel) || (poll_events(channel) & POLLIN) != 0;
}

bool ip_readiness_confirm(const struct ip_watcher *watcher, struct ip_channel *channel, int events) {
  if (events & (POLLHUP | POLLNVAL)) return true;
  if (events & POLLERR) {
    ip_error_queue_clear(channel);
    if (ip_error_queue_has_report(channel)) return true;
    events = poll_events(channel);
    if (events & POLLERR) return true;
  }
  if (!(events & POLLIN)) return false;
  return channel->filters_peer ? confirm_from_peer(watcher, channel) : true;
}

bool ip_readiness_poll(const struct ip_watcher *watcher, struct ip_channel *channel) {
  if (ip_readiness_is_known(watcher, channel)) return true;
  if (ip_watcher_has_waiters(watcher, IP_SIDE_READ)) return false;
  return ip_readiness_confirm(watcher, channel, poll_events(channel));
}
