/* udp_loop.c: the receive of datagrams and receive_loop; the loops themselves are in lua/ip/udp_loop.lua, for
   they call functions of the user's that may wait.

   A loop is a userdata of plain numbers and pointers. Its receive returns instead of raising where the loop is over,
   needs no protected call for that, and allocates nothing but the address of a peer that is not the last one.

   receive_loop, whose buffer may change, passes everything in each call. `for` calls an iterator: the same with
   upvalues in the place of arguments, which were checked once, and are not pushed in order to wait either. */
#include "udp/transfer.h"

#include "binding/argument.h"
#include "fiber/fiber.h"
#include "value/byte_span.h"

#include <errno.h>

struct loop {
  const struct ip_operation_kind *kind;
  struct ip_runtime *runtime;
  struct ip_socket_box *box; /* this and the span are held as arguments or upvalues */
  struct ip_bytes *span;
  size_t room;
  bool watches; /* has a fiber at STOP */
  lua_Integer max_ready;
  lua_Integer row; /* datagrams handled in `turn` */
  uint32_t turn;   /* of the dispatcher: when it has changed, others have run */
  uint32_t life;   /* of the socket */
};

/* The arguments of receive. */
enum { BOX = 1, LOOP, SPAN, ROOM, STOP };

/* Where an iterator has them: after the core. */
#define UPVALUE(argument) lua_upvalueindex(1 + (argument))

/* nil, reason: the loop is over. */
static int push_end(lua_State *L, const char *reason) {
  lua_pushnil(L);
  lua_pushstring(L, reason);
  return 2;
}

/* Has the socket been closed since the loop began? It may be open again. */
static bool is_closed(const struct ip_socket_box *box, const struct loop *loop) {
  return box->socket == NULL || box->life != loop->life;
}

static void count_turn(struct loop *loop, const struct ip_runtime *runtime) {
  if (loop->turn != runtime->turn) loop->row = 0;
  loop->turn = runtime->turn;
  loop->row++;
}

/* The span and the box are at these indexes. */
static inline int push_turn(lua_State *L, int span, int box, struct loop *loop,
                            const struct ip_datagram *datagram) {
  count_turn(loop, loop->runtime);
  loop->span->length = datagram->length;
  lua_pushvalue(L, span);
  return 1 + ip_transfer_push_sender(L, box, loop->box, datagram);
}

static int push_received(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_datagram datagram = outcome->runtime->datagram; /* a finalizer may receive, too */
  return push_turn(L, SPAN, BOX, lua_touserdata(L, LOOP), &datagram);
}

static int push_iterated(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_datagram datagram = outcome->runtime->datagram;
  return push_turn(L, UPVALUE(SPAN), UPVALUE(BOX), lua_touserdata(L, UPVALUE(LOOP)), &datagram);
}

static int push_end_of(lua_State *L, const struct loop *loop, enum ip_error_category category, int code) {
  if (category == IP_ERROR_FIBER && code == IP_FIBER_ENDED) return push_end(L, "stopped");
  bool canceled = category == IP_ERROR_SYSTEM && code == ECANCELED;
  return canceled && is_closed(loop->box, loop) ? push_end(L, "closed") : -1;
}

static int push_failure(lua_State *L, const struct ip_outcome *outcome, enum ip_error_category category,
                        int code) {
  (void)outcome;
  return push_end_of(L, lua_touserdata(L, LOOP), category, code);
}

static int push_iterated_failure(lua_State *L, const struct ip_outcome *outcome,
                                 enum ip_error_category category, int code) {
  (void)outcome;
  return push_end_of(L, lua_touserdata(L, UPVALUE(LOOP)), category, code);
}

static bool attempt_take(struct ip_operation *operation) {
  return ip_transfer_attempt_take(operation, IP_TAKE_SOURCE);
}

static const struct ip_operation_kind kinds[] = {{.name = "datagrams",
                                                  .attempt = attempt_take,
                                                  .try_last = ip_transfer_try_last_receive,
                                                  .push_results = push_iterated,
                                                  .push_failure = push_iterated_failure},
                                                 {.name = "receive_loop",
                                                  .attempt = attempt_take,
                                                  .try_last = ip_transfer_try_last_receive,
                                                  .push_results = push_received,
                                                  .push_failure = push_failure}};

/* The kind that the name at index 2 stands for. */
static const struct ip_operation_kind *check_kind(lua_State *L) {
  static const char *const names[] = {"datagrams", "receive_loop", NULL};
  return &kinds[ip_argument_choice(L, 2, names)];
}

/* check_loop(sock, name): raises EBADF called `name` when the socket is not open. */
static int loop_check(lua_State *L) {
  ip_socket_check_open(L, check_kind(L)->name);
  return 0;
}

/* new_loop(sock, name, max_ready) -> loop. */
static int loop_new(lua_State *L) {
  const struct ip_operation_kind *kind = check_kind(L);
  lua_Integer max_ready = ip_argument_integer(L, 3, 1, LUA_MAXINTEGER);
  struct loop *loop = lua_newuserdatauv(L, sizeof *loop, 0);
  const struct ip_socket_box *box = ip_socket_check_open(L, kind->name); /* last: a finalizer may close it */
  *loop = (struct loop){.kind = kind, .max_ready = max_ready, .life = box->life};
  ip_class_set(L, IP_CLASS_LOOP);
  return 1;
}

/* Suspends the running receive. The fiber at `stop`, if there is one, has not ended: only the dispatcher ends
   fibers. [-0, +?, e] */
static int wait_in_loop(lua_State *L, int stop, const struct loop *loop, const struct ip_receive_call *call,
                        bool gives_way) {
  struct ip_operation *operation =
      ip_operation_acquire(L, loop->runtime, loop->kind, call->box->receive_timeout, gives_way);
  if (is_closed(call->box, loop)) { /* by a finalizer */
    ip_operation_settle(L, operation);
    return push_end(L, "closed");
  }
  ip_transfer_queue_receive(L, operation, call, gives_way);
  if (loop->watches) ip_fiber_watch(L, stop, operation);
  return ip_operation_suspend(L, operation);
}

/* One datagram, or waiting for it: `return receive_next(...)`. */
static inline int receive_next(lua_State *L, int span, int box, int stop, struct loop *loop) {
  struct ip_receive_call call = {
      .box = loop->box, .data = loop->span->data, .size = loop->room, .what = IP_TAKE_SOURCE};
  const struct ip_runtime *runtime = loop->runtime;
  if (IP_UNLIKELY(runtime->closed)) call.box->socket = NULL; /* the runtime has freed it */
  if (IP_UNLIKELY(is_closed(call.box, loop))) return push_end(L, "closed");
  if (loop->watches && ip_fiber_has_ended(L, stop)) return push_end(L, "stopped");
  bool gives_way = loop->turn == runtime->turn && loop->row >= loop->max_ready;
  struct ip_datagram datagram;
  if (!ip_transfer_start_receive(L, loop->kind, &call, &datagram, &gives_way))
    return wait_in_loop(L, stop, loop, &call, gives_way);
  return push_turn(L, span, box, loop, &datagram);
}

/* Checks the arguments of receive, which are all there is on the stack from then on. [-?, +?, v] */
static struct loop *check_arguments(lua_State *L) {
  struct loop *loop = ip_check_class(L, LOOP, IP_CLASS_LOOP);
  loop->runtime = ip_runtime(L);
  loop->box = ip_socket_check(L, BOX);
  loop->span = ip_byte_span_check(L, SPAN);
  loop->room = (size_t)ip_argument_integer(L, ROOM, 0, (lua_Integer)loop->span->capacity);
  lua_settop(L, STOP);
  loop->watches = !lua_isnil(L, STOP);
  if (loop->watches) ip_fiber_has_ended(L, STOP); /* is a fiber */
  return loop;
}

/* receive(sock, loop, span, room, fiber | nil) -> span, address, port, truncated | nil, "closed" | "stopped":
   one datagram into the first `room` bytes of `span`, which gets its length. Suspends: yes. */
static int loop_receive(lua_State *L) {
  return receive_next(L, SPAN, BOX, STOP, check_arguments(L));
}

/* What `for` calls in each turn. */
static int iterate(lua_State *L) {
  return receive_next(L, UPVALUE(SPAN), UPVALUE(BOX), UPVALUE(STOP), lua_touserdata(L, UPVALUE(LOOP)));
}

/* iterator(sock, loop, span, room, fiber | nil) -> function: receive with these arguments, for `for`. Suspends: no. */
static int loop_iterator(lua_State *L) {
  check_arguments(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_pushcclosure(L, iterate, 1 + STOP);
  return 1;
}

/* add_methods{name = function, ...}: completes the class of sockets. lua/ip/udp.lua calls it once and takes
   it away. */
static int add_methods(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  ip_class_add_methods(L, IP_CLASS_SOCKET, 1);
  return 0;
}

static const luaL_Reg internals[] = {
    {"add_methods", add_methods},
    {"check_loop", loop_check},
    {"new_loop", loop_new},
    {"loop_iterator", loop_iterator},
    {"loop_receive", loop_receive},
    {"option_names", ip_socket_option_names},
    {"prepare_fill", ip_socket_prepare_fill},
    {"send_filled", ip_socket_send_filled},
    {"send_to_filled", ip_socket_send_to_filled},
    {NULL, NULL},
};

void ip_socket_add_internals(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {.name = "ip.loop", .id = IP_CLASS_LOOP};
  ip_class_define(L, core, &definition);
  ip_class_functions(L, core, internals);
}
