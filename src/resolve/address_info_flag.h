/* address_info_flag.h: ip.address_info_flag, the flags of look-ups. */
#ifndef IP_ADDRESS_INFO_FLAG_H
#define IP_ADDRESS_INFO_FLAG_H

#include "base/compat.h"

/* Pushes the table of flags (core at stack index `core`), which raises an error for a name that it does not
   have. [-0, +1, m] */
void ip_address_info_flag_push(lua_State *L, int core);

/* Reads an optional combination of flags at `arg`. Returns AI_ values for getaddrinfo(3), or NI_ values for
   getnameinfo(3); a flag of the other function is a bad argument. [-0, +0, v] */
int ip_address_info_flag_check_addresses(lua_State *L, int arg);
int ip_address_info_flag_check_names(lua_State *L, int arg);

#endif
