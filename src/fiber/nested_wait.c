/* nested_wait.c: the C part of ip.fiber.coroutine: a coroutine that waits inside another one.

   When a fiber has resumed a generator and the generator suspends in an operation, the fiber suspends, too,
   in an operation of its own that waits for the generator's: the fiber is the generator's delegate. The
   dispatcher then resumes the fiber in place of the generator, and the fiber resumes the generator at once.
   Deadlines and interruption of the fiber end the generator's operation itself. Owns nothing. Each function
   says what it may raise. */
#include "fiber/nested_wait.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/raise.h"
#include "loop/pooled_operation.h"
#include "loop/task.h"

/* Returns the operation that the coroutine at `arg` is suspended in, or NULL. The operation is on top of the
   coroutine's frame, where it stays, for it is to be closed there (Lua 5.5 checks that): a copy of it is
   examined on this stack. Raises "not enough memory" before anything is pushed on the other one. */
static struct ip_operation *check_operation(lua_State *L, int arg) {
  lua_State *thread = lua_tothread(L, arg);
  if (thread == NULL) ip_argument_type_error(L, arg, "coroutine");
  if (thread == L || lua_status(thread) != LUA_YIELD || lua_gettop(thread) == 0) return NULL;
  luaL_checkstack(L, 2, "too many arguments");
  if (!lua_checkstack(thread, 1)) ip_error_memory(L);
  lua_pushvalue(thread, -1);
  lua_xmove(thread, L, 1);
  struct ip_operation *operation = ip_test_class(L, -1, IP_CLASS_OPERATION);
  lua_pop(L, 1);
  return operation;
}

/* Detaches the delegate: its coroutine is about to continue, or has been closed. */
static void on_unlinked(struct ip_operation *delegate) {
  struct ip_operation *inner = delegate->object;
  ip_pooled(inner)->delegate = NULL;
  delegate->object = NULL;
  ip_context_forget(delegate->context, delegate->payload.delegate.innermost);
}

/* Closes the generator when somebody closes the fiber that waits for it, or resumes the fiber: the fiber will
   not continue the generator, and the datagram or event that it waited for goes to the next waiter. */
static void close_generator(lua_State *L, struct ip_operation *delegate) {
  struct ip_operation *inner = delegate->object;
  if (inner == NULL || lua_status(inner->thread) != LUA_YIELD) return;
  lua_State *thread = inner->thread;
  on_unlinked(delegate);
  /* This stack anchors the thread while it is closed: neither the operation, whose user value it is, nor the
     frame of the delegate holds it any more. */
  ip_operation_push_pooled(L, inner);
  lua_getiuservalue(L, -1, IP_ANCHOR_THREAD);
  ip_compat_close_thread(thread, L);
  lua_pop(L, 2);
}

static int push_true(lua_State *L, struct ip_result *result) {
  (void)result;
  lua_pushboolean(L, true);
  return 1;
}

static const struct ip_operation_type nested_wait_type = {
    .name = "resume", .unlinked = on_unlinked, .cancelled = close_generator, .push_results = push_true};

/* Returns the operation at the end of the chain: generators may be inside generators. */
static struct ip_operation *innermost(struct ip_operation *operation) {
  while (operation->type == &nested_wait_type && operation->object != NULL)
    operation = operation->object;
  return operation;
}

/* Bounds `inner`, of the coroutine at index 1, by the context of the running coroutine. */
static void adopt(lua_State *L, struct ip_runtime *runtime, struct ip_operation *inner) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL || inner->context == context) return;
  if (inner->context != NULL && inner->context->is_foreign) {
    ip_context_enter(L, runtime, 1, context);
    return;
  }
  if (inner->context != NULL && inner->context->waiting == inner) inner->context->waiting = NULL;
  inner->context = context;
  ip_operation_push_pooled(L, inner);
  ip_operation_anchor_context(L, runtime, context);
  lua_pop(L, 1);
  context->waiting = inner;
  if (inner->is.foreign && (context == &runtime->main_context || context->is_task)) {
    inner->is.foreign = false;
    runtime->foreign_waits--;
  }
}

/* Ends the generator's wait where what bounds the running coroutine is over already, or lets nothing wait: the
   wait may have begun without being bounded by it. */
static void end_what_is_over(lua_State *L, struct ip_runtime *runtime, struct ip_operation *inner) {
  bool may_be_over = runtime->pending_raises != 0 || runtime->scopes_at_once != 0;
  struct ip_context *context = may_be_over ? ip_context_of(L, runtime) : NULL;
  if (context == NULL) return;
  inner = innermost(inner);
  if (ip_context_is_interrupted(context))
    ip_operation_complete(inner, IP_ERROR_FIBER, ip_failure(IP_FIBER_INTERRUPTED));
  else if (ip_context_find_expired(context, true) != NULL)
    ip_operation_expire(inner);
}

/* wait_inside(co) -> true after waiting as long as the coroutine `co` does; the caller then resumes `co`.
   false when this coroutine cannot suspend; resuming `co` then makes its call raise. nil when `co` is not
   suspended in an operation of this library. Suspends: yes. */
static int coroutine_wait_inside(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_operation *inner = check_operation(L, 1);
  if (inner == NULL || (inner->state != IP_OPERATION_ARMED && inner->state != IP_OPERATION_READY)) return 0;
  lua_settop(L, 1);
  if (!ip_operation_can_suspend(L, runtime)) {
    lua_pushboolean(L, false);
    return 1;
  }
  adopt(L, runtime, inner);
  struct ip_operation *delegate = ip_operation_acquire(L, runtime, &nested_wait_type, IP_NEVER, true);
  /* deadlines and interruption of the fiber end the generator's operation, not the delegate's */
  delegate->payload.delegate.innermost = innermost(inner);
  if (delegate->context != NULL) delegate->context->waiting = delegate->payload.delegate.innermost;
  delegate->object = inner;
  ip_pooled(inner)->delegate = delegate;
  end_what_is_over(L, runtime, inner);
  return ip_operation_suspend(L, delegate);
}

/* Can the coroutine be resumed? One that runs keeps the context that bounds it, whoever tries to resume
   it. */
static bool is_suspended(lua_State *thread) {
  if (lua_status(thread) == LUA_YIELD) return true;
  lua_Debug frame;
  return lua_status(thread) == LUA_OK && lua_getstack(thread, 0, &frame) == 0;
}

/* enter(co) -> true | nothing: the context of this coroutine bounds the calls of `co` until leave(co). */
static int coroutine_enter(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  ip_argument_check_type(L, 1, LUA_TTHREAD);
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL || !is_suspended(lua_tothread(L, 1))) return 0;
  ip_context_enter(L, runtime, 1, context);
  runtime->nested_coroutines++;
  lua_pushboolean(L, true);
  return 1;
}

static int coroutine_leave(lua_State *L) {
  ip_argument_check_type(L, 1, LUA_TTHREAD);
  ip_context_leave(L, 1);
  ip_runtime(L)->nested_coroutines--;
  return 0;
}

static const luaL_Reg functions[] = {{"wait_inside", coroutine_wait_inside},
                                     {"enter", coroutine_enter},
                                     {"leave", coroutine_leave},
                                     {NULL, NULL}};

void ip_nested_wait_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
