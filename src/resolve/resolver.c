/* resolver.c: get_address_info, get_address_v4_info, get_address_v6_info, get_name_info, host_name.

   A look-up runs in libuv's thread pool. Its memory is malloc'ed and has two owners, one after the other:
   libuv from the successful start until the callback, then a box (userdata) in the frame of the waiting call.
   Where the call ends before the callback comes, the box drops the look-up, and the callback frees it. So
   neither the look-up nor the system's list of results is leaked when a call is cancelled, when memory is
   short, or when the state closes.

   Raises bad-argument errors, errors of the categories resolver and system, and memory errors. */
#include "resolve/resolver.h"

#include "base/util.h"
#include "binding/argument.h"
#include "loop/fork.h"
#include "loop/operation.h"
#include "resolve/thread_probe.h"
#include "value/address.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

/* --- a look-up and its box --- */

struct lookup_box;

struct lookup {
  struct ip_resource resource; /* while `pending`, and not `lost` */
  struct ip_runtime *runtime;
  union {
    uv_req_t any;
    uv_getaddrinfo_t addresses;
    uv_getnameinfo_t names;
  } request;
  struct lookup_box *box;         /* NULL: the call has ended, the callback frees the look-up */
  struct ip_operation *operation; /* of the waiting call, while `pending`; else NULL */
  struct addrinfo *list;          /* the result of `addresses` */
  bool pending;                   /* libuv owns it */
  bool lost;                      /* the parent's thread works on it: this process was forked */
};

struct lookup_box {
  struct lookup *lookup;
};

/* Frees a look-up that libuv does not own. */
static void free_lookup(struct lookup *lookup) {
  if (lookup->box != NULL) lookup->box->lookup = NULL;
  uv_freeaddrinfo(lookup->list);
  free(lookup);
}

/* Lets the callback free a pending look-up whose call has ended. A look-up that still waits for a thread is
   cancelled, and its callback comes soon; a look-up that a thread has begun runs to its end (uv_cancel fails
   with EBUSY). */
static void drop_lookup(struct lookup *lookup) {
  lookup->box->lookup = NULL;
  lookup->box = NULL;
  lookup->operation->object = NULL;
  lookup->operation = NULL;
  if (!lookup->lost && !ip_fork_happened(lookup->runtime))
    (void)uv_cancel(&lookup->request.any); /* EBUSY: see above */
}

static int lookup_mt_gc(lua_State *L) {
  const struct lookup_box *box = lua_touserdata(L, 1);
  if (box->lookup == NULL) return 0;
  if (box->lookup->pending)
    drop_lookup(box->lookup);
  else
    free_lookup(box->lookup);
  return 0;
}

/* Pushes a box with a look-up that has not been started. [-0, +1, v] */
static struct lookup *push_lookup(lua_State *L) {
  struct lookup_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->lookup = NULL;
  ip_class_set(L, IP_CLASS_LOOKUP);
  box->lookup = calloc(1, sizeof *box->lookup);
  if (box->lookup == NULL) ip_error_memory(L);
  box->lookup->box = box;
  return box->lookup;
}

/* --- results from libuv --- */

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
    /* <netdb.h> has these codes on some systems only, and the resolver never reports them for the hints used
       here */
    {UV_EAI_BADHINTS, EAI_FAIL},
    {UV_EAI_PROTOCOL, EAI_FAIL},
};

/* Completes an operation with the status of its look-up. EAI_SYSTEM arrives as the errno value behind it.
   Calls no Lua. */
static void complete(struct ip_operation *operation, int status) {
  if (status == UV_EAI_CANCELED) status = UV_ECANCELED;
  for (size_t i = 0; i < ip_count_of(resolver_codes); i++)
    if (resolver_codes[i].status == status) {
      ip_operation_complete(operation, IP_ERROR_RESOLVER, ip_failure(resolver_codes[i].code));
      return;
    }
  ip_operation_complete_with(operation, -status);
}

/* libuv does not have the request any more, or is never going to answer it. */
static void end_request(struct lookup *lookup) {
  ip_queue_remove(&lookup->resource.link);
  ip_runtime_handle_closed(lookup->runtime);
}

/* At the end of the state the callback is waited for. */
static void leave_to_callback(struct ip_resource *resource) {
  ip_queue_remove(&resource->link);
}

/* No thread has come along to the child of a fork. What a thread had finished before is delivered by a host's
   loop, and freed then; of the others nobody hears again, and the memory stays with libuv's queues. */
static void lose(struct ip_resource *resource) {
  struct lookup *lookup = ip_container_of(resource, struct lookup, resource);
  struct ip_runtime *runtime = lookup->runtime;
  bool finished = lookup->request.addresses.work_req.work == NULL;
  end_request(lookup);
  lookup->lost = true;
  if (!finished || runtime->loop == &runtime->own_loop) runtime->loop->active_reqs.count--;
  if (lookup->operation != NULL) ip_operation_complete_with(lookup->operation, ECANCELED);
}

static const struct ip_resource_type lookup_resource = {
    .name = "look-up", .close = leave_to_callback, .forked = lose};

/* The common part of both callbacks. Where a look-up was started while the state was closing, Lua does not
   call the box's finalizer any more: then the look-up is freed here. */
static void finish(struct lookup *lookup, int status) {
  struct ip_operation *operation = lookup->operation;
  lookup->pending = false;
  lookup->operation = NULL;
  if (!lookup->lost) end_request(lookup);
  if (operation != NULL) operation->object = NULL;
  bool wanted = operation != NULL && !operation->runtime->closed;
  if (status != 0 || !wanted) free_lookup(lookup);
  if (wanted) complete(operation, status);
}

static void on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
  struct lookup *lookup = ip_container_of(request, struct lookup, request.addresses);
  lookup->list = list;
  /* EAI_SYSTEM with an errno value of 0 arrives as a success without a list */
  finish(lookup, status == 0 && list == NULL ? UV_EAI_FAIL : status);
}

static void on_names(uv_getnameinfo_t *request, int status, const char *host, const char *service) {
  (void)host; /* push_names reads both from the request */
  (void)service;
  finish(ip_container_of(request, struct lookup, request.names), status);
}

/* --- suspending --- */

/* The operation ends before the callback has come. */
static void cancel_lookup(struct ip_operation *operation) {
  drop_lookup(operation->object);
}

/* The first look-up of a process makes libuv's threads. [-0, +0, v] */
static void check_threads(lua_State *L, struct ip_runtime *runtime, const struct ip_operation_type *type) {
  if (runtime->has_threads) return;
  int error = ip_thread_probe();
  if (error != 0) ip_error_raise(L, error, type->name);
  runtime->has_threads = true;
}

/* Suspends until a look-up ends that libuv has accepted or, where `status` is not 0, refused. [-0, +?, e] */
static int suspend_until_found(lua_State *L, struct lookup *lookup, struct ip_operation *operation,
                               int status) {
  if (status != 0) {
    free_lookup(lookup);
    complete(operation, status);
    return ip_operation_suspend(L, operation);
  }
  lookup->pending = true;
  lookup->runtime = operation->runtime;
  ip_runtime_handle_opened(lookup->runtime);
  ip_fork_note_threads();
  ip_runtime_add_resource(lookup->runtime, &lookup->resource, &lookup_resource);
  lookup->operation = operation;
  operation->object = lookup;
  operation->payload.lookup.box =
      lookup->box; /* it stays on the call's stack until the results have been pushed */
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

/* The arguments of get_address_info. */
struct question {
  const char *host; /* NULL: this machine */
  const char *service;
  struct addrinfo hints;
  int refusal; /* EAI_ code of an argument that cannot be a name, or 0 */
};

static void read_flags(lua_State *L, int arg, struct question *question) {
  lua_Integer flags = ip_argument_optional_integer(L, arg, 0, INT_MAX, 0);
  lua_Integer known = 0;
  for (size_t i = 0; i < ip_count_of(address_info_flags); i++)
    known |= address_info_flags[i].flag;
  ip_argument_check(L, (flags & ~known) == 0, arg, "not a combination of ip.address_info_flag values");
  question->hints.ai_flags = (int)flags;
}

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

/* Names the host that was looked up. */
static void describe_host(lua_State *L, struct ip_error_detail *detail) {
  ip_error_set_subject(L, 1, detail);
}

static int look_up_addresses(lua_State *L, const struct ip_operation_type *type, int family) {
  struct ip_runtime *runtime = ip_runtime(L);
  /* without a socket type, every address would come once for each type */
  struct question question = {
      .hints = {.ai_family = family, .ai_socktype = SOCK_DGRAM, .ai_protocol = IPPROTO_UDP}};
  lua_settop(L, 3);
  read_flags(L, 3, &question);
  read_service(L, 2, &question);
  read_host(L, 1, &question);
  ip_operation_check(L, runtime, type);
  if (question.refusal != 0) {
    return ip_operation_raise(L, type, IP_ERROR_RESOLVER, ip_failure(question.refusal));
  }
  check_threads(L, runtime, type);
  struct lookup *lookup = push_lookup(L);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, type, IP_NEVER, false);
  int status = uv_getaddrinfo(runtime->loop, &lookup->request.addresses, on_addresses, question.host,
                              question.service, &question.hints);
  /* there is a host or a service, so UV_EINVAL is about the name: it is not UTF-8, or too long */
  return suspend_until_found(L, lookup, operation, status == UV_EINVAL ? UV_EAI_NONAME : status);
}

/* ip.udp.get_address_info(host, service[, flags]) -> list of {address, port, canonical_name}
   host: ip.address, string (a name, or an address as text), or nil with the flag passive. service: string (a
   name, or a number as text), integer 0..65535, or nil, which is port 0. flags: or-combination of
   ip.address_info_flag. Results in the resolver's order, each once. Raises EAI_NONAME (no such host),
   EAI_SERVICE, EAI_AGAIN, EAI_FAIL, EAI_ADDRFAMILY and other errors of getaddrinfo(3), system errors,
   ETIMEDOUT of with_timeout. Suspends: yes, always. Source: getaddrinfo(3), RFC 3493 section 6.1. */
static int resolver_get_address_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_address_info",
                                                .unlinked = cancel_lookup,
                                                .push_results = push_addresses,
                                                .describe = describe_host};
  return look_up_addresses(L, &type, AF_UNSPEC);
}

/* ip.udp.get_address_v4_info(host, service[, flags]) -> list: get_address_info for v4 addresses only.
   Suspends: yes. */
static int resolver_get_address_v4_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_address_v4_info",
                                                .unlinked = cancel_lookup,
                                                .push_results = push_addresses,
                                                .describe = describe_host};
  return look_up_addresses(L, &type, AF_INET);
}

/* ip.udp.get_address_v6_info(host, service[, flags]) -> list: get_address_info for v6 addresses only; with
   v4_mapped also v4 addresses in that form. Suspends: yes. */
static int resolver_get_address_v6_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_address_v6_info",
                                                .unlinked = cancel_lookup,
                                                .push_results = push_addresses,
                                                .describe = describe_host};
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

/* ip.udp.get_name_info(address, port) -> list of one {host_name, service_name}
   address: ip.address or its text. port: integer 0..65535. An address or a port without a name is returned as
   text in numbers. Raises EAI_AGAIN, EAI_FAIL and other errors of getnameinfo(3), ETIMEDOUT of with_timeout.
   Suspends: yes, always. Source: getnameinfo(3) with NI_DGRAM: the service is one of UDP. */
static int resolver_get_name_info(lua_State *L) {
  static const struct ip_operation_type type = {.name = "get_name_info",
                                                .unlinked = cancel_lookup,
                                                .push_results = push_names,
                                                .describe = describe_names};
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_address address;
  struct ip_endpoint endpoint;
  ip_address_argument(L, 1, &address);
  ip_endpoint_set(&endpoint, address.version == 6 ? AF_INET6 : AF_INET, &address, ip_argument_port(L, 2));
  ip_operation_check(L, runtime, &type);
  check_threads(L, runtime, &type);
  struct lookup *lookup = push_lookup(L);
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &type, IP_NEVER, false);
  int status = uv_getnameinfo(runtime->loop, &lookup->request.names, on_names, &endpoint.name.any, NI_DGRAM);
  return suspend_until_found(L, lookup, operation, status);
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
