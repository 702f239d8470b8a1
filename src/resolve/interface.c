/* interface.c: ip.interfaces.

   A userdata owns libuv's list while the list for Lua is built from it: where that raises a memory error, the
   userdata's finalizer frees the list. Raises system errors and memory errors. */
#include "resolve/interface.h"

#include "base/util.h"
#include "binding/class.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"
#include "net/interface_index.h"
#include "value/address.h"

#include <errno.h>
#include <string.h>
#include <uv.h>

struct interface_list {
  uv_interface_address_t *entries; /* NULL: none */
  int count;
};

static void free_list(struct interface_list *list) {
  if (list->entries != NULL) uv_free_interface_addresses(list->entries, list->count);
  list->entries = NULL;
}

static int interface_list_mt_gc(lua_State *L) {
  free_list(lua_touserdata(L, 1));
  return 0;
}

/* Pushes the owner of a new list. [-0, +1, v] */
static struct interface_list *push_list(lua_State *L) {
  struct interface_list *list = lua_newuserdatauv(L, sizeof *list, 0);
  *list = (struct interface_list){.entries = NULL};
  ip_class_set(L, IP_CLASS_INTERFACE_LIST);
  int status = uv_interface_addresses(&list->entries, &list->count);
  if (ip_collect_descriptors(L, -status)) status = uv_interface_addresses(&list->entries, &list->count);
  if (status != 0) {
    list->entries = NULL;
    ip_error_raise(L, -status, "interfaces");
  }
  return list;
}

/* The index of an interface; 0 when it was removed since the list was made. What cannot be looked up for want
   of descriptors must not be missing from the list. [-0, +0, v] */
static unsigned index_of(lua_State *L, const char *name) {
  unsigned index;
  int error = ip_interface_index(name, &index);
  if (ip_collect_descriptors(L, error)) error = ip_interface_index(name, &index);
  if (error != 0 && error != ENODEV) ip_error_raise(L, error, "interfaces");
  return index;
}

/* The address of an entry. Some systems give no scope to a link-local address in the list. */
static struct ip_address address_of(const uv_interface_address_t *entry, unsigned index) {
  struct ip_endpoint endpoint = {.length = 0};
  struct ip_address address;
  memcpy(&endpoint.name, &entry->address, sizeof entry->address);
  ip_endpoint_get_address(&endpoint, &address);
  if (address.scope_id == 0 && ip_address_is_link_local(&address)) address.scope_id = index;
  return address;
}

/* The netmask of an entry. Its family is that of the address, for some systems leave the family of its
   sockaddr 0. */
static struct ip_address netmask_of(const uv_interface_address_t *entry, const struct ip_address *address) {
  struct ip_address netmask = {.version = address->version};
  if (address->version == 4)
    memcpy(netmask.bytes, &entry->netmask.netmask4.sin_addr, 4);
  else
    memcpy(netmask.bytes, &entry->netmask.netmask6.sin6_addr, 16);
  return netmask;
}

/* Pushes the text of a hardware address, such as "02:fc:00:00:00:01". [-0, +1, m] */
static void push_hardware_address(lua_State *L, const uv_interface_address_t *entry) {
  static const char digits[] = "0123456789abcdef";
  char text[3 * sizeof entry->phys_addr];
  for (size_t i = 0; i < sizeof entry->phys_addr; i++) {
    unsigned byte = (unsigned char)entry->phys_addr[i];
    text[3 * i] = digits[byte >> 4];
    text[3 * i + 1] = digits[byte & 15];
    text[3 * i + 2] = ':';
  }
  lua_pushlstring(L, text, sizeof text - 1);
}

/* Sets the fields of the table on top of the stack. [-0, +0, m] */
static void describe(lua_State *L, const uv_interface_address_t *entry, unsigned index) {
  struct ip_address address = address_of(entry, index);
  struct ip_address netmask = netmask_of(entry, &address);
  lua_pushstring(L, entry->name);
  lua_setfield(L, -2, "name");
  lua_pushinteger(L, index);
  lua_setfield(L, -2, "index");
  ip_address_push(L, &address);
  lua_setfield(L, -2, "address");
  ip_address_push(L, &netmask);
  lua_setfield(L, -2, "netmask");
  lua_pushboolean(L, entry->is_internal);
  lua_setfield(L, -2, "is_internal");
  push_hardware_address(L, entry);
  lua_setfield(L, -2, "hardware_address");
}

/* ip.interfaces() -> list of {name, index, address, netmask, is_internal, hardware_address}: one entry for
   each v4 and v6 address of each interface that is up and running, in the system's order. The address of a
   link-local entry has its scope. Raises the errors of getifaddrs(3). Suspends: no. Source:
   uv_interface_addresses, if_nametoindex(3). */
static int interface_interfaces(lua_State *L) {
  lua_settop(L, 0);
  struct interface_list *list = push_list(L);
  lua_createtable(L, list->count, 0);
  lua_Integer position = 0;
  for (int i = 0; i < list->count; i++) {
    unsigned index = index_of(L, list->entries[i].name);
    if (index == 0) continue;
    lua_createtable(L, 0, 6);
    describe(L, &list->entries[i], index);
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
