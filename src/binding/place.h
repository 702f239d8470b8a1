/* place.h: the place in a program that an error names: the nearest Lua function outside the library's own
   files. Layer 2.

   A place is noted in numbers, without allocating and without building a text: a server that catches timeouts
   all day makes no garbage by it. The core keeps the names of the files that errors have named. */
#ifndef IP_PLACE_H
#define IP_PLACE_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

struct ip_core;

struct ip_place {
  int32_t line;  /* from 1 on */
  uint16_t file; /* the number of a name that the core keeps; 0: there is no place */
};

/* Returns the place where the running C function has been called. There is none where only C functions, the
   library's own files and functions without line numbers are on the stack. Memory is allocated for the name
   of a file only the first time. [-0, +0, -] */
struct ip_place ip_place_note(lua_State *L);

/* Pushes "file:line", or nil where there is no place. [-0, +1, m] */
void ip_place_push(lua_State *L, struct ip_place place);

/* Pushes "file:line: " of the running C function, or "" where there is no place; luaL_where with the
   library's own files left out. [-0, +1, m] */
void ip_place_push_prefix(lua_State *L);

/* own_file(): the Lua file that calls this is the library's own: no error names it. Suspends: no. */
int ip_place_own_file(lua_State *L);

/* Creates the table of names; false when memory is short. */
bool ip_place_open(struct ip_core *core);

/* Frees the names; errors have no place afterwards. */
void ip_place_free(struct ip_core *core);

#endif
