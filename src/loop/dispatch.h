/* dispatch.h: the iterations of the loop. */
#ifndef IP_DISPATCH_H
#define IP_DISPATCH_H

#include "loop/operation.h"

/* IP_DRIVE_LOST: after a fork the loop could not be made anew. */
enum ip_drive_result { IP_DRIVE_DONE, IP_DRIVE_DEADLOCK, IP_DRIVE_ERROR, IP_DRIVE_LOST };

/* Creates the registry entries of the dispatcher. [-0, +0, m] */
void ip_loop_open(lua_State *L);

/* Runs the loop on the main thread until `operation` is DONE. With IP_DRIVE_ERROR, an error value is on the
   stack. [-0, +(0|1), -] */
enum ip_drive_result ip_loop_drive(lua_State *L, struct ip_runtime *runtime, struct ip_operation *operation);

/* Makes Ctrl-C end a block, and runs a hook of the host's that has been set before. The hook of a signal that
   comes later runs after the step. Returns false when it raised an error. [-0, +(0|1), -] */
bool ip_loop_watch_interrupt(lua_State *L, struct ip_runtime *runtime);

/* Runs one iteration, which blocks for at most `seconds`: after ip_loop_watch_interrupt if it may. Returns
   true while calls still wait or entries are ready. [-0, +0, -] */
bool ip_loop_step(lua_State *L, struct ip_runtime *runtime, double seconds);

/* Polls without blocking and without serving, which registers all awaited descriptors with the system.
   Returns the seconds until the next timer, 0 when something is ready, a negative number when no call waits.
   Does not call Lua. */
double ip_loop_poll_nowait(struct ip_runtime *runtime);

/* A uv_prepare_cb for a host's loop: looks after what has been watched since its last poll. */
void ip_loop_on_prepare(uv_prepare_t *prepare);

/* A uv_check_cb for a host's loop: serves what is ready. */
void ip_loop_on_check(uv_check_t *check);

/* Makes the operation DONE and resumes its coroutine. Called by the watcher's dispatch. [-0, +0, -] */
void ip_operation_resume(lua_State *L, struct ip_operation *operation);

/* Pushes the traceback of a coroutine, or nil when memory is short. Does not raise. [-0, +1, -] */
void ip_loop_push_traceback(lua_State *L, lua_State *thread);

/* Reports an error that ended a coroutine: pops the error, its traceback or nil, and the fiber or nil, and
   calls the reporter with them. Does not raise. [-3, +0, -] */
void ip_loop_report(lua_State *L);

/* Pops a function and makes it the reporter. [-1, +0, m] */
void ip_loop_set_reporter(lua_State *L);

#endif
