/* dispatch.h: the iterations of the loop. */
#ifndef IP_DISPATCH_H
#define IP_DISPATCH_H

#include "loop/operation.h"

/* IP_DRIVE_LOST: after a fork the loop could not be made anew. */
enum ip_drive_result { IP_DRIVE_DONE, IP_DRIVE_DEADLOCK, IP_DRIVE_ERROR, IP_DRIVE_LOST };

/* Makes what the dispatcher keeps in the registry. [-0, +0, m] */
void ip_loop_open(lua_State *L);

/* Runs the loop on the main thread until `operation` is DONE. IP_DRIVE_ERROR leaves an error value on the stack.
   [-0, +(0|1), -] */
enum ip_drive_result ip_loop_drive(lua_State *L, struct ip_runtime *runtime, struct ip_operation *operation);

/* One iteration, blocking for at most `seconds`; true while something is left to wait for. [-0, +0, -] */
bool ip_loop_step(lua_State *L, struct ip_runtime *runtime, double seconds);

/* Polls without blocking and without serving, so that all that is waited for is registered with the system; returns the
   seconds until the next timer, 0 when something is ready, a negative number when nothing is waited for. No Lua. */
double ip_loop_poll_nowait(struct ip_runtime *runtime);

/* A uv_check_cb for a host's loop: serves what is ready. */
void ip_loop_on_check(uv_check_t *check);

/* DONE, and its coroutine runs. For the watcher's dispatch. [-0, +0, -] */
void ip_operation_resume(lua_State *L, struct ip_operation *operation);

/* Reports an error that left a coroutine: calls the reporter with (error, traceback, fiber or nil). `fiber` is a stack
   index or 0. Does not raise. [-0, +0, -] */
void ip_loop_report(lua_State *L, lua_State *thread, int fiber);

/* Makes the function on top of the stack, which is popped, the reporter. [-1, +0, m] */
void ip_loop_set_reporter(lua_State *L);

#endif
