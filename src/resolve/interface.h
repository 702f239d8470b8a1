/* interface.h: ip.interfaces, the network interfaces of this machine. Layer 5. */
#ifndef IP_INTERFACE_H
#define IP_INTERFACE_H

#include "base/compat.h"

/* Defines the class that owns a list of libuv (core at stack index `core`), and adds the function interfaces
   to the table on top of the stack. [-0, +0, m] */
void ip_interface_add_functions(lua_State *L, int core);

#endif
