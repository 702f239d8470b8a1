/* class.c: the table of methods and properties of ip.udp.socket, above all other files of this folder. Owns
   nothing. Raises bad arguments and memory errors. */
#include "udp/class.h"

#include "binding/class.h"
#include "udp/batch_io.h"
#include "udp/descriptor.h"
#include "udp/loop.h"
#include "udp/message.h"
#include "udp/option.h"
#include "udp/property.h"
#include "udp/raw_option.h"
#include "udp/receive.h"
#include "udp/receive_error.h"
#include "udp/receive_loop.h"
#include "udp/send.h"
#include "udp/serve.h"
#include "udp/socket.h"
#include "udp/state_pool.h"

static const luaL_Reg methods[] = {
    {"open", ip_socket_open},
    {"bind", ip_socket_bind},
    {"connect", ip_socket_connect},
    {"disconnect", ip_socket_disconnect},
    {"shutdown", ip_socket_shutdown},
    {"cancel", ip_socket_cancel},
    {"close", ip_socket_close},
    {"io_control", ip_socket_io_control},
    {"receive", ip_socket_receive},
    {"receive_from", ip_socket_receive_from},
    {"receive_string", ip_socket_receive_string},
    {"send", ip_socket_send},
    {"send_to", ip_socket_send_to},
    {"flush", ip_socket_flush},
    {"try_receive", ip_socket_try_receive},
    {"try_receive_from", ip_socket_try_receive_from},
    {"try_receive_string", ip_socket_try_receive_string},
    {"try_send", ip_socket_try_send},
    {"try_send_to", ip_socket_try_send_to},
    {"receive_error", ip_socket_receive_error},
    {"receive_many", ip_socket_receive_many},
    {"send_many", ip_socket_send_many},
    {"try_receive_many", ip_socket_try_receive_many},
    {"try_send_many", ip_socket_try_send_many},
    {"set_option", ip_socket_set_option},
    {"get_option", ip_socket_get_option},
    {"set_raw_option", ip_socket_set_raw_option},
    {"get_raw_option", ip_socket_get_raw_option},
    {"assign", ip_socket_assign},
    {"release", ip_socket_release},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", ip_socket_close},
    {"__close", ip_socket_close},
    {"__tostring", ip_socket_tostring},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {{"new", ip_socket_new}, {NULL, NULL}};

/* add_methods{name = function, ...}: adds methods to the class of sockets. lua/ip/udp.lua calls it once and
   removes it. */
static int add_methods(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  ip_class_add_methods(L, IP_CLASS_SOCKET, 1);
  return 0;
}

static const luaL_Reg internals[] = {
    {"add_methods", add_methods},
    {"check_loop", ip_socket_loop_check},
    {"new_loop", ip_socket_loop_new},
    {"loop_iterator", ip_socket_loop_iterator},
    {"loop_receive", ip_socket_loop_receive},
    {"check_server", ip_socket_check_server},
    {"new_server", ip_socket_new_server},
    {"serve", ip_socket_serve},
    {"option_names", ip_socket_option_names},
    {"similar_option", ip_socket_similar_option},
    {"prepare_fill", ip_socket_prepare_fill},
    {"send_filled", ip_socket_send_filled},
    {"send_to_filled", ip_socket_send_to_filled},
    {NULL, NULL},
};

/* The message methods have more upvalues than the core. */
static void add_message_methods(lua_State *L, int core) {
  ip_message_open(L, core);
  lua_newtable(L);
  ip_message_add_functions(L, core, ip_message_methods);
  ip_class_add_methods(L, IP_CLASS_SOCKET, -1);
  lua_pop(L, 1);
}

void ip_socket_open_class(lua_State *L, int core) {
  static const struct ip_class_definition definition = {
      .name = "ip.udp.socket",
      .id = IP_CLASS_SOCKET,
      .methods = methods,
      .metamethods = metamethods,
      .properties = ip_socket_properties,
  };
  core = lua_absindex(L, core);
  ip_state_pool_open(L);
  ip_class_define(L, core, &definition);
  ((struct ip_core *)lua_touserdata(L, core))->option_setter = ip_socket_set_option;
  add_message_methods(L, core);
  lua_newtable(L);
  ip_class_functions(L, core, functions);
}

void ip_socket_add_internals(lua_State *L, int core) {
  core = lua_absindex(L, core);
  ip_udp_loop_open(L, core);
  ip_class_functions(L, core, internals);
}
