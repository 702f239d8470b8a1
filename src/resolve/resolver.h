/* resolver.h: look-ups of names and addresses by the system's resolver. Layer 5. */
#ifndef IP_RESOLVER_H
#define IP_RESOLVER_H

#include "base/compat.h"

/* Adds get_address_info, get_address_v4_info, get_address_v6_info, get_name_info, host_name and
   address_info_flag to the table on top of the stack; core at stack index `core`. [-0, +0, m] */
void ip_resolver_add_functions(lua_State *L, int core);

#endif
