/* peers.h: the peers of one socket: a session for each, and one reader that brings every datagram to the
   session of its sender.

   The socket is read only while somebody waits for something that is not here yet: in accept, in a receive of
   a session, or in a watch on one of them; and by the calls themselves, which look before they wait. What was
   read for others waits in their sessions. */
#ifndef IP_PEERS_H
#define IP_PEERS_H

#include "loop/wait_point.h"
#include "udp/datagram_queue.h"
#include "udp/session_table.h"
#include "udp/socket.h"

/* A place where calls wait for the reader. */
struct ip_peer_point {
  struct ip_wait_point wait; /* first */
  struct ip_peers *peers;    /* NULL: the session is over */
  struct ip_queue expiring;  /* in peers->expiring */
  bool hungry;               /* somebody waits, and there is nothing: counted in peers->hungry */
};

/* The userdata of a session. */
struct ip_session_box {
  struct ip_socket_box socket; /* first: the listener's socket, NULL when the session is over; the timeouts */
  struct ip_session *session;  /* NULL: closed, or idle with nothing left to receive */
  struct ip_endpoint remote;
  uint64_t dropped; /* the count of a session that is no more */
  bool idle;        /* it is over because its peer was silent */
};

struct ip_session {
  struct ip_session_entry entry; /* first */
  struct ip_peer_point point;    /* receives wait here */
  struct ip_queue link;          /* in peers->pending or peers->accepted */
  struct ip_session_box *box;    /* NULL: not accepted yet */
  struct ip_datagram_queue datagrams;
  struct ip_failure
      failure;              /* that the network reported for an earlier datagram to this peer; code 0: none */
  struct ip_control answer; /* the ancillary data of a send: the address that the peer used */
  ip_deadline active;       /* when something last came or went; 0 without an idle timeout */
  uint64_t dropped;
  uint32_t looks; /* receives that look at the socket at this moment, one within the other */
};

struct ip_peers {
  struct ip_reader reader;     /* first */
  struct ip_resource resource; /* closes the peers at the end of the state */
  struct ip_socket_box socket; /* closed: the listener is closed */
  struct ip_peer_point point;  /* accepts wait here */
  struct ip_session_table table;
  struct ip_datagram_pool pool;
  struct ip_queue pending;  /* sessions that nobody has accepted, oldest first */
  struct ip_queue accepted; /* the others that are open; with an idle timeout, the longest silent one first */
  struct ip_queue expiring; /* points whose calls get a final attempt, and time out after it */
  struct ip_peer_point *woken; /* the last one that became ready, while the reader reads */
  struct ip_timer *timer;      /* NULL: no idle timeout */
  /* Asks the program whether to accept a new peer; NULL: every peer is accepted. Where it is accepted, pushes
     a string of the datagram, and returns its bytes: the buffer that `data` is in may be used again
     meanwhile. Else pushes nothing and returns NULL. May close the peers. [-0, +(0|1), -] */
  const char *(*ask)(lua_State *L, struct ip_peers *peers, const struct ip_endpoint *source, const char *data,
                     size_t length);
  ip_deadline idle_timeout; /* nanoseconds */
  size_t max_sessions;
  size_t session_capacity;
  size_t hungry;       /* points */
  uint64_t dropped;    /* datagrams of peers that could get no session */
  uint32_t drained_in; /* the iteration in which the socket was last found empty */
  uint32_t pins;       /* readers on the stack: the memory stays */
  bool raises;         /* the program's answer was an error, which the next accept raises */
  bool idle_due;       /* the timer has fired */
  bool answers_from;   /* sessions answer from the address that their peer used */
};

/* Makes the peers of a socket, which they own from then on. The limits and `ask` are set by the caller.
   Returns 0 or an errno value (ENOMEM), with which nothing has changed. `idle_timeout`: seconds; negative:
   none. The loop is open. */
int ip_peers_new(struct ip_socket_box *socket, double idle_timeout, struct ip_peers **peers_made);

/* Ends all sessions with ECANCELED, closes the socket, and frees the peers. Does not call Lua. */
void ip_peers_close(struct ip_peers *peers);

static inline bool ip_peers_is_open(const struct ip_peers *peers) {
  return peers->socket.socket != NULL;
}

/* Reads until there is something for `box` or, where that is NULL, for accept. On entry, `*direct` says
   whether a datagram for `box` may stay in the runtime's scratch buffer, and on return whether it did.
   EAGAIN: nothing is there, at least not among the next datagrams; EBADF: the program has ended it meanwhile.
   Calls the program's accept function. [-0, +0, -] */
struct ip_failure ip_peers_read(lua_State *L, struct ip_peers *peers, struct ip_session_box *box,
                                bool *direct, struct ip_received *received);

/* Looks at the socket where there is nothing yet: would a receive of `box` or, where that is NULL, accept not
   wait? An error counts as that. `L` may be NULL: then the program's accept function is not called, and
   nothing is read for which it would have to be. [-0, +0, -] */
bool ip_peers_look(lua_State *L, struct ip_peers *peers, struct ip_session_box *box);

/* May a call with that timeout wait without a try, because the socket was empty a moment ago? */
bool ip_peers_skips_try(const struct ip_peers *peers, double timeout);

/* Queues an acquired operation at a point of open peers, whose socket has been prepared. `yields` as in
   ip_operation_acquire; `first`: before the others. Does not call Lua. */
void ip_peers_wait(struct ip_peer_point *point, struct ip_operation *operation, bool yields, bool first);

/* Gives waiting calls a final attempt: the `final_attempt` of operations that wait at a point. Does not call
   Lua. */
void ip_peers_final_attempt(struct ip_operation *operation);

/* The program's answer was an error: wakes accept. Does not call Lua. */
void ip_peers_note_error(struct ip_peers *peers);

/* An accept raises that error: the others wait on. */
void ip_peers_take_error(struct ip_peers *peers);

/* Takes the session that has waited longest out of the pending ones, for a box. There is one. */
struct ip_session *ip_peers_accept(struct ip_peers *peers, struct ip_session_box *box);

/* --- sessions --- */

/* Takes what a receive gets next: a datagram, or a failure. False: there is nothing. */
bool ip_session_take(struct ip_session *session, const struct ip_receive *receive,
                     struct ip_datagram *datagram, struct ip_failure *failure);

/* Copies a datagram to the buffer of a receive, where it is not there already. */
void ip_session_copy(const void *data, size_t length, const struct ip_receive *receive,
                     struct ip_datagram *datagram);

/* Something goes to the peer: the session is not silent. */
void ip_session_touch(struct ip_session *session);

/* Ends an open session whose peer has been silent for too long, unless a call waits in it or looks at the
   socket for it: it ends after that look. Does not call Lua. */
void ip_session_expire(struct ip_session *session);

/* Ends a session and frees it: waiting calls get ECANCELED. Does not call Lua. */
void ip_session_close(struct ip_session *session);

#endif
