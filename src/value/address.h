/* address.h: the Lua type ip.address. Layer 3.

   An address never changes after it was pushed. */
#ifndef IP_ADDRESS_H
#define IP_ADDRESS_H

#include "base/compat.h"
#include "net/endpoint.h"

/* Defines the class (core at stack index `core`) and pushes the module table ip.address. [-0, +1, m] */
void ip_address_open(lua_State *L, int core);

/* Adds tostring, toendpoint, endpoint_key and endpoint_from_key to the table on top of the stack.
   [-0, +0, m] */
void ip_address_add_functions(lua_State *L, int core);

/* Pushes a new ip.address, and returns its content, which is valid while the object lives. [-0, +1, m] */
const struct ip_address *ip_address_push(lua_State *L, const struct ip_address *address);

/* Reads the value at `index`; false if it is no address: no ip.address, and no string that ip.address.new
   accepts. [-0, +0, -] */
bool ip_address_read(lua_State *L, int index, struct ip_address *address);

/* Reads the address at `arg`; a bad argument if it is none. [-0, +0, v] */
void ip_address_argument(lua_State *L, int arg, struct ip_address *address);

/* Pushes and returns what a message says of the text at `index`, which has that problem: the text, and the
   remedy where it is a host name. [-0, +1, m] */
const char *ip_address_push_problem(lua_State *L, int index, const char *problem);

#endif
