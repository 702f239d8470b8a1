/* send_path.h: one attempt to send: ancillary data, segmentation (GSO), and another try after an older error.
   Does not use Lua. */
#ifndef IP_SEND_PATH_H
#define IP_SEND_PATH_H

#include "base/util.h"
#include "net/control_message.h"
#include "net/data.h"
#include "net/failure.h"
#include "udp/channel.h"

#include <stddef.h>

enum {
  IP_MOST_SEGMENTS = 64,       /* of one message: UDP_MAX_SEGMENTS of older kernels */
  IP_LARGEST_SEGMENTED = 65487 /* the limit of a v6 packet; the limit of v4 is higher */
};

/* The arguments of one send. */
struct ip_send {
  struct ip_data data;
  struct ip_endpoint remote;
  const struct ip_endpoint *to; /* NULL: the connected peer */
  struct ip_control control;    /* items 0: no ancillary data */
  size_t done;                  /* bytes that a call in several pieces has sent before it had to wait */
  int flags;
};

struct ip_buffer_pool;

struct ip_send_state {
  int segment_size;            /* the option; 0: off */
  bool coalesce;               /* the option coalesce is on */
  bool v6_only;                /* with a pool: sends of v4 are refused, or may be */
  struct ip_buffer_pool *pool; /* of send queues; NULL until `coalesce` needs it */
  struct ip_send_queue *queue; /* NULL: nothing is queued */
  size_t refused_size;         /* of the smallest segment that was too large for a path */
  struct ip_failure deferred;  /* the error of a queued datagram, for the next send; code 0: none */
  uint32_t iteration;          /* of the event loop, in which the current send is made; its maker sets it */
  uint32_t lone_iteration;     /* the last one in which a datagram left at once */
  uint8_t lone_flushes;        /* in a row, of a single datagram */
  bool at_once;                /* the next datagram leaves at once: nothing is queued or deferred */
};

/* Does the channel queue sends, or has it done so? Then they go through the queue, in its order. */
static inline bool ip_send_path_queues(const struct ip_channel *channel) {
  return channel->send != NULL && channel->send->pool != NULL;
}

/* Returns the channel's send state, created if there is none; NULL when memory is short. */
struct ip_send_state *ip_send_path_state(struct ip_channel *channel);

bool ip_send_path_names_other_link(const struct ip_channel *channel, const struct ip_endpoint *to);

/* Would the system let a datagram to `to` leave from another interface than the device that the socket is
   bound to? Linux prefers the scope of a link-local address to the device. */
static inline bool ip_send_path_leaves_device(const struct ip_channel *channel,
                                              const struct ip_endpoint *to) {
  return IP_UNLIKELY(channel->device != 0) && ip_send_path_names_other_link(channel, to);
}

/* Lets the datagram leave from the interface that the scope of its destination names, where the system would
   ignore that scope, or the device for it. `to` is NULL or the call's `remote`. Returns 0, or EINVAL if the
   ancillary data names another interface. */
int ip_send_path_use_scope(const struct ip_channel *channel, struct ip_send *call);

/* Sends the data of the call in as many datagrams and system calls as necessary. EAGAIN: the call has to
   wait; its `done` is the number of bytes that have been sent. */
struct ip_failure ip_send_path_send(struct ip_channel *channel, struct ip_send *call, size_t *sent);

/* Can the system segment messages? The system is asked once: before Linux 4.18 it would ignore the segment
   size, and several datagrams would leave as one. */
bool ip_send_path_can_segment(struct ip_channel *channel);

/* --- classifying a failed send --- */

/* The failure of a send that met `code`; `local_mtu` as in ip_error_queue_failure. EADDRINUSE where the
   system had no local port to give. */
struct ip_failure ip_send_path_failure(struct ip_channel *channel, int code, int local_mtu);

enum ip_send_verdict {
  IP_SENT,
  IP_SEND_WOULD_BLOCK,
  IP_SEND_RETRY_OLDER_ERROR, /* the error of an older datagram: make the send again */
  IP_SEND_NOT_SEGMENTABLE,   /* several datagrams in one message: each may get another result by itself */
  IP_SEND_OWN_ERROR
};

/* The state of the attempts to send one message. */
struct ip_send_retry {
  int attempts;  /* the number that failed */
  int suspected; /* the last error, if an older datagram may have caused it; 0: none */
  int local_mtu; /* the MTU that this system has reported; 0: none */
  bool defers;   /* the caller defers older errors, so that they never end a send */
};

/* Classifies one attempt, which sent `segments` datagrams in one message and ended with failure->code. Adds
   the mtu to the failure if the error is the message's own. */
enum ip_send_verdict ip_send_path_classify(struct ip_channel *channel, struct ip_send_retry *retry,
                                           size_t segments, struct ip_failure *failure);

#endif
