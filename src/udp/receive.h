/* receive.h: the receives that Lua calls, and the steps that all of them share. */
#ifndef IP_RECEIVE_H
#define IP_RECEIVE_H

#include "udp/receive_path.h"
#include "udp/socket.h"

struct ip_receive_call {
  struct ip_socket_box *box;
  struct ip_receive receive;
};

/* Reads the arguments of a receive: the socket at 1, the buffer at 2, and the flags at `flags`, the last
   argument. Checked values may stay on the stack. [-0, +2, e] */
void ip_receive_read(lua_State *L, const char *operation, int flags, uint8_t wants,
                     struct ip_receive_call *call);

/* Returns true when there is a datagram, else false: `return ip_receive_wait(...)`. `yields` is true on entry
   if the call has to wait in any case; pass its value on to ip_receive_wait. [-0, +0, e] */
bool ip_receive_start(lua_State *L, const struct ip_operation_type *type, const struct ip_receive_call *call,
                      struct ip_received *received, bool *yields);

/* Does the same as ip_receive_start, but returns the failure of the socket instead of raising it. EAGAIN: the
   call has to wait. Raises what would also end any other call: interruption, deadlines, a place where Lua
   cannot suspend. [-0, +0, e] */
struct ip_failure ip_receive_try(lua_State *L, const struct ip_operation_type *type,
                                 const struct ip_receive_call *call, struct ip_received *received,
                                 bool *yields);

int ip_receive_wait(lua_State *L, const struct ip_operation_type *type, const struct ip_receive_call *call,
                    bool yields);

/* Should a receive suspend without a try, because the last ones have met EAGAIN? Counts it as one that
   does. */
bool ip_receive_skips_try(const struct ip_runtime *runtime, const struct ip_socket_box *box);

/* Notes how the try of a receive has ended. Does not call Lua. */
static inline void ip_receive_note_try(struct ip_channel *channel, struct ip_failure failure) {
  if (IP_LIKELY(failure.code == 0)) {
    if (IP_LIKELY(!ip_receive_path_reads_several(channel)))
      channel->would_block_streak = 0; /* else the receive path sets it */
  } else if (failure.code == EAGAIN && channel->would_block_streak < IP_SKIP_AFTER) {
    channel->would_block_streak++;
  }
}

/* For the try_ forms: true when there is a datagram; false also while other receives wait. [-0, +0, e] */
bool ip_receive_at_once(lua_State *L, const struct ip_operation_type *type,
                        const struct ip_receive_call *call, struct ip_received *received);

/* Makes an acquired operation wait for its socket. Raises EBADF if the socket has been closed meanwhile;
   completes it with ESHUTDOWN if the socket does not receive any more. [-0, +0, e] */
void ip_receive_queue(lua_State *L, struct ip_operation *operation, const struct ip_receive_call *call,
                      bool yields);

/* Functions of operation types. They do not call Lua. */
bool ip_receive_attempt(struct ip_operation *operation);
void ip_receive_final_attempt(struct ip_operation *operation);

/* Replaces EAGAIN by an error from the system's error queue, if there is one: the system reports that queue
   by POLLERR only. Does not call Lua. */
struct ip_failure ip_receive_look_for_errors(struct ip_channel *channel, struct ip_failure failure);

/* Pushes the sender's address. The socket's box is at `index`, which may be a pseudo-index. [-0, +1, m] */
void ip_receive_push_source(lua_State *L, int index, const struct ip_socket_box *box,
                            const struct ip_endpoint *source);

/* Pushes address, port, truncated. [-0, +3, m] */
int ip_receive_push_sender(lua_State *L, int index, const struct ip_socket_box *box,
                           const struct ip_datagram *datagram);

/* Methods. */
int ip_socket_receive(lua_State *L);
int ip_socket_receive_from(lua_State *L);
int ip_socket_receive_string(lua_State *L);
int ip_socket_try_receive(lua_State *L);
int ip_socket_try_receive_from(lua_State *L);
int ip_socket_try_receive_string(lua_State *L);

#endif
