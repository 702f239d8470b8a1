/* option.c: set_option, get_option. A table describes every option; small functions read and write the
   values.

   Owns nothing. An option that the platform lacks is in the table as one that can neither be read nor set, so
   that its error names it. Each method says what it raises. */
#include "udp/option.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/multicast.h"
#include "udp/parts.h"
#include "udp/receive_path.h"
#include "udp/send_queue.h"
#include "udp/socket.h"
#include "udp/state_pool.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>
#include <strings.h>

#ifdef __linux__
#include <linux/sock_diag.h>
#include <netinet/udp.h>

/* From linux/in6.h; the headers of older C libraries lack them. */
#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif
#endif

enum { NO_OPTION = -1 };

struct option {
  const char *name;
  /* Pushes the value. NULL: the option can only be set. [-0, +1, e] */
  int (*get)(lua_State *L, const struct ip_socket *socket, const struct option *option);
  /* Sets the option to the value at index 3; more values may follow. NULL: the option can only be read.
     [-0, +0, e] */
  void (*set)(lua_State *L, struct ip_socket *socket, const struct option *option);
  int level, number; /* for any socket, or, with level IPPROTO_IP, for v4 */
  int v6_number;     /* at level IPPROTO_IPV6; may be NO_OPTION */
  int low, high;     /* range of an integer */
};

/* --- integer options of the system --- */

/* Every option of IPv4 has a brother of IPv6, but not the other way round. [-0, +0, v] */
IP_NO_RETURN static void refuse_v4(lua_State *L, const char *name) {
  ip_error_raise_with_hint(L, ENOTSUP, name, "the socket is for IPv4 addresses");
}

static int get_integer(lua_State *L, const struct ip_socket *socket, int level, int number,
                       const char *name) {
  int value;
  if (number == NO_OPTION) refuse_v4(L, name);
  int error = ip_datagram_get_option(socket->channel.fd, level, number, &value);
  if (error != 0) ip_error_raise(L, error == ENOPROTOOPT ? ENOTSUP : error, name);
  return value;
}

static void set_integer(lua_State *L, const struct ip_socket *socket, int level, int number, const char *name,
                        int value) {
  if (number == NO_OPTION) refuse_v4(L, name);
  int error = ip_datagram_set_option(socket->channel.fd, level, number, value);
  if (error != 0) ip_error_raise(L, error == ENOPROTOOPT ? ENOTSUP : error, name);
}

static bool is_of_family(const struct option *option) {
  return option->level == IPPROTO_IP;
}

static int read_integer(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  if (socket->channel.is_v6 && is_of_family(option))
    return get_integer(L, socket, IPPROTO_IPV6, option->v6_number, option->name);
  return get_integer(L, socket, option->level, option->number, option->name);
}

/* Sets both options on a dual-stack socket, because v4-mapped traffic obeys the v4 option (ipv6(7), measured
   on Linux 6.18). */
static void write_integer(lua_State *L, const struct ip_socket *socket, const struct option *option,
                          int value) {
  bool of_family = is_of_family(option), dual_stack;
  if (socket->channel.is_v6 && of_family)
    set_integer(L, socket, IPPROTO_IPV6, option->v6_number, option->name, value);
  int error = ip_association_is_dual_stack(&socket->channel, &dual_stack);
  if (error != 0) ip_error_raise(L, error, option->name);
  bool v4_too = !socket->channel.is_v6 || !of_family || (option->number != NO_OPTION && dual_stack);
  if (v4_too) set_integer(L, socket, option->level, option->number, option->name, value);
}

/* --- functions of the table --- */

static int get_boolean_option(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  lua_pushboolean(L, read_integer(L, socket, option) != 0);
  return 1;
}

static void set_boolean_option(lua_State *L, struct ip_socket *socket, const struct option *option) {
  write_integer(L, socket, option, ip_argument_boolean(L, 3));
}

static int get_integer_option(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  lua_pushinteger(L, read_integer(L, socket, option));
  return 1;
}

static void set_integer_option(lua_State *L, struct ip_socket *socket, const struct option *option) {
  write_integer(L, socket, option, (int)ip_argument_integer(L, 3, option->low, option->high));
}

#ifdef __linux__

static int get_unsigned_option(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  lua_pushinteger(L, (lua_Integer)(uint32_t)read_integer(L, socket, option));
  return 1;
}

static void set_unsigned_option(lua_State *L, struct ip_socket *socket, const struct option *option) {
  uint32_t value = (uint32_t)ip_argument_integer(L, 3, 0, UINT32_MAX);
  write_integer(L, socket, option, (int)value);
}

#endif

/* --- multicast --- */

static int get_multicast_interface(lua_State *L, const struct ip_socket *socket,
                                   const struct option *option) {
  return ip_multicast_push_interface(L, &socket->channel, option->name);
}

static void set_multicast_interface(lua_State *L, struct ip_socket *socket, const struct option *option) {
  ip_multicast_set_interface(L, &socket->channel, option->name);
}

#ifdef MCAST_JOIN_GROUP

static void change_membership(lua_State *L, struct ip_socket *socket, const struct option *option) {
  ip_multicast_change(L, &socket->channel, option->number, option->name);
}

#endif

/* --- other options --- */

#ifdef __linux__

static int get_mtu(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  int mtu;
  int error = ip_association_path_mtu(&socket->channel, &mtu);
  if (error != 0) return ip_error_raise(L, error, option->name);
  lua_pushinteger(L, mtu);
  return 1;
}

#endif

/* Gets the error that the network reported for an earlier datagram. The error value is created before the
   system clears the error; that allocates, so a finalizer may have closed the socket. */
static int get_error(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  struct ip_error *value = ip_error_push(L, IP_ERROR_SYSTEM, 0, NULL);
  socket = ip_socket_check_open(L, "get_option")->socket;
  value->code = (int16_t)get_integer(L, socket, option->level, option->number, option->name);
  if (value->code == EMSGSIZE && ip_association_path_mtu(&socket->channel, &value->mtu) != 0) value->mtu = 0;
  if (value->code == 0) lua_pushnil(L);
  return 1;
}

#ifdef SO_BINDTODEVICE

/* The length from Linux includes the final NUL; it is 0 if the socket is bound to no device. */
static int get_device(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  char name[IFNAMSIZ + 1] = {0};
  socklen_t length = IFNAMSIZ;
  if (getsockopt(socket->channel.fd, option->level, option->number, name, &length) != 0)
    return ip_error_raise(L, errno, option->name);
  lua_pushstring(L, name);
  return 1;
}

/* Linux truncates names that are too long, and would bind to another device (socket(7)). */
static void set_device(lua_State *L, struct ip_socket *socket, const struct option *option) {
  size_t length;
  const char *name = ip_argument_string(L, 3, &length);
  if (length >= IFNAMSIZ || strlen(name) != length) ip_error_raise_about(L, ENODEV, option->name, 3, NULL);
  if (setsockopt(socket->channel.fd, option->level, option->number, name, (socklen_t)length) != 0)
    ip_error_raise_about(L, errno, option->name, 3, NULL);
  int error = ip_association_note_device(&socket->channel);
  if (error != 0) ip_error_raise(L, error, option->name);
}

#endif

/* --- options that affect the parts of a socket --- */

static void check_part(lua_State *L, const void *part) {
  if (part == NULL) ip_error_memory(L);
}

static int get_coalesce(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  (void)option;
  lua_pushboolean(L, ip_receive_path_coalesces(&socket->channel));
  return 1;
}

static int enable_coalesce(struct ip_socket *socket, struct ip_buffer_pool *pool) {
  struct ip_channel *channel = &socket->channel;
  if (socket->flusher == NULL) socket->flusher = ip_flusher_new(&socket->watcher, channel);
  if (socket->flusher == NULL) return ENOMEM;
  int error = ip_send_queue_set(channel, pool, true);
  if (error == 0) error = ip_receive_path_set_coalesce(channel, pool, true);
  if (error != 0 && channel->send != NULL) (void)ip_send_queue_set(channel, NULL, false); /* cannot fail */
  return error;
}

static void disable_coalesce(struct ip_socket *socket) {
  struct ip_channel *channel = &socket->channel;
  if (socket->flusher == NULL) return;
  (void)ip_send_queue_set(channel, NULL, false); /* with the parts present, neither can fail */
  (void)ip_receive_path_set_coalesce(channel, NULL, false);
  ip_flusher_schedule(socket->flusher);
}

static void set_coalesce(lua_State *L, struct ip_socket *socket, const struct option *option) {
  bool on = ip_argument_boolean(L, 3);
  int error = 0;
  if (on)
    error = enable_coalesce(socket, ip_state_pool(L));
  else
    disable_coalesce(socket);
  if (error != 0) ip_error_raise(L, error, option->name);
}

#ifdef __linux__

/* The index of each name is its number, which is the same in both families. Other modes can be read if
   somebody else has set them. */
static const char *const path_mtu_modes[] = {"dont", "want", "do", "probe", NULL};

static int get_path_mtu_discovery(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  static const char *const names[] = {"dont", "want", "do", "probe", "interface", "omit"};
  int mode = read_integer(L, socket, option);
  if (mode < 0 || (size_t)mode >= ip_count_of(names)) return ip_error_raise(L, ENOTSUP, option->name);
  lua_pushstring(L, names[mode]);
  return 1;
}

static void set_path_mtu_discovery(lua_State *L, struct ip_socket *socket, const struct option *option) {
  write_integer(L, socket, option, ip_argument_choice(L, 3, path_mtu_modes));
}

/* The rate is an unsigned long since Linux 4.20, and had 32 bits before: the system says its width. All bits
   set: no limit (sk_getsockopt in net/core/sock.c). */
struct pacing_rate {
  unsigned long rate, no_limit;
};

static struct pacing_rate read_pacing_rate(lua_State *L, const struct ip_socket *socket,
                                           const struct option *option) {
  union {
    unsigned long wide;
    uint32_t narrow;
  } value;
  socklen_t length = sizeof value;
  if (getsockopt(socket->channel.fd, option->level, option->number, &value, &length) != 0)
    ip_error_raise(L, errno == ENOPROTOOPT ? ENOTSUP : errno, option->name);
  if (length == sizeof value.wide) return (struct pacing_rate){value.wide, ULONG_MAX};
  return (struct pacing_rate){value.narrow, UINT32_MAX};
}

static int get_pacing_rate(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  struct pacing_rate pacing = read_pacing_rate(L, socket, option);
  if (pacing.rate == pacing.no_limit)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)pacing.rate);
  return 1;
}

/* nil removes the limit. EINVAL for a rate that the system has no bits for. */
static void set_pacing_rate(lua_State *L, struct ip_socket *socket, const struct option *option) {
  lua_Integer rate = lua_isnil(L, 3) ? 0 : ip_argument_integer(L, 3, 1, LUA_MAXINTEGER);
  struct pacing_rate pacing = read_pacing_rate(L, socket, option);
  if ((lua_Unsigned)rate >= pacing.no_limit) ip_error_raise(L, EINVAL, option->name);
  unsigned long wide = rate == 0 ? pacing.no_limit : (unsigned long)rate;
  uint32_t narrow = (uint32_t)wide;
  bool is_wide = pacing.no_limit == ULONG_MAX;
  if (setsockopt(socket->channel.fd, option->level, option->number, is_wide ? (void *)&wide : &narrow,
                 is_wide ? sizeof wide : sizeof narrow) != 0)
    ip_error_raise(L, errno, option->name);
}

/* Reads an array of counters by SO_MEMINFO, since Linux 4.12. */
static int get_dropped(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  uint32_t counters[SK_MEMINFO_VARS] = {0};
  socklen_t length = sizeof counters;
  if (getsockopt(socket->channel.fd, SOL_SOCKET, SO_MEMINFO, counters, &length) != 0)
    return ip_error_raise(L, errno == ENOPROTOOPT ? ENOTSUP : errno, option->name);
  lua_pushinteger(L, counters[SK_MEMINFO_DROPS]);
  return 1;
}

static void set_receive_errors(lua_State *L, struct ip_socket *socket, const struct option *option) {
  bool on = ip_argument_boolean(L, 3);
  if (on && ip_parts_set_errors(&socket->channel, true) != 0) ip_error_memory(L);
  write_integer(L, socket, option, on);
  if (!on) (void)ip_parts_set_errors(&socket->channel, false); /* cannot fail */
}

static void set_receive_dropped(lua_State *L, struct ip_socket *socket, const struct option *option) {
  bool on = ip_argument_boolean(L, 3);
  check_part(L, ip_receive_path_state(&socket->channel));
  write_integer(L, socket, option, on);
  socket->channel.receive->counts_drops = on;
}

static int get_receive_offload(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  if (socket->channel.receive == NULL) return get_boolean_option(L, socket, option);
  lua_pushboolean(L, socket->channel.receive->offload);
  return 1;
}

static void set_receive_offload(lua_State *L, struct ip_socket *socket, const struct option *option) {
  int error = ip_receive_path_set_offload(&socket->channel, ip_state_pool(L), ip_argument_boolean(L, 3));
  if (error != 0) ip_error_raise(L, error, option->name);
}

static int get_segment_size(lua_State *L, const struct ip_socket *socket, const struct option *option) {
  if (socket->channel.send == NULL) return get_integer_option(L, socket, option);
  lua_pushinteger(L, socket->channel.send->segment_size);
  return 1;
}

/* Where this library segments, the system must not, and it may still have an earlier size: that it was to
   forget it may have failed (remember_refusal in send_path.c). */
static void set_segment_size(lua_State *L, struct ip_socket *socket, const struct option *option) {
  int size = (int)ip_argument_integer(L, 3, option->low, option->high);
  struct ip_channel *channel = &socket->channel;
  check_part(L, ip_send_path_state(channel));
  int former;
  bool forgets = channel->gso_refused &&
                 ip_datagram_get_option(channel->fd, IPPROTO_UDP, UDP_SEGMENT, &former) == 0 && former != 0;
  if (forgets || !channel->gso_refused) write_integer(L, socket, option, forgets ? 0 : size);
  channel->send->segment_size = size;
}

#endif

#define BOOLEAN get_boolean_option, set_boolean_option
#define INTEGER get_integer_option, set_integer_option
#define UNSIGNED get_unsigned_option, set_unsigned_option
#define LACKING(name)                                                                                        \
  { (name), NULL, NULL, 0, 0, 0, 0, 0 }

static const struct option options[] = {
    {"debug", BOOLEAN, SOL_SOCKET, SO_DEBUG, 0, 0, 0},
    {"broadcast", BOOLEAN, SOL_SOCKET, SO_BROADCAST, 0, 0, 0},
    {"do_not_route", BOOLEAN, SOL_SOCKET, SO_DONTROUTE, 0, 0, 0},
    {"reuse_address", BOOLEAN, SOL_SOCKET, SO_REUSEADDR, 0, 0, 0},
    {"reuse_port", BOOLEAN, SOL_SOCKET, SO_REUSEPORT, 0, 0, 0},
    {"v6_only", BOOLEAN, IPPROTO_IP, NO_OPTION, IPV6_V6ONLY, 0, 0},
    {"send_buffer_size", INTEGER, SOL_SOCKET, SO_SNDBUF, 0, 0, INT_MAX},
    {"receive_buffer_size", INTEGER, SOL_SOCKET, SO_RCVBUF, 0, 0, INT_MAX},
    {"unicast_hops", INTEGER, IPPROTO_IP, IP_TTL, IPV6_UNICAST_HOPS, 1, 255},
    {"multicast_hops", INTEGER, IPPROTO_IP, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, 0, 255},
    {"multicast_loop", BOOLEAN, IPPROTO_IP, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, 0, 0},
    {"traffic_class", INTEGER, IPPROTO_IP, IP_TOS, IPV6_TCLASS, 0, 255},
    {"multicast_interface", get_multicast_interface, set_multicast_interface, 0, 0, 0, 0, 0},
    {"coalesce", get_coalesce, set_coalesce, 0, 0, 0, 0, 0},
    {"error", get_error, NULL, SOL_SOCKET, SO_ERROR, 0, 0, 0},
#ifdef MCAST_JOIN_GROUP
    {"join_multicast_group", NULL, change_membership, 0, MCAST_JOIN_GROUP, 0, 0, 0},
    {"leave_multicast_group", NULL, change_membership, 0, MCAST_LEAVE_GROUP, 0, 0, 0},
    {"join_source_group", NULL, change_membership, 0, MCAST_JOIN_SOURCE_GROUP, 0, 0, 0},
    {"leave_source_group", NULL, change_membership, 0, MCAST_LEAVE_SOURCE_GROUP, 0, 0, 0},
#else
    LACKING("join_multicast_group"),
    LACKING("leave_multicast_group"),
    LACKING("join_source_group"),
    LACKING("leave_source_group"),
#endif
#ifdef SO_BINDTODEVICE
    {"bind_to_device", get_device, set_device, SOL_SOCKET, SO_BINDTODEVICE, 0, 0, 0},
#else
    LACKING("bind_to_device"),
#endif
#ifdef __linux__
    {"path_mtu_discovery", get_path_mtu_discovery, set_path_mtu_discovery, IPPROTO_IP, IP_MTU_DISCOVER,
     IPV6_MTU_DISCOVER, 0, 0},
    {"multicast_all", BOOLEAN, IPPROTO_IP, IP_MULTICAST_ALL, IPV6_MULTICAST_ALL, 0, 0},
    {"busy_poll", INTEGER, SOL_SOCKET, SO_BUSY_POLL, 0, 0, INT_MAX},
    {"mark", UNSIGNED, SOL_SOCKET, SO_MARK, 0, 0, 0},
    {"priority", UNSIGNED, SOL_SOCKET, SO_PRIORITY, 0, 0, 0},
    {"incoming_cpu", INTEGER, SOL_SOCKET, SO_INCOMING_CPU, 0, -1, INT_MAX},
    {"max_pacing_rate", get_pacing_rate, set_pacing_rate, SOL_SOCKET, SO_MAX_PACING_RATE, 0, 0, 0},
    {"free_bind", BOOLEAN, IPPROTO_IP, IP_FREEBIND, IPV6_FREEBIND, 0, 0},
    {"transparent", BOOLEAN, IPPROTO_IP, IP_TRANSPARENT, IPV6_TRANSPARENT, 0, 0},
    {"mtu", get_mtu, NULL, IPPROTO_IP, IP_MTU, IPV6_MTU, 0, 0},
    {"dropped", get_dropped, NULL, SOL_SOCKET, SO_MEMINFO, 0, 0, 0},
    {"receive_packet_info", BOOLEAN, IPPROTO_IP, IP_PKTINFO, IPV6_RECVPKTINFO, 0, 0},
    {"receive_hops", BOOLEAN, IPPROTO_IP, IP_RECVTTL, IPV6_RECVHOPLIMIT, 0, 0},
    {"receive_traffic_class", BOOLEAN, IPPROTO_IP, IP_RECVTOS, IPV6_RECVTCLASS, 0, 0},
    {"receive_timestamp", BOOLEAN, SOL_SOCKET, SO_TIMESTAMPNS, 0, 0, 0},
    {"receive_errors", get_boolean_option, set_receive_errors, IPPROTO_IP, IP_RECVERR, IPV6_RECVERR, 0, 0},
    {"receive_dropped", get_boolean_option, set_receive_dropped, SOL_SOCKET, SO_RXQ_OVFL, 0, 0, 0},
    {"receive_offload", get_receive_offload, set_receive_offload, IPPROTO_UDP, UDP_GRO, 0, 0, 0},
    {"segment_size", get_segment_size, set_segment_size, IPPROTO_UDP, UDP_SEGMENT, 0, 0, 65507},
#else
    LACKING("path_mtu_discovery"),
    LACKING("multicast_all"),
    LACKING("busy_poll"),
    LACKING("mark"),
    LACKING("priority"),
    LACKING("incoming_cpu"),
    LACKING("max_pacing_rate"),
    LACKING("free_bind"),
    LACKING("transparent"),
    LACKING("mtu"),
    LACKING("dropped"),
    LACKING("receive_packet_info"),
    LACKING("receive_hops"),
    LACKING("receive_traffic_class"),
    LACKING("receive_timestamp"),
    LACKING("receive_errors"),
    LACKING("receive_dropped"),
    LACKING("receive_offload"),
    LACKING("segment_size"),
#endif
};

/* Does one name begin with the other where underscores do not count? */
static bool is_similar(const char *one, const char *other) {
  for (;; one++, other++) {
    while (*one == '_')
      one++;
    while (*other == '_')
      other++;
    if (*one == '\0' || *other == '\0') return true;
    if (tolower((unsigned char)*one) != tolower((unsigned char)*other)) return false;
  }
}

/* Names of C, without their prefix, that differ from the names of the options. */
static const struct {
  const char *in_c, *option;
} names_of_c[] = {
    {"RCVBUF", "receive_buffer_size"},
    {"SNDBUF", "send_buffer_size"},
    {"TTL", "unicast_hops"},
    {"MULTICAST_TTL", "multicast_hops"},
    {"MULTICAST_IF", "multicast_interface"},
    {"TOS", "traffic_class"},
    {"TCLASS", "traffic_class"},
    {"ADD_MEMBERSHIP", "join_multicast_group"},
    {"DROP_MEMBERSHIP", "leave_multicast_group"},
    {"JOIN_GROUP", "join_multicast_group"},
    {"LEAVE_GROUP", "leave_multicast_group"},
    {"DONTROUTE", "do_not_route"},
    {"MTU_DISCOVER", "path_mtu_discovery"},
    {"PKTINFO", "receive_packet_info"},
    {"RECVERR", "receive_errors"},
    {"RXQ_OVFL", "receive_dropped"},
    {"GRO", "receive_offload"},
    {"SEGMENT", "segment_size"},
};

/* Returns the name of an option that the program may have meant, or NULL; names of C lead to their
   options. */
static const char *find_similar(const char *name) {
  static const char *const prefixes[] = {"SO_", "IP_", "IPV6_", "UDP_"};
  for (size_t i = 0; i < ip_count_of(prefixes); i++)
    if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) name += strlen(prefixes[i]);
  if (*name == '\0') return NULL;
  for (size_t i = 0; i < ip_count_of(names_of_c); i++)
    if (strcasecmp(names_of_c[i].in_c, name) == 0) name = names_of_c[i].option;
  for (size_t i = 0; i < ip_count_of(options); i++)
    if (is_similar(options[i].name, name)) return options[i].name;
  return NULL;
}

/* Raises ENOTSUP for an unknown name. [-0, +0, e] */
static const struct option *check_option(lua_State *L, const char *operation) {
  size_t length;
  const char *name = ip_argument_string(L, 2, &length);
  for (size_t i = 0; i < ip_count_of(options); i++)
    if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0) return &options[i];
  const char *similar = find_similar(name);
  if (similar != NULL) ip_error_raise_similar(L, ENOTSUP, operation, 2, similar);
  ip_error_raise_about(L, ENOTSUP, operation, 2, "there is no such option");
}

/* sock:set_option(name, value...): EBADF when the socket is not open; ENOTSUP for an unknown name, for a
   get-only option and for an option that the platform or the socket's family lacks; a wrong value is a bad
   argument. The values of the memberships are (group[, interface]) and (group, source[, interface]).
   Suspends: no. Source: socket(7), ip(7), ipv6(7), udp(7). */
int ip_socket_set_option(lua_State *L) {
  struct ip_socket *socket = ip_socket_check_open(L, "set_option")->socket;
  const struct option *option = check_option(L, "set_option");
  if (option->set == NULL)
    return ip_error_raise_about(L, ENOTSUP, "set_option", 2, "the option can only be read");
  ip_flusher_flush(socket->flusher); /* the option applies to later sends only */
  option->set(L, socket, option);
  socket = ip_socket_check(L, 1)->socket; /* a finalizer may have closed it */
  if (socket != NULL) ip_send_queue_read_options(&socket->channel);
  return 0;
}

/* sock:get_option(name) -> value: raises EBADF and ENOTSUP like set_option; a set-only option is ENOTSUP,
   too. Suspends: no. Source: getsockopt(2). */
int ip_socket_get_option(lua_State *L) {
  const struct ip_socket *socket = ip_socket_check_open(L, "get_option")->socket;
  const struct option *option = check_option(L, "get_option");
  if (option->get == NULL)
    return ip_error_raise_about(L, ENOTSUP, "get_option", 2, "the option can only be set");
  return option->get(L, socket, option);
}

/* For lua/ip/udp_options.lua. similar_option(name) -> string | nil: an option that the program may have
   meant. Suspends: no. */
int ip_socket_similar_option(lua_State *L) {
  size_t length;
  lua_pushstring(L, find_similar(ip_argument_string(L, 1, &length)));
  return 1;
}

/* option_names() -> list of the names of all options on this platform. A spec compares them with the
   documentation. Suspends: no. */
int ip_socket_option_names(lua_State *L) {
  lua_Integer count = 0;
  lua_createtable(L, (int)ip_count_of(options), 0);
  for (size_t i = 0; i < ip_count_of(options); i++) {
    if (options[i].get == NULL && options[i].set == NULL) continue;
    lua_pushstring(L, options[i].name);
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}
