/* readiness.h: a descriptor in the event loop, and the operations that wait for it. Layer 4.

   Arming is sticky: the descriptor stays in the loop while waiters come back, and is taken out when an event
   finds nobody waiting, because uv_poll_start and uv_poll_stop each cost epoll_ctl calls. */
#ifndef IP_READINESS_H
#define IP_READINESS_H

#include "loop/runtime.h"

enum ip_side { IP_SIDE_READ, IP_SIDE_WRITE, IP_SIDE_COUNT };

struct ip_readiness {
  struct ip_ready ready;
  union {
    struct ip_queue waiters[IP_SIDE_COUNT];          /* struct ip_operation, oldest first */
    void (*release)(struct ip_readiness *readiness); /* after ip_readiness_fini */
  };
  struct ip_runtime *runtime;
  int fd;
  bool in_loop;    /* `poll` is initialised: its memory belongs to libuv until on_closed */
  uint8_t armed;   /* uv_poll_event bits that libuv watches */
  uint8_t pending; /* 1 << side for each side that an attempt is worth making on */
  bool writes;     /* its owner has something to write, without an operation */
  uv_poll_t poll;
};

void ip_readiness_init(struct ip_readiness *readiness, struct ip_runtime *runtime, int fd);

/* Registers the descriptor with the loop; 0 or an errno value (EEXIST, EPERM, ENOMEM). Idempotent. */
int ip_readiness_prepare(struct ip_readiness *readiness);

static inline bool ip_readiness_has_waiters(const struct ip_readiness *readiness, enum ip_side side) {
  return !ip_queue_is_empty(&readiness->waiters[side]);
}

/* Behind the oldest one; there is one. */
static inline bool ip_readiness_has_waiters_behind(const struct ip_readiness *readiness, enum ip_side side) {
  const struct ip_queue *waiters = &readiness->waiters[side];
  return waiters->next != waiters->previous;
}

/* How many operations wait on a side, without those that carry nothing; adds their sizes to `bytes`. */
size_t ip_readiness_count(const struct ip_readiness *readiness, enum ip_side side, size_t *bytes);

/* Queues an operation and watches the descriptor for it. The readiness is prepared. */
void ip_readiness_wait(struct ip_readiness *readiness, enum ip_side side, struct ip_operation *operation);

/* Likewise, at the head of the queue: for one that was served and found that it has to wait on. */
void ip_readiness_wait_first(struct ip_readiness *readiness, enum ip_side side,
                             struct ip_operation *operation);

/* Queues an operation whose attempt is to be made at the next turn without waiting for an event: giving way.
   A descriptor that is so busy leaves the loop: being registered costs every datagram a wake-up. */
void ip_readiness_give_way(struct ip_readiness *readiness, enum ip_side side, struct ip_operation *operation);

/* A waiter of this side, marked immediate, has run out of time: the next turn attempts it once more, for what
   arrived in time must not be missed because a timer is looked at before the descriptor. No Lua. */
void ip_readiness_try_last(struct ip_readiness *readiness, enum ip_side side);

/* Has runtime->write_ready called whenever the descriptor takes data, until told otherwise; the program waits for that.
   Returns 0 or what ip_readiness_prepare does. Idempotent. No Lua. */
int ip_readiness_set_writes(struct ip_readiness *readiness, bool writes);

/* Completes all waiters of a side with a system error; 0 waiters is fine. */
void ip_readiness_fail(struct ip_readiness *readiness, enum ip_side side, int status);

/* The dispatcher's part: attempts the calls of those who waited before this turn. Resumes coroutines. */
void ip_readiness_dispatch(lua_State *L, struct ip_readiness *readiness);

/* Takes the descriptor out of the loop, which does not close it, and gives the memory of the object that
   contains the readiness back through `release` when libuv has let go of it. No operation may be queued. */
void ip_readiness_fini(struct ip_readiness *readiness, void (*release)(struct ip_readiness *readiness));

/* dispatch.c, for ip_readiness_dispatch: DONE, and the coroutine runs. [-0, +0, -] */
void ip_operation_resume(lua_State *L, struct ip_operation *operation);

#endif
