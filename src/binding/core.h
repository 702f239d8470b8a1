/* core.h: what every C function of the library can reach: its first upvalue. Layer 2. */
#ifndef IP_CORE_H
#define IP_CORE_H

#include "base/compat.h"

#include <stdbool.h>

enum ip_class {
  IP_CLASS_ERROR,
  IP_CLASS_BYTE_SPAN,
  IP_CLASS_ADDRESS,
  IP_CLASS_FILE_DESCRIPTOR,
  IP_CLASS_SOCKET,
  IP_CLASS_BATCH,
  IP_CLASS_FIBER,
  IP_CLASS_OPERATION,
  IP_CLASS_SCOPE,
  IP_CLASS_SHIELD,
  IP_CLASS_LOOKUP,
  IP_CLASS_INTERFACE_LIST,
  IP_CLASS_LOOP,
  IP_CLASS_QUEUE,
  IP_CLASS_CONDITION,
  IP_CLASS_SEMAPHORE,
  IP_CLASS_SEMAPHORE_GUARD,
  IP_CLASS_GROUP,
  IP_CLASS_LISTENER,
  IP_CLASS_SESSION,
  IP_CLASS_COUNT
};

struct ip_core {
  const void *metatable[IP_CLASS_COUNT];
  /* Called before an object closes its descriptor, and when the system has given a new one: whoever waits for
     that number waits for what is closed. Set by the layer that waits. No Lua. */
  void (*end_waits)(struct ip_core *core, int fd);
  struct ip_places *places; /* see place.h */
  /* The method whose arguments from 3 on are the value of the option that argument 2 names: errors in them
     name the option. */
  lua_CFunction option_setter;
  lua_CFunction property_setter; /* __newindex of every class */
};

/* The core of the running C function. */
static inline struct ip_core *ip_core(lua_State *L) {
  return (struct ip_core *)lua_touserdata(L, lua_upvalueindex(1));
}

/* Stores an empty weak table in the registry; `mode` is its __mode. [-0, +0, m] */
void ip_core_store_weak_table(lua_State *L, const void *key, const char *mode);

/* Registry keys of the metatables are the addresses of these; the contents are never read. */
extern const char ip_class_keys[IP_CLASS_COUNT];

/* The Lua path of a class, for messages. */
const char *ip_class_name(enum ip_class class);

#endif
