/* module.c: luaopen_ip_core, which opens all files of the C core; the modules in lua/ give its functions
   their public names. Owns nothing but a registry entry. Raises memory errors. */
#include "base/util.h"
#include "binding/class.h"
#include "binding/error.h"
#include "binding/place.h"
#include "binding/value_text.h"
#include "fiber/condition.h"
#include "fiber/fiber.h"
#include "fiber/group.h"
#include "fiber/host_loop.h"
#include "fiber/nested_wait.h"
#include "fiber/queue.h"
#include "fiber/scope.h"
#include "fiber/semaphore.h"
#include "fiber/signal.h"
#include "fiber/wait_fd.h"
#include "loop/runtime.h"
#include "resolve/interface.h"
#include "resolve/resolver.h"
#include "udp/batch_io.h"
#include "udp/class.h"
#include "udp/listener.h"
#include "udp/message_flag.h"
#include "udp/wait_any.h"
#include "value/address.h"
#include "value/batch.h"
#include "value/byte_span_class.h"
#include "value/file_descriptor.h"
#include "value/interface_argument.h"

IP_EXPORT int luaopen_ip_core(lua_State *L);

/* Registry: the table of the core. There is one runtime per state, so opening the core again (after
   package.loaded was cleared, say) returns the same table. */
static const char module_key;

static const luaL_Reg functions[] = {{"class_members", ip_class_members},
                                     {"own_file", ip_place_own_file},
                                     {"value_text", ip_value_text},
                                     {"raise_text", ip_error_raise_text},
                                     {NULL, NULL}};

IP_EXPORT int luaopen_ip_core(lua_State *L) {
  luaL_checkversion(L);
  lua_settop(L, 0);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &module_key) == LUA_TTABLE) return 1;
  lua_settop(L, 0);
  ip_runtime_push(L); /* index 1: the core, an upvalue of every function below */
  lua_newtable(L);
  ip_error_open(L, 1);
  lua_setfield(L, 2, "error");
  ip_byte_span_open(L, 1);
  lua_setfield(L, 2, "byte_span");
  ip_address_open(L, 1);
  lua_setfield(L, 2, "address");
  ip_file_descriptor_open(L, 1);
  lua_setfield(L, 2, "file_descriptor");
  ip_batch_open(L, 1);
  ip_batch_io_open(L, 1);
  lua_setfield(L, 2, "batch");
  ip_socket_open_class(L, 1);
  lua_setfield(L, 2, "socket");
  ip_listener_open(L, 1);
  ip_fiber_open(L, 1);
  ip_scope_open(L, 1);
  ip_wait_fd_open(L, 1);
  ip_signal_open(L, 1);
  ip_host_loop_open(L, 1);
  ip_nested_wait_open(L, 1);
  ip_fiber_queue_open(L, 1);
  ip_condition_open(L, 1);
  ip_semaphore_open(L, 1);
  ip_group_open(L, 1);
  ip_wait_any_open(L, 1);
  lua_setfield(L, 2, "fiber");
  ip_message_flag_push(L, 1);
  lua_setfield(L, 2, "message_flag");
  ip_address_add_functions(L, 1);
  ip_resolver_add_functions(L, 1);
  ip_interface_add_functions(L, 1);
  ip_interface_argument_add_functions(L, 1);
  ip_socket_add_internals(L, 1);
  ip_listener_add_internals(L, 1);
  ip_class_functions(L, 1, functions);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &module_key);
  return 1;
}
