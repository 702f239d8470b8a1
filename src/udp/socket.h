/* udp_socket.h: what the rooms of ip.udp.socket share. Layer 5.

   Lua owns a box (the userdata). While the socket is open the box points to a struct ip_socket, which the box
   owns until ip_socket_close gives it to the readiness; the box is NULL from the same moment. */
#ifndef IP_UDP_SOCKET_H
#define IP_UDP_SOCKET_H

#include "base/util.h"
#include "loop/watcher.h"
#include "net/datagram_io.h"

/* The user values of the box: cached addresses. The two ends of the socket share one: a table, made when
   first asked. */
enum ip_socket_user_value { IP_SOCKET_PEER = 1, IP_SOCKET_ENDS, IP_SOCKET_USER_VALUES = IP_SOCKET_ENDS };
enum ip_socket_end { IP_SOCKET_LOCAL = 1, IP_SOCKET_REMOTE };

/* Exists while the socket is connected. */
struct ip_connection {
  struct ip_endpoint remote;
  struct ip_endpoint local; /* as bound before; length 0 where it was not bound */
};

struct ip_socket {
  struct ip_readiness readiness; /* first; has the descriptor and the runtime */
  struct ip_queue link;          /* in runtime->open_sockets */
  struct ip_connection *connection;
  uint8_t misses;  /* receives in a row that met EAGAIN, up to a bound */
  uint8_t skipped; /* receives since the last try, while the bound is reached */
  bool is_v6, bound, shut_receive, shut_send;
  bool filtering;               /* datagrams queued before `connect` may still come */
  bool sends_singly;            /* the system or a path refuses to cut datagrams: that is done here */
  unsigned multicast_interface; /* index that the option was set to, 0: none */
  bool asked_to_cut;            /* the system has told whether it can */
  int late_error; /* met by receive_many behind datagrams that it took; the next one raises it */
  const struct ip_address *peer; /* the last sender: held as IP_SOCKET_PEER; NULL: nobody */
  struct ip_messages *messages;  /* NULL until an option of udp_message.h is on */
};

struct ip_socket_box {
  struct ip_socket *socket; /* NULL: not open */
  double receive_timeout;   /* seconds; negative: none */
  double send_timeout;
  uint32_t life; /* how often it has been closed: tells a socket that was opened again from the one before */
};

/* The box at `arg`, or a bad-argument error. [-0, +0, v] */
struct ip_socket_box *ip_socket_check(lua_State *L, int arg);

/* The open socket of the box at index 1, or EBADF called `operation`. [-0, +0, e] */
struct ip_socket_box *ip_socket_check_open(lua_State *L, const char *operation);

/* Likewise, for the hot paths: may leave a value on the stack. [-0, +(0|1), e] */
static inline struct ip_socket_box *ip_socket_peek_open(lua_State *L, const struct ip_runtime *runtime,
                                                        const char *operation) {
  struct ip_socket_box *box = ip_peek_class_of(L, &runtime->core, 1, IP_CLASS_SOCKET);
  if (IP_LIKELY(box != NULL && box->socket != NULL && !runtime->closed)) return box;
  if (box != NULL) lua_pop(L, 1);
  return ip_socket_check_open(L, operation);
}

static inline int ip_socket_family(const struct ip_socket *socket) {
  return socket->is_v6 ? AF_INET6 : AF_INET;
}

/* Does the socket carry v4 traffic as well as v6? Raises what the system says, called `name`. [-0, +0, e] */
bool ip_socket_is_dual_stack(lua_State *L, const struct ip_socket *socket, const char *name);
/* Opens the box at index 1 on a descriptor, which is the socket's from then on. Raises ENOMEM, and has done
   nothing. [-0, +0, e] */
struct ip_socket *ip_socket_adopt(lua_State *L, struct ip_socket_box *box, int fd, bool is_v6,
                                  const char *operation);

/* Completes what is pending with ECANCELED and takes the descriptor out of the loop; returns the descriptor,
   which is the caller's. The box is closed. No Lua. */
int ip_socket_disown(struct ip_socket_box *box);

/* Is the argument a family or an address of v6? Else it is of v4, or a bad argument. [-0, +0, v] */
bool ip_socket_check_family(lua_State *L, int arg);
/* Does what goes to `remote` leave as IPv4? */
static inline bool ip_socket_is_v4_path(const struct ip_socket *socket, const struct ip_endpoint *remote) {
  return !socket->is_v6 || IN6_IS_ADDR_V4MAPPED(&remote->name.v6.sin6_addr);
}

/* Drops what others than the connected peer had sent before `connect` from the head of the queue; 0 or an
   errno value. */
int ip_socket_drop_strangers(struct ip_socket *socket);

/* Completes ip.udp.batch by `info`, which needs to know messages. [-0, +0, m] */
void ip_batch_add_info(lua_State *L, int core);

/* Defines the class and pushes a table of module functions: `new`. [-0, +1, m] */
void ip_socket_open_class(lua_State *L, int core);

/* Adds the methods for messages to the class. [-0, +0, m] */
void ip_socket_add_messages(lua_State *L, int core);

/* Pushes the table ip.message_flag. [-0, +1, m] */
void ip_socket_push_message_flags(lua_State *L);

/* The methods of the other rooms. */
#define IP_SOCKET_METHOD(name) int ip_socket_##name(lua_State *L)
IP_SOCKET_METHOD(receive);
IP_SOCKET_METHOD(receive_from);
IP_SOCKET_METHOD(receive_string);
IP_SOCKET_METHOD(send);
IP_SOCKET_METHOD(send_to);
IP_SOCKET_METHOD(flush);
IP_SOCKET_METHOD(try_receive);
IP_SOCKET_METHOD(try_receive_from);
IP_SOCKET_METHOD(try_send);
IP_SOCKET_METHOD(try_send_to);
IP_SOCKET_METHOD(receive_error);
IP_SOCKET_METHOD(receive_many);
IP_SOCKET_METHOD(send_many);
IP_SOCKET_METHOD(set_option);
IP_SOCKET_METHOD(get_option);
IP_SOCKET_METHOD(assign);
IP_SOCKET_METHOD(release);

/* For the Lua part of the class. */
IP_SOCKET_METHOD(option_names);
IP_SOCKET_METHOD(prepare_fill);
IP_SOCKET_METHOD(send_filled);
IP_SOCKET_METHOD(send_to_filled);

/* Adds what lua/ip/udp_loop.lua and lua/ip/udp_fill.lua are made of to the table on top of the stack. [-0,
   +0, m] */
void ip_socket_add_internals(lua_State *L, int core);

#endif
