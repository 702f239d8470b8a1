/* message.h: receive_message, send_message, reply_message, and info tables, which batches use, too. */
#ifndef IP_MESSAGE_H
#define IP_MESSAGE_H

#include "udp/send.h"

/* An info table is at index 3 of the frame of a function that ip_message_add_functions has added: that adds functions which
   carry the core (at the absolute stack index `core`) and the keys of info tables to the table on top of the stack.
   [-0, +0, m] */
void ip_message_add_functions(lua_State *L, int core, const luaL_Reg *functions);

/* Makes the info table where it is nil, and drops what is above. [-?, +?, m] */
void ip_message_prepare_info(lua_State *L);

/* Sets all but the peer. [-0, +?, m] */
void ip_message_fill_info(lua_State *L, const struct ip_control *control, bool truncated);

/* Sets the peer: its address is on top of the stack, nil where it is not `known`. [-1, +(0|1), m] */
void ip_message_set_peer(lua_State *L, bool known, uint16_t port);

/* Reads what the info table on top of the stack, which is popped, asks for beside the target. [-1, +0, e] */
void ip_message_read_control(lua_State *L, const char *operation, struct ip_send_call *call);

/* Keeps the function that ip_message_read_control calls in the registry (core at stack index `core`). [-0, +0, m] */
void ip_message_open(lua_State *L, int core);

/* Methods; each carries the keys. */
extern const luaL_Reg ip_message_methods[];

#endif
