/* interface_argument.h: an argument that names a network interface: its name, its index or one of its v4
   addresses. Layer 3.

   Owns nothing. */
#ifndef IP_INTERFACE_ARGUMENT_H
#define IP_INTERFACE_ARGUMENT_H

#include "base/compat.h"

#include <netinet/in.h>

struct ip_interface {
  unsigned index;         /* 0: the system chooses */
  struct in_addr address; /* where the interface was named by it, else 0.0.0.0 */
};

/* Reads the argument at `arg`: a name, an index, or a v4 address as an ip.address or text; 0 and 0.0.0.0
   leave the choice to the system. The text of a v4 address is never the name of an
   interface; an index is not looked up. Raises bad-argument errors, and ENODEV with the name `operation`
   where no interface has that name or address. [-0, +0, v] */
void ip_interface_argument(lua_State *L, int arg, const char *operation, struct ip_interface *interface);

/* Reads an argument that may also be nil or absent: then the choice is left to the system. [-0, +0, v] */
void ip_interface_optional_argument(lua_State *L, int arg, const char *operation,
                                    struct ip_interface *interface);

/* Adds interface_index, for the Lua part of this library, to the table on top of the stack. [-0, +0, m] */
void ip_interface_argument_add_functions(lua_State *L, int core);

#endif
