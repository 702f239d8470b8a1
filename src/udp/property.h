/* property.h: the properties of ip.udp.socket. */
#ifndef IP_PROPERTY_H
#define IP_PROPERTY_H

#include "binding/class.h"

/* The last entry has a NULL name. */
extern const struct ip_property ip_socket_properties[];

/* __tostring. [-0, +1, m] */
int ip_socket_tostring(lua_State *L);

#endif
