/* file_descriptor.h: ip.file_descriptor, the owner of an open descriptor. Layer 3.

   The object owns its descriptor, and is empty where it has none: closed, released, or assigned to a
   socket. */
#ifndef IP_FILE_DESCRIPTOR_H
#define IP_FILE_DESCRIPTOR_H

#include "base/compat.h"

enum { IP_NO_DESCRIPTOR = -1 };

struct ip_file_descriptor {
  int fd; /* IP_NO_DESCRIPTOR: the object is empty */
};

/* Defines the class and pushes the module table ip.file_descriptor. [-0, +1, m] */
void ip_file_descriptor_open(lua_State *L, int core);

/* Pushes an empty object for the caller to fill; the collector closes the descriptor in it. [-0, +1, m] */
struct ip_file_descriptor *ip_file_descriptor_push(lua_State *L);

/* The object at `arg`, or NULL. [-0, +0, -] */
struct ip_file_descriptor *ip_file_descriptor_test(lua_State *L, int arg);

/* The descriptor that the argument at `arg` names: an integer, or an ip.file_descriptor. Where the object is
   empty, raises EBADF called `operation`; where `operation` is NULL, returns IP_NO_DESCRIPTOR instead, for
   which a system call reports EBADF. [-0, +0, v] */
int ip_file_descriptor_argument(lua_State *L, int arg, const char *operation);

#endif
