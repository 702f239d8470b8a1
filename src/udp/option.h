/* option.h: set_option and get_option. */
#ifndef IP_OPTION_H
#define IP_OPTION_H

#include "base/compat.h"

/* Methods. */
int ip_socket_set_option(lua_State *L);
int ip_socket_get_option(lua_State *L);

/* For lua/ip/udp_options.lua. */
int ip_socket_similar_option(lua_State *L);

/* For specs. */
int ip_socket_option_names(lua_State *L);

#endif
