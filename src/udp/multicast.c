/* multicast.c: group membership and the interface of outgoing multicast.

   Owns nothing: memberships belong to the system's socket and end with it. Groups are joined by interface
   index with the requests of RFC 3678, which are the same for both families; a v4 group on a v6 socket is
   joined at the IP level. Raises bad arguments and the errors of the system. */
#include "udp/multicast.h"

#include "binding/error.h"
#include "net/datagram_io.h"
#include "udp/association.h"
#include "value/address.h"
#include "value/interface_argument.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <string.h>
#include <sys/ioctl.h>

/* [-0, +0, e] */
static bool is_dual_stack(lua_State *L, const struct ip_channel *channel, const char *name) {
  bool dual_stack;
  int error = ip_association_is_dual_stack(channel, &dual_stack);
  if (error != 0) ip_error_raise(L, error, name);
  return dual_stack;
}

/* --- membership --- */

#ifdef MCAST_JOIN_GROUP

struct membership {
  int family;
  unsigned index; /* 0: the system chooses */
  struct ip_endpoint group, source;
};

/* Returns the family that the socket needs for the address at `arg`. Raises EAFNOSUPPORT, like bind, if the
   socket's family does not include it. [-0, +0, e] */
static int check_family(lua_State *L, const struct ip_channel *channel, int arg, struct ip_address *address,
                        const char *name) {
  *address = ip_address_unmapped(address);
  if (!channel->is_v6 && address->version == 6)
    ip_error_raise_about(L, EAFNOSUPPORT, name, arg, "the socket is for IPv4 addresses");
  if (!channel->is_v6) return AF_INET;
  if (address->version == 6) return AF_INET6;
  if (!is_dual_stack(L, channel, name))
    ip_error_raise_about(L, EAFNOSUPPORT, name, arg, "the socket is for IPv6 addresses only");
  return AF_INET;
}

/* Uses the scope of the address at `arg` as the interface; raises EINVAL if the interface argument is another
   one. [-0, +0, e] */
static void use_scope(lua_State *L, struct membership *membership, int arg, uint32_t scope_id,
                      const char *name) {
  if (scope_id == 0) return;
  if (membership->index != 0 && membership->index != scope_id)
    ip_error_raise_about(L, EINVAL, name, arg, "the scope is another interface");
  membership->index = scope_id;
}

/* Reads (group, source, interface) or (group, interface) from index 3 on. [-0, +0, v] */
static void check_membership(lua_State *L, const struct ip_channel *channel, bool has_source,
                             const char *name, struct membership *membership) {
  struct ip_address group, source;
  struct ip_interface interface;
  ip_address_argument(L, 3, &group);
  if (has_source) ip_address_argument(L, 4, &source);
  ip_interface_optional_argument(L, has_source ? 5 : 4, name, &interface);
  membership->index = interface.index;
  membership->family = check_family(L, channel, 3, &group, name);
  use_scope(L, membership, 3, group.scope_id, name);
  ip_endpoint_set(&membership->group, membership->family, &group, 0);
  if (!has_source) return;
  if (check_family(L, channel, 4, &source, name) != membership->family)
    ip_error_raise_about(L, EINVAL, name, 4, "the group is of the other family");
  use_scope(L, membership, 4, source.scope_id, name);
  ip_endpoint_set(&membership->source, membership->family, &source, 0);
}

static int change_group(int fd, int level, int request, const struct membership *membership) {
  struct group_req group = {.gr_interface = membership->index};
  memcpy(&group.gr_group, &membership->group.name, membership->group.length);
  return setsockopt(fd, level, request, &group, sizeof group) != 0 ? errno : 0;
}

static int change_source(int fd, int level, int request, const struct membership *membership) {
  struct group_source_req source = {.gsr_interface = membership->index};
  memcpy(&source.gsr_group, &membership->group.name, membership->group.length);
  memcpy(&source.gsr_source, &membership->source.name, membership->source.length);
  return setsockopt(fd, level, request, &source, sizeof source) != 0 ? errno : 0;
}

/* Says what is behind an error of the system, or returns NULL. */
static const char *explain(const struct membership *membership, int error) {
  struct ip_address group;
  ip_endpoint_get_address(&membership->group, &group);
  if (error == EINVAL && !ip_address_is_multicast(&group)) return "it is no multicast address";
  if (error == EADDRNOTAVAIL) return "the socket is not a member of the group";
  if (error == EADDRINUSE) return "the socket is a member of the group already";
  return NULL;
}

void ip_multicast_change(lua_State *L, const struct ip_channel *channel, int request, const char *name) {
  bool has_source = request == MCAST_JOIN_SOURCE_GROUP || request == MCAST_LEAVE_SOURCE_GROUP;
  struct membership membership;
  check_membership(L, channel, has_source, name, &membership);
  int level = membership.family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
  int error = has_source ? change_source(channel->fd, level, request, &membership)
                         : change_group(channel->fd, level, request, &membership);
  if (error != 0) ip_error_raise_about(L, error, name, 3, explain(&membership, error));
}

#endif

/* --- the interface of outgoing datagrams --- */

/* When an index is given, the address only sets the source of the datagrams (ip(7)). Linux returns
   EADDRNOTAVAIL on v4 for an index without an interface. */
static int set_v4_interface(int fd, const struct ip_interface *interface) {
  struct ip_mreqn request = {.imr_ifindex = (int)interface->index, .imr_address = interface->address};
  if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) == 0) return 0;
  return errno == EADDRNOTAVAIL ? ENODEV : errno;
}

void ip_multicast_set_interface(lua_State *L, struct ip_channel *channel, const char *name) {
  struct ip_interface interface;
  ip_interface_argument(L, 3, name, &interface);
  int fd = channel->fd, error = 0;
  bool v4_too = !channel->is_v6 || is_dual_stack(L, channel, name);
  if (channel->is_v6)
    error = ip_datagram_set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)interface.index);
  if (error == 0 && v4_too) error = set_v4_interface(fd, &interface);
  if (error != 0) ip_error_raise(L, error, name);
  channel->multicast_interface = interface.index;
}

/* Returns the primary v4 address of an interface, or 0.0.0.0 (netdevice(7)). */
static struct in_addr address_of_interface(int fd, unsigned index) {
  struct in_addr none = {.s_addr = htonl(INADDR_ANY)};
  struct ifreq request = {.ifr_flags = 0};
  if (if_indextoname(index, request.ifr_name) == NULL) return none;
  if (ioctl(fd, SIOCGIFADDR, &request) != 0) return none;
  struct sockaddr_in name;
  memcpy(&name, &request.ifr_addr, sizeof name);
  return name.sin_addr;
}

/* Pushes the address of the interface. Linux stores the index apart from the address and returns only the
   address. */
static int push_v4_interface(lua_State *L, const struct ip_channel *channel, const char *name) {
  struct in_addr value;
  socklen_t length = sizeof value;
  int fd = channel->fd;
  if (getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &value, &length) != 0) ip_error_raise(L, errno, name);
  if (value.s_addr == htonl(INADDR_ANY) && channel->multicast_interface != 0)
    value = address_of_interface(fd, channel->multicast_interface);
  struct ip_address address = {.version = 4};
  memcpy(address.bytes, &value, sizeof value);
  ip_address_push(L, &address);
  return 1;
}

int ip_multicast_push_interface(lua_State *L, const struct ip_channel *channel, const char *name) {
  if (!channel->is_v6) return push_v4_interface(L, channel, name);
  int index;
  int error = ip_datagram_get_option(channel->fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index);
  if (error != 0) ip_error_raise(L, error, name);
  lua_pushinteger(L, index);
  return 1;
}
