/* thread_probe.h: may libuv make its threads? */
#ifndef IP_THREAD_PROBE_H
#define IP_THREAD_PROBE_H

/* libuv makes all threads of its pool for the first look-up of a process, and aborts the process where one
   cannot be made (init_threads in libuv src/threadpool.c). So this makes as many at once, with the same
   stacks, and ends them. Returns 0 or an errno value: EAGAIN, ENOMEM. */
int ip_thread_probe(void);

#endif
