/* udp_message.h: what a socket keeps that reports errors, splits or joins datagrams. Layer 5.

   A socket that does none of it has no such thing: struct ip_socket has a pointer, NULL until an option asks. */
#ifndef IP_UDP_MESSAGE_H
#define IP_UDP_MESSAGE_H

#include "udp_transfer.h"

enum {
  IP_ERRORS_KEPT = 32,    /* the oldest makes room for the newest */
  IP_STAGE_SIZE = 65536,  /* the largest coalesced read */
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
  bool coalesces;   /* the system still joins datagrams, or has joined some */
  bool singly;      /* the path refuses to split: done here */
  int segment_size; /* the option; 0: off */
  uint32_t dropped; /* as last told */

  /* details, for receive_error, and names, for receives: each is told once, whatever becomes of the other */
  struct ip_queued_error *first_error, *last_error;
  size_t error_count;
  struct ip_report reports[IP_ERRORS_KEPT];
  size_t first_report, report_count;
  int local_mtu; /* of the last EMSGSIZE that this system said itself */

  /* datagrams that came in one read and have not been handed out */
  bool has_staged;
  size_t staged_at, staged_end, stride;
  struct ip_endpoint staged_source;
  struct ip_control staged_control;
  unsigned char *stage; /* IP_STAGE_SIZE, or NULL */
};

/* The socket's, made when there is none; NULL when memory is short. */
struct ip_messages *ip_messages_of(struct ip_socket *socket);
void ip_messages_free(struct ip_messages *messages);

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

/* One attempt to send, with ancillary data, splitting, and again where only an older error stood in the way. */
int ip_split_send(struct ip_socket *socket, struct ip_send_call *call, size_t *sent);

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
