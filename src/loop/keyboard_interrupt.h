/* keyboard_interrupt.h: Ctrl-C while the loop blocks. */
#ifndef IP_KEYBOARD_INTERRUPT_H
#define IP_KEYBOARD_INTERRUPT_H

#include "loop/runtime.h"

/* Makes a SIGINT handler of the host wake this loop, too. Sets `signalled` where the standalone interpreter's
   handler has set its hook before: then the caller does not block until the hook has run. Cheap when the
   handler is installed already. [-0, +0, -] */
void ip_keyboard_interrupt_watch(lua_State *L, struct ip_runtime *runtime);

/* Stops waking the loop of this runtime. */
void ip_keyboard_interrupt_forget(struct ip_runtime *runtime);

/* In the child of a fork, whose loop has been made anew. */
void ip_keyboard_interrupt_forked(struct ip_runtime *runtime);

#endif
