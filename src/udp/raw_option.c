/* raw_option.c: set_raw_option, get_raw_option: socket options by number, for what has no name in option.c.

   Owns nothing. An option that changes what the parts of a socket have to know is refused: behind their back
   datagrams would lose their boundaries, or errors their way to the program. Each method says what it
   raises. */
#include "udp/raw_option.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "net/control_message.h"
#include "udp/send_queue.h"
#include "udp/socket.h"

#include <errno.h>
#include <limits.h>
#include <netinet/ip.h>
#include <stdint.h>
#include <string.h>

#ifdef __linux__
#include <linux/filter.h>

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62 /* from asm-generic/socket.h; the headers before Linux 5.0 lack it */
#endif
#endif

enum { SELF = 1, LEVEL, NUMBER, DATA, LENGTH = DATA }; /* stack indices */

enum { LARGEST_VALUE = 65535 };

struct refusal {
  int level, number;
  const char *why;
};

static const struct refusal refused[] = {
    {IPPROTO_IP, IP_MULTICAST_IF, "use the option 'multicast_interface'"},
#ifdef __linux__
    {IPPROTO_IPV6, IPV6_ADDRFORM, "a socket keeps its family"},
    {IPPROTO_IP, IP_RECVERR, "use the option 'receive_errors'"},
    {IPPROTO_IPV6, IPV6_RECVERR, "use the option 'receive_errors'"},
    {SOL_SOCKET, SO_RXQ_OVFL, "use the option 'receive_dropped'"},
    {SOL_SOCKET, SO_BINDTODEVICE, "use the option 'bind_to_device'"},
    {SOL_SOCKET, SO_BINDTOIFINDEX, "use the option 'bind_to_device'"},
    {IPPROTO_UDP, UDP_GRO, "use the option 'receive_offload'"},
    {IPPROTO_UDP, UDP_SEGMENT, "use the option 'segment_size'"},
#endif
};

/* Reads the level and the number at 2 and 3. [-0, +0, v] */
static void read_numbers(lua_State *L, int *level, int *number) {
  *level = (int)ip_argument_integer(L, LEVEL, 0, INT_MAX);
  *number = (int)ip_argument_integer(L, NUMBER, 0, INT_MAX);
}

static void refuse_known(lua_State *L, int level, int number) {
  for (size_t i = 0; i < ip_count_of(refused); i++)
    if (refused[i].level == level && refused[i].number == number)
      ip_argument_error(L, NUMBER, refused[i].why);
}

struct value {
  const void *bytes;
  size_t length;
  int integer; /* what `bytes` points to for an integer */
};

/* Reads the data at 4: a string, or an integer, which becomes an int. [-0, +0, v] */
static void read_value(lua_State *L, struct value *value) {
  if (lua_type(L, DATA) == LUA_TSTRING) {
    value->bytes = ip_argument_string(L, DATA, &value->length);
    ip_argument_check(L, value->length <= LARGEST_VALUE, DATA, "more than 65535 bytes");
    return;
  }
  if (lua_type(L, DATA) != LUA_TNUMBER) ip_argument_type_error(L, DATA, "string or integer");
  value->integer = (int)(uint32_t)ip_argument_integer(L, DATA, INT_MIN, UINT32_MAX);
  value->bytes = &value->integer;
  value->length = sizeof value->integer;
}

/* sock:set_raw_option(level, name, data): sets the option with these numbers (0..2147483647) to the bytes of
   a string, or to an integer (-2147483648..4294967295), which the system gets as an int. EBADF when the
   socket is not open; a bad argument for an option that has a name here and that the parts of the socket have
   to know; the errors of the system, unchanged. Suspends: no. Source: setsockopt(2). */
int ip_socket_set_raw_option(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "set_raw_option")->socket;
  int level, number;
  struct value value;
  read_numbers(L, &level, &number);
  refuse_known(L, level, number);
  read_value(L, &value);
  ip_flusher_flush(socket->flusher); /* the option applies to later sends only */
  if (setsockopt(socket->channel.fd, level, number, value.bytes, (socklen_t)value.length) != 0)
    return ip_error_raise_about(L, errno, "set_raw_option", NUMBER, NULL);
  ip_send_queue_read_options(&socket->channel);
  return 0;
}

/* Returns the number of bytes that a length of 1 stands for: Linux counts a filter in instructions, and would
   write eight times the bytes (sk_get_filter in net/core/filter.c). */
static size_t unit_of_length(int level, int number) {
#ifdef __linux__
  if (level == SOL_SOCKET && number == SO_ATTACH_FILTER) return sizeof(struct sock_filter);
#endif
  (void)level, (void)number;
  return 1;
}

/* sock:get_raw_option(level, name, length) -> string: reads the option with these numbers into `length` bytes
   (0..65535) and returns as many as the system has given. EBADF; the errors of the system, unchanged.
   Suspends: no. Source: getsockopt(2). */
int ip_socket_get_raw_option(lua_State *L) {
  ip_socket_check_open(L, "get_raw_option");
  int level, number;
  read_numbers(L, &level, &number);
  size_t size = (size_t)ip_argument_integer(L, LENGTH, 0, LARGEST_VALUE);
  luaL_Buffer buffer;
  char *bytes = luaL_buffinitsize(L, &buffer, size);
  const struct ip_socket *socket = ip_socket_check_open(L, "get_raw_option")->socket; /* it allocates */
  memset(bytes, 0, size); /* some options read the buffer, and some give a length that they do not write */
  size_t unit = unit_of_length(level, number), most = size / unit;
  socklen_t length = (socklen_t)most;
  if (getsockopt(socket->channel.fd, level, number, bytes, &length) != 0)
    return ip_error_raise_about(L, errno, "get_raw_option", NUMBER, NULL);
  luaL_pushresultsize(&buffer, (length < most ? length : most) * unit);
  return 1;
}
