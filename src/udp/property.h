/* property.h: the properties of ip.udp.socket. */
#ifndef IP_PROPERTY_H
#define IP_PROPERTY_H

#include "binding/class.h"

/* The last entry has a NULL name. */
extern const struct ip_property ip_socket_properties[];

/* Pushes the seconds of a timeout; negative: nil. [-0, +1, -] */
int ip_socket_push_timeout(lua_State *L, double timeout);

/* Reads the seconds of a timeout, or nil. [-0, +0, v] */
double ip_socket_check_timeout(lua_State *L, int arg);

/* __tostring. [-0, +1, m] */
int ip_socket_tostring(lua_State *L);

#endif
