/* loop_probe.h: may libuv make a loop? */
#ifndef IP_LOOP_PROBE_H
#define IP_LOOP_PROBE_H

/* libuv aborts the process where it cannot make the pipes of its signal handler (uv__signal_global_init), or
   cannot register what it has made (uv__io_poll). So this makes and registers as much as uv_loop_init does,
   and undoes it. Returns 0 or an errno value: EMFILE, ENFILE, ENOMEM, ENOSPC. */
int ip_loop_probe(void);

#endif
