/* lookup.h: a look-up of the system's resolver in libuv's thread pool: its memory, its wait, its errors. */
#ifndef IP_LOOKUP_H
#define IP_LOOKUP_H

#include "loop/operation.h"

#include <uv.h>

struct ip_lookup_box;

/* What the look-ups of a runtime share: a userdata, the second upvalue of the functions that look up. */
struct ip_lookups {
  uint32_t started; /* look-ups that were given to the threads so far */
  uint32_t running; /* those that have not come back */
};

struct ip_lookup {
  struct ip_resource resource; /* while `pending`, and not `lost` */
  struct ip_runtime *runtime;
  struct ip_lookups *lookups;
  union {
    uv_req_t any;
    uv_getaddrinfo_t addresses;
    uv_getnameinfo_t names;
  } request;
  struct ip_lookup_box *box;      /* NULL: the call has ended, the callback frees the look-up */
  struct ip_operation *operation; /* of the waiting call, while `pending`; else NULL */
  struct addrinfo *list;          /* the result of `addresses` */
  uint32_t number;                /* `started` with this one */
  uint32_t beside;                /* how many others were running when this one was started */
  bool pending;                   /* libuv owns it */
  bool lost;                      /* the parent's thread works on it: this process was forked */
};

struct ip_lookup_box {
  struct ip_lookup *lookup;
};

/* Defines the class of boxes (core at stack index `core`), and pushes the struct ip_lookups. [-0, +1, m] */
void ip_lookup_open(lua_State *L, int core);

/* Pushes a box with a look-up that has not been started. [-0, +1, v] */
struct ip_lookup *ip_lookup_push(lua_State *L);

/* Frees a look-up that libuv does not own. */
void ip_lookup_free(struct ip_lookup *lookup);

/* The look-up of a call that ip_lookup_answer or ip_lookup_suspend has ended. */
static inline struct ip_lookup *ip_lookup_of(const struct ip_result *result) {
  return ((struct ip_lookup_box *)result->payload.lookup.box)->lookup;
}

/* Returns the results of a look-up that needed no thread, or raises its error; `status` is libuv's. After
   many calls in a row others run first. [-0, +?, e] */
int ip_lookup_answer(lua_State *L, const struct ip_operation_type *type, struct ip_lookup *lookup,
                     int status);

/* Returns an operation for a look-up that the caller is going to start in a thread. Raises a lack of threads
   or descriptors: EAGAIN, ENOMEM, EMFILE, ENFILE. [-0, +(0|1), e] */
struct ip_operation *ip_lookup_acquire(lua_State *L, const struct ip_operation_type *type);

/* Suspends until a look-up ends that libuv has accepted or, where `status` is not 0, refused. [-0, +?, e] */
int ip_lookup_suspend(lua_State *L, struct ip_lookup *lookup, struct ip_operation *operation, int status);

/* What libuv calls at the end of a look-up. */
void ip_lookup_on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *list);
void ip_lookup_on_names(uv_getnameinfo_t *request, int status, const char *host, const char *service);

/* `unlinked` of the operation types: the operation ends before the callback has come. */
void ip_lookup_cancel(struct ip_operation *operation);

#endif
