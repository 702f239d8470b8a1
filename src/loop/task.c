/* task.c: coroutines that the library has started. The registry's table of tasks owns each task's userdata
   until its coroutine has ended. Raises memory errors only. */
#include "loop/task.h"

/* Registry: the userdata of the tasks that have not ended, keyed by the address of their coroutine. */
static const char tasks_key;

/* Registry: the details of tasks; the task's userdata is the key, and a weak one. */
static const char details_key;

/* Registry: the close guard, the value in the first frame of each task that notices when somebody else closes
   the coroutine. */
static const char close_guard_key;

void ip_task_init(struct ip_runtime *runtime, struct ip_task *task, lua_State *thread) {
  task->context = (struct ip_context){.is_task = true};
  ip_operation_init(&task->operation, runtime, IP_READY_TASK);
  task->operation.thread = thread;
}

void ip_task_add(lua_State *L, int index, const struct ip_task *task) {
  index = lua_absindex(L, index);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
  lua_pushvalue(L, index);
  lua_rawsetp(L, -2, ip_task_thread(task));
  lua_pop(L, 1);
}

void ip_task_remove(lua_State *L, const struct ip_task *task) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
  lua_pushnil(L);
  lua_rawsetp(L, -2, ip_task_thread(task)); /* the key exists, so this allocates nothing */
  lua_pop(L, 1);
}

/* Pushes the userdata that the table of tasks has for a coroutine, or nil. [-0, +1, -] */
static void push(lua_State *L, const lua_State *thread) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
  lua_rawgetp(L, -1, thread);
  lua_remove(L, -2);
}

struct ip_task *ip_task_find(lua_State *L) {
  push(L, L);
  struct ip_task *task = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return task;
}

void ip_task_push(lua_State *L, const struct ip_task *task) {
  push(L, ip_task_thread(task));
}

/* Nothing is allocated while the table is traversed: a finalizer could add a task to it. */
void ip_task_push_all(lua_State *L) {
  int count = 0, found = 0;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
  int tasks = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, tasks) != 0; lua_pop(L, 1))
    count++;
  lua_createtable(L, count, 0);
  lua_pushnil(L);
  while (found < count && lua_next(L, tasks) != 0)
    lua_rawseti(L, tasks + 1, ++found);
  lua_settop(L, tasks + 1);
  lua_remove(L, tasks);
}

/* --- details --- */

void ip_task_push_details(lua_State *L, int index) {
  lua_pushvalue(L, index);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &details_key);
  lua_insert(L, -2);
  lua_rawget(L, -2);
  lua_remove(L, -2);
}

/* Does the userdata on top of the stack, or nil, have `values` user values? [-0, +0, -] */
static bool has_values(lua_State *L, int values) {
  if (lua_isnil(L, -1)) return false;
  bool has = lua_getiuservalue(L, -1, values) != LUA_TNONE;
  lua_pop(L, 1);
  return has;
}

/* Pops details, or nil, and copies their anchors to the details below. [-1, +0, -] */
static void move_anchors(lua_State *L) {
  for (int value = 1; value <= IP_OPERATION_ANCHORS && !lua_isnil(L, -1); value++) {
    lua_getiuservalue(L, -1, value);
    lua_setiuservalue(L, -3, value);
  }
  lua_pop(L, 1);
}

/* The old details are read after the new ones are made, because a finalizer may have woken the task or made
   details itself meanwhile. */
void ip_task_make_details(lua_State *L, int index, size_t size, int values) {
  index = lua_absindex(L, index);
  ip_task_push_details(L, index);
  if (has_values(L, values)) return;
  lua_pop(L, 1);
  lua_newuserdatauv(L, size, values);
  ip_task_push_details(L, index);
  if (has_values(L, values)) {
    lua_remove(L, -2);
    return;
  }
  move_anchors(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &details_key);
  lua_pushvalue(L, index);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* The status of a running coroutine is LUA_OK, as that of a coroutine that has not begun or has ended. */
bool ip_task_is_running(const struct ip_task *task) {
  lua_State *thread = ip_task_thread(task);
  lua_Debug frame;
  return lua_status(thread) == LUA_OK && lua_getstack(thread, 0, &frame) != 0;
}

void ip_task_enqueue(struct ip_task *task) {
  if (task->operation.state == IP_OPERATION_FREE)
    ip_runtime_enqueue(task->operation.runtime, &task->operation.ready);
}

/* __close of the close guard, called on the coroutine's stack when the coroutine ends or somebody closes it.
   In the latter case the values of its frames are gone already, but nothing has used them since: only the
   dispatcher makes attempts, and the code that closes a coroutine does not return to it meanwhile. */
static int close_guard_mt_close(lua_State *L) {
  const struct ip_runtime *runtime = ip_runtime(L);
  struct ip_task *task = runtime->running == L ? runtime->current : ip_task_find(L);
  if (task != NULL) ip_operation_release(L, &task->operation);
  return 0;
}

static int finish_task(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L) - 1;
}

/* The first frame of a task: (close guard, function, arguments ...) -> results. */
static int task_main(lua_State *L) {
  lua_toclose(L, 1);
  lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, finish_task);
  return finish_task(L, LUA_OK, 0);
}

int ip_task_prepare(struct ip_task *task) {
  lua_State *thread = ip_task_thread(task);
  int arguments = lua_gettop(thread) + 1; /* the function and the close guard become arguments */
  lua_pushcfunction(thread, task_main);
  lua_rawgetp(thread, LUA_REGISTRYINDEX, &close_guard_key);
  lua_rotate(thread, 1, 2);
  task->context.started = task->context.guarded = true;
  return arguments;
}

void ip_task_open(lua_State *L, int core) {
  static const luaL_Reg metamethods[] = {{"__close", close_guard_mt_close}, {NULL, NULL}};
  core = lua_absindex(L, core);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tasks_key);
  ip_core_store_weak_table(L, &details_key, "k");
  lua_newuserdatauv(L, 0, 0);
  lua_newtable(L);
  ip_class_functions(L, core, metamethods);
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &close_guard_key);
}
