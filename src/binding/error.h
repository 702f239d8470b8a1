/* error.h: ip.error values, and the only place that decides between raising and returning one. Layer 2.

   A value is immutable once its maker has returned it to Lua. */
#ifndef IP_ERROR_H
#define IP_ERROR_H

#include "base/compat.h"
#include "base/util.h"
#include "binding/place.h"
#include "binding/raise.h"
#include "net/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

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

/* A server that catches timeouts all day makes one of these for each: what few errors have is in struct
   ip_error_detail. */
struct ip_error {
  const char *operation; /* static text, or NULL */
  int32_t line;          /* of the place where it was raised: a struct ip_place without its padding */
  uint16_t file;
  int16_t code;
  int mtu; /* 0: unknown */
  uint8_t category;
  bool detailed : 1;  /* the first member of a struct ip_error_detail */
  bool of_send : 1;   /* of a call that sends */
  bool of_scope : 1;  /* a with_timeout's deadline */
  bool to_port_0 : 1; /* of a call that sends to port 0 */
  bool similar : 1;   /* the hint of the detail is a name that the program may have meant */
};

enum { IP_ERROR_SUBJECT_SIZE = IP_ADDRESS_TEXT_SIZE };

struct ip_error_detail {
  struct ip_error error;               /* first */
  int sent;                            /* the entries of a batch that were sent before; negative: no batch */
  const char *hint;                    /* static text: more about the mistake; NULL: nothing */
  char subject[IP_ERROR_SUBJECT_SIZE]; /* the name in the call that the error is about; empty: none */
  uint16_t port;                       /* with `address` */
  struct ip_address address;           /* of the endpoint in the call; version 0: there was none */
};

/* Defines the class (core at stack index `core`) and pushes the module table ip.error. [-0, +1, m] */
void ip_error_open(lua_State *L, int core);

/* Pushes an error value; `operation` must be static text. [-0, +1, m] */
struct ip_error *ip_error_push(lua_State *L, enum ip_error_category category, int code,
                               const char *operation);
struct ip_error_detail *ip_error_push_detail(lua_State *L, enum ip_error_category category, int code,
                                             const char *operation);

/* Sets the endpoint that the call had. */
void ip_error_set_endpoint(struct ip_error_detail *detail, const struct ip_address *address, uint16_t port);

/* Sets what the error is about, if the value at `arg` is an address, an integer or a name that a message can
   show. [-0, +0, -] */
void ip_error_set_subject(lua_State *L, int arg, struct ip_error_detail *detail);

/* Also drops the hint, which is about that endpoint. */
void ip_error_forget_endpoint(struct ip_error_detail *detail);

/* Raises the error value on top of the stack, which has just been made, and notes the place of the call in
   it. [-1, +0, v] */
IP_NO_RETURN int ip_error_throw_new(lua_State *L, struct ip_error *error);

/* Raises a system error. The type lets callers write `return ip_error_raise(...)`. [-0, +0, v] */
IP_NO_RETURN int ip_error_raise(lua_State *L, int code, const char *operation);

/* The same with a hint: static text that says more about the mistake than the code does. [-0, +0, v] */
IP_NO_RETURN int ip_error_raise_with_hint(lua_State *L, int code, const char *operation, const char *hint);

/* The same for a call about the name, the integer or the address at `arg`, which may be any other value, too.
   [-0, +0, v] */
IP_NO_RETURN int ip_error_raise_about(lua_State *L, int code, const char *operation, int arg,
                                      const char *hint);

/* The same, with a name in the hint's place that the program may have meant. [-0, +0, v] */
IP_NO_RETURN int ip_error_raise_similar(lua_State *L, int code, const char *operation, int arg,
                                        const char *similar);

/* Raises the error or, for EAGAIN with IP_ERROR_RETURN_AGAIN, pushes nil and ip.error.EAGAIN and returns 2,
   which allocates nothing. [-0, +2, v] */
int ip_error_fail(lua_State *L, enum ip_error_mode mode, int code, const char *operation);

/* Is the value at `index` an error of this category and code? [-0, +0, -] */
bool ip_error_is(lua_State *L, const void *core, int index, enum ip_error_category category, int code);

#endif
