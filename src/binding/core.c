/* core.c: the names and registry keys of the classes. Owns nothing; raises nothing. */
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
