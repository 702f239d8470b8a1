/* send_path.h: one attempt to send: ancillary data, segmentation (GSO), and another try after an older error. Knows no
   Lua. */
#ifndef IP_SEND_PATH_H
#define IP_SEND_PATH_H

#include "net/control_message.h"
#include "net/data.h"
#include "net/failure.h"
#include "udp/channel.h"

#include <stddef.h>

enum {
  IP_MOST_SEGMENTS = 64,       /* of one message: UDP_MAX_SEGMENTS of older kernels */
  IP_LARGEST_SEGMENTED = 65487 /* what a v6 packet can carry; v4's limit is higher */
};

/* One call. */
struct ip_send {
  struct ip_data data;
  struct ip_endpoint remote;
  const struct ip_endpoint *to; /* NULL: the connected peer */
  struct ip_control control;    /* items 0: nothing beside the bytes */
  size_t done;                  /* bytes that a call in several pieces has sent before it had to wait */
  int flags;
};

struct ip_send_state {
  int segment_size;            /* the option; 0: off */
  bool coalesce;               /* the option of that name is on */
  struct ip_send_queue *queue; /* NULL until `coalesce` needs it */
  struct ip_failure deferred;  /* of a datagram from the queue, for the next send; code 0: none */
};

/* The channel's, made when there is none; NULL when memory is short. */
struct ip_send_state *ip_send_path_state(struct ip_channel *channel);

/* Sends what the call says, in as many datagrams and system calls as that takes. EAGAIN: it has to wait; `done` of the call
   says how far it got. */
struct ip_failure ip_send_path_send(struct ip_channel *channel, struct ip_send *call, size_t *sent);

/* Does the system segment messages? It is asked once: before Linux 4.18 it would ignore the wish, and several datagrams
   would leave as one. */
bool ip_send_path_can_segment(struct ip_channel *channel);

/* --- what a failed send means --- */

/* The failure of a send that met `code`; `local_mtu` as in ip_error_queue_failure. EADDRINUSE where the
   system had no local port to give. */
struct ip_failure ip_send_path_failure(struct ip_channel *channel, int code, int local_mtu);

enum ip_send_verdict {
  IP_SENT,
  IP_SEND_WOULD_BLOCK,
  IP_SEND_RETRY_OLDER_ERROR, /* it was the error of an older datagram: the send is to be made again */
  IP_SEND_NOT_SEGMENTABLE,   /* several datagrams in one message: each may be told something else by itself */
  IP_SEND_OWN_ERROR
};

/* What the attempts to send one message have met. */
struct ip_send_retry {
  int attempts;  /* that failed */
  int suspected; /* the error that the last one met, if that may have been an older datagram's; 0: none */
  int local_mtu; /* that this system has named; 0: none */
  bool defers;   /* the caller keeps older errors for later, so that they never end a send */
};

/* Judges one attempt, which sent `segments` datagrams in one message and has met failure->code. Completes the failure with
   the mtu where it is the message's own. */
enum ip_send_verdict ip_send_path_classify(struct ip_channel *channel, struct ip_send_retry *retry,
                                           size_t segments, struct ip_failure *failure);

#endif
