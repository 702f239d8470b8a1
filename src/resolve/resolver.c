/* resolver.c: get_address_info, get_address_v4_info, get_address_v6_info, get_name_info, host_name.

   A look-up runs in libuv's thread pool. Its memory is malloc'ed and has two owners one after the other: libuv
   from the successful start until the callback, then a box (userdata) in the frame of the call that waits. Where
   nobody waits any more before the callback comes, the box forgets the look-up and the callback frees it. So
   neither the look-up nor the system's list of results is leaked, whether the call is withdrawn, memory is short
   or the state ends.

   Raises bad-argument errors, errors of the categories resolver and system, and memory errors. */
#include "resolve/resolver.h"

#include "base/util.h"
#include "binding/argument.h"
#include "loop/operation.h"
#include "value/address.h"

#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

/* --- a look-up and its box --- */

struct lookup_box;

struct lookup {
  struct ip_runtime *runtime;
  union {
    uv_req_t any;
    uv_getaddrinfo_t addresses;
    uv_getnameinfo_t names;
  } request;
  struct lookup_box *box;         /* NULL: nobody wants the result */
  struct ip_operation *operation; /* while `pending` and wanted */
  struct addrinfo *list;          /* the result of `addresses` */
  bool pending;                   /* libuv has it */
};

struct lookup_box {
  struct lookup *lookup;
};

/* libuv has let go of it. */
static void free_lookup(struct lookup *lookup) {
  if (lookup->box != NULL) lookup->box->lookup = NULL;
  uv_freeaddrinfo(lookup->list);
  free(lookup);
}

/* Nobody waits for a pending look-up any more: the callback frees it. One that has begun goes on in its thread,
   which nothing can stop (EBUSY); one that still queues for a thread is called back soon. */
static void forget_lookup(struct lookup *lookup) {
  lookup->box->lookup = NULL;
  lookup->box = NULL;
  lookup->operation->object = NULL;
  lookup->operation = NULL;
  uv_cancel(&lookup->request.any);
}

static int lookup_mt_gc(lua_State *L) {
  const struct lookup_box *box = lua_touserdata(L, 1);
  if (box->lookup == NULL) return 0;
  if (box->lookup->pending)
    forget_lookup(box->lookup);
  else
    free_lookup(box->lookup);
  return 0;
}

/* Pushes a box with a look-up that has not been started, or with NULL when memory is short. [-0, +1, m] */
static struct lookup *push_lookup(lua_State *L) {
  struct lookup_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->lookup = NULL;
  ip_class_set(L, IP_CLASS_LOOKUP);
  box->lookup = calloc(1, sizeof *box->lookup);
  if (box->lookup != NULL) box->lookup->box = box;
  return box->lookup;
}

/* --- what libuv reports --- */

static const struct {
  int status, code;
} resolver_codes[] = {
    {UV_EAI_AGAIN, EAI_AGAIN},
    {UV_EAI_BADFLAGS, EAI_BADFLAGS},
    {UV_EAI_FAIL, EAI_FAIL},
    {UV_EAI_FAMILY, EAI_FAMILY},
    {UV_EAI_MEMORY, EAI_MEMORY},
    {UV_EAI_NONAME, EAI_NONAME},
    {UV_EAI_OVERFLOW, EAI_OVERFLOW},
    {UV_EAI_SERVICE, EAI_SERVICE},
    {UV_EAI_SOCKTYPE, EAI_SOCKTYPE},
#ifdef EAI_ADDRFAMILY
    {UV_EAI_ADDRFAMILY, EAI_ADDRFAMILY},
#endif
#ifdef EAI_NODATA
    {UV_EAI_NODATA, EAI_NODATA},
#endif
    /* what <netdb.h> knows on some systems only, and the resolver never says about our hints */
    {UV_EAI_BADHINTS, EAI_FAIL},
    {UV_EAI_PROTOCOL, EAI_FAIL},
};

/* Ends the call with what a look-up has come to. EAI_SYSTEM arrives as the errno value behind it. No Lua. */
static void complete(struct ip_operation *operation, int status) {
  if (status == UV_EAI_CANCELED) status = UV_ECANCELED;
  for (size_t i = 0; i < ip_count_of(resolver_codes); i++)
    if (resolver_codes[i].status == status) {
      ip_operation_complete(operation, IP_ERROR_RESOLVER, ip_failure(resolver_codes[i].code));
      return;
    }
  ip_operation_complete_with(operation, -status);
}

/* The common end of both callbacks. A look-up that was started while the state was ending has a box without a
   finalizer: nobody will read its result. */
static void finish(struct lookup *lookup, int status) {
  struct ip_operation *operation = lookup->operation;
  lookup->pending = false;
  lookup->operation = NULL;
  ip_runtime_handle_closed(lookup->runtime);
  if (operation != NULL) operation->object = NULL;
  bool wanted = operation != NULL && !operation->runtime->closed;
  if (status != 0 || !wanted) free_lookup(lookup);
  if (wanted) complete(operation, status);
}

static void on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
  struct lookup *lookup = ip_container_of(request, struct lookup, request.addresses);
  lookup->list = list;
  /* EAI_SYSTEM with an errno of 0 looks like a success without a result */
  finish(lookup, status == 0 && list == NULL ? UV_EAI_FAIL : status);
}

static void on_names(uv_getnameinfo_t *request, int status, const char *host, const char *service) {
  (void)host; /* they are in the request */
  (void)service;
  finish(ip_container_of(request, struct lookup, request.names), status);
}

/* --- suspending --- */

/* The operation leaves ARMED before the callback has come. */
static void unlink_lookup(struct ip_operation *operation) {
  forget_lookup(operation->object);
}

/* Suspends in a look-up that libuv has taken or, where `status` is not 0, refused. [-0, +?, e] */
static int suspend_in(lua_State *L, struct lookup *lookup, struct ip_operation *operation, int status) {
  if (status != 0) {
    free_lookup(lookup);
    complete(operation, status);
    return ip_operation_suspend(L, operation);
  }
  lookup->pending = true;
  lookup->runtime = operation->runtime;
  ip_runtime_handle_opened(lookup->runtime);
  lookup->operation = operation;
  operation->object = lookup;
  operation->payload.lookup.box = lookup->box; /* in the frame until the results have been pushed */
  ip_operation_wait_externally(operation);
  return ip_operation_suspend(L, operation);
}

/* --- addresses of a name --- */

static const struct {
  const char *name;
  int flag;
} address_info_flags[] = {
    {"address_configured", AI_ADDRCONFIG},
    {"all_matching", AI_ALL},
    {"canonical_name", AI_CANONNAME},
    {"passive", AI_PASSIVE},
    {"v4_mapped", AI_V4MAPPED},
};

struct question {
  const char *host; /* NULL: this machine */
  const char *service;
  struct addrinfo hints;
  int refusal; /* EAI_ code of what is no name at all, or 0 */
};

static void read_flags(lua_State *L, int arg, struct question *question) {
  lua_Integer flags = ip_argument_optional_integer(L, arg, 0, INT_MAX, 0);
  lua_Integer known = 0;
  for (size_t i = 0; i < ip_count_of(address_info_flags); i++)
    known |= address_info_flags[i].flag;
  ip_argument_check(L, (flags & ~known) == 0, arg, "not a combination of ip.address_info_flag values");
  question->hints.ai_flags = (int)flags;
}

/* The text of a name: a zero byte would end it early. [-0, +0, v] */
static const char *check_text(lua_State *L, int arg, size_t *length) {
  const char *text = lua_tolstring(L, arg, length);
  ip_argument_check(L, strlen(text) == *length, arg, "a zero byte in a name");
  return text;
}

/* libuv writes the ASCII form of a name into 256 bytes; before 1.48 it cuts a longer one without telling, and
   without a '\0'. A name of 63 bytes cannot become longer than that, whatever characters it has. */
enum { LONGEST_ASCII_NAME = 255, LONGEST_OTHER_NAME = 63 };

static bool is_possible_name(const char *text, size_t length) {
  size_t longest = LONGEST_ASCII_NAME;
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] > 127) longest = LONGEST_OTHER_NAME;
  return length > 0 && length <= longest;
}

/* Replaces the address at `arg` by its text. The scope as a number: a name might have characters that libuv
   takes for an international name's. [-0, +0, m] */
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

/* A service name has a letter (RFC 6335 section 5.1). What has none is a port number for the system too, which
   takes signs and spaces for part of it and wraps what is too large: 70000 would be port 4464. */
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

/* Has an earlier member of the list the same address? glibc gives ::1 and 127.0.0.1 of /etc/hosts both as
   127.0.0.1. */
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

/* The resolver tells the canonical name in the first member alone; it is that of all. */
static int push_addresses(lua_State *L, struct ip_result *result) {
  struct lookup *lookup = ((struct lookup_box *)result->payload.lookup.box)->lookup;
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
  free_lookup(lookup);
  return 1;
}

static int look_up_addresses(lua_State *L, const struct ip_operation_type *type, int family) {
  struct ip_runtime *runtime = ip_runtime(L);
  /* one socket type, or every address would come once for each */
  struct question question = {
      .hints = {.ai_family = family, .ai_socktype = SOCK_DGRAM, .ai_protocol = IPPROTO_UDP}};
  lua_settop(L, 3);
  read_flags(L, 3, &question);
  read_service(L, 2, &question);
  read_host(L, 1, &question);
  ip_operation_check(L, runtime, type);
  if (question.refusal != 0) {
    ip_error_push(L, IP_ERROR_RESOLVER, question.refusal, type->name);
    return ip_error_throw(L);
  }
  struct lookup *lookup = push_lookup(L);
  if (lookup == NULL) return ip_error_memory(L);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, type, IP_NEVER, false);
  int status = uv_getaddrinfo(runtime->loop, &lookup->request.addresses, on_addresses, question.host,
                              question.service, &question.hints);
  /* there is a host or a service: what libuv finds invalid is the name (no UTF-8, or too long) */
  return suspend_in(L, lookup, operation, status == UV_EINVAL ? UV_EAI_NONAME : status);
}

/* ip.udp.get_address_info(host, service[, flags]) -> list of {address, port, canonical_name}
   host: ip.address, string (a name, or an address as text), or nil with the flag passive. service: string (a
   name, or a number as text), integer 0..65535, or nil, which is port 0. flags: or-combination of
   ip.address_info_flag. Results in the resolver's order, each once. Raises EAI_NONAME (no such host), EAI_SERVICE,
   EAI_AGAIN, EAI_FAIL, EAI_ADDRFAMILY and what else getaddrinfo(3) reports, system errors, ETIMEDOUT of
   with_timeout. Suspends: yes, always. Source: getaddrinfo(3), RFC 3493 section 6.1. */
static int resolver_get_address_info(lua_State *L) {
  static const struct ip_operation_type type = {
      .name = "get_address_info", .unlinked = unlink_lookup, .push_results = push_addresses};
  return look_up_addresses(L, &type, AF_UNSPEC);
}

/* ip.udp.get_address_v4_info(host, service[, flags]) -> list: likewise, v4 addresses only. Suspends: yes. */
static int resolver_get_address_v4_info(lua_State *L) {
  static const struct ip_operation_type type = {
      .name = "get_address_v4_info", .unlinked = unlink_lookup, .push_results = push_addresses};
  return look_up_addresses(L, &type, AF_INET);
}

/* ip.udp.get_address_v6_info(host, service[, flags]) -> list: likewise, v6 addresses only; with v4_mapped also
   v4 addresses in that form. Suspends: yes. */
static int resolver_get_address_v6_info(lua_State *L) {
  static const struct ip_operation_type type = {
      .name = "get_address_v6_info", .unlinked = unlink_lookup, .push_results = push_addresses};
  return look_up_addresses(L, &type, AF_INET6);
}

/* --- names of an address --- */

static int push_names(lua_State *L, struct ip_result *result) {
  struct lookup *lookup = ((struct lookup_box *)result->payload.lookup.box)->lookup;
  lua_createtable(L, 1, 0);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, lookup->request.names.host);
  lua_setfield(L, -2, "host_name");
  lua_pushstring(L, lookup->request.names.service);
  lua_setfield(L, -2, "service_name");
  lua_rawseti(L, -2, 1);
  free_lookup(lookup);
  return 1;
}

/* ip.udp.get_name_info(address, port) -> list of one {host_name, service_name}
   address: ip.address or its text. port: integer 0..65535. What has no name is given as a number in text. Raises
   EAI_AGAIN, EAI_FAIL and what else getnameinfo(3) reports, ETIMEDOUT of with_timeout. Suspends: yes, always.
   Source: getnameinfo(3) with NI_DGRAM: the service is one of UDP. */
static int resolver_get_name_info(lua_State *L) {
  static const struct ip_operation_type type = {
      .name = "get_name_info", .unlinked = unlink_lookup, .push_results = push_names};
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_address address;
  struct ip_endpoint endpoint;
  ip_address_argument(L, 1, &address);
  ip_endpoint_set(&endpoint, address.version == 6 ? AF_INET6 : AF_INET, &address, ip_argument_port(L, 2));
  ip_operation_check(L, runtime, &type);
  struct lookup *lookup = push_lookup(L);
  if (lookup == NULL) return ip_error_memory(L);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &type, IP_NEVER, false);
  int status = uv_getnameinfo(runtime->loop, &lookup->request.names, on_names, &endpoint.name.any, NI_DGRAM);
  return suspend_in(L, lookup, operation, status);
}

/* --- this machine --- */

/* ip.host_name() -> string: what this machine calls itself. Raises what gethostname(2) reports. Suspends: no.
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

static const luaL_Reg metamethods[] = {{"__gc", lookup_mt_gc}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"get_address_info", resolver_get_address_info},
    {"get_address_v4_info", resolver_get_address_v4_info},
    {"get_address_v6_info", resolver_get_address_v6_info},
    {"get_name_info", resolver_get_name_info},
    {"host_name", resolver_host_name},
    {NULL, NULL},
};

static void push_address_info_flags(lua_State *L) {
  lua_newtable(L);
  for (size_t i = 0; i < ip_count_of(address_info_flags); i++) {
    lua_pushinteger(L, address_info_flags[i].flag);
    lua_setfield(L, -2, address_info_flags[i].name);
  }
}

void ip_resolver_add_functions(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.udp.lookup",
      .id = IP_CLASS_LOOKUP,
      .metamethods = metamethods,
  };
  ip_class_define(L, core, &definition);
  ip_class_functions(L, core, functions);
  push_address_info_flags(L);
  lua_setfield(L, -2, "address_info_flag");
}
