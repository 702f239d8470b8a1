/* thread_probe.h: may libuv make its threads, and how many has it? */
#ifndef IP_THREAD_PROBE_H
#define IP_THREAD_PROBE_H

/* libuv makes all threads of its pool for the first look-up of a process, and aborts the process where one
   cannot be made (init_threads in libuv src/threadpool.c). So this makes as many at once, with the same
   stacks, and ends them. Returns 0 or an errno value: EAGAIN, ENOMEM. */
int ip_thread_probe(void);

/* How many look-ups libuv's pool runs at once: it leaves half of its threads to work that is not slow
   (slow_work_thread_threshold in src/threadpool.c). At least 1. */
unsigned ip_thread_most_lookups(void);

#endif
