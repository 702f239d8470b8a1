/* watcher.h: a poll watcher: a descriptor in the event loop, and the operations that wait for it.

   Arming is sticky: the descriptor stays in the loop while waiters come back, and is removed when an event
   finds nobody waiting, because uv_poll_start and uv_poll_stop each cost epoll_ctl calls.

   Others may close the descriptor of a watcher. libuv aborts the process when it registers such a number, so
   what was started since the last poll is probed before the next one; there a watcher learns that its
   descriptor is lost, and its waiters end with EBADF. One that is closed while it is registered is silently
   forgotten by the system.

   libuv takes a number once per loop. Where another handle of a host's loop has it, the watcher uses the poll
   set. */
#ifndef IP_WATCHER_H
#define IP_WATCHER_H

#include "loop/observer.h"
#include "loop/operation.h"

enum ip_side { IP_SIDE_READ, IP_SIDE_WRITE, IP_SIDE_COUNT };

struct ip_watcher;

/* Reads a descriptor in place of operations of the watcher: what it reads is for several calls, which wait
   elsewhere. */
struct ip_reader {
  /* The descriptor may be readable. May end the watcher. [-0, +0, -] */
  void (*readable)(lua_State *L, struct ip_reader *reader);
  /* Nobody can wait for the descriptor: completes all calls that do. Does not call Lua. */
  void (*failed)(struct ip_reader *reader, int code);
};

/* Who is interested in a descriptor beside the operations that wait for it; few descriptors have any. */
struct ip_watcher_guests {
  struct ip_queue observers; /* struct ip_observer: who waits until it is readable */
  struct ip_reader *reader;  /* NULL: none, or nobody waits for what it reads */
};

struct ip_watcher_type {
  struct ip_resource_type resource; /* first; closes a watcher that its owner has not closed */
  /* Frees the memory around the watcher once libuv has closed the handle. Does not call Lua. */
  void (*release)(struct ip_watcher *watcher);
  /* Called when the descriptor is writable, if ip_watcher_set_writing has asked for that. Does not call
     Lua. */
  void (*writable)(struct ip_watcher *watcher);
  /* Would the call of a waiter not wait? Asked for observers, after the waiters have been served. No Lua. */
  bool (*readable)(struct ip_watcher *watcher);
  /* Events have brought nothing in several iterations in a row: finds out what keeps the descriptor ready,
     and ends that. No Lua. */
  void (*fruitless)(struct ip_watcher *watcher);
  /* Others have closed the descriptor: its number may mean another file by now. No Lua. */
  void (*lost)(struct ip_watcher *watcher);
};

struct ip_watcher {
  struct ip_ready ready;
  struct ip_resource resource;            /* its type is the first member of a struct ip_watcher_type */
  struct ip_queue waiters[IP_SIDE_COUNT]; /* struct ip_operation, oldest first */
  struct ip_queue unprobed;               /* in runtime->unprobed: started since the last poll */
  struct ip_runtime *runtime;
  int fd;           /* -1: lost */
  uint8_t armed;    /* uv_poll_event bits that are watched */
  uint8_t pending;  /* 1 << side for each side that an attempt is worth making on */
  bool in_loop : 1; /* `poll` is initialised: its memory belongs to libuv until on_closed */
  bool ended : 1;   /* ip_watcher_fini has been called */
  /* uv_poll_event bits that are wanted without a waiter: writable while its owner has something to write,
     readable while somebody observes it */
  uint8_t also;
  struct ip_watcher_guests *guests; /* NULL: there have been none */
  uv_poll_t poll;                   /* its data: a struct shared_watch, or NULL */
};

void ip_watcher_init(struct ip_watcher *watcher, struct ip_runtime *runtime, int fd,
                     const struct ip_watcher_type *type);

/* Registers the descriptor with the loop; 0 or an errno value (EBADF, ENOMEM, ENOSPC). Idempotent. */
int ip_watcher_prepare(struct ip_watcher *watcher);

static inline struct ip_reader *ip_watcher_reader(const struct ip_watcher *watcher) {
  return watcher->guests != NULL ? watcher->guests->reader : NULL;
}

static inline bool ip_watcher_has_waiters(const struct ip_watcher *watcher, enum ip_side side) {
  return !ip_queue_is_empty(&watcher->waiters[side]);
}

/* Do operations wait behind the oldest one? There is an oldest one. */
static inline bool ip_watcher_has_waiters_behind(const struct ip_watcher *watcher, enum ip_side side) {
  const struct ip_queue *waiters = &watcher->waiters[side];
  return waiters->next != waiters->previous;
}

/* Is the watcher asked to read, by operations or by its reader? */
static inline bool ip_watcher_is_read(const struct ip_watcher *watcher) {
  return ip_watcher_has_waiters(watcher, IP_SIDE_READ) || ip_watcher_reader(watcher) != NULL;
}

/* Returns the number of waiting sends and adds their unsent bytes to `bytes`. Operations that carry nothing
   are not counted. */
size_t ip_watcher_count_sends(const struct ip_watcher *watcher, size_t *bytes);

/* How an operation is queued. */
enum ip_wait {
  IP_WAIT, /* behind the others, until an event */
  /* Before the others: the descriptor would block for what is to be sent first. So those behind it that must
     not wait time out. */
  IP_WAIT_FIRST,
  /* Behind the others, with an attempt in the next iteration even without an event: the call yields. So busy
     a descriptor leaves the loop, because every datagram costs a wake-up while it is registered. */
  IP_WAIT_YIELDING
};

/* Queues an operation and watches the descriptor for it; where it cannot be watched, all waiters are
   completed with the error. The watcher is prepared. */
void ip_watcher_wait(struct ip_watcher *watcher, enum ip_side side, struct ip_operation *operation,
                     enum ip_wait wait);

/* Makes an attempt in the next iteration without an event. Datagrams in this process cause no event, and a
   datagram that arrived in time must not be missed because libuv runs a timer before it polls the descriptor.
   Does not call Lua. */
void ip_watcher_attempt_soon(struct ip_watcher *watcher, enum ip_side side);

/* Calls the type's `writable` whenever the descriptor is writable, until it is set to false; meanwhile the
   program does not end. Returns 0 or the error of ip_watcher_prepare; setting false cannot fail. Idempotent.
   Does not call Lua. */
int ip_watcher_set_writing(struct ip_watcher *watcher, bool writing);

/* Calls the reader whenever the descriptor is readable, until it is set to NULL. The watcher is prepared;
   where the descriptor cannot be watched or memory is short, the reader has failed. Costs nothing when
   nothing changes. Does not call Lua. */
void ip_watcher_set_reader(struct ip_watcher *watcher, struct ip_reader *reader);

static inline bool ip_watcher_is_writing(const struct ip_watcher *watcher) {
  return (watcher->also & UV_WRITABLE) != 0;
}

/* Notifies `observer` once, when a read would not wait, or when the watcher ends. Returns 0, ENOMEM or the
   error of ip_watcher_prepare. Does not call Lua. */
int ip_watcher_observe(struct ip_watcher *watcher, struct ip_observer *observer);

/* Ends that without a notification; does nothing after one. Does not call Lua. */
void ip_watcher_unobserve(struct ip_watcher *watcher, struct ip_observer *observer);

/* Notifies all observers: reads do not wait any more. Does not call Lua. */
void ip_watcher_notify(struct ip_watcher *watcher);

/* The call that an event woke would still block. Where that happens in several iterations in a row, the
   descriptor is ready without giving anything, and the loop would spin: the type's `fruitless` is called. No
   Lua. */
void ip_watcher_note_fruitless(struct ip_watcher *watcher);

/* Completes all waiters of a side with a system error, those of the reader included. */
void ip_watcher_fail(struct ip_watcher *watcher, enum ip_side side, int code);

/* Has what was started since the last poll checked by the system, before libuv does it. Right before each
   uv_run. No Lua. */
void ip_watcher_probe(struct ip_runtime *runtime);

/* The dispatcher's part: attempts the calls of those who waited before this iteration. Resumes coroutines. */
void ip_watcher_dispatch(lua_State *L, struct ip_watcher *watcher);

/* For the `forked` of a watcher's resource type: libuv registers the descriptor in the child's loop, and that
   is probed first. Does not call Lua. */
void ip_watcher_forked(struct ip_resource *resource);

/* Removes the descriptor, which stays open, from the loop and the watcher from the runtime's resources. No
   operation may be queued. The type's `release` frees the memory once libuv has closed the handle. */
void ip_watcher_fini(struct ip_watcher *watcher);

#endif
