/* resolver.c: get_address_info, get_address_v4_info, get_address_v6_info, get_name_info, host_name: their
   arguments and results. Owns nothing: look-ups belong to lookup.c.

   Raises bad-argument errors, errors of the categories resolver and system, and memory errors. */
#include "resolve/resolver.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/error.h"
#include "resolve/address_info_flag.h"
#include "resolve/lookup.h"
#include "value/address.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

/* --- addresses of a name --- */

/* The arguments of get_address_info. */
struct question {
  const char *host; /* NULL: this machine */
  const char *service;
  struct addrinfo hints;
  int refusal; /* EAI_ code of an argument that cannot be a name, or 0 */
};

/* The text of a name, which a zero byte would end early. [-0, +0, v] */
static const char *check_text(lua_State *L, int arg, size_t *length) {
  const char *text = lua_tolstring(L, arg, length);
  ip_argument_check(L, strlen(text) == *length, arg, "a zero byte in a name");
  return text;
}

/* libuv writes the ASCII form of a name into 256 bytes; before 1.48 it truncates a longer one without an
   error, and without a '\0'. The ASCII form of a name of 63 bytes is never longer than that, whatever
   characters it has. */
enum { LONGEST_ASCII_NAME = 255, LONGEST_OTHER_NAME = 63 };

static bool is_possible_name(const char *text, size_t length) {
  size_t longest = LONGEST_ASCII_NAME;
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] > 127) longest = LONGEST_OTHER_NAME;
  return length > 0 && length <= longest;
}

/* Replaces the address at `arg` by its text. The scope is written as a number, for an interface name may have
   characters that libuv takes for those of an international domain name. [-0, +0, m] */
static const char *spell_address(lua_State *L, int arg, const struct ip_address *address) {
  struct ip_address bare = *address;
  char text[IP_ADDRESS_TEXT_SIZE];
  bare.scope_id = 0;
  ip_address_format(&bare, text);
  if (address->scope_id != 0)
    lua_pushfstring(L, "%s%%%I", text, (lua_Integer)address->scope_id);
  else
    lua_pushstring(L, text);
  lua_replace(L, arg);
  return lua_tostring(L, arg);
}

static void read_host(lua_State *L, int arg, struct question *question) {
  if (lua_isnil(L, arg)) {
    bool passive = question->hints.ai_flags & AI_PASSIVE;
    ip_argument_check(L, passive, arg, "a host is needed without the flag passive");
    return;
  }
  const struct ip_address *address = ip_test_class(L, arg, IP_CLASS_ADDRESS);
  if (address != NULL) {
    question->host = spell_address(L, arg, address);
    question->hints.ai_flags |= AI_NUMERICHOST;
    return;
  }
  if (lua_type(L, arg) != LUA_TSTRING) ip_argument_type_error(L, arg, "ip.address, string or nil");
  size_t length;
  question->host = check_text(L, arg, &length);
  if (!is_possible_name(question->host, length)) question->refusal = EAI_NONAME;
}

/* A service name has a letter (RFC 6335 section 5.1). The system reads a text without a letter as a port
   number, but allows signs and spaces in it, and wraps a number that is too large: 70000 would be port
   4464. */
static bool is_possible_service(const char *text, size_t length) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  if (strpbrk(text, letters) != NULL) return true;
  if (length == 0 || strspn(text, "0123456789") != length) return false;
  return strtoul(text, NULL, 10) <= UINT16_MAX; /* ULONG_MAX where it overflows */
}

static void read_service(lua_State *L, int arg, struct question *question) {
  if (lua_type(L, arg) == LUA_TSTRING) {
    size_t length;
    question->service = check_text(L, arg, &length);
    if (!is_possible_service(question->service, length)) question->refusal = EAI_SERVICE;
    return;
  }
  if (!lua_isnil(L, arg) && lua_type(L, arg) != LUA_TNUMBER)
    ip_argument_type_error(L, arg, "string, integer or nil");
  uint16_t port = lua_isnil(L, arg) ? 0 : ip_argument_port(L, arg);
  lua_pushfstring(L, "%d", (int)port);
  lua_replace(L, arg);
  question->service = lua_tostring(L, arg);
  question->hints.ai_flags |= AI_NUMERICSERV;
}

/* Has an earlier member of the list the same address? glibc reports 127.0.0.1 twice where /etc/hosts gives a
   name both ::1 and 127.0.0.1. */
static bool is_repeated(const struct addrinfo *list, const struct addrinfo *entry) {
  for (; list != entry; list = list->ai_next)
    if (list->ai_addrlen == entry->ai_addrlen &&
        memcmp(list->ai_addr, entry->ai_addr, entry->ai_addrlen) == 0)
      return true;
  return false;
}

/* Pushes {address, port, canonical_name}; the name is at stack index `name`, perhaps nil. [-0, +1, m] */
static void push_entry(lua_State *L, const struct addrinfo *entry, int name) {
  struct ip_endpoint endpoint = {.length = entry->ai_addrlen};
  struct ip_address address;
  memcpy(&endpoint.name, entry->ai_addr, entry->ai_addrlen);
  ip_endpoint_get_address(&endpoint, &address);
  lua_createtable(L, 0, 3);
  ip_address_push(L, &address);
  lua_setfield(L, -2, "address");
  lua_pushinteger(L, ip_endpoint_port(&endpoint));
  lua_setfield(L, -2, "port");
  lua_pushvalue(L, name);
  lua_setfield(L, -2, "canonical_name");
}

static bool is_ip(const struct addrinfo *entry) {
  return (entry->ai_family == AF_INET || entry->ai_family == AF_INET6) &&
         entry->ai_addrlen <= sizeof((struct ip_endpoint *)NULL)->name;
}

/* The first member of the list alone has the canonical name, which is that of all members. */
static int push_addresses(lua_State *L, struct ip_result *result) {
  struct ip_lookup *lookup = ip_lookup_of(result);
  const struct addrinfo *list = lookup->list;
  lua_pushstring(L, list != NULL ? list->ai_canonname : NULL); /* NULL pushes nil */
  int name = lua_gettop(L);
  lua_newtable(L);
  lua_Integer position = 0;
  for (const struct addrinfo *entry = list; entry != NULL; entry = entry->ai_next) {
    if (!is_ip(entry) || is_repeated(list, entry)) continue;
    push_entry(L, entry, name);
    lua_rawseti(L, -2, ++position);
  }
  ip_lookup_free(lookup);
  return 1;
}

/* There is a host or a service, so UV_EINVAL is about the name: it is not UTF-8, or too long. */
static int status_of_start(int status) {
  return status == UV_EINVAL ? UV_EAI_NONAME : status;
}

/* May the host be an address, and is there nothing to look up for the service? */
static bool is_plain(const struct question *question) {
  if (question->host == NULL) return false;
  bool is_number = strspn(question->service, "0123456789") == strlen(question->service);
  return is_number || (question->hints.ai_flags & AI_NUMERICSERV) != 0;
}

/* Asks the resolver in this thread whether the host is an address: with AI_NUMERICHOST it looks up nothing,
   and its answer is the one that it would give without. Returns false where the host is none, and its name
   has to be looked up. */
static bool try_at_once(struct ip_lookup *lookup, const struct question *question, int *status) {
  if (!is_plain(question)) return false;
  struct addrinfo hints = question->hints;
  hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  uv_getaddrinfo_t *request = &lookup->request.addresses;
  *status = status_of_start(
      uv_getaddrinfo(lookup->runtime->loop, request, NULL, question->host, question->service, &hints));
  if (*status == 0) lookup->list = request->addrinfo;
  if (*status == 0 && lookup->list == NULL) *status = UV_EAI_FAIL;
  return *status != UV_EAI_NONAME || (question->hints.ai_flags & AI_NUMERICHOST) != 0;
}

/* Names the host that was looked up, or the service if that is at fault. */
static void describe_host(lua_State *L, struct ip_error_detail *detail) {
  ip_error_set_subject(L, detail->error.code == EAI_SERVICE ? 2 : 1, detail);
}

static int look_up_addresses(lua_State *L, const struct ip_operation_type *type, int family) {
  struct ip_runtime *runtime = ip_runtime(L);
  /* without a socket type, every address would come once for each type */
  struct question question = {
      .hints = {.ai_family = family, .ai_socktype = SOCK_DGRAM, .ai_protocol = IPPROTO_UDP}};
  lua_settop(L, 3);
  question.hints.ai_flags = ip_address_info_flag_check_addresses(L, 3);
  read_service(L, 2, &question);
  read_host(L, 1, &question);
  ip_operation_check(L, runtime, type);
  if (question.refusal != 0)
    return ip_operation_raise(L, type, IP_ERROR_RESOLVER, ip_failure(question.refusal));
  struct ip_lookup *lookup = ip_lookup_push(L);
  int status;
  if (try_at_once(lookup, &question, &status)) return ip_lookup_answer(L, type, lookup, status);
  struct ip_operation *operation = ip_lookup_acquire(L, type);
  status = uv_getaddrinfo(runtime->loop, &lookup->request.addresses, ip_lookup_on_addresses, question.host,
                          question.service, &question.hints);
  return ip_lookup_suspend(L, lookup, operation, status_of_start(status));
}

/* ip.udp.get_address_info(host, service[, flags]) -> list of {address, port, canonical_name}
   host: ip.address, string (a name, or an address as text), or nil with the flag passive. service: string (a
   name, or a number as text), integer 0..65535, or nil, which is port 0. flags: or-combination of
   ip.address_info_flag. Results in the resolver's order, each once. A host that is an address is answered at
   once, if the service is a number. Raises EAI_NONAME (no such host), EAI_SERVICE, EAI_AGAIN, EAI_FAIL,
   EAI_ADDRFAMILY and other errors of getaddrinfo(3); EMFILE, ENFILE and other system errors; ETIMEDOUT of
   with_timeout. Suspends: yes, while a thread looks it up. Source: getaddrinfo(3), RFC 3493 section 6.1. */
static int resolver_get_address_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_address_info",
                                                .unlinked = ip_lookup_cancel,
                                                .push_results = push_addresses,
                                                .describe = describe_host};
  return look_up_addresses(L, &type, AF_UNSPEC);
}

/* ip.udp.get_address_v4_info(host, service[, flags]) -> list: get_address_info for v4 addresses only.
   Suspends: yes. */
static int resolver_get_address_v4_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_address_v4_info",
                                                .unlinked = ip_lookup_cancel,
                                                .push_results = push_addresses,
                                                .describe = describe_host};
  return look_up_addresses(L, &type, AF_INET);
}

/* ip.udp.get_address_v6_info(host, service[, flags]) -> list: get_address_info for v6 addresses only; with
   v4_mapped also v4 addresses in that form. Suspends: yes. */
static int resolver_get_address_v6_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_address_v6_info",
                                                .unlinked = ip_lookup_cancel,
                                                .push_results = push_addresses,
                                                .describe = describe_host};
  return look_up_addresses(L, &type, AF_INET6);
}

/* --- names of an address --- */

static int push_names(lua_State *L, struct ip_result *result) {
  struct ip_lookup *lookup = ip_lookup_of(result);
  lua_createtable(L, 1, 0);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, lookup->request.names.host);
  lua_setfield(L, -2, "host_name");
  lua_pushstring(L, lookup->request.names.service);
  lua_setfield(L, -2, "service_name");
  lua_rawseti(L, -2, 1);
  ip_lookup_free(lookup);
  return 1;
}

/* Names the endpoint of a look-up of names in its errors. */
static void describe_names(lua_State *L, struct ip_error_detail *detail) {
  struct ip_address address;
  const struct ip_address *object = ip_test_class(L, 1, IP_CLASS_ADDRESS);
  size_t length;
  const char *text = lua_tolstring(L, 1, &length);
  if (object != NULL)
    address = *object;
  else if (text == NULL || ip_address_parse(&address, text, length) != NULL)
    return;
  ip_error_set_endpoint(detail, &address, (uint16_t)lua_tointeger(L, 2));
}

enum { NUMBERS_ONLY = NI_NUMERICHOST | NI_NUMERICSERV };

/* ip.udp.get_name_info(address, port[, flags]) -> list of one {host_name, service_name}
   address: ip.address or its text. port: integer 0..65535. flags: or-combination of name_required,
   numeric_host and numeric_service of ip.address_info_flag. An address or a port without a name is returned
   as text in numbers; with name_required such an address is EAI_NONAME. Raises EAI_AGAIN, EAI_FAIL and other
   errors of getnameinfo(3), EMFILE, ENFILE, ETIMEDOUT of with_timeout. Suspends: yes, unless both numbers are
   asked for. Source: getnameinfo(3) with NI_DGRAM: the service is one of UDP. */
static int resolver_get_name_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_name_info",
                                                .unlinked = ip_lookup_cancel,
                                                .push_results = push_names,
                                                .describe = describe_names};
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_address address;
  struct ip_endpoint endpoint;
  ip_address_argument(L, 1, &address);
  ip_endpoint_set(&endpoint, address.version == 6 ? AF_INET6 : AF_INET, &address, ip_argument_port(L, 2));
  int flags = ip_address_info_flag_check_names(L, 3) | NI_DGRAM;
  ip_operation_check(L, runtime, &type);
  struct ip_lookup *lookup = ip_lookup_push(L);
  uv_getnameinfo_t *request = &lookup->request.names;
  if ((flags & NUMBERS_ONLY) == NUMBERS_ONLY) {
    int status = uv_getnameinfo(runtime->loop, request, NULL, &endpoint.name.any, flags);
    return ip_lookup_answer(L, &type, lookup, status);
  }
  struct ip_operation *operation = ip_lookup_acquire(L, &type);
  int status = uv_getnameinfo(runtime->loop, request, ip_lookup_on_names, &endpoint.name.any, flags);
  return ip_lookup_suspend(L, lookup, operation, status);
}

/* --- this machine --- */

/* ip.host_name() -> string: the name of this machine. Raises the errors of gethostname(2). Suspends: no.
   Source: gethostname(2). */
static int resolver_host_name(lua_State *L) {
  char name[UV_MAXHOSTNAMESIZE];
  size_t size = sizeof name;
  int status = uv_os_gethostname(name, &size);
  if (status != 0) return ip_error_raise(L, -status, "host_name");
  lua_pushlstring(L, name, size);
  return 1;
}

/* --- registration --- */

static const luaL_Reg functions[] = {
    {"get_address_info", resolver_get_address_info},
    {"get_address_v4_info", resolver_get_address_v4_info},
    {"get_address_v6_info", resolver_get_address_v6_info},
    {"get_name_info", resolver_get_name_info},
    {"host_name", resolver_host_name},
    {NULL, NULL},
};

void ip_resolver_add_functions(lua_State *L, int core) {
  core = lua_absindex(L, core);
  lua_pushvalue(L, core);
  ip_lookup_open(L, core);
  luaL_setfuncs(L, functions, 2);
  ip_address_info_flag_push(L, core);
  lua_setfield(L, -2, "address_info_flag");
}
