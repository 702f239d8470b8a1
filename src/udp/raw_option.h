/* raw_option.h: set_raw_option and get_raw_option. */
#ifndef IP_RAW_OPTION_H
#define IP_RAW_OPTION_H

#include "base/compat.h"

/* Methods. */
int ip_socket_set_raw_option(lua_State *L);
int ip_socket_get_raw_option(lua_State *L);

#endif
