/* error.c: ip.error values.

   Owns nothing: a value is a userdata of its own. Values are immutable, and two of them are equal when their
   category and code are. Names and messages come from libuv where it has them. Raises memory errors, and what
   callers ask ip_error_raise and ip_error_fail to raise. */
#include "binding/error.h"

#include "base/util.h"
#include "binding/class.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <uv.h>

struct description {
  int code;
  const char *name;
  const char *message;
};

/* libuv makes up a number from 3000 on for each code that a system lacks (uv/errno.h); those are no errno
   values. */
enum { FIRST_CODE_OF_LIBUV = 3000 };

#define DESCRIBE_UV(name, message) {-(UV_##name), #name, message},

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
#ifdef ENODATA
    {ENODATA, "ENODATA", "no data available"},
#endif
#ifdef ETIME
    {ETIME, "ETIME", "timer expired"},
#endif
#ifdef ENOLINK
    {ENOLINK, "ENOLINK", "link has been severed"},
#endif
#ifdef ENOSR
    {ENOSR, "ENOSR", "out of streams resources"},
#endif
#ifdef ENOSTR
    {ENOSTR, "ENOSTR", "device not a stream"},
#endif
#ifdef EMULTIHOP
    {EMULTIHOP, "EMULTIHOP", "multihop attempted"},
#endif
#ifdef EOWNERDEAD
    {EOWNERDEAD, "EOWNERDEAD", "owner died"},
    {ENOTRECOVERABLE, "ENOTRECOVERABLE", "state not recoverable"},
#endif
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
#ifdef EAI_NODATA
    {EAI_NODATA, "EAI_NODATA", "no address"},
#endif
#ifdef EAI_ADDRFAMILY
    {EAI_ADDRFAMILY, "EAI_ADDRFAMILY", "no address of the requested family"},
#endif
#ifdef EAI_CANCELED
    {EAI_CANCELED, "EAI_CANCELED", "request canceled"},
#endif
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

static bool is_real(const struct description *description, enum ip_error_category category) {
  bool numbered_by_system = category == IP_ERROR_SYSTEM || category == IP_ERROR_GENERIC;
  return !numbered_by_system || description->code < FIRST_CODE_OF_LIBUV;
}

static const struct description *describe(enum ip_error_category category, int code) {
  for (size_t i = 0; i < categories[category].count; i++) {
    const struct description *description = &categories[category].errors[i];
    if (description->code == code && is_real(description, category)) return description;
  }
  return NULL;
}

static const struct description *find_name(enum ip_error_category category, const char *name) {
  for (size_t i = 0; i < categories[category].count; i++) {
    const struct description *description = &categories[category].errors[i];
    if (strcmp(description->name, name) == 0 && is_real(description, category)) return description;
  }
  return NULL;
}

struct ip_error *ip_error_push(lua_State *L, enum ip_error_category category, int code,
                               const char *operation) {
  struct ip_error *error = lua_newuserdatauv(L, sizeof *error, 0);
  error->category = category;
  error->code = code == EWOULDBLOCK ? EAGAIN : code == EOPNOTSUPP ? ENOTSUP : code;
  error->mtu = 0;
  error->sent = -1;
  error->operation = operation;
  ip_class_set(L, IP_CLASS_ERROR);
  return error;
}

int ip_error_raise(lua_State *L, int code, const char *operation) {
  ip_error_push(L, IP_ERROR_SYSTEM, code, operation);
  ip_error_throw(L);
}

int ip_error_fail(lua_State *L, enum ip_error_mode mode, int code, const char *operation) {
  bool again = code == EAGAIN || code == EWOULDBLOCK;
  if (mode == IP_ERROR_RAISE || !again) return ip_error_raise(L, code, operation);
  lua_pushnil(L);
  ip_error_push(L, IP_ERROR_SYSTEM, code, operation);
  return 2;
}

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

static int error_get_sent(lua_State *L) {
  int sent = check_error(L)->sent;
  if (sent >= 0)
    lua_pushinteger(L, sent);
  else
    lua_pushnil(L);
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
  ip_error_push(L, IP_ERROR_GENERIC, error->code, error->operation)->mtu = error->mtu;
  return 1;
}

static int error_mt_tostring(lua_State *L) {
  const struct ip_error *error = check_error(L);
  luaL_Buffer text;
  luaL_buffinit(L, &text);
  if (error->operation != NULL) {
    luaL_addstring(&text, error->operation);
    luaL_addstring(&text, ": ");
  }
  push_message(L, error);
  luaL_addvalue(&text);
  luaL_addstring(&text, " (");
  push_name(L, error);
  luaL_addvalue(&text);
  luaL_addstring(&text, ")");
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

/* Pushes the value of ip.error[name]; false, and nothing is pushed, where there is none. [-0, +(0|1), m] */
static bool push_named(lua_State *L, const char *name) {
  for (size_t i = 0; i < ip_count_of(aliases); i++)
    if (strcmp(aliases[i].alias, name) == 0) name = aliases[i].name;
  static const enum ip_error_category order[] = {IP_ERROR_SYSTEM, IP_ERROR_RESOLVER, IP_ERROR_FIBER};
  for (size_t i = 0; i < ip_count_of(order); i++) {
    const struct description *description = find_name(order[i], name);
    if (description == NULL) continue;
    ip_error_push(L, order[i], description->code, NULL);
    return true;
  }
  return false;
}

static bool push_numbered(lua_State *L, lua_Integer code) {
  if (code <= 0 || code >= FIRST_CODE_OF_LIBUV || describe(IP_ERROR_SYSTEM, (int)code) == NULL) return false;
  ip_error_push(L, IP_ERROR_SYSTEM, (int)code, NULL);
  return true;
}

/* __index of the table ip.error: makes the value of a name or of an errno value, and keeps it in the table.
   Any other key reads as nil. */
static int errors_mt_index(lua_State *L) {
  lua_settop(L, 2);
  bool found = false;
  if (lua_type(L, 2) == LUA_TSTRING)
    found = push_named(L, lua_tostring(L, 2));
  else if (lua_type(L, 2) == LUA_TNUMBER)
    found = push_numbered(L, lua_tointeger(L, 2)); /* 0 unless integral */
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
    {"__tostring", error_mt_tostring}, {"__eq", error_mt_eq}, {NULL, NULL}};

static const struct ip_property properties[] = {
    {"code", error_get_code, NULL},           {"name", error_get_name, NULL},
    {"message", error_get_message, NULL},     {"category", error_get_category, NULL},
    {"operation", error_get_operation, NULL}, {"mtu", error_get_mtu, NULL},
    {"sent", error_get_sent, NULL},           {NULL, NULL, NULL},
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
}
