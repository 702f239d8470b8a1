/* task.h: a coroutine that the library has started: the part of a fiber that the engine knows. */
#ifndef IP_TASK_H
#define IP_TASK_H

#include "loop/operation.h"

/* The status of a task whose coroutine somebody else has closed or resumed until its end. */
enum { IP_TASK_CLOSED = -1 };

/* A task waits in one operation at a time, so it has one of its own. For everything else (its start, its own
   coroutine.yield, the check whether its coroutine is dead) it is queued by that operation's `ready`, which
   is unused while the operation is free. */
struct ip_task {
  struct ip_context context;     /* first: every value in the table of tasks begins with a context */
  struct ip_operation operation; /* its thread is the coroutine, which the fiber anchors; NULL at its end */
};

/* What few tasks have is in a userdata of their own, which is made when it is first needed: so a task that
   only waits for a socket is small. Its first user values are the anchors of the task's operation; the others
   are there only once they are needed. */
enum ip_task_detail {
  IP_TASK_TRACEBACK = IP_ANCHOR_OBJECT,    /* of a task that has failed: its operation is over */
  IP_TASK_NAME = IP_OPERATION_ANCHORS + 1, /* a string, or nil */
  IP_TASK_GROUP,                           /* only a member of a group has it */
  IP_TASK_DETAILS = IP_TASK_GROUP
};

static inline lua_State *ip_task_thread(const struct ip_task *task) {
  return task->operation.thread;
}

/* Returns the task of a context, or NULL. */
static inline struct ip_task *ip_context_task(struct ip_context *context) {
  return context != NULL && context->is_task ? (struct ip_task *)context : NULL;
}

/* Creates the table of tasks and the close guard. [-0, +0, m] */
void ip_task_open(lua_State *L, int core);

/* Initialises the userdata on top of the stack, which begins with a struct ip_task. [-0, +0, -] */
void ip_task_init(struct ip_runtime *runtime, struct ip_task *task, lua_State *thread);

/* Anchors the userdata at `index`, which begins with `task`, until ip_task_remove. [-0, +0, m] */
void ip_task_add(lua_State *L, int index, const struct ip_task *task);
void ip_task_remove(lua_State *L, const struct ip_task *task);

/* Pushes a sequence of the userdata of all tasks, in no order. [-0, +1, m] */
void ip_task_push_all(lua_State *L);

/* Returns the task whose coroutine is running on `L`, or NULL. [-0, +0, -] */
struct ip_task *ip_task_find(lua_State *L);

/* Pushes the userdata of an anchored task. [-0, +1, -] */
void ip_task_push(lua_State *L, const struct ip_task *task);

/* Pushes the userdata with the details of the task whose userdata is at `index`, or nil. [-0, +1, -] */
void ip_task_push_details(lua_State *L, int index);

/* Pushes it with at least `values` user values. One that is made here has `size` bytes of memory for the
   caller; only one without such memory is replaced when it has too few user values. [-0, +1, m] */
void ip_task_make_details(lua_State *L, int index, size_t size, int values);

/* Does the task's coroutine run, or wait for a coroutine that it has resumed itself? [-0, +0, -] */
bool ip_task_is_running(const struct ip_task *task);

/* Queues the task for the next iteration, which starts it, continues it or finds that its coroutine is dead.
   Does not call Lua. */
void ip_task_enqueue(struct ip_task *task);

/* Prepares the start of a task. Its function and arguments are on its stack, which has two free slots.
   Returns the number of arguments to resume it with. */
int ip_task_prepare(struct ip_task *task);

#endif
