/* relay.c: what ip.fiber.coroutine is made of: a coroutine that waits inside another one.

   When a generator that a fiber has resumed suspends in an operation, the fiber suspends too, in a relay: an operation
   that waits for the generator's. The dispatcher then resumes the fiber instead of the generator, and the fiber resumes
   the generator, in the same breath. Deadlines and interruption of the fiber end the generator's operation itself. */
#include "fiber/fiber.h"

#include "base/util.h"

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

static bool never_attempted(struct ip_operation *operation) {
  (void)operation;
  return true;
}

/* The relay is withdrawn before the generator's operation is over: nobody would resume the generator. */
static void on_unlinked(struct ip_operation *relay) {
  struct ip_operation *inner = relay->object;
  inner->relay = NULL;
}

/* The fiber is closed, or resumed by a stranger: the generator that it waits in is closed with it, for nobody would
   go on with it, and what it waits for is for the next waiter. */
static void close_generator(lua_State *L, struct ip_operation *relay) {
  struct ip_operation *inner = relay->object;
  if (inner == NULL || lua_status(inner->thread) != LUA_YIELD) return;
  lua_State *thread = inner->thread; /* the first value of the relay's frame */
  inner->relay = NULL;
  relay->object = NULL;
  ip_compat_close_thread(thread, L);
}

static int push_true(lua_State *L, const struct ip_outcome *outcome) {
  (void)outcome;
  lua_pushboolean(L, true);
  return 1;
}

static const struct ip_operation_kind relay_kind = {.name = "resume",
                                                    .attempt = never_attempted,
                                                    .unlinked = on_unlinked,
                                                    .abandoned = close_generator,
                                                    .push_results = push_true};

static bool can_suspend(lua_State *L, const struct ip_runtime *runtime) {
  return L == runtime->main ? !runtime->driving && !ip_compat_in_finalizer(L) : lua_isyieldable(L);
}

/* What the coroutine in `operation` waits for in the end: generators may be inside generators. */
static struct ip_operation *innermost(struct ip_operation *operation) {
  while (operation->kind == &relay_kind && operation->object != NULL)
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
  if (inner->counts && (context == &runtime->main_context || context->is_task)) {
    inner->counts = false;
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
  if (!can_suspend(L, runtime)) {
    lua_pushboolean(L, false);
    return 1;
  }
  adopt(L, runtime, inner);
  struct ip_operation *relay = ip_operation_acquire(L, runtime, &relay_kind, -1, true);
  /* the fiber waits in the generator's operation: that is what deadlines and interruption are to end */
  if (relay->context != NULL) relay->context->waiting = innermost(inner);
  relay->object = inner;
  inner->relay = relay;
  return ip_operation_suspend(L, relay);
}

/* enter(co): while `co` runs, the context of this coroutine bounds its calls. leave(co) ends that. */
static int coroutine_enter(lua_State *L) {
  struct ip_runtime *runtime = ip_runtime(L);
  luaL_checktype(L, 1, LUA_TTHREAD);
  struct ip_context *context = ip_context_of(L, runtime);
  if (context == NULL) return 0;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_contexts_key);
  lua_pushvalue(L, 1);
  if (context == &runtime->main_context) {
    lua_pushlightuserdata(L, context);
  } else if (context->is_task) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_tasks_key);
    lua_rawgetp(L, -1, ((struct ip_task *)context)->thread);
    lua_remove(L, -2);
  } else {
    lua_pushthread(L);
    lua_rawget(L, 2);
  }
  lua_rawset(L, 2);
  runtime->nested_coroutines++;
  lua_pushboolean(L, true);
  return 1;
}

static int coroutine_leave(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ip_runtime_contexts_key);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  lua_rawset(L, -3);
  ip_runtime(L)->nested_coroutines--;
  return 0;
}

static const luaL_Reg functions[] = {{"wait_inside", coroutine_wait_inside},
                                     {"enter", coroutine_enter},
                                     {"leave", coroutine_leave},
                                     {NULL, NULL}};

void ip_relay_open(lua_State *L, int core) {
  ip_class_functions(L, core, functions);
}
