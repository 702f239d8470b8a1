/* task.h: a coroutine that the library has started: the engine's half of a fiber. */
#ifndef IP_TASK_H
#define IP_TASK_H

#include "loop/operation.h"

/* The status of a task whose coroutine somebody else has closed or run to its end. */
enum { IP_TASK_CLOSED = -1 };

/* A task has an operation of its own, for it waits in one at a time. Whatever the task is queued for (its start, its
   own coroutine.yield, a look at whether its coroutine is dead), it is queued by that operation's `ready`, which is
   free as long as the operation is. */
struct ip_task {
  struct ip_context context;     /* first: what the table of tasks holds begins with a context */
  struct ip_operation operation; /* its thread is the task's, anchored by the fiber; NULL once it has ended */
};

static inline lua_State *ip_task_thread(const struct ip_task *task) {
  return task->operation.thread;
}

/* The task of a context, or NULL. */
static inline struct ip_task *ip_context_task(struct ip_context *context) {
  return context != NULL && context->is_task ? (struct ip_task *)context : NULL;
}

/* Makes the tables of tasks. [-0, +0, m] */
void ip_task_open(lua_State *L, int core);

/* Fills the userdata on top of the stack, which begins with a struct ip_task. [-0, +0, -] */
void ip_task_init(struct ip_runtime *runtime, struct ip_task *task, lua_State *thread);

/* Anchors the userdata at `index`, which begins with `task`, until ip_task_remove. [-0, +0, m] */
void ip_task_add(lua_State *L, int index, const struct ip_task *task);
void ip_task_remove(lua_State *L, const struct ip_task *task);

/* The task whose coroutine is running on `L`, or NULL. [-0, +0, -] */
struct ip_task *ip_task_find(lua_State *L);

/* Pushes the userdata of a task that is anchored. [-0, +1, -] */
void ip_task_push(lua_State *L, const struct ip_task *task);

/* Queues the task for the next iteration: to start, to go on, or to be found dead. No Lua. */
void ip_task_enqueue(struct ip_task *task);

/* Prepares the start of a task whose function and arguments are on its stack, with room for two values more. Returns
   how many arguments to resume it with. */
int ip_task_prepare(struct ip_task *task);

#endif
