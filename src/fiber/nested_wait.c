/* nested_wait.c: what ip.fiber.coroutine is made of: a coroutine that waits inside another one.

   When a generator that a fiber has resumed suspends in an operation, the fiber suspends too, as the delegate of the
   generator: in an operation that waits for the generator's. The dispatcher then resumes the fiber instead of the
   generator, and the fiber resumes the generator, in the same breath. Deadlines and interruption of the fiber end the
   generator's operation itself. */
#include "fiber/nested_wait.h"

#include "base/util.h"
#include "binding/argument.h"
#include "loop/pooled_operation.h"
#include "loop/task.h"

/* The operation that the coroutine at `arg` is suspended in, or NULL: its frame has it on top. It is looked at from
   this stack: nothing is pushed on a coroutine that is not running but what was just taken off it. */
static struct ip_operation *check_operation(lua_State *L, int arg) {
  lua_State *thread = lua_tothread(L, arg);
  luaL_argexpected(L, thread != NULL, arg, "coroutine");
  if (thread == L || lua_status(thread) != LUA_YIELD || lua_gettop(thread) == 0) return NULL;
  luaL_checkstack(L, 2, "too many arguments");
  lua_xmove(thread, L, 1);
  struct ip_operation *operation = ip_test_class(L, -1, IP_CLASS_OPERATION);
  lua_xmove(L, thread, 1);
  return operation;
}

/* The delegate's operation ends before the generator's does: nobody would resume the generator. */
static void on_unlinked(struct ip_operation *delegate) {
  struct ip_operation *inner = delegate->object;
  ip_pooled(inner)->delegate = NULL;
}

/* Somebody closes the fiber, or a stranger resumes it: the generator that it waits in is closed with it, for nobody would
   go on with it, and what it waits for is for the next waiter. */
static void close_generator(lua_State *L, struct ip_operation *delegate) {
  struct ip_operation *inner = delegate->object;
  if (inner == NULL || lua_status(inner->thread) != LUA_YIELD) return;
  lua_State *thread = inner->thread; /* the first value of the delegate's frame */
  ip_pooled(inner)->delegate = NULL;
  delegate->object = NULL;
  ip_compat_close_thread(thread, L);
}

static int push_true(lua_State *L, struct ip_result *result) {
  (void)result;
  lua_pushboolean(L, true);
  return 1;
}

static const struct ip_operation_type nested_wait_type = {
    .name = "resume", .unlinked = on_unlinked, .cancelled = close_generator, .push_results = push_true};

/* What the coroutine in `operation` waits for in the end: generators may be inside generators. */
static struct ip_operation *innermost(struct ip_operation *operation) {
  while (operation->type == &nested_wait_type && operation->object != NULL)
    operation = operation->object;
  return operation;
}

/* Makes the context of the running coroutine the one that bounds `inner`, unless it has that already. */
static void adopt(lua_State *L, struct ip_runtime *runtime, struct ip_operation *inner) {
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL || inner->context == context) return;
  if (inner->context != NULL && inner->context->waiting == inner) inner->context->waiting = NULL;
  inner->context = context;
  context->waiting = inner;
  if (inner->is.foreign && (context == &runtime->main_context || context->is_task)) {
    inner->is.foreign = false;
    runtime->foreign_waits--;
  }
}

/* wait_inside(co) -> true after waiting as long as the coroutine `co` does, and then it is to be resumed; false when this
   coroutine cannot suspend, and then resuming `co` makes its call raise; nil when `co` is not suspended in an operation
   of this library. Suspends: yes. */
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
  /* the fiber waits in the generator's operation: that is what deadlines and interruption are to end */
  if (delegate->context != NULL) delegate->context->waiting = innermost(inner);
  delegate->object = inner;
  ip_pooled(inner)->delegate = delegate;
  return ip_operation_suspend(L, delegate);
}

/* enter(co) -> true | nothing: while `co` runs, the context of this coroutine bounds its calls. leave(co) ends that. */
static int coroutine_enter(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  luaL_checktype(L, 1, LUA_TTHREAD);
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL) return 0;
  ip_context_push_owner(L, runtime, context);
  ip_context_assign(L, 1);
  runtime->nested_coroutines++;
  lua_pushboolean(L, true);
  return 1;
}

static int coroutine_leave(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  lua_pushnil(L);
  ip_context_assign(L, 1);
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
