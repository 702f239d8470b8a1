/* socket.h: ip.udp.socket: its memory, its life, its checks.

   Lua owns a box (the userdata). While the socket is open, the box points to a struct ip_socket and owns it,
   until ip_socket_disown passes it to the watcher and sets the pointer to NULL. */
#ifndef IP_SOCKET_H
#define IP_SOCKET_H

#include "binding/class.h"
#include "loop/watcher.h"
#include "udp/channel.h"
#include "udp/flusher.h"

/* The user values of the box: cached addresses. The two ends of the socket share one value, a table that is
   created on first use. */
enum ip_socket_user_value { IP_SOCKET_PEER = 1, IP_SOCKET_ENDS, IP_SOCKET_USER_VALUES = IP_SOCKET_ENDS };

struct ip_socket {
  struct ip_watcher watcher; /* first */
  struct ip_channel channel;
  struct ip_socket_flusher *flusher; /* NULL until `coalesce` needs it */
  const struct ip_address *peer;     /* the last sender, held as IP_SOCKET_PEER; NULL: none */
};

struct ip_socket_box {
  struct ip_socket *socket; /* NULL: not open */
  double receive_timeout;   /* seconds; negative: none */
  double send_timeout;
  bool raises_truncation; /* the channel's, also while the socket is not open */
  uint32_t
      generation; /* number of closings: distinguishes a socket that was opened again from the earlier one */
};

/* Returns the box at `arg`; raises a bad argument. [-0, +0, v] */
struct ip_socket_box *ip_socket_check(lua_State *L, int arg);

/* Returns the box at index 1, whose socket is open; raises EBADF, which names `operation`. [-0, +0, e] */
struct ip_socket_box *ip_socket_check_open(lua_State *L, const char *operation);

/* The same for hot paths; may leave a value on the stack. [-0, +(0|1), e] */
static inline struct ip_socket_box *ip_socket_peek_open(lua_State *L, const struct ip_runtime *runtime,
                                                        const char *operation) {
  struct ip_socket_box *box = ip_peek_class_of(L, &runtime->core, 1, IP_CLASS_SOCKET);
  if (IP_LIKELY(box != NULL && box->socket != NULL && !runtime->closed)) return box;
  if (box != NULL) lua_pop(L, 1);
  return ip_socket_check_open(L, operation);
}

/* Returns true for "v6" or a v6 address, and false for "v4" or a v4 address; any other value is a bad
   argument. [-0, +0, v] */
bool ip_socket_check_family(lua_State *L, int arg);

/* Opens the box at index 1 on a descriptor, which the socket owns from then on. On ENOMEM, which it raises,
   nothing has changed. [-0, +0, e] */
struct ip_socket *ip_socket_adopt(lua_State *L, struct ip_socket_box *box, int fd, bool is_v6,
                                  const char *operation);

/* Does an open socket own the descriptor? */
bool ip_socket_holds(const struct ip_runtime *runtime, int fd);

/* Completes pending operations with ECANCELED, removes the descriptor from the loop and closes the box.
   Returns the descriptor, which the caller owns. Does not call Lua. */
int ip_socket_disown(struct ip_socket_box *box);

/* Closes the open box and its descriptor. Does not call Lua. */
void ip_socket_end(struct ip_socket_box *box);

/* Ties an acquired operation to its socket. Acquiring allocates, so a finalizer may have closed the socket:
   then the operation is released and EBADF raised. [-0, +0, e] */
struct ip_socket *ip_socket_tie(lua_State *L, struct ip_operation *operation,
                                const struct ip_socket_box *box);

/* Raises the failure of a transfer. [-0, +0, e] */
IP_NO_RETURN int ip_socket_raise(lua_State *L, struct ip_failure failure, const char *operation);

/* new() -> socket, not open. The methods open, bind, connect, disconnect, shutdown, cancel, close,
   io_control. */
int ip_socket_new(lua_State *L);
int ip_socket_open(lua_State *L);
int ip_socket_bind(lua_State *L);
int ip_socket_connect(lua_State *L);
int ip_socket_disconnect(lua_State *L);
int ip_socket_shutdown(lua_State *L);
int ip_socket_cancel(lua_State *L);
int ip_socket_close(lua_State *L); /* also __close and __gc */
int ip_socket_io_control(lua_State *L);

#endif
