/* error.h: ip.error values, and the only place that decides between raising and returning one. Layer 2.

   A value is immutable once its maker has returned it to Lua. */
#ifndef IP_ERROR_H
#define IP_ERROR_H

#include "base/compat.h"
#include "base/util.h"
#include "binding/raise.h"

#include <stdbool.h>

enum ip_error_category {
  IP_ERROR_SYSTEM,   /* code is an errno value */
  IP_ERROR_RESOLVER, /* code is an EAI_ value of <netdb.h> */
  IP_ERROR_FIBER,    /* code is an enum ip_fiber_error */
  IP_ERROR_GENERIC,  /* Emilua's generic category: errno values again, but never equal to system ones */
  IP_ERROR_CATEGORY_COUNT
};

/* IP_FIBER_ENDED is no error: an operation that waits for the end of a fiber completes with it. */
enum ip_fiber_error { IP_FIBER_INTERRUPTED = 1, IP_FIBER_ENDED };

/* How a call fails. Every call raises its errors, but a try_ call returns nil and the error where it would
   have waited. */
enum ip_error_mode { IP_ERROR_RAISE, IP_ERROR_RETURN_AGAIN };

struct ip_error {
  enum ip_error_category category;
  int code;
  int mtu;               /* 0: unknown */
  int sent;              /* the entries of a batch that were sent before the error; negative: no batch */
  const char *operation; /* static text, or NULL */
};

/* Defines the class (core at stack index `core`) and pushes the module table ip.error. [-0, +1, m] */
void ip_error_open(lua_State *L, int core);

/* Pushes an error value; `operation` must be static text. [-0, +1, m] */
struct ip_error *ip_error_push(lua_State *L, enum ip_error_category category, int code,
                               const char *operation);

/* Raises a system error. The type lets callers write `return ip_error_raise(...)`. [-0, +0, v] */
IP_NO_RETURN int ip_error_raise(lua_State *L, int code, const char *operation);

/* Raises the error or, for EAGAIN with IP_ERROR_RETURN_AGAIN, pushes nil and the error and returns 2.
   [-0, +2, v] */
int ip_error_fail(lua_State *L, enum ip_error_mode mode, int code, const char *operation);

/* Is the value at `index` an error of this category and code? [-0, +0, -] */
bool ip_error_is(lua_State *L, const void *core, int index, enum ip_error_category category, int code);

#endif
