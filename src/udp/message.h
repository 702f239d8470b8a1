/* message.h: receive_message, send_message, reply_message, and info tables, which batches use, too. */
#ifndef IP_MESSAGE_H
#define IP_MESSAGE_H

#include "udp/send.h"

/* Adds functions to the table on top of the stack. They have the core (at the absolute stack index `core`)
   and the keys of info tables as upvalues, and find the info table at index 3 of their frame. [-0, +0, m] */
void ip_message_add_functions(lua_State *L, int core, const luaL_Reg *functions);

/* Creates the info table if it is nil, and drops the values above it. [-?, +?, m] */
void ip_message_prepare_info(lua_State *L);

/* Sets all fields except those of the peer. [-0, +?, m] */
void ip_message_fill_info(lua_State *L, const struct ip_control *control, bool truncated);

/* Sets the fields of the peer. Its address is on top of the stack and is popped; it is nil if the peer is not
   `known`. [-1, +(0|1), m] */
void ip_message_set_peer(lua_State *L, bool known, uint16_t port);

/* Pops the info table of an entry of the batch that is the call's first argument, and reads its fields except
   the destination. [-1, +0, e] */
void ip_message_read_control(lua_State *L, const char *operation, size_t entry, struct ip_send_call *call);

/* Stores the function that ip_message_read_control calls in the registry (core at stack index `core`).
   [-0, +0, m] */
void ip_message_open(lua_State *L, int core);

/* The methods, which need the keys as upvalues. */
extern const luaL_Reg ip_message_methods[];

#endif
