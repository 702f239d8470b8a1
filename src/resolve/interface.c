/* interface.c: ip.interfaces.

   A userdata owns the system's list while the list for Lua is built: where that raises, the userdata's
   finalizer frees it. Raises bad arguments, system errors and memory errors. */
#include "resolve/interface.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "net/interface_index.h"
#include "net/interface_mtu.h"
#include "value/address.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>

#ifdef __linux__
#include <linux/if_packet.h>
#else
#include <net/if_dl.h>
#endif

struct interface_list {
  struct ifaddrs *entries; /* NULL: none */
};

enum { HARDWARE_BYTES = 6 };

/* --- the system's list --- */

static void free_list(struct interface_list *list) {
  if (list->entries != NULL) freeifaddrs(list->entries);
  list->entries = NULL;
}

static int interface_list_mt_gc(lua_State *L) {
  free_list(lua_touserdata(L, 1));
  return 0;
}

/* Returns 0 or an errno value. */
static int fill_list(struct interface_list *list) {
  if (getifaddrs(&list->entries) == 0) return 0;
  list->entries = NULL;
  return errno;
}

/* Pushes the owner of a new list. [-0, +1, v] */
static struct interface_list *push_list(lua_State *L) {
  struct interface_list *list = lua_newuserdatauv(L, sizeof *list, 0);
  list->entries = NULL;
  ip_class_set(L, IP_CLASS_INTERFACE_LIST);
  int error = fill_list(list);
  if (ip_collect_descriptors(L, error)) error = fill_list(list);
  if (error != 0) ip_error_raise(L, error, "interfaces");
  return list;
}

/* --- entries --- */

static int family_of(const struct ifaddrs *entry) {
  return entry->ifa_addr != NULL ? entry->ifa_addr->sa_family : AF_UNSPEC;
}

static bool has_address(const struct ifaddrs *entry) {
  return family_of(entry) == AF_INET || family_of(entry) == AF_INET6;
}

/* Is it the entry that each interface has, with or without addresses? */
static bool is_link(const struct ifaddrs *entry) {
#ifdef __linux__
  return family_of(entry) == AF_PACKET;
#else
  return family_of(entry) == AF_LINK;
#endif
}

/* Are they of one interface? An IPv4 address may have a label, such as eth0:1 (ip-address(8)). */
static bool is_same_interface(const struct ifaddrs *a, const struct ifaddrs *b) {
  size_t length = strcspn(a->ifa_name, ":");
  return length == strcspn(b->ifa_name, ":") && memcmp(a->ifa_name, b->ifa_name, length) == 0;
}

static bool is_without_address(const struct interface_list *list, const struct ifaddrs *link) {
  for (const struct ifaddrs *entry = list->entries; entry != NULL; entry = entry->ifa_next)
    if (has_address(entry) && is_same_interface(entry, link)) return false;
  return true;
}

/* Is it an entry of the result? */
static bool is_wanted(const struct interface_list *list, const struct ifaddrs *entry, bool all) {
  if (all) return has_address(entry) || (is_link(entry) && is_without_address(list, entry));
  const unsigned up = IFF_UP | IFF_RUNNING;
  return has_address(entry) && (entry->ifa_flags & up) == up;
}

/* The first bytes of the hardware address of the entry's interface; zeros where it has none. */
static void get_hardware_address(const struct interface_list *list, const struct ifaddrs *entry,
                                 unsigned char *bytes) {
  const struct ifaddrs *link = list->entries;
  while (link != NULL && !(is_link(link) && is_same_interface(link, entry)))
    link = link->ifa_next;
  memset(bytes, 0, HARDWARE_BYTES);
  if (link == NULL) return;
#ifdef __linux__
  const struct sockaddr_ll *address = (const struct sockaddr_ll *)(const void *)link->ifa_addr;
  memcpy(bytes, address->sll_addr, HARDWARE_BYTES);
#else
  const struct sockaddr_dl *address = (const struct sockaddr_dl *)(const void *)link->ifa_addr;
  if (address->sdl_alen >= HARDWARE_BYTES) memcpy(bytes, LLADDR(address), HARDWARE_BYTES);
#endif
}

/* --- fields --- */

static void set_boolean(lua_State *L, const char *name, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

static void set_integer(lua_State *L, const char *name, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static void set_address(lua_State *L, const char *name, const struct ip_address *address) {
  ip_address_push(L, address);
  lua_setfield(L, -2, name);
}

/* Sets the text of a hardware address, such as "02:fc:00:00:00:01". [-0, +0, m] */
static void set_hardware_address(lua_State *L, const unsigned char *bytes) {
  static const char digits[] = "0123456789abcdef";
  char text[3 * HARDWARE_BYTES];
  for (size_t i = 0; i < HARDWARE_BYTES; i++) {
    text[3 * i] = digits[bytes[i] >> 4];
    text[3 * i + 1] = digits[bytes[i] & 15];
    text[3 * i + 2] = ':';
  }
  lua_pushlstring(L, text, sizeof text - 1);
  lua_setfield(L, -2, "hardware_address");
}

/* Some systems leave the family of a netmask 0, so it is that of the address. */
static void get_address(const struct sockaddr *from, int family, struct ip_address *address) {
  struct ip_endpoint endpoint = {.length = 0};
  size_t size = family == AF_INET ? sizeof endpoint.name.v4 : sizeof endpoint.name.v6;
  memcpy(&endpoint.name, from, size);
  endpoint.name.any.sa_family = (sa_family_t)family;
  ip_endpoint_get_address(&endpoint, address);
}

static uint32_t v4_bits(const struct ip_address *address) {
  const uint8_t *bytes = address->bytes;
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Is it the broadcast address of a network? Where an address has none, glibc 2.36 gives the address itself,
   or that of the other end of a link (ifaddrs.c). A network of one or two addresses has no broadcast address
   of its own (RFC 3021). */
static bool is_broadcast(const struct ip_address *broadcast, const struct ip_address *netmask) {
  uint32_t host_bits = ~v4_bits(netmask), bits = v4_bits(broadcast);
  if (bits == UINT32_MAX) return true;
  return host_bits > 1 && ((bits & host_bits) == host_bits || (bits & host_bits) == 0);
}

static void set_broadcast(lua_State *L, const struct ifaddrs *entry, const struct ip_address *netmask) {
  struct ip_address broadcast;
  if ((entry->ifa_flags & IFF_BROADCAST) == 0 || entry->ifa_broadaddr == NULL) return;
  get_address(entry->ifa_broadaddr, AF_INET, &broadcast);
  if (is_broadcast(&broadcast, netmask)) set_address(L, "broadcast", &broadcast);
}

/* Sets address, netmask and broadcast. Some systems give no scope to a link-local address in the list.
   [-0, +0, m] */
static void set_addresses(lua_State *L, const struct ifaddrs *entry, unsigned index) {
  struct ip_address address, netmask;
  int family = family_of(entry);
  get_address(entry->ifa_addr, family, &address);
  if (address.scope_id == 0 && ip_address_is_link_local(&address)) address.scope_id = index;
  set_address(L, "address", &address);
  if (entry->ifa_netmask == NULL) return;
  get_address(entry->ifa_netmask, family, &netmask);
  netmask.scope_id = 0;
  set_address(L, "netmask", &netmask);
  if (family == AF_INET) set_broadcast(L, entry, &netmask);
}

/* Pushes the table of an entry. [-0, +1, m] */
static void push_entry(lua_State *L, const struct interface_list *list, const struct ifaddrs *entry,
                       unsigned index, int mtu) {
  unsigned char hardware_address[HARDWARE_BYTES];
  get_hardware_address(list, entry, hardware_address);
  lua_createtable(L, 0, 11);
  lua_pushstring(L, entry->ifa_name);
  lua_setfield(L, -2, "name");
  set_integer(L, "index", index);
  set_integer(L, "mtu", mtu);
  set_boolean(L, "is_internal", entry->ifa_flags & IFF_LOOPBACK);
  set_boolean(L, "is_up", entry->ifa_flags & IFF_UP);
  set_boolean(L, "is_running", entry->ifa_flags & IFF_RUNNING);
  set_boolean(L, "is_multicast", entry->ifa_flags & IFF_MULTICAST);
  set_hardware_address(L, hardware_address);
  if (has_address(entry)) set_addresses(L, entry, index);
}

/* Returns 0 or an errno value. */
static int find(const char *name, unsigned *index, int *mtu) {
  int error = ip_interface_index(name, index);
  return error != 0 ? error : ip_interface_mtu(name, mtu);
}

/* Gets the index and the MTU of an interface; false when it was removed since the list was made. What cannot
   be looked up for want of descriptors must not be missing from the list. [-0, +0, v] */
static bool check_existing(lua_State *L, const char *name, unsigned *index, int *mtu) {
  int error = find(name, index, mtu);
  if (ip_collect_descriptors(L, error)) error = find(name, index, mtu);
  if (error != 0 && error != ENODEV) ip_error_raise(L, error, "interfaces");
  return error == 0;
}

/* ip.interfaces([all]) -> list of {name, index, address, netmask, broadcast, is_internal, is_up, is_running,
   is_multicast, mtu, hardware_address}: one entry for each v4 and v6 address of each interface that is up and
   running, in the system's order; where `all`, a boolean, is true, of each interface, and an entry without an
   address for each interface that has none. The address of a link-local entry has its scope. Raises the
   errors of getifaddrs(3), EMFILE, ENFILE. Suspends: no. Source: getifaddrs(3), if_nametoindex(3),
   netdevice(7). */
static int interface_interfaces(lua_State *L) {
  bool all = !lua_isnoneornil(L, 1) && ip_argument_boolean(L, 1);
  lua_settop(L, 0);
  struct interface_list *list = push_list(L);
  lua_newtable(L);
  lua_Integer position = 0;
  for (const struct ifaddrs *entry = list->entries; entry != NULL; entry = entry->ifa_next) {
    unsigned index;
    int mtu;
    if (!is_wanted(list, entry, all) || !check_existing(L, entry->ifa_name, &index, &mtu)) continue;
    push_entry(L, list, entry, index, mtu);
    lua_rawseti(L, -2, ++position);
  }
  free_list(list);
  return 1;
}

static const luaL_Reg metamethods[] = {{"__gc", interface_list_mt_gc}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"interfaces", interface_interfaces}, {NULL, NULL}};

void ip_interface_add_functions(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.interface_list",
      .id = IP_CLASS_INTERFACE_LIST,
      .metamethods = metamethods,
  };
  ip_class_define(L, core, &definition);
  ip_class_functions(L, core, functions);
}
