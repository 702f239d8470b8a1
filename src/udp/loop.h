/* loop.h: one receive of a loop over datagrams, which `datagrams`, receive_loop and serve share. */
#ifndef IP_UDP_LOOP_H
#define IP_UDP_LOOP_H

#include "base/util.h"
#include "fiber/fiber.h"
#include "udp/receive.h"
#include "value/byte_span.h"

#include <errno.h>

struct ip_stop_watch;

/* The operation types of one kind of loop. */
struct ip_udp_loop_type {
  struct ip_operation_type plain;
  struct ip_operation_type watched; /* of a loop that a fiber may stop */
};

/* The type of a loop with this name, whose waits end with `results` or `failed`. */
#define IP_LOOP_TYPE(text, results, failed)                                                                  \
  {                                                                                                          \
    .plain = {.name = (text),                                                                                \
              .attempt = ip_receive_attempt,                                                                 \
              .final_attempt = ip_receive_final_attempt,                                                     \
              .push_results = (results),                                                                     \
              .push_failure = (failed)},                                                                     \
    .watched = {                                                                                             \
      .name = (text),                                                                                        \
      .attempt = ip_udp_loop_attempt_watched,                                                                \
      .unlinked = ip_udp_loop_unlink_watched,                                                                \
      .final_attempt = ip_udp_loop_final_attempt_watched,                                                    \
      .push_results = (results),                                                                             \
      .push_failure = (failed)                                                                               \
    }                                                                                                        \
  }

/* A loop is a userdata of plain numbers and pointers; Lua owns it. */
struct ip_udp_loop {
  const struct ip_udp_loop_type *type;
  struct ip_stop_watch *stop_watch; /* NULL until a fiber that stops the loop needs it */
  struct ip_runtime *runtime;
  struct ip_socket_box *box; /* the arguments or upvalues anchor the box and the span */
  struct ip_bytes *span;
  size_t capacity;           /* bytes of the span that a receive may use */
  struct ip_failure failure; /* that ended a wait of the main thread: see ip_udp_loop_is_driven */
  bool watches;              /* there is a fiber that stops the loop */
  bool asks;                 /* there is a function on_error */
  uint32_t max_ready;
  uint32_t in_row;     /* datagrams and errors handled in `iteration` */
  uint32_t iteration;  /* of the event loop: it changes when other coroutines have run */
  uint32_t generation; /* of the socket */
};

/* The arguments of a loop's C function. An iterator has the same values as upvalues, after the core. */
enum ip_udp_loop_value { IP_LOOP_BOX = 1, IP_LOOP_SELF, IP_LOOP_SPAN, IP_LOOP_CAPACITY, IP_LOOP_STOP };

/* Why a receive brings no datagram, beside the errno values of a struct ip_failure. */
enum ip_udp_loop_end { IP_LOOP_CLOSED = -1, IP_LOOP_STOPPED = -2 };

/* Defines the class of loops (core at stack index `core`). [-0, +0, m] */
void ip_udp_loop_open(lua_State *L, int core);

/* Pushes a loop, a struct of `size` bytes that begins with a struct ip_udp_loop, over the socket at index 1;
   raises EBADF, named after the loop, when it is not open. [-0, +1, e] */
struct ip_udp_loop *ip_udp_loop_new(lua_State *L, const struct ip_udp_loop_type *type, size_t size,
                                    lua_Integer max_ready);

/* Checks the arguments of a loop's C function and enters them into the loop. [-0, +?, v] */
struct ip_udp_loop *ip_udp_loop_check(lua_State *L);

/* Has the socket been closed since the loop began? It may be open again. */
static inline bool ip_udp_loop_is_closed(const struct ip_udp_loop *loop) {
  const struct ip_socket_box *box = loop->box;
  if (IP_UNLIKELY(loop->runtime->closed)) loop->box->socket = NULL; /* the runtime has freed it */
  return box->socket == NULL || box->generation != loop->generation;
}

/* A loop yields after max_ready datagrams and errors in a row. */
static inline void ip_udp_loop_count(struct ip_udp_loop *loop) {
  if (loop->iteration != loop->runtime->iteration) loop->in_row = 0;
  loop->iteration = loop->runtime->iteration;
  loop->in_row++;
}

/* Counts an error that the loop goes on after. It spends the budget, too: an endless series of errors at once
   must not starve others. */
static inline void ip_udp_loop_count_error(struct ip_udp_loop *loop) {
  ip_udp_loop_count(loop);
  loop->runtime->budget--;
}

/* Receives one datagram into the span, which does not have its length yet (ip_udp_loop_accept). Returns code
   0, an enum ip_udp_loop_end, EAGAIN where the loop has to wait (ip_udp_loop_wait), or another errno value.
   `stop` is the index of the fiber that stops the loop. [-0, +0, e] */
static inline struct ip_failure ip_udp_loop_try(lua_State *L, int stop, struct ip_udp_loop *loop,
                                                struct ip_received *received, bool *yields) {
  if (IP_UNLIKELY(ip_udp_loop_is_closed(loop))) return ip_failure(IP_LOOP_CLOSED);
  if (loop->watches && ip_fiber_has_ended(L, stop)) return ip_failure(IP_LOOP_STOPPED);
  struct ip_receive_call call = {
      .box = loop->box,
      .receive = {.data = loop->span->data, .size = loop->capacity, .wants = IP_WANTS_SOURCE}};
  *yields = loop->iteration == loop->runtime->iteration && loop->in_row >= loop->max_ready;
  return ip_receive_try(L, &loop->type->plain, &call, received, yields);
}

/* Notes a datagram that the loop has received. */
static inline void ip_udp_loop_accept(struct ip_udp_loop *loop, const struct ip_datagram *datagram) {
  ip_udp_loop_count(loop);
  loop->span->length = datagram->length;
}

/* Returns an operation that waits for the next datagram, to be suspended in; NULL, and the failure, where the
   wait is over before it begins. [-0, +?, e] */
struct ip_operation *ip_udp_loop_wait(lua_State *L, int stop, struct ip_udp_loop *loop, bool yields,
                                      struct ip_failure *failure);

/* Does the main thread drive the event loop for this loop? Its C function then returns from
   ip_operation_suspend, and goes on there: what went on in the operation's continuation would nest a C frame
   for each wait. In a coroutine the continuation goes on, and ip_operation_suspend does not return. */
static inline bool ip_udp_loop_is_driven(const lua_State *L, const struct ip_udp_loop *loop) {
  return L == loop->runtime->main;
}

/* Would a wait until `deadline` be over before it begins? Raises the deadline of a scope. [-0, +0, e] */
bool ip_udp_loop_is_too_late(lua_State *L, const struct ip_udp_loop *loop, ip_deadline deadline, bool yields);

/* Returns the failure that a wait has ended with, which may be an enum ip_udp_loop_end; code 0 for what only
   the program itself can cause: it ends every loop. */
struct ip_failure ip_udp_loop_classify(const struct ip_udp_loop *loop, enum ip_error_category category,
                                       struct ip_failure failure);

/* Pushes the error of a failure, of a call of this type, with the place in the program that runs the loop: a
   function of the program is asked about it before it is raised, if ever. [-0, +1, m] */
void ip_udp_loop_push_error(lua_State *L, const struct ip_operation_type *type, struct ip_failure failure);

/* "closed" or "stopped". */
const char *ip_udp_loop_reason(int end);

/* Functions of operation types. They do not call Lua. */
bool ip_udp_loop_attempt_watched(struct ip_operation *operation);
void ip_udp_loop_final_attempt_watched(struct ip_operation *operation);
void ip_udp_loop_unlink_watched(struct ip_operation *operation);

#endif
