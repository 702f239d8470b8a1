/* batch_io.h: receive_many and send_many. */
#ifndef IP_BATCH_IO_H
#define IP_BATCH_IO_H

#include "base/compat.h"

/* Methods. */
int ip_socket_receive_many(lua_State *L);
int ip_socket_send_many(lua_State *L);
int ip_socket_try_receive_many(lua_State *L);
int ip_socket_try_send_many(lua_State *L);

/* Adds the method `info`, which needs ancillary data, to the class of batches. [-0, +0, m] */
void ip_batch_io_open(lua_State *L, int core);

#endif
