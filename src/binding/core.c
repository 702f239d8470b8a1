/* core.c: the names and registry keys of the classes, and weak tables in the registry. Owns nothing; raises
   memory errors only. */
#include "binding/core.h"

const char ip_class_keys[IP_CLASS_COUNT];

static const char *const class_names[IP_CLASS_COUNT] = {
    [IP_CLASS_ERROR] = "ip.error",
    [IP_CLASS_BYTE_SPAN] = "byte_span",
    [IP_CLASS_ADDRESS] = "ip.address",
    [IP_CLASS_FILE_DESCRIPTOR] = "ip.file_descriptor",
    [IP_CLASS_SOCKET] = "ip.udp.socket",
    [IP_CLASS_BATCH] = "ip.udp.batch",
    [IP_CLASS_FIBER] = "ip.fiber",
    [IP_CLASS_OPERATION] = "ip.operation",
    [IP_CLASS_SCOPE] = "ip.scope",
    [IP_CLASS_SHIELD] = "ip.shield",
    [IP_CLASS_LOOKUP] = "ip.udp.lookup",
    [IP_CLASS_INTERFACE_LIST] = "ip.interface_list",
    [IP_CLASS_LOOP] = "ip.loop",
    [IP_CLASS_QUEUE] = "ip.fiber.queue",
    [IP_CLASS_CONDITION] = "ip.fiber.condition",
    [IP_CLASS_SEMAPHORE] = "ip.fiber.semaphore",
    [IP_CLASS_SEMAPHORE_GUARD] = "ip.fiber.semaphore.guard",
    [IP_CLASS_GROUP] = "ip.fiber.group",
    [IP_CLASS_LISTENER] = "ip.udp.listener",
    [IP_CLASS_SESSION] = "ip.udp.session",
};

const char *ip_class_name(enum ip_class class) {
  return class_names[class];
}

void ip_core_store_weak_table(lua_State *L, const void *key, const char *mode) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}
