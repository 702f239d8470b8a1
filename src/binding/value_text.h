/* value_text.h: what an error message says of a value: its type, and the value where that is short. Layer
   2. */
#ifndef IP_VALUE_TEXT_H
#define IP_VALUE_TEXT_H

#include "base/compat.h"

/* Pushes and returns the text for the value at `index`: "no value", "nil", "boolean true", "number 1.5",
   "string 'localhost'" (at most 40 bytes of it), "table", or the name of the class of an object.
   [-0, +1, m] */
const char *ip_value_text_push(lua_State *L, int index);

/* Pushes and returns the string at `index` as it stands in a message: 'localhost'. [-0, +1, m] */
const char *ip_value_text_push_quoted(lua_State *L, int index);

/* value_text(value) -> string: the same for the Lua files of this library; nil is "no value" there. Suspends:
   no. */
int ip_value_text(lua_State *L);

#endif
