/* pooled_operation.h: operations of callers that have none of their own: the main thread, and coroutines that
   somebody else has made. Each operation is a userdata, and a registry table owns them. */
#ifndef IP_POOLED_OPERATION_H
#define IP_POOLED_OPERATION_H

#include "loop/operation.h"

struct ip_pooled_operation {
  struct ip_operation operation; /* first */
  struct ip_operation
      *delegate; /* of the coroutine that waits for this one and is resumed in its place; NULL: none */
  int reference; /* its key in the registry table */
  struct ip_received received;
};

static inline struct ip_pooled_operation *ip_pooled(struct ip_operation *operation) {
  return (struct ip_pooled_operation *)operation;
}

static inline const struct ip_pooled_operation *ip_pooled_const(const struct ip_operation *operation) {
  return (const struct ip_pooled_operation *)operation;
}

/* Pushes the userdata of a pooled operation. [-0, +1, -] */
void ip_operation_push_pooled(lua_State *L, const struct ip_operation *operation);

/* Lets the pooled operation on top of the stack keep alive what `context`, of the running coroutine, lives
   in. [-0, +0, -] */
void ip_operation_anchor_context(lua_State *L, struct ip_runtime *runtime, struct ip_context *context);

/* May the running coroutine suspend here? [-0, +0, -] */
bool ip_operation_can_suspend(lua_State *L, const struct ip_runtime *runtime);

#endif
