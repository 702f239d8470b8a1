/* udp_socket.h: what the rooms of ip.udp.socket share. Layer 5.

   Lua owns a box (the userdata). While the socket is open the box points to a struct ip_socket, which the box
   owns until ip_socket_close gives it to the readiness; the box is NULL from the same moment. */
#ifndef IP_UDP_SOCKET_H
#define IP_UDP_SOCKET_H

#include "datagram_io.h"
#include "readiness.h"

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
  bool sends_singly; /* a path has refused segmentation */
  int late_error;    /* met by receive_many behind datagrams that it took; the next one raises it */
  bool filtering;    /* datagrams queued before `connect` may still come */
  const struct ip_address *peer; /* the last sender: held as IP_SOCKET_PEER; NULL: nobody */
};

struct ip_socket_box {
  struct ip_socket *socket; /* NULL: not open */
  double receive_timeout;   /* seconds; negative: none */
  double send_timeout;
};

/* The box at `arg`, or a bad-argument error. [-0, +0, v] */
struct ip_socket_box *ip_socket_check(lua_State *L, int arg);

/* The open socket of the box at index 1, or EBADF called `operation`. [-0, +0, e] */
struct ip_socket_box *ip_socket_check_open(lua_State *L, const char *operation);

static inline int ip_socket_family(const struct ip_socket *socket) {
  return socket->is_v6 ? AF_INET6 : AF_INET;
}

/* Takes one datagram for this socket; 0 or an errno value. */
int ip_socket_take(struct ip_socket *socket, void *data, size_t size, int flags, struct ip_datagram *datagram,
                   bool with_source);

/* Ties an operation that was just acquired to its socket. Acquiring allocates, and so may have run a finalizer that
   closed the socket. [-0, +0, e] */
struct ip_socket *ip_socket_tie(lua_State *L, struct ip_operation *operation,
                                const struct ip_socket_box *box);

/* For operation kinds: the last attempt before a deadline; and the attempt of sends, which only wakes them: they make their
   system call themselves, with what is then left of their time. */
void ip_socket_try_last_receive(struct ip_operation *operation);
void ip_socket_try_last_send(struct ip_operation *operation);
bool ip_socket_attempt_send(struct ip_operation *operation);

/* What is left of the time of a send that was woken: seconds, negative for no bound. */
static inline double ip_socket_time_left(const struct ip_outcome *outcome) {
  return outcome->flags < 0 ? -1 : outcome->flags / 1000.0;
}

/* The optional flags of a receive at `arg`. [-0, +0, e] */
int ip_socket_receive_flags(lua_State *L, int arg, const char *operation);

/* Drops what others than the connected peer had sent before `connect` from the head of the queue; 0 or an
   errno value. */
int ip_socket_drop_strangers(struct ip_socket *socket);

/* Defines the class and pushes a table of module functions: `new`. [-0, +1, m] */
void ip_socket_open_class(lua_State *L, int core);

/* Pushes the table ip.message_flag. [-0, +1, m] */
void ip_socket_push_message_flags(lua_State *L);

/* The methods of the other rooms. */
#define IP_SOCKET_METHOD(name) int ip_socket_##name(lua_State *L)
IP_SOCKET_METHOD(receive);
IP_SOCKET_METHOD(receive_from);
IP_SOCKET_METHOD(receive_string);
IP_SOCKET_METHOD(send);
IP_SOCKET_METHOD(send_to);
IP_SOCKET_METHOD(try_receive);
IP_SOCKET_METHOD(try_receive_from);
IP_SOCKET_METHOD(try_send);
IP_SOCKET_METHOD(try_send_to);
IP_SOCKET_METHOD(receive_many);
IP_SOCKET_METHOD(send_many);
IP_SOCKET_METHOD(set_option);
IP_SOCKET_METHOD(get_option);

#endif
