/* flusher.c: connects the send queue of a socket with the event loop. Owns only its own memory, which the
   socket frees. Nothing here raises or calls Lua. */
#include "udp/flusher.h"

#include "base/util.h"
#include "udp/error_queue.h"
#include "udp/receive_path.h"
#include "udp/send_queue.h"

#include <stdlib.h>

void ip_flusher_wake_receives(struct ip_watcher *watcher, const struct ip_channel *channel) {
  if (!ip_error_queue_has_report(channel) && !ip_receive_path_has_read_ahead(channel)) return;
  if (ip_watcher_is_read(watcher)) ip_watcher_attempt_soon(watcher, IP_SIDE_READ);
}

void ip_flusher_schedule(struct ip_socket_flusher *flusher) {
  size_t bytes = 0;
  if (flusher == NULL || ip_watcher_is_writing(flusher->watcher)) return;
  if (ip_send_queue_count(flusher->channel, &bytes) == 0) return;
  ip_runtime_schedule(flusher->watcher->runtime, &flusher->flusher);
}

/* Waits until the descriptor is writable; tries again in the next iteration if the descriptor cannot be
   watched. */
static void wait_for_descriptor(struct ip_socket_flusher *flusher) {
  int error = ip_watcher_set_writing(flusher->watcher, true);
  if (error == 0) return;
  ip_send_queue_defer(flusher->channel, ip_failure(error));
  ip_runtime_schedule(flusher->watcher->runtime, &flusher->flusher);
}

bool ip_flusher_flush(struct ip_socket_flusher *flusher) {
  if (flusher == NULL) return true;
  ip_queue_remove(&flusher->flusher.link);
  bool done = ip_send_queue_flush(flusher->channel);
  if (done)
    (void)ip_watcher_set_writing(flusher->watcher, false); /* cannot fail */
  else
    wait_for_descriptor(flusher);
  ip_flusher_wake_receives(flusher->watcher, flusher->channel);
  return done;
}

static void flush(struct ip_flusher *flusher) {
  (void)ip_flusher_flush((struct ip_socket_flusher *)flusher); /* the rest waits for the descriptor */
}

struct ip_socket_flusher *ip_flusher_new(struct ip_watcher *watcher, struct ip_channel *channel) {
  struct ip_socket_flusher *flusher = malloc(sizeof *flusher);
  if (flusher == NULL) return NULL;
  ip_queue_init(&flusher->flusher.link);
  flusher->flusher.flush = flush;
  flusher->watcher = watcher;
  flusher->channel = channel;
  return flusher;
}

void ip_flusher_free(struct ip_socket_flusher *flusher) {
  if (flusher == NULL) return;
  ip_queue_remove(&flusher->flusher.link);
  free(flusher);
}
