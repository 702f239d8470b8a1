/* address.c: the Lua type ip.address, and the functions of ip that put an address and a port into one string.

   An address is a userdata that holds a struct ip_address and owns nothing else. Invariant: it never changes
   after it was pushed, so that any number of users may share it. Raises bad-argument errors, memory errors,
   and errors of properties that only v6 addresses have. */
#include "value/address.h"

#include "binding/argument.h"
#include "binding/class.h"
#include "binding/value_text.h"
#include "value/byte_span.h"

#include <ctype.h>
#include <string.h>

/* --- from and to the stack --- */

const struct ip_address *ip_address_push(lua_State *L, const struct ip_address *address) {
  struct ip_address *object = lua_newuserdatauv(L, sizeof *object, 0);
  *object = *address;
  ip_class_set(L, IP_CLASS_ADDRESS);
  return object;
}

static const struct ip_address *check_address(lua_State *L, int arg) {
  return ip_check_class(L, arg, IP_CLASS_ADDRESS);
}

/* Is it a host name, perhaps with a port (RFC 1123 section 2.1)? */
static bool looks_like_a_host(const char *text, size_t length) {
  int colons = 0; /* more than one are of an IPv6 address */
  for (size_t i = 0; i < length; i++) {
    if (!isalnum((unsigned char)text[i]) && strchr("-._:", text[i]) == NULL) return false;
    colons += text[i] == ':';
  }
  return length > 0 && isalpha((unsigned char)text[0]) && colons <= 1;
}

static bool is_endpoint(const char *text, size_t length) {
  struct ip_address address;
  uint16_t port;
  return ip_address_parse_with_port(&address, &port, text, length) == NULL;
}

const char *ip_address_push_problem(lua_State *L, int index, const char *problem) {
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  const char *quoted = ip_value_text_push_quoted(L, index);
  const char *message;
  if (looks_like_a_host(text, length))
    message = lua_pushfstring(L, "%s is no IP address; ip.udp.get_address_info looks names up", quoted);
  else if (is_endpoint(text, length))
    message = lua_pushfstring(L, "%s is an address and a port; ip.toendpoint separates them", quoted);
  else
    message = lua_pushfstring(L, "%s: %s", quoted, problem);
  lua_remove(L, -2);
  return message;
}

/* Parses the string at `arg`, or raises a bad-argument error that names the mistake in it. [-0, +0, v] */
static void parse_argument(lua_State *L, int arg, struct ip_address *address) {
  size_t length;
  const char *text = ip_argument_string(L, arg, &length);
  const char *message = ip_address_parse(address, text, length);
  if (message != NULL) ip_argument_error(L, arg, ip_address_push_problem(L, arg, message));
}

bool ip_address_read(lua_State *L, int index, struct ip_address *address) {
  const struct ip_address *object = ip_test_class(L, index, IP_CLASS_ADDRESS);
  if (object != NULL) *address = *object;
  if (object != NULL || lua_type(L, index) != LUA_TSTRING) return object != NULL;
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  return ip_address_parse(address, text, length) == NULL;
}

void ip_address_argument(lua_State *L, int arg, struct ip_address *address) {
  const struct ip_address *object = ip_test_class(L, arg, IP_CLASS_ADDRESS);
  if (object != NULL) {
    *address = *object;
    return;
  }
  if (lua_type(L, arg) != LUA_TSTRING) ip_argument_type_error(L, arg, "ip.address or string");
  parse_argument(L, arg, address);
}

static int push_text(lua_State *L, const struct ip_address *address) {
  char text[IP_ADDRESS_TEXT_SIZE];
  size_t length = ip_address_format(address, text);
  lua_pushlstring(L, text, length);
  return 1;
}

/* --- the module table ip.address --- */

/* ip.address.new([str]) -> address
   str: string; dotted IPv4 or IPv6 text, on IPv6 with an optional %scope (interface name, or number
   0..4294967295). Without an argument the result is 0.0.0.0; an explicit nil is refused, because a missing
   setting must not become "every interface". Errors: bad argument on anything but a string and on malformed
   text. Suspends: no. Source: RFC 4291 section 2.2, RFC 4007 section 11. */
static int address_new(lua_State *L) {
  struct ip_address address = {.version = 4};
  if (!lua_isnone(L, 1)) parse_argument(L, 1, &address);
  ip_address_push(L, &address);
  return 1;
}

/* ip.address.parse(str) -> address | nil, message
   str: string, as in new. Results: the address, or nil and a message that names the mistake in the text.
   Errors: bad argument on anything but a string; none on text. Suspends: no. Source: as new. */
static int address_parse(lua_State *L) {
  size_t length;
  const char *text = ip_argument_string(L, 1, &length);
  struct ip_address address;
  const char *message = ip_address_parse(&address, text, length);
  if (message == NULL) {
    ip_address_push(L, &address);
    return 1;
  }
  luaL_pushfail(L);
  ip_address_push_problem(L, 1, message);
  return 2;
}

/* ip.address.any_v4() -> address
   0.0.0.0. Errors: none. Suspends: no. Source: RFC 1122 section 3.2.1.3. */
static int address_any_v4(lua_State *L) {
  ip_address_push(L, &(struct ip_address){.version = 4});
  return 1;
}

/* ip.address.any_v6() -> address
   "::". Errors: none. Suspends: no. Source: RFC 4291 section 2.5.2. */
static int address_any_v6(lua_State *L) {
  ip_address_push(L, &(struct ip_address){.version = 6});
  return 1;
}

/* ip.address.loopback_v4() -> address
   127.0.0.1. Errors: none. Suspends: no. Source: RFC 1122 section 3.2.1.3. */
static int address_loopback_v4(lua_State *L) {
  ip_address_push(L, &(struct ip_address){.bytes = {127, 0, 0, 1}, .version = 4});
  return 1;
}

/* ip.address.loopback_v6() -> address
   "::1". Errors: none. Suspends: no. Source: RFC 4291 section 2.5.3. */
static int address_loopback_v6(lua_State *L) {
  ip_address_push(L, &(struct ip_address){.bytes = {[15] = 1}, .version = 6});
  return 1;
}

/* ip.address.broadcast_v4() -> address
   255.255.255.255. Errors: none. Suspends: no. Source: RFC 919 section 7. */
static int address_broadcast_v4(lua_State *L) {
  ip_address_push(L, &(struct ip_address){.bytes = {255, 255, 255, 255}, .version = 4});
  return 1;
}

/* ip.address.from_bytes(data) -> address
   data: string or byte_span of 4 bytes (v4) or 16 bytes (v6, without a scope) in network order.
   Errors: bad argument on another type or length. Suspends: no. Source: RFC 791 section 3.1, RFC 8200 section
   3. */
static int address_from_bytes(lua_State *L) {
  struct ip_byte_span_view data = ip_byte_span_check_view(L, 1);
  if (data.length != 4 && data.length != 16) {
    const char *problem = lua_pushfstring(L, "4 or 16 bytes expected, got %I", (lua_Integer)data.length);
    return ip_argument_error(L, 1, problem);
  }
  struct ip_address address = {.version = data.length == 4 ? 4 : 6};
  memcpy(address.bytes, data.data, data.length);
  ip_address_push(L, &address);
  return 1;
}

/* --- methods --- */

/* Raises a bad-argument error about the address at index 1. In a method call luaL_argerror would say "calling
   'to_v4' on bad self", which hides the mistake: the type of the address is right, and its value is wrong.
   [-0, +0, v] */
static int bad_self(lua_State *L, const char *method, const char *expected) {
  push_text(L, check_address(L, 1));
  return ip_error_text(L, "bad argument #1 to '%s' (%s expected, got %s)", method, expected,
                       lua_tostring(L, -1));
}

/* address:to_v6() -> address
   The v4-mapped form of a v4 address; a v6 address itself. Errors: none. Suspends: no.
   Source: RFC 4291 section 2.5.5.2. */
static int address_to_v6(lua_State *L) {
  const struct ip_address *self = check_address(L, 1);
  lua_settop(L, 1);
  if (self->version == 6) return 1;
  struct ip_address mapped = ip_address_to_v6(self);
  ip_address_push(L, &mapped);
  return 1;
}

/* address:to_v4() -> address
   The v4 address in a v4-mapped one (its scope is dropped); a v4 address itself.
   Errors: bad argument on any other v6 address. Suspends: no. Source: RFC 4291 section 2.5.5.2. */
static int address_to_v4(lua_State *L) {
  const struct ip_address *self = check_address(L, 1);
  lua_settop(L, 1);
  if (self->version == 4) return 1;
  if (!ip_address_is_v4_mapped(self)) return bad_self(L, "to_v4", "v4 or v4-mapped address");
  struct ip_address unmapped = ip_address_unmapped(self);
  ip_address_push(L, &unmapped);
  return 1;
}

/* address:to_bytes() -> string
   The 4 or 16 bytes of the address in network order; a scope is no part of them. Errors: none. Suspends: no.
   Source: RFC 791 section 3.1, RFC 8200 section 3. */
static int address_to_bytes(lua_State *L) {
  const struct ip_address *self = check_address(L, 1);
  lua_pushlstring(L, (const char *)self->bytes, self->version == 4 ? 4 : 16);
  return 1;
}

/* address:with_scope_id(n) -> address
   The same v6 address in scope n: integer 0..4294967295; 0 is no scope.
   Errors: bad argument on a v4 address and on another type or range. Suspends: no. Source: RFC 4007 section
   6. */
static int address_with_scope_id(lua_State *L) {
  struct ip_address result = *check_address(L, 1);
  if (result.version == 4) return bad_self(L, "with_scope_id", "v6 address");
  result.scope_id = (uint32_t)ip_argument_integer(L, 2, 0, UINT32_MAX);
  ip_address_push(L, &result);
  return 1;
}

/* --- properties ---

   The object at index 1 has been checked. No predicate looks at the v4 address in a v4-mapped one: to the
   system's own macros and to Asio, too, it is a v6 address that is neither a loopback nor a multicast
   address. A program that means the v4 address asks address:to_v4(). */

static const struct ip_address *self_of(lua_State *L) {
  return lua_touserdata(L, 1);
}

static int push_boolean(lua_State *L, bool value) {
  lua_pushboolean(L, value);
  return 1;
}

/* The object of a property that only v6 addresses have; raises where it is a v4 address. [-0, +0, v] */
static const struct ip_address *v6_self_of(lua_State *L, const char *property) {
  const struct ip_address *self = self_of(L);
  if (self->version == 6) return self;
  push_text(L, self);
  const char *text = lua_tostring(L, -1);
  ip_error_text(L, "property '%s' is for v6 addresses only, %s is a v4 address", property, text);
}

static int push_multicast_scope_is(lua_State *L, const char *property, int scope) {
  return push_boolean(L, ip_address_multicast_scope(v6_self_of(L, property)) == scope);
}

/* address.is_loopback -> boolean: 127.0.0.0/8 or ::1. Errors: none. Suspends: no.
   Source: RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3. */
static int address_is_loopback(lua_State *L) {
  return push_boolean(L, ip_address_is_loopback(self_of(L)));
}

/* address.is_multicast -> boolean: 224.0.0.0/4 or ff00::/8. Errors: none. Suspends: no.
   Source: RFC 5771 section 3, RFC 4291 section 2.7. */
static int address_is_multicast(lua_State *L) {
  return push_boolean(L, ip_address_is_multicast(self_of(L)));
}

/* address.is_unspecified -> boolean: 0.0.0.0 or "::", whatever its scope. Errors: none. Suspends: no.
   Source: RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2. */
static int address_is_unspecified(lua_State *L) {
  return push_boolean(L, ip_address_is_unspecified(self_of(L)));
}

/* address.is_v4 -> boolean: an IPv4 address (a v4-mapped one is not). Errors: none. Suspends: no. */
static int address_is_v4(lua_State *L) {
  return push_boolean(L, self_of(L)->version == 4);
}

/* address.is_v6 -> boolean: an IPv6 address, v4-mapped ones included. Errors: none. Suspends: no. */
static int address_is_v6(lua_State *L) {
  return push_boolean(L, self_of(L)->version == 6);
}

/* address.is_v4_mapped -> boolean: ::ffff:0:0/96; false on a v4 address. Errors: none. Suspends: no.
   Source: RFC 4291 section 2.5.5.2. */
static int address_is_v4_mapped(lua_State *L) {
  return push_boolean(L, ip_address_is_v4_mapped(self_of(L)));
}

/* address.is_link_local -> boolean: fe80::/10. Errors: on a v4 address. Suspends: no.
   Source: RFC 4291 section 2.4. */
static int address_is_link_local(lua_State *L) {
  return push_boolean(L, ip_address_is_link_local(v6_self_of(L, "is_link_local")));
}

/* address.is_site_local -> boolean: fec0::/10. Errors: on a v4 address. Suspends: no.
   Source: RFC 4291 section 2.5.7; deprecated by RFC 3879. */
static int address_is_site_local(lua_State *L) {
  return push_boolean(L, ip_address_is_site_local(v6_self_of(L, "is_site_local")));
}

/* address.is_multicast_node_local -> boolean: multicast with scope 1 (now called interface-local).
   Errors: on a v4 address. Suspends: no. Source: RFC 4291 section 2.7. */
static int address_is_multicast_node_local(lua_State *L) {
  return push_multicast_scope_is(L, "is_multicast_node_local", 0x1);
}

/* address.is_multicast_link_local -> boolean: multicast with scope 2. Errors: on a v4 address. Suspends: no.
   Source: RFC 4291 section 2.7. */
static int address_is_multicast_link_local(lua_State *L) {
  return push_multicast_scope_is(L, "is_multicast_link_local", 0x2);
}

/* address.is_multicast_site_local -> boolean: multicast with scope 5. Errors: on a v4 address. Suspends: no.
   Source: RFC 4291 section 2.7. */
static int address_is_multicast_site_local(lua_State *L) {
  return push_multicast_scope_is(L, "is_multicast_site_local", 0x5);
}

/* address.is_multicast_org_local -> boolean: multicast with scope 8. Errors: on a v4 address. Suspends: no.
   Source: RFC 4291 section 2.7. */
static int address_is_multicast_org_local(lua_State *L) {
  return push_multicast_scope_is(L, "is_multicast_org_local", 0x8);
}

/* address.is_multicast_global -> boolean: multicast with scope 14. Errors: on a v4 address. Suspends: no.
   Source: RFC 4291 section 2.7. */
static int address_is_multicast_global(lua_State *L) {
  return push_multicast_scope_is(L, "is_multicast_global", 0xe);
}

/* address.scope_id -> integer 0..4294967295, 0 without a scope. Errors: on a v4 address. Suspends: no.
   Source: RFC 4007 section 6. */
static int address_scope_id(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)v6_self_of(L, "scope_id")->scope_id);
  return 1;
}

/* --- metamethods --- */

/* tostring(address) -> string
   RFC 5952 text. A v4-mapped address is written ::ffff:1.2.3.4. The scope follows as %name for link-local
   unicast and multicast addresses whose interface exists, else as %number. Errors: none. Suspends: no.
   Source: RFC 5952 sections 4 and 5, RFC 4007 section 11. */
static int address_mt_tostring(lua_State *L) {
  return push_text(L, check_address(L, 1));
}

/* a == b -> boolean
   The same version, bytes and scope. A v4 address and its mapped form differ; so do an address and any other
   value. Errors: none. Suspends: no. */
static int address_mt_eq(lua_State *L) {
  const struct ip_address *a = ip_test_class(L, 1, IP_CLASS_ADDRESS);
  const struct ip_address *b = ip_test_class(L, 2, IP_CLASS_ADDRESS);
  return push_boolean(L, a != NULL && b != NULL && ip_address_compare(a, b) == 0);
}

/* The name that Lua's own messages give to the type of a value. [-0, +1, m] */
static const char *push_type_name(lua_State *L, int index) {
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) return lua_tostring(L, -1);
  return lua_pushstring(L, luaL_typename(L, index));
}

static int compare(lua_State *L) {
  const struct ip_address *a = ip_test_class(L, 1, IP_CLASS_ADDRESS);
  const struct ip_address *b = ip_test_class(L, 2, IP_CLASS_ADDRESS);
  if (a != NULL && b != NULL) return ip_address_compare(a, b);
  const char *left = push_type_name(L, 1);
  const char *right = push_type_name(L, 2);
  return ip_error_text(L, "attempt to compare %s with %s", left, right);
}

/* a < b -> boolean
   Order: v4 before v6, then by bytes, then by scope. Errors: if an operand is not an address. Suspends:
   no. */
static int address_mt_lt(lua_State *L) {
  return push_boolean(L, compare(L) < 0);
}

/* a <= b -> boolean
   The same order as a < b. Errors: if an operand is not an address. Suspends: no. */
static int address_mt_le(lua_State *L) {
  return push_boolean(L, compare(L) <= 0);
}

/* --- the functions of ip --- */

/* ip.tostring(addr[, port]) -> string
   addr: ip.address or string; port: integer 0..65535. "1.2.3.4:53" and "[::1]:53"; without a port the bare
   address. Errors: bad argument. Suspends: no. Source: RFC 5952 section 6, RFC 3986 section 3.2.2. */
static int address_tostring(lua_State *L) {
  struct ip_address address;
  ip_address_argument(L, 1, &address);
  if (lua_isnoneornil(L, 2)) return push_text(L, &address);
  char text[IP_ENDPOINT_TEXT_SIZE];
  size_t length = ip_address_format_with_port(&address, ip_argument_port(L, 2), text);
  lua_pushlstring(L, text, length);
  return 1;
}

/* ip.toendpoint(str) -> address, port
   str: string; "1.2.3.4:53" or "[::1]:53": the port is required and decimal, without leading zeros; a v6
   address (and only that) stands in brackets. Errors: bad argument on anything else. Suspends: no. Source: as
   tostring. */
static int address_toendpoint(lua_State *L) {
  size_t length;
  const char *text = ip_argument_string(L, 1, &length);
  struct ip_address address;
  uint16_t port;
  const char *message = ip_address_parse_with_port(&address, &port, text, length);
  if (message != NULL) return ip_argument_error(L, 1, ip_address_push_problem(L, 1, message));
  ip_address_push(L, &address);
  lua_pushinteger(L, port);
  return 2;
}

/* ip.endpoint_key(addr, port) -> string
   addr: ip.address or string; port: integer 0..65535. A binary string of 6 bytes for a v4 address and its
   mapped form (whose scope, if it has one, does not count), 18 for v6, 22 for v6 with a scope: equal for
   equal endpoints and for no others. Errors: bad argument. Suspends: no. */
static int address_endpoint_key(lua_State *L) {
  struct ip_address address;
  ip_address_argument(L, 1, &address);
  unsigned char key[IP_ENDPOINT_KEY_SIZE];
  size_t length = ip_address_make_key(&address, ip_argument_port(L, 2), key);
  lua_pushlstring(L, (const char *)key, length);
  return 1;
}

/* ip.endpoint_from_key(key) -> address, port
   key: string that endpoint_key returned; a v4-mapped address comes back as v4.
   Errors: bad argument on anything but a string of 6, 18 or 22 bytes. Suspends: no. */
static int address_endpoint_from_key(lua_State *L) {
  size_t length;
  const char *key = ip_argument_string(L, 1, &length);
  struct ip_address address;
  uint16_t port;
  if (!ip_address_read_key(&address, &port, (const unsigned char *)key, length))
    return ip_argument_error(
        L, 1,
        lua_pushfstring(L, "not an endpoint key: 6, 18 or 22 bytes expected, got %I", (lua_Integer)length));
  ip_address_push(L, &address);
  lua_pushinteger(L, port);
  return 2;
}

/* --- registration --- */

static const luaL_Reg methods[] = {
    {"to_v6", address_to_v6},
    {"to_v4", address_to_v4},
    {"to_bytes", address_to_bytes},
    {"with_scope_id", address_with_scope_id},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__tostring", address_mt_tostring},
    {"__concat", ip_class_concat},
    {"__eq", address_mt_eq},
    {"__lt", address_mt_lt},
    {"__le", address_mt_le},
    {NULL, NULL},
};

static const struct ip_property properties[] = {
    {"is_loopback", address_is_loopback, NULL},
    {"is_multicast", address_is_multicast, NULL},
    {"is_unspecified", address_is_unspecified, NULL},
    {"is_v4", address_is_v4, NULL},
    {"is_v6", address_is_v6, NULL},
    {"is_v4_mapped", address_is_v4_mapped, NULL},
    {"is_link_local", address_is_link_local, NULL},
    {"is_site_local", address_is_site_local, NULL},
    {"is_multicast_node_local", address_is_multicast_node_local, NULL},
    {"is_multicast_link_local", address_is_multicast_link_local, NULL},
    {"is_multicast_site_local", address_is_multicast_site_local, NULL},
    {"is_multicast_org_local", address_is_multicast_org_local, NULL},
    {"is_multicast_global", address_is_multicast_global, NULL},
    {"scope_id", address_scope_id, NULL},
    {NULL, NULL, NULL},
};

static const struct ip_class_definition definition = {
    .name = "ip.address",
    .id = IP_CLASS_ADDRESS,
    .methods = methods,
    .metamethods = metamethods,
    .properties = properties,
};

static const luaL_Reg module_functions[] = {
    {"new", address_new},
    {"parse", address_parse},
    {"any_v4", address_any_v4},
    {"any_v6", address_any_v6},
    {"loopback_v4", address_loopback_v4},
    {"loopback_v6", address_loopback_v6},
    {"broadcast_v4", address_broadcast_v4},
    {"from_bytes", address_from_bytes},
    {NULL, NULL},
};

static const luaL_Reg ip_functions[] = {
    {"tostring", address_tostring},
    {"toendpoint", address_toendpoint},
    {"endpoint_key", address_endpoint_key},
    {"endpoint_from_key", address_endpoint_from_key},
    {NULL, NULL},
};

void ip_address_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  ip_class_define(L, core, &definition);
  lua_newtable(L);
  ip_class_functions(L, core, module_functions);
}

void ip_address_add_functions(lua_State *L, int core) {
  ip_class_functions(L, core, ip_functions);
}
