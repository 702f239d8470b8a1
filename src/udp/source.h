/* source.h: what wait_any can wait for. A kind of source is a struct ip_source_type; source.c has the table
   of all. */
#ifndef IP_SOURCE_H
#define IP_SOURCE_H

#include "fiber/fiber.h"
#include "loop/observer.h"
#include "loop/operation.h"
#include "loop/poll_set.h"

struct ip_source_type;

/* A source that a suspended wait_any watches. It is in memory of the wait, not of Lua. */
struct ip_source {
  const struct ip_source_type *type; /* NULL: not watched */
  struct ip_operation *operation;    /* the wait's */
  size_t number;                     /* its place among the sources, from 1 */
  void *object;                      /* for its type */
  union {
    struct ip_observer observer;
    struct ip_fiber_watch fiber;
    struct ip_poll_wait descriptor;
  } by;
};

/* Results of `look`; any other is a descriptor, to be polled for input. */
enum { IP_SOURCE_READY = -1, IP_SOURCE_WAITS = -2 };

struct ip_source_type {
  /* Is the source at `index` ready, as far as this process knows? [-0, +0, e] */
  int (*look)(lua_State *L, int index);
  /* Do these events of poll(2) make it ready? [-0, +0, e] */
  bool (*confirm)(lua_State *L, int index, int events);
  /* Calls ip_source_fire when the source at `index` becomes ready, at once if it is ready; sets `type` if it
     watches. Returns 0 or an errno value. [-0, +0, -] */
  int (*watch)(lua_State *L, int index, struct ip_source *source);
  /* Ends that. Does not call Lua. */
  void (*unwatch)(struct ip_source *source);
  /* Is it ready now? Asked when the deadline of the wait has come; NULL: it would have fired. No Lua. */
  bool (*is_ready)(struct ip_source *source);
  /* Is it ready without the system's knowledge? Asked in each iteration; NULL: never. No Lua. */
  bool (*is_ready_unseen)(const struct ip_source *source);
  bool external;      /* something outside this program can make it ready */
  bool uses_poll_set; /* `watch` needs ip_poll_set_open before */
};

/* The kind of the value at `index`, or NULL: it is no source. [-0, +0, -] */
const struct ip_source_type *ip_source_type_of(lua_State *L, int index);

/* The source is ready: completes the wait, which frees the source. Does not call Lua. */
void ip_source_fire(struct ip_source *source);

#endif
