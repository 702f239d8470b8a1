/* registration.h: registers a descriptor with the loop before libuv does. */
#ifndef IP_REGISTRATION_H
#define IP_REGISTRATION_H

#include <uv.h>

/* Registers a descriptor whose uv_poll_t has been started for `events` (UV_READABLE, UV_WRITABLE), or learns
   that it is registered; 0 or an errno value. libuv does it only before it polls, and aborts the process
   where it fails (ENOSPC, ENOMEM, EBADF: uv__io_poll). Then the caller stops the handle before that. */
int ip_registration_make(uv_loop_t *loop, int fd, int events);

#endif
