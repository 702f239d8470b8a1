/* file_descriptor.c: ip.file_descriptor, the owner of an open descriptor.

   The userdata owns the descriptor from `new` until close, release or ip.udp.socket's assign; the collector
   closes a descriptor that is left. Invariant: an object is made empty and gets its class before its
   descriptor, so that a memory error leaks none. Raises bad-argument errors, memory errors and system
   errors. */
#include "value/file_descriptor.h"

#include "binding/argument.h"
#include "binding/class.h"
#include "binding/descriptor_shortage.h"
#include "binding/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

struct ip_file_descriptor *ip_file_descriptor_push(lua_State *L) {
  struct ip_file_descriptor *self = lua_newuserdatauv(L, sizeof *self, 0);
  self->fd = IP_NO_DESCRIPTOR;
  ip_class_set(L, IP_CLASS_FILE_DESCRIPTOR);
  return self;
}

struct ip_file_descriptor *ip_file_descriptor_test(lua_State *L, int arg) {
  return ip_test_class(L, arg, IP_CLASS_FILE_DESCRIPTOR);
}

IP_NO_RETURN static void refuse_empty(lua_State *L, const char *operation) {
  ip_error_raise_with_hint(L, EBADF, operation, "the object holds no descriptor");
}

int ip_file_descriptor_argument(lua_State *L, int arg, const char *operation) {
  const struct ip_file_descriptor *object = ip_file_descriptor_test(L, arg);
  if (object == NULL) {
    if (lua_type(L, arg) != LUA_TNUMBER) ip_argument_type_error(L, arg, "ip.file_descriptor or integer");
    return (int)ip_argument_integer(L, arg, 0, INT_MAX);
  }
  if (object->fd == IP_NO_DESCRIPTOR && operation != NULL) refuse_empty(L, operation);
  return object->fd;
}

static struct ip_file_descriptor *check_descriptor(lua_State *L, int arg) {
  return ip_check_class(L, arg, IP_CLASS_FILE_DESCRIPTOR);
}

/* The object at index 1; raises EBADF where it is empty. [-0, +0, v] */
static struct ip_file_descriptor *check_held(lua_State *L, const char *operation) {
  struct ip_file_descriptor *self = check_descriptor(L, 1);
  if (self->fd == IP_NO_DESCRIPTOR) refuse_empty(L, operation);
  return self;
}

/* ip.file_descriptor.new(n) -> fd: an object that owns the open descriptor n, an integer 0..2^31-1. EBADF
   when it is not open. Suspends: no. Source: fcntl(2), F_GETFD. */
static int descriptor_new(lua_State *L) {
  int fd = (int)ip_argument_integer(L, 1, 0, INT_MAX);
  struct ip_file_descriptor *self = ip_file_descriptor_push(L);
  if (fcntl(fd, F_GETFD) < 0) return ip_error_raise_about(L, errno, "new", 1, NULL);
  self->fd = fd;
  return 1;
}

/* Empties the object, and closes its descriptor, for which nobody waits any longer; 0 or an errno value.
   After EINTR the descriptor is closed on Linux, and may be elsewhere: so close is never retried (close(2)).
   */
static int close_held(lua_State *L, struct ip_file_descriptor *self) {
  if (self->fd == IP_NO_DESCRIPTOR) return 0;
  int fd = self->fd;
  self->fd = IP_NO_DESCRIPTOR;
  ip_core(L)->end_waits(ip_core(L), fd);
  return close(fd) != 0 && errno != EINTR ? errno : 0;
}

/* fd:close(): closes the descriptor; waits for it raise ECANCELED; closing again does nothing. Raises the
   errors of close(2), such as EBADF where the descriptor was closed otherwise, and EIO; the object is empty
   all the same. Suspends: no. */
static int descriptor_close(lua_State *L) {
  int error = close_held(L, check_descriptor(L, 1));
  return error == 0 ? 0 : ip_error_raise(L, error, "close");
}

/* __close and __gc drop an error of close(2), for no caller could handle it. */
static int descriptor_mt_close(lua_State *L) {
  close_held(L, check_descriptor(L, 1));
  return 0;
}

/* 0 or an errno value, and then `copy` stays empty. */
static int duplicate(int fd, struct ip_file_descriptor *copy) {
  int number = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (number < 0) return errno;
  copy->fd = number;
  return 0;
}

/* fd:dup() -> fd: a second descriptor of the same open file, close-on-exec. EBADF, EMFILE. Suspends: no.
   Source: fcntl(2), F_DUPFD_CLOEXEC. */
static int descriptor_dup(lua_State *L) {
  check_held(L, "dup");
  struct ip_file_descriptor *copy = ip_file_descriptor_push(L);
  int fd = check_held(L, "dup")->fd; /* making the copy may have run a finalizer that closes this one */
  int error = duplicate(fd, copy);
  if (ip_collect_descriptors(L, error)) error = duplicate(check_held(L, "dup")->fd, copy);
  if (error != 0) return ip_error_raise(L, error, "dup");
  ip_core(L)->end_waits(ip_core(L), copy->fd);
  return 1;
}

/* fd:release() -> integer: empties the object; the caller owns the descriptor, and has to close it. EBADF.
   Suspends: no. */
static int descriptor_release(lua_State *L) {
  struct ip_file_descriptor *self = check_held(L, "release");
  lua_pushinteger(L, self->fd);
  self->fd = IP_NO_DESCRIPTOR;
  return 1;
}

static int descriptor_mt_tostring(lua_State *L) {
  const struct ip_file_descriptor *self = check_descriptor(L, 1);
  if (self->fd == IP_NO_DESCRIPTOR)
    lua_pushfstring(L, "ip.file_descriptor (closed): %p", lua_topointer(L, 1));
  else
    lua_pushfstring(L, "/dev/fd/%d", self->fd);
  return 1;
}

static const luaL_Reg methods[] = {
    {"close", descriptor_close}, {"dup", descriptor_dup}, {"release", descriptor_release}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__gc", descriptor_mt_close},
                                       {"__close", descriptor_mt_close},
                                       {"__tostring", descriptor_mt_tostring},
                                       {NULL, NULL}};

static const luaL_Reg functions[] = {{"new", descriptor_new}, {NULL, NULL}};

void ip_file_descriptor_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.file_descriptor",
      .id = IP_CLASS_FILE_DESCRIPTOR,
      .methods = methods,
      .metamethods = metamethods,
  };
  ip_class_define(L, core, &definition);
  lua_newtable(L);
  ip_class_functions(L, core, functions);
}
