/* descriptor_shortage.h: what to do where no descriptor is free. Layer 2. */
#ifndef IP_DESCRIPTOR_SHORTAGE_H
#define IP_DESCRIPTOR_SHORTAGE_H

#include "base/compat.h"

#include <errno.h>
#include <stdbool.h>

/* Where `error` is a lack of descriptors, runs a full collection, for garbage may own some: sockets, files.
   True: that was done, and the call is worth a second try. Finalizers may do anything. [-0, +0, -] */
static inline bool ip_collect_descriptors(lua_State *L, int error) {
  if (error != EMFILE && error != ENFILE) return false;
  return lua_gc(L, LUA_GCCOLLECT) == 0; /* refused in a finalizer */
}

#endif
