/* poll_set.h: waits for descriptors that belong to others, or that others watch, too.

   libuv takes a descriptor once per loop, makes its open file description non-blocking, which other processes
   may share (a terminal), and aborts the process when the descriptor is closed before it is registered. The
   poll set does none of this: on Linux it is one epoll of the library's own, which libuv watches. A
   descriptor in it may be closed at any moment, any number of waits may be for it, and neither its blocking
   mode nor its life is changed.

   No function here calls Lua or raises. */
#ifndef IP_POLL_SET_H
#define IP_POLL_SET_H

#include "base/queue.h"

struct ip_poll_descriptor;
struct ip_runtime;

/* One wait. The caller owns its memory; the set has it linked until `ready` or ip_poll_set_remove. */
struct ip_poll_wait {
  struct ip_queue link;
  struct ip_poll_descriptor *descriptor; /* NULL: in no set */
  int events;                            /* of uv_poll_event: for which it waits */
  /* The wait is over and in the set no longer: some of its events have come, or `error` is not 0. ECANCELED:
     the descriptor is closed. It may free the wait. */
  void (*ready)(struct ip_poll_wait *wait, int events, int error);
};

/* Makes the runtime's set; 0 or an errno value (EMFILE, ENFILE, ENOMEM, ENOSPC). Idempotent. */
int ip_poll_set_open(struct ip_runtime *runtime);

/* Waits once for one of wait->events; 0 or an errno value: EBADF, EPERM for what cannot be polled (a regular
   file), ENOSPC, ENOMEM. The set is open. */
int ip_poll_set_add(struct ip_runtime *runtime, struct ip_poll_wait *wait, int fd);

/* Ends a wait without a call of `ready`. Idempotent. */
void ip_poll_set_remove(struct ip_poll_wait *wait);

/* The descriptor is about to be closed, or the system has just given its number to a new one: the waits for
   it end with ECANCELED. */
void ip_poll_set_end(struct ip_runtime *runtime, int fd);

#endif
