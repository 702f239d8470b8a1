/* interface_argument.c: an argument that names a network interface.

   Owns nothing: the system's list of addresses lives within one function, which calls no Lua. Raises
   bad-argument errors and system errors. */
#include "value/interface_argument.h"

#include "binding/argument.h"
#include "binding/class.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "net/interface_index.h"
#include "value/address.h"

#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <string.h>

static bool has_address(const struct ifaddrs *entry, struct in_addr address) {
  if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != AF_INET) return false;
  struct sockaddr_in name;
  memcpy(&name, entry->ifa_addr, sizeof name);
  return name.sin_addr.s_addr == address.s_addr;
}

static int find_address(struct in_addr address, unsigned *index) {
  struct ifaddrs *list;
  if (getifaddrs(&list) != 0) return errno;
  int error = ENODEV;
  for (const struct ifaddrs *entry = list; entry != NULL; entry = entry->ifa_next) {
    if (!has_address(entry, address)) continue;
    error = ip_interface_index(entry->ifa_name, index);
    break;
  }
  freeifaddrs(list);
  return error;
}

static int resolve_address(const struct ip_address *address, struct ip_interface *interface) {
  memcpy(&interface->address, address->bytes, sizeof interface->address);
  if (interface->address.s_addr == htonl(INADDR_ANY)) return 0;
  return find_address(interface->address, &interface->index);
}

/* Linux shortens a name that is too long, and would find another interface (netdevice(7)). */
static int resolve_text(const char *text, size_t length, struct ip_interface *interface) {
  struct ip_address address;
  if (ip_address_parse(&address, text, length) == NULL && address.version == 4)
    return resolve_address(&address, interface);
  if (length >= IFNAMSIZ || strlen(text) != length) return ENODEV;
  return ip_interface_index(text, &interface->index);
}

/* 0 or an errno value. [-0, +0, v] */
static int resolve(lua_State *L, int arg, struct ip_interface *interface) {
  *interface = (struct ip_interface){.index = 0};
  const struct ip_address *address = ip_test_class(L, arg, IP_CLASS_ADDRESS);
  if (address != NULL) {
    ip_argument_check(L, address->version == 4, arg, "a v6 address names no interface");
    return resolve_address(address, interface);
  }
  if (lua_type(L, arg) == LUA_TSTRING) {
    size_t length;
    const char *text = ip_argument_string(L, arg, &length);
    return resolve_text(text, length, interface);
  }
  if (lua_type(L, arg) != LUA_TNUMBER) ip_argument_type_error(L, arg, "interface name, index or v4 address");
  interface->index = (unsigned)ip_argument_integer(L, arg, 0, INT_MAX);
  return 0;
}

/* if_nametoindex(3) and getifaddrs(3) open a socket. */
void ip_interface_argument(lua_State *L, int arg, const char *operation, struct ip_interface *interface) {
  int error = resolve(L, arg, interface);
  if (ip_collect_descriptors(L, error)) error = resolve(L, arg, interface);
  if (error != 0) ip_error_raise_about(L, error, operation, arg, NULL);
}

void ip_interface_optional_argument(lua_State *L, int arg, const char *operation,
                                    struct ip_interface *interface) {
  *interface = (struct ip_interface){.index = 0};
  if (!lua_isnoneornil(L, arg)) ip_interface_argument(L, arg, operation, interface);
}

/* core.interface_index(interface) -> integer
   interface: name, index or v4 address. Result: its index; 0 where the choice is left to the system.
   Errors: bad argument; ENODEV. Suspends: no. Source: if_nametoindex(3), getifaddrs(3). */
static int interface_index(lua_State *L) {
  struct ip_interface interface;
  ip_interface_argument(L, 1, "interface", &interface); /* an option of ip.udp.bind */
  lua_pushinteger(L, interface.index);
  return 1;
}

static const luaL_Reg functions[] = {{"interface_index", interface_index}, {NULL, NULL}};

void ip_interface_argument_add_functions(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
