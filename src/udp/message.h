/* udp_message.h: what a socket keeps that reports errors, splits or joins datagrams. Layer 5.

   A socket that does none of it has no such thing: struct ip_socket has a pointer, NULL until an option asks. */
#ifndef IP_UDP_MESSAGE_H
#define IP_UDP_MESSAGE_H

#include "udp/read_ahead.h"
#include "udp/transfer.h"

enum {
  IP_MOST_SEGMENTS = 64,        /* of one message: UDP_MAX_SEGMENTS of older kernels */
  IP_LARGEST_SEGMENTED = 65487, /* what a v6 packet can carry; v4's limit is higher */
  IP_LARGEST_V4 = 65507,        /* payload of a datagram */
  IP_LARGEST_V6 = 65527,
  IP_SEND_RETRIES = 8,    /* of a send that meets errors of older datagrams */
  IP_ERRORS_KEPT = 32,    /* the oldest makes room for the newest */
  IP_ERROR_PAYLOAD = 2048 /* of the datagram that an error speaks of; ICMP quotes less */
};

/* One entry of the system's error queue, as drained. */
struct ip_queued_error {
  struct ip_queued_error *next;
  struct ip_control_error what;
  struct ip_endpoint destination;
  size_t length;
  bool truncated;
  unsigned char payload[];
};

struct ip_report {
  int error, mtu;
};

struct ip_messages {
  bool errors;      /* receive_errors is on */
  bool counts;      /* receive_dropped is on */
  bool offload;     /* receive_offload is on */
  bool coalesce;    /* the option of that name is on */
  bool joins;       /* the system still joins datagrams, or has joined some */
  int segment_size; /* the option; 0: off */
  uint32_t dropped; /* as last told */

  /* details, for receive_error, and names, for receives: each is told once, whatever becomes of the other */
  struct ip_queued_error *first_error, *last_error;
  size_t error_count;
  struct ip_report reports[IP_ERRORS_KEPT];
  size_t first_report, report_count;
  int local_mtu; /* of the last EMSGSIZE that this system said itself */

  bool has_staged;          /* the stage is not empty */
  struct ip_stage *stage;   /* NULL until an option needs it */
  struct ip_gather *gather; /* likewise */
};

/* The socket's, made when there is none; NULL when memory is short. */
struct ip_messages *ip_messages_of(struct ip_socket *socket);
void ip_messages_free(struct ip_messages *messages);

static inline bool ip_messages_coalesces(const struct ip_socket *socket) {
  return socket->messages != NULL && socket->messages->coalesce;
}

/* Is there something for a receive that the system does not know of? */
static inline bool ip_messages_pending(const struct ip_socket *socket) {
  const struct ip_messages *messages = socket->messages;
  return messages != NULL && (messages->has_staged || messages->report_count != 0);
}

/* Received datagrams that are in this process already: release has to refuse. */
static inline bool ip_messages_has_staged(const struct ip_socket *socket) {
  return socket->messages != NULL && socket->messages->has_staged;
}

/* udp_intake.c */

/* Takes one datagram, whatever stands between the socket and the system: what is staged, strangers, errors. Returns 0
   or an errno value; EMSGSIZE notes its mtu in the runtime. No Lua. */
int ip_intake_take(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                   struct ip_datagram *datagram);

/* The size of the datagram that the next receive gets, 0 where there is none. Returns 0 or an errno value. */
int ip_intake_bytes_readable(struct ip_socket *socket, int *bytes);

/* Makes the system join datagrams, or stop it once what it has joined is read. Returns 0 or an errno value. */
int ip_intake_set_offload(struct ip_socket *socket, bool on);

/* Reads several datagrams at a time from now on, joined ones where the system can. Returns 0 or an errno value. */
int ip_intake_set_coalesce(struct ip_socket *socket, bool on);

/* Where no option wants joining any more, stops it if the socket is empty; else a later receive does. */
void ip_intake_stop_joining(struct ip_socket *socket);

/* For a descriptor that somebody else has made: finds out which of these options are on. Returns 0 or ENOMEM. */
int ip_intake_adopt(struct ip_socket *socket);

/* udp_error_queue.c */

/* Moves the system's error queue here. A queue that is not empty keeps the descriptor ready for ever. Returns how
   many ICMP errors there were. No Lua. */
size_t ip_errors_drain(struct ip_socket *socket);
void ip_errors_clear(struct ip_messages *messages);

/* The oldest error that no receive has raised; there is one. Notes its mtu. */
int ip_errors_next_report(struct ip_socket *socket);

/* Notes the mtu where `error` is EMSGSIZE; returns `error`. */
int ip_errors_note(struct ip_socket *socket, int error);

/* udp_split.c */

/* Can several datagrams leave as one message that the system cuts? Asks it once: before Linux 4.18 the wish would be
   ignored, and they would leave as one. */
bool ip_split_can_cut(struct ip_socket *socket);

/* One attempt to send, with ancillary data, splitting, and again where only an older error stood in the way; or what
   ip_gather_send does, on a socket that gathers. */
int ip_split_send(struct ip_socket *socket, struct ip_send_call *call, size_t *sent);

/* Likewise, never gathering. */
int ip_split_send_now(struct ip_socket *socket, struct ip_send_call *call, size_t *sent);

/* A send has failed with `error`, not EAGAIN, after it was made again `again` times: was that the error of an older
   datagram, so that it is to be made again? */
bool ip_split_met_older(struct ip_socket *socket, int error, int again);

/* udp_gather.c: functions of a socket are for any socket, gathering or not. */

/* Gathers the sends of the socket from now on, or no more. Returns 0 or ENOMEM. */
int ip_gather_set(struct ip_socket *socket, bool on);
void ip_gather_free(struct ip_gather *gather);

/* Keeps the datagram until the end of the turn, or, where it has something that must not wait or cannot be foretold,
   sends it behind those that are kept. An error of an earlier datagram is returned instead. Returns 0 or an errno
   value; EAGAIN: it has to wait. The socket has a gather. */
int ip_gather_send(struct ip_socket *socket, struct ip_send_call *call, size_t *sent);

/* Hands over what is kept. False when the system does not take all of it now: the loop goes on with that. What goes
   wrong is kept for the next send. No Lua. */
bool ip_gather_flush(struct ip_socket *socket);

/* Flushes; what cannot leave is lost. */
void ip_gather_end(struct ip_socket *socket);

/* Flushes before the peer changes: what cannot leave now goes to the peer that it was meant for. */
void ip_gather_leave_peer(struct ip_socket *socket);

/* The socket's options may have changed. */
void ip_gather_look_again(struct ip_socket *socket);

/* How many datagrams are kept; adds their bytes to `bytes`. */
size_t ip_gather_count(const struct ip_socket *socket, size_t *bytes);

/* For the runtime: all sockets that keep something. */
void ip_gather_flush_all(struct ip_runtime *runtime);
void ip_gather_write_ready(struct ip_readiness *readiness);

/* udp_message.c, for batches: the info table is at index 3 of the frame of a function that was added by
   ip_message_add_functions. */

/* Adds functions that carry the core (at the absolute stack index `core`) and the keys of info tables to the table on top
   of the stack. [-0, +0, m] */
void ip_message_add_functions(lua_State *L, int core, const luaL_Reg *functions);

/* Makes it where that is nil, and drops what is above. [-?, +?, m] */
void ip_message_prepare_info(lua_State *L);

/* Sets all but the peer. [-0, +?, m] */
void ip_message_fill_info(lua_State *L, const struct ip_control *control, bool truncated);

/* Sets the peer: its address is on top of the stack, nil where it is not `known`. [-1, +(0|1), m] */
void ip_message_set_peer(lua_State *L, bool known, uint16_t port);

/* The system tells of drops from the first on; the option promises a count. */
void ip_message_count_drops(const struct ip_socket *socket, struct ip_control *control);

/* Reads what the info table on top of the stack, which is popped, asks for beside the target. [-1, +0, e] */
void ip_message_read_control(lua_State *L, const char *operation, struct ip_send_call *call);

#endif
