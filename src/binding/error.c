/* error.c: ip.error values.

   Owns nothing: a value is a userdata of its own. Values are immutable, and two of them are equal when their
   category and code are. Names and messages come from libuv where it has them. Raises memory errors, and what
   callers ask ip_error_raise and ip_error_fail to raise. */
#include "binding/error.h"

#include "base/util.h"
#include "binding/class.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

struct description {
  int code;
  const char *name;
  const char *message;
};

/* libuv makes up a number from 3000 on for each code that a system lacks (uv/errno.h); those are no errno
   values. So does this file for the names that libuv does not know: no error that is raised has such a code,
   and a program may still compare with the name. */
enum { FIRST_MADE_UP_CODE = 3000, FIRST_CODE_OF_THIS_FILE = 5000 };

#define DESCRIBE_UV(name, message) {-(UV_##name), #name, message},

#ifndef ENODATA
#define ENODATA (FIRST_CODE_OF_THIS_FILE + 0)
#endif
#ifndef ETIME
#define ETIME (FIRST_CODE_OF_THIS_FILE + 1)
#endif
#ifndef ENOLINK
#define ENOLINK (FIRST_CODE_OF_THIS_FILE + 2)
#endif
#ifndef ENOSR
#define ENOSR (FIRST_CODE_OF_THIS_FILE + 3)
#endif
#ifndef ENOSTR
#define ENOSTR (FIRST_CODE_OF_THIS_FILE + 4)
#endif
#ifndef EMULTIHOP
#define EMULTIHOP (FIRST_CODE_OF_THIS_FILE + 5)
#endif
#ifndef EOWNERDEAD
#define EOWNERDEAD (FIRST_CODE_OF_THIS_FILE + 6)
#endif
#ifndef ENOTRECOVERABLE
#define ENOTRECOVERABLE (FIRST_CODE_OF_THIS_FILE + 7)
#endif
#ifndef EAI_NODATA
#define EAI_NODATA (FIRST_CODE_OF_THIS_FILE + 20)
#endif
#ifndef EAI_ADDRFAMILY
#define EAI_ADDRFAMILY (FIRST_CODE_OF_THIS_FILE + 21)
#endif
#ifndef EAI_CANCELED
#define EAI_CANCELED (FIRST_CODE_OF_THIS_FILE + 22)
#endif

static const struct description system_errors[] = {
    UV_ERRNO_MAP(DESCRIBE_UV)
    /* codes that libuv has no name for */
    {EINPROGRESS, "EINPROGRESS", "operation now in progress"},
    {ENETRESET, "ENETRESET", "network dropped connection on reset"},
    {EDEADLK, "EDEADLK", "resource deadlock avoided"},
    {ECHILD, "ECHILD", "no child processes"},
    {ENOLCK, "ENOLCK", "no locks available"},
    {ENOEXEC, "ENOEXEC", "exec format error"},
    {ENOMSG, "ENOMSG", "no message of desired type"},
    {EIDRM, "EIDRM", "identifier removed"},
    {EDOM, "EDOM", "numerical argument out of domain"},
    {EBADMSG, "EBADMSG", "bad message"},
    {ESTALE, "ESTALE", "stale file handle"},
    {EDQUOT, "EDQUOT", "disk quota exceeded"},
    {EUSERS, "EUSERS", "too many users"},
    {ETOOMANYREFS, "ETOOMANYREFS", "too many references"},
    {EPFNOSUPPORT, "EPFNOSUPPORT", "protocol family not supported"},
    {ENOTBLK, "ENOTBLK", "block device required"},
    {ENODATA, "ENODATA", "no data available"},
    {ETIME, "ETIME", "timer expired"},
    {ENOLINK, "ENOLINK", "link has been severed"},
    {ENOSR, "ENOSR", "out of streams resources"},
    {ENOSTR, "ENOSTR", "device not a stream"},
    {EMULTIHOP, "EMULTIHOP", "multihop attempted"},
    {EOWNERDEAD, "EOWNERDEAD", "owner died"},
    {ENOTRECOVERABLE, "ENOTRECOVERABLE", "state not recoverable"},
};

static const struct description resolver_errors[] = {
    {EAI_AGAIN, "EAI_AGAIN", "temporary failure in name resolution"},
    {EAI_BADFLAGS, "EAI_BADFLAGS", "bad flags"},
    {EAI_FAIL, "EAI_FAIL", "permanent failure in name resolution"},
    {EAI_FAMILY, "EAI_FAMILY", "address family not supported"},
    {EAI_MEMORY, "EAI_MEMORY", "out of memory"},
    {EAI_NONAME, "EAI_NONAME", "unknown name or service"},
    {EAI_OVERFLOW, "EAI_OVERFLOW", "argument buffer overflow"},
    {EAI_SERVICE, "EAI_SERVICE", "service not available for socket type"},
    {EAI_SOCKTYPE, "EAI_SOCKTYPE", "socket type not supported"},
    {EAI_SYSTEM, "EAI_SYSTEM", "system error"},
    {EAI_NODATA, "EAI_NODATA", "no address"},
    {EAI_ADDRFAMILY, "EAI_ADDRFAMILY", "no address of the requested family"},
    {EAI_CANCELED, "EAI_CANCELED", "request canceled"},
};

static const struct description fiber_errors[] = {
    {IP_FIBER_INTERRUPTED, "INTERRUPTED", "interrupted"},
};

/* Both names of a pair are one number on some systems. Error values have `name`; ip.error knows both. */
static const struct {
  const char *alias, *name;
} aliases[] = {{"EWOULDBLOCK", "EAGAIN"}, {"EOPNOTSUPP", "ENOTSUP"}};

static const struct {
  const char *name;
  const struct description *errors;
  size_t count;
} categories[IP_ERROR_CATEGORY_COUNT] = {
    [IP_ERROR_SYSTEM] = {"system", system_errors, ip_count_of(system_errors)},
    [IP_ERROR_RESOLVER] = {"resolver", resolver_errors, ip_count_of(resolver_errors)},
    [IP_ERROR_FIBER] = {"fiber", fiber_errors, ip_count_of(fiber_errors)},
    [IP_ERROR_GENERIC] = {"generic", system_errors, ip_count_of(system_errors)},
};

static const struct description *describe(enum ip_error_category category, int code) {
  for (size_t i = 0; i < categories[category].count; i++) {
    const struct description *description = &categories[category].errors[i];
    if (description->code == code) return description;
  }
  return NULL;
}

static const struct description *find_name(enum ip_error_category category, const char *name) {
  for (size_t i = 0; i < categories[category].count; i++)
    if (strcmp(categories[category].errors[i].name, name) == 0) return &categories[category].errors[i];
  return NULL;
}

/* --- making and raising values --- */

_Static_assert(sizeof(struct ip_error) <= 24, "an error makes as little garbage as it can");

static struct ip_error *push(lua_State *L, size_t size, enum ip_error_category category, int code) {
  struct ip_error *error = lua_newuserdatauv(L, size, 0);
  memset(error, 0, size);
  error->category = (uint8_t)category;
  error->code = (int16_t)(code == EWOULDBLOCK ? EAGAIN : code == EOPNOTSUPP ? ENOTSUP : code);
  ip_class_set(L, IP_CLASS_ERROR);
  return error;
}

struct ip_error *ip_error_push(lua_State *L, enum ip_error_category category, int code,
                               const char *operation) {
  struct ip_error *error = push(L, sizeof *error, category, code);
  error->operation = operation;
  return error;
}

struct ip_error_detail *ip_error_push_detail(lua_State *L, enum ip_error_category category, int code,
                                             const char *operation) {
  struct ip_error_detail *detail = (struct ip_error_detail *)push(L, sizeof *detail, category, code);
  detail->error.operation = operation;
  detail->error.detailed = true;
  detail->sent = -1;
  return detail;
}

void ip_error_set_endpoint(struct ip_error_detail *detail, const struct ip_address *address, uint16_t port) {
  detail->address = *address;
  detail->port = port;
}

void ip_error_forget_endpoint(struct ip_error_detail *detail) {
  detail->address.version = 0;
  detail->error.to_port_0 = false;
  detail->hint = NULL;
}

int ip_error_throw_new(lua_State *L, struct ip_error *error) {
  struct ip_place place = ip_place_note(L);
  error->line = place.line;
  error->file = place.file;
  ip_error_throw(L);
}

int ip_error_raise(lua_State *L, int code, const char *operation) {
  ip_error_throw_new(L, ip_error_push(L, IP_ERROR_SYSTEM, code, operation));
}

void ip_error_set_subject(lua_State *L, int arg, struct ip_error_detail *detail) {
  const struct ip_address *address = ip_test_class(L, arg, IP_CLASS_ADDRESS);
  if (address != NULL) {
    ip_address_format(address, detail->subject);
    return;
  }
  int is_integer = 0;
  lua_Integer number = lua_type(L, arg) == LUA_TNUMBER ? lua_tointegerx(L, arg, &is_integer) : 0;
  if (is_integer) {
    (void)snprintf(detail->subject, sizeof detail->subject, LUA_INTEGER_FMT, number);
    return;
  }
  size_t length;
  const char *name = lua_type(L, arg) == LUA_TSTRING ? lua_tolstring(L, arg, &length) : NULL;
  if (name == NULL || length >= sizeof detail->subject) return;
  for (size_t i = 0; i < length; i++)
    if (!isprint((unsigned char)name[i])) return;
  memcpy(detail->subject, name, length);
}

static struct ip_error_detail *push_about(lua_State *L, int code, const char *operation, int arg,
                                          const char *hint) {
  if (arg != 0) arg = lua_absindex(L, arg); /* the detail comes on top */
  struct ip_error_detail *detail = ip_error_push_detail(L, IP_ERROR_SYSTEM, code, operation);
  if (arg != 0) ip_error_set_subject(L, arg, detail);
  detail->hint = hint;
  return detail;
}

int ip_error_raise_with_hint(lua_State *L, int code, const char *operation, const char *hint) {
  ip_error_throw_new(L, &push_about(L, code, operation, 0, hint)->error);
}

int ip_error_raise_about(lua_State *L, int code, const char *operation, int arg, const char *hint) {
  ip_error_throw_new(L, &push_about(L, code, operation, arg, hint)->error);
}

int ip_error_raise_similar(lua_State *L, int code, const char *operation, int arg, const char *similar) {
  struct ip_error_detail *detail = push_about(L, code, operation, arg, similar);
  detail->error.similar = true;
  ip_error_throw_new(L, &detail->error);
}

/* Registry: ip.error.EAGAIN. */
static const char again_key;

int ip_error_fail(lua_State *L, enum ip_error_mode mode, int code, const char *operation) {
  bool again = code == EAGAIN || code == EWOULDBLOCK;
  if (mode == IP_ERROR_RAISE || !again) return ip_error_raise(L, code, operation);
  lua_pushnil(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &again_key);
  return 2;
}

/* --- properties --- */

bool ip_error_is(lua_State *L, const void *core, int index, enum ip_error_category category, int code) {
  const struct ip_error *error = ip_test_class_of(L, core, index, IP_CLASS_ERROR);
  return error != NULL && error->category == category && error->code == code;
}

static const struct ip_error *check_error(lua_State *L) {
  return ip_check_class(L, 1, IP_CLASS_ERROR);
}

static void push_name(lua_State *L, const struct ip_error *error) {
  const struct description *description = describe(error->category, error->code);
  if (description != NULL)
    lua_pushstring(L, description->name);
  else
    lua_pushfstring(L, "error %d", error->code);
}

static void push_message(lua_State *L, const struct ip_error *error) {
  const struct description *description = describe(error->category, error->code);
  lua_pushstring(L, description != NULL ? description->message : "unknown error");
}

static int error_get_code(lua_State *L) {
  lua_pushinteger(L, check_error(L)->code);
  return 1;
}

static int error_get_name(lua_State *L) {
  push_name(L, check_error(L));
  return 1;
}

static int error_get_message(lua_State *L) {
  push_message(L, check_error(L));
  return 1;
}

static int error_get_category(lua_State *L) {
  lua_pushstring(L, categories[check_error(L)->category].name);
  return 1;
}

static int error_get_operation(lua_State *L) {
  lua_pushstring(L, check_error(L)->operation); /* NULL pushes nil */
  return 1;
}

static int error_get_mtu(lua_State *L) {
  int mtu = check_error(L)->mtu;
  if (mtu > 0)
    lua_pushinteger(L, mtu);
  else
    lua_pushnil(L);
  return 1;
}

static const struct ip_error_detail *detail_of(const struct ip_error *error) {
  return error->detailed ? (const struct ip_error_detail *)error : NULL;
}

/* Returns the detail if it has an endpoint, or NULL. */
static const struct ip_error_detail *endpoint_of(const struct ip_error *error) {
  const struct ip_error_detail *detail = detail_of(error);
  return detail != NULL && detail->address.version != 0 ? detail : NULL;
}

static int error_get_sent(lua_State *L) {
  const struct ip_error_detail *detail = detail_of(check_error(L));
  if (detail != NULL && detail->sent >= 0)
    lua_pushinteger(L, detail->sent);
  else
    lua_pushnil(L);
  return 1;
}

static void push_place(lua_State *L, const struct ip_error *error) {
  ip_place_push(L, (struct ip_place){error->line, error->file});
}

static int error_get_where(lua_State *L) {
  push_place(L, check_error(L));
  return 1;
}

static void push_address(lua_State *L, const struct ip_address *address) {
  *(struct ip_address *)lua_newuserdatauv(L, sizeof *address, 0) = *address;
  ip_class_set(L, IP_CLASS_ADDRESS);
}

static int error_get_address(lua_State *L) {
  const struct ip_error_detail *detail = endpoint_of(check_error(L));
  if (detail != NULL)
    push_address(L, &detail->address);
  else
    lua_pushnil(L);
  return 1;
}

static int error_get_port(lua_State *L) {
  const struct ip_error_detail *detail = endpoint_of(check_error(L));
  if (detail != NULL)
    lua_pushinteger(L, detail->port);
  else
    lua_pushnil(L);
  return 1;
}

/* The codes that concern one datagram, or the network as it is now. */
static bool concerns_one_datagram(const struct ip_error *error) {
  switch (error->code) {
  case ECONNREFUSED:
  case EHOSTUNREACH:
  case ENETUNREACH:
  case EHOSTDOWN:
  case ENETDOWN:
  case ENOBUFS:
  case ENOMEM:
  case EMSGSIZE:
  case EAGAIN:
  case ETIMEDOUT: return true;
  case EPERM: return error->of_send; /* a firewall's refusal */
  case EINVAL: return error->to_port_0;
  default: return false;
  }
}

/* err.transient -> boolean: a server goes on after it. False for the values in ip.error. */
static int error_get_transient(lua_State *L) {
  const struct ip_error *error = check_error(L);
  bool raised_by_system = error->category == IP_ERROR_SYSTEM && error->operation != NULL;
  lua_pushboolean(L, raised_by_system && !error->of_scope && concerns_one_datagram(error));
  return 1;
}

/* err:togeneric() -> error value of category "generic" with the same code; the error itself where its code is
   no errno value (categories "resolver" and "fiber"). Suspends: no. Source: Emilua. */
static int error_togeneric(lua_State *L) {
  const struct ip_error *error = check_error(L);
  if (error->category != IP_ERROR_SYSTEM) {
    lua_settop(L, 1);
    return 1;
  }
  size_t size = error->detailed ? sizeof(struct ip_error_detail) : sizeof *error;
  struct ip_error *generic = push(L, size, IP_ERROR_GENERIC, error->code);
  memcpy(generic, error, size);
  generic->category = IP_ERROR_GENERIC;
  return 1;
}

/* Adds the endpoint of the call, or the name that it is about. */
static void add_subject(luaL_Buffer *text, const struct ip_error *error) {
  const struct ip_error_detail *detail = endpoint_of(error);
  if (detail == NULL) {
    detail = detail_of(error);
    if (detail == NULL || detail->subject[0] == '\0') return;
    luaL_addstring(text, " '");
    luaL_addstring(text, detail->subject);
    luaL_addchar(text, '\'');
    return;
  }
  char endpoint[IP_ENDPOINT_TEXT_SIZE];
  size_t length = ip_address_format_with_port(&detail->address, detail->port, endpoint);
  luaL_addchar(text, ' ');
  luaL_addlstring(text, endpoint, length);
}

/* Does the system refuse a destination that may be a broadcast address? A route may refuse it, too. */
static bool may_be_broadcast(const struct ip_error *error) {
  const struct ip_error_detail *detail = endpoint_of(error);
  if (error->code != EACCES || detail == NULL || ip_address_unmapped(&detail->address).version != 4)
    return false;
  return error->of_send || strcmp(error->operation, "connect") == 0;
}

/* What is behind a code that says little by itself, or NULL. */
static const char *hint_of(const struct ip_error *error) {
  const struct ip_error_detail *detail = detail_of(error);
  if (detail != NULL && detail->hint != NULL) return detail->hint;
  if (error->operation == NULL || error->category != IP_ERROR_SYSTEM) return NULL;
  if (error->code == EAFNOSUPPORT && endpoint_of(error) != NULL) return "the socket is for IPv4 addresses";
  if (error->code == EDESTADDRREQ) return "the socket is not connected";
  if (error->code == EINVAL && error->to_port_0) return "port 0 is no destination";
  if (may_be_broadcast(error)) return "a broadcast address needs the option broadcast";
  return NULL;
}

static void add_hint(luaL_Buffer *text, const struct ip_error *error) {
  const char *hint = hint_of(error);
  if (hint == NULL) return;
  luaL_addstring(text, error->similar ? ": did you mean '" : ": ");
  luaL_addstring(text, hint);
  if (error->similar) luaL_addstring(text, "'?");
}

/* "server.lua:12: bind 127.0.0.1:53: permission denied (EACCES)", and a hint where there is one */
static int error_mt_tostring(lua_State *L) {
  const struct ip_error *error = check_error(L);
  luaL_Buffer text;
  luaL_buffinit(L, &text);
  push_place(L, error);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
  } else {
    luaL_addvalue(&text);
    luaL_addstring(&text, ": ");
  }
  if (error->operation != NULL) {
    luaL_addstring(&text, error->operation);
    add_subject(&text, error);
    luaL_addstring(&text, ": ");
  }
  push_message(L, error);
  luaL_addvalue(&text);
  luaL_addstring(&text, " (");
  push_name(L, error);
  luaL_addvalue(&text);
  luaL_addstring(&text, ")");
  add_hint(&text, error);
  luaL_pushresult(&text);
  return 1;
}

static int error_mt_eq(lua_State *L) {
  const struct ip_error *a = ip_test_class(L, 1, IP_CLASS_ERROR);
  const struct ip_error *b = ip_test_class(L, 2, IP_CLASS_ERROR);
  lua_pushboolean(L, a != NULL && b != NULL && a->category == b->category && a->code == b->code);
  return 1;
}

/* Unlike with other classes, an unknown field of an error value reads as nil: error handlers look for fields
   in error values of any origin, and must not fail by that. */
static int error_mt_index(lua_State *L) {
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) return 1;
  lua_pop(L, 1);
  return ip_class_index(L);
}

/* Is it a name of libuv's alone? */
static bool is_made_up(const char *name) {
  static const char *const names[] = {"UNKNOWN", "EOF", "ECHARSET"};
  for (size_t i = 0; i < ip_count_of(names); i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

/* Pushes the value of ip.error[name]; false, and nothing is pushed, where there is none. [-0, +(0|1), m] */
static bool push_named(lua_State *L, const char *name) {
  if (is_made_up(name)) return false;
  for (size_t i = 0; i < ip_count_of(aliases); i++)
    if (strcmp(aliases[i].alias, name) == 0) name = aliases[i].name;
  /* libuv has made-up system codes for the names of the resolver's errors */
  static const enum ip_error_category order[] = {IP_ERROR_RESOLVER, IP_ERROR_SYSTEM, IP_ERROR_FIBER};
  for (size_t i = 0; i < ip_count_of(order); i++) {
    const struct description *description = find_name(order[i], name);
    if (description == NULL) continue;
    ip_error_push(L, order[i], description->code, NULL);
    return true;
  }
  return false;
}

static bool push_numbered(lua_State *L, lua_Integer code) {
  if (code <= 0 || code >= FIRST_MADE_UP_CODE || describe(IP_ERROR_SYSTEM, (int)code) == NULL) return false;
  ip_error_push(L, IP_ERROR_SYSTEM, (int)code, NULL);
  return true;
}

/* __index of the table ip.error: makes the value of a name or of an errno value, and keeps it in the table. A
   number that is no errno value of the system reads as nil; a name that no system has is a mistake, which
   would be silent in `err == ip.error.ECONREFUSED`. */
static int errors_mt_index(lua_State *L) {
  lua_settop(L, 2);
  bool numbered = lua_type(L, 2) == LUA_TNUMBER;
  bool found = numbered                        ? push_numbered(L, lua_tointeger(L, 2)) /* 0 unless integral */
               : lua_type(L, 2) == LUA_TSTRING ? push_named(L, lua_tostring(L, 2))
                                               : false;
  if (!found && !numbered) return ip_error_text(L, "ip.error has no error '%s'", luaL_tolstring(L, 2, NULL));
  if (!found) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

static const luaL_Reg methods[] = {{"togeneric", error_togeneric}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {
    {"__tostring", error_mt_tostring}, {"__concat", ip_class_concat}, {"__eq", error_mt_eq}, {NULL, NULL}};

static const struct ip_property properties[] = {
    {"code", error_get_code, NULL},           {"name", error_get_name, NULL},
    {"message", error_get_message, NULL},     {"category", error_get_category, NULL},
    {"operation", error_get_operation, NULL}, {"mtu", error_get_mtu, NULL},
    {"sent", error_get_sent, NULL},           {"where", error_get_where, NULL},
    {"address", error_get_address, NULL},     {"port", error_get_port, NULL},
    {"transient", error_get_transient, NULL}, {NULL, NULL, NULL},
};

static const luaL_Reg module_metamethods[] = {{"__index", errors_mt_index}, {NULL, NULL}};

void ip_error_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.error",
      .id = IP_CLASS_ERROR,
      .methods = methods,
      .metamethods = metamethods,
      .properties = properties,
      .index = error_mt_index,
  };
  ip_class_define(L, core, &definition);
  lua_newtable(L);
  lua_newtable(L);
  ip_class_functions(L, core, module_metamethods);
  lua_setmetatable(L, -2);
  lua_getfield(L, -1, "EAGAIN");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &again_key);
}
