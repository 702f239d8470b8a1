/* udp_message.c: receive_message, send_message, reply_message: datagrams with what travels beside the bytes.

   An info table is the caller's. It is read and written without metamethods, which could close the socket. Reused, it
   makes no garbage but the addresses that differ from the last ones. */
#include "udp_message.h"

#include "address.h"
#include "byte_span.h"
#include "util.h"

#include <errno.h>
#include <limits.h>
#include <netinet/ip.h>

enum { INFO = 3, FLAGS = 4 }; /* stack indices of all three functions */

static const char *const keys[] = {"address",         "port",         "truncated", "destination",
                                   "interface_index", "hops",         "ecn",       "traffic_class",
                                   "timestamp",       "segment_size", "dropped",   "source"};

/* Keys that are only ever cleared would be made anew after each collection. */
void ip_socket_keep_message_keys(lua_State *L) {
  static const char registry_key;
  lua_createtable(L, (int)ip_count_of(keys), 0);
  for (size_t i = 0; i < ip_count_of(keys); i++) {
    lua_pushstring(L, keys[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key);
}

/* Pushes a field of the info table. [-0, +1, m] */
static int get_field(lua_State *L, const char *key) {
  lua_pushstring(L, key);
  return lua_rawget(L, INFO);
}

/* Sets a field of the info table to the value on top of the stack. [-1, +0, m] */
static void set_field(lua_State *L, const char *key) {
  lua_pushstring(L, key);
  lua_insert(L, -2);
  lua_rawset(L, INFO);
}

/* --- receive_message --- */

static void set_integer(lua_State *L, const char *key, bool known, lua_Integer value) {
  if (known)
    lua_pushinteger(L, value);
  else
    lua_pushnil(L);
  set_field(L, key);
}

static bool holds_address(lua_State *L, const char *key, const struct ip_address *address) {
  get_field(L, key);
  const struct ip_address *held = ip_test_class(L, -1, IP_CLASS_ADDRESS);
  bool same = held != NULL && ip_address_compare(held, address) == 0;
  lua_pop(L, 1);
  return same;
}

static void set_source(lua_State *L, const struct ip_endpoint *source) {
  struct ip_address address;
  ip_endpoint_get_address(source, &address);
  if (!holds_address(L, "address", &address)) {
    ip_transfer_push_source(L, source);
    set_field(L, "address");
  }
  set_integer(L, "port", true, ip_endpoint_port(source));
}

static void set_destination(lua_State *L, const struct ip_control *control) {
  bool known = (control->items & IP_CONTROL_ADDRESS) != 0;
  if (known && holds_address(L, "destination", &control->address)) return;
  if (known)
    ip_address_push(L, &control->address);
  else
    lua_pushnil(L);
  set_field(L, "destination");
}

/* The system begins to tell with the first drop; the option promises a count. */
static void count_drops(const struct ip_socket *socket, struct ip_control *control) {
  struct ip_messages *messages = socket->messages;
  if (messages == NULL || !messages->counts) return;
  if (control->items & IP_CONTROL_DROPPED) messages->dropped = control->dropped;
  control->dropped = messages->dropped;
  control->items |= IP_CONTROL_DROPPED;
}

/* Pushes n, info. Both arguments are copies: what follows may allocate. [-0, +2, m] */
static int push_message(lua_State *L, const struct ip_datagram *datagram, const struct ip_control *control) {
  uint32_t items = control->items;
  bool classed = (items & IP_CONTROL_TRAFFIC_CLASS) != 0;
  lua_settop(L, INFO);
  if (lua_isnil(L, INFO)) {
    lua_createtable(L, 0, (int)ip_count_of(keys));
    lua_replace(L, INFO);
  }
  set_source(L, &datagram->source);
  lua_pushboolean(L, datagram->truncated);
  set_field(L, "truncated");
  set_destination(L, control);
  set_integer(L, "interface_index", (items & IP_CONTROL_INTERFACE) != 0, control->interface_index);
  set_integer(L, "hops", (items & IP_CONTROL_HOPS) != 0, control->hops);
  set_integer(L, "traffic_class", classed, control->traffic_class);
  set_integer(L, "ecn", classed, control->traffic_class & 3);
  set_integer(L, "timestamp", (items & IP_CONTROL_TIMESTAMP) != 0, control->timestamp);
  set_integer(L, "segment_size", (items & IP_CONTROL_SEGMENT_SIZE) != 0, control->segment_size);
  set_integer(L, "dropped", (items & IP_CONTROL_DROPPED) != 0, control->dropped);
  lua_pushinteger(L, (lua_Integer)datagram->length);
  lua_pushvalue(L, INFO);
  return 2;
}

/* What was just taken stands in the runtime. */
static int push_taken(lua_State *L, struct ip_runtime *runtime, const struct ip_datagram *taken) {
  struct ip_datagram datagram = *taken;
  struct ip_control control = runtime->control;
  const struct ip_socket *socket = ip_socket_check(L, 1)->socket;
  if (socket != NULL) count_drops(socket, &control);
  return push_message(L, &datagram, &control);
}

static bool attempt_receive_message(struct ip_operation *operation) {
  return ip_transfer_attempt_take(operation, IP_TAKE_MESSAGE);
}

static int push_received_message(lua_State *L, const struct ip_outcome *outcome) {
  return push_taken(L, outcome->runtime, &outcome->runtime->datagram);
}

static const struct ip_operation_kind receive_message_kind = {.name = "receive_message",
                                                              .attempt = attempt_receive_message,
                                                              .try_last = ip_transfer_try_last_receive,
                                                              .push_results = push_received_message};

static void check_info(lua_State *L, bool optional) {
  if (!optional || !lua_isnoneornil(L, INFO)) luaL_checktype(L, INFO, LUA_TTABLE);
}

/* sock:receive_message(buf[, info[, flags]]) -> n, info: as receive_from, with what travelled beside the bytes in
   `info`, a table that is filled anew (a new one without the argument): address, port, truncated, and where the
   option receive_... is on destination, interface_index, hops, traffic_class, ecn, timestamp (ns since the epoch),
   dropped, and segment_size where the system has joined several datagrams. Raises what receive does. Suspends: yes.
   Source: recvmsg(2), RFC 3542. */
int ip_socket_receive_message(lua_State *L) {
  const struct ip_operation_kind *kind = &receive_message_kind;
  struct ip_receive_call call = {.box = ip_socket_check_open(L, kind->name), .what = IP_TAKE_MESSAGE};
  struct ip_bytes *span = ip_byte_span_check(L, 2);
  check_info(L, true);
  call.data = span->data;
  call.size = span->length;
  call.flags = ip_transfer_flags(L, FLAGS, true, kind->name);
  lua_settop(L, FLAGS);
  struct ip_runtime *runtime = ip_runtime(L);
  struct ip_datagram datagram;
  bool gives_way = false;
  if (!ip_transfer_start_receive(L, kind, &call, &datagram, &gives_way))
    return ip_transfer_wait_to_receive(L, kind, &call, gives_way);
  return push_taken(L, runtime, &datagram);
}

/* --- the fields of what is sent --- */

static int field_error(lua_State *L, const char *key, const char *problem) {
  return luaL_argerror(L, INFO, lua_pushfstring(L, "field '%s': %s", key, problem));
}

static int field_type_error(lua_State *L, const char *key, const char *expected) {
  return field_error(L, key, lua_pushfstring(L, "%s expected, got %s", expected, luaL_typename(L, -1)));
}

/* False where there is none. [-0, +0, v] */
static bool read_integer(lua_State *L, const char *key, lua_Integer low, lua_Integer high,
                         lua_Integer *value) {
  int type = get_field(L, key);
  if (type == LUA_TNIL) {
    lua_pop(L, 1);
    return false;
  }
  if (type != LUA_TNUMBER) field_type_error(L, key, "integer");
  int exact;
  *value = lua_tointegerx(L, -1, &exact);
  if (!exact) field_error(L, key, "number has no integer representation");
  if (*value < low || *value > high)
    field_error(L, key, lua_pushfstring(L, "%I is outside %I..%I", *value, low, high));
  lua_pop(L, 1);
  return true;
}

/* Likewise an addr. [-0, +0, v] */
static bool read_address(lua_State *L, const char *key, struct ip_address *address) {
  int type = get_field(L, key);
  const struct ip_address *object = ip_test_class(L, -1, IP_CLASS_ADDRESS);
  if (object != NULL) {
    *address = *object;
  } else if (type == LUA_TSTRING) {
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    const char *problem = ip_address_parse(address, text, length);
    if (problem != NULL) field_error(L, key, problem);
  } else if (type != LUA_TNIL) {
    field_type_error(L, key, "ip.address or string");
  }
  lua_pop(L, 1);
  return type != LUA_TNIL;
}

struct target {
  struct ip_address address;
  uint16_t port;
  bool given;
};

static void read_target(lua_State *L, bool required, struct target *target) {
  lua_Integer port;
  target->given = read_address(L, "address", &target->address);
  bool has_port = read_integer(L, "port", 0, UINT16_MAX, &port);
  if (!target->given && (has_port || required))
    field_error(L, "address", "ip.address or string expected, got nil");
  if (target->given && !has_port) field_error(L, "port", "integer expected, got nil");
  target->port = has_port ? (uint16_t)port : 0;
}

static void read_interface(lua_State *L, struct ip_control *control) {
  lua_Integer index;
  if (!read_integer(L, "interface_index", 0, INT_MAX, &index) || index == 0) return;
  control->interface_index = (uint32_t)index;
  control->items |= IP_CONTROL_INTERFACE;
}

/* The class that the option gives every datagram of this path. */
static int default_class(lua_State *L, const struct ip_socket *socket, bool v4_path, const char *operation) {
  int value;
  int error = ip_datagram_get_option(socket->readiness.fd, v4_path ? IPPROTO_IP : IPPROTO_IPV6,
                                     v4_path ? IP_TOS : IPV6_TCLASS, &value);
  if (error != 0) ip_error_raise(L, error, operation);
  return value < 0 ? 0 : value;
}

static bool is_v4_call(const struct ip_send_call *call) {
  const struct ip_socket *socket = call->box->socket;
  return ip_socket_is_v4_path(socket, call->to != NULL ? call->to : &socket->connection->remote);
}

/* The two low bits of the traffic class are the ECN field (RFC 3168): a datagram may set either part. */
static void read_class(lua_State *L, const char *operation, struct ip_send_call *call) {
  struct ip_control *control = &call->control;
  lua_Integer class = 0, ecn = 0;
  bool has_class = read_integer(L, "traffic_class", 0, 255, &class);
  bool has_ecn = read_integer(L, "ecn", 0, 3, &ecn);
  if (!has_class && !has_ecn) return;
  if (!has_class) class = default_class(L, call->box->socket, is_v4_call(call), operation);
  control->traffic_class = (int)(has_ecn ? (class & ~(lua_Integer)3) | ecn : class);
  control->items |= IP_CONTROL_TRAFFIC_CLASS;
}

static void read_sizes(lua_State *L, struct ip_control *control) {
  lua_Integer value;
  if (read_integer(L, "hops", 1, 255, &value)) {
    control->hops = (int)value;
    control->items |= IP_CONTROL_HOPS;
  }
  if (read_integer(L, "segment_size", 0, 65507, &value)) {
    control->segment_size = (int)value;
    control->items |= IP_CONTROL_SEGMENT_SIZE;
  }
}

/* --- send_message, reply_message --- */

/* Checks the arguments (self, data, info[, flags]) but for the fields. [-0, +(0|1), e] */
static void check_call(lua_State *L, const char *operation, struct ip_send_call *call) {
  call->box = ip_socket_check_open(L, operation);
  call->control.items = 0;
  call->done = 0;
  call->to = NULL;
  lua_settop(L, FLAGS); /* the vector that comes next must not lie where an absent argument is looked for */
  check_info(L, false);
  call->flags = ip_transfer_flags(L, FLAGS, false, operation);
  ip_transfer_read_data(L, operation, call);
}

static void set_target(lua_State *L, const char *operation, const struct target *target,
                       struct ip_send_call *call) {
  const struct ip_socket *socket = call->box->socket;
  if (!target->given) {
    if (socket->connection == NULL) ip_error_raise(L, EDESTADDRREQ, operation);
    return;
  }
  ip_endpoint_set(&call->remote, ip_socket_family(socket), &target->address, target->port);
  call->to = &call->remote;
}

static void check_send_message(lua_State *L, const char *operation, struct ip_send_call *call) {
  struct target target;
  check_call(L, operation, call);
  read_target(L, false, &target);
  set_target(L, operation, &target, call);
  if (read_address(L, "source", &call->control.address)) call->control.items |= IP_CONTROL_ADDRESS;
  read_interface(L, &call->control);
  read_sizes(L, &call->control);
  read_class(L, operation, call);
}

/* Nobody's own address. */
static bool is_for_many(const struct ip_address *address) {
  struct ip_address plain = ip_address_unmapped(address);
  const uint8_t *bytes = plain.bytes;
  bool everybody = plain.version == 4 && (bytes[0] & bytes[1] & bytes[2] & bytes[3]) == 0xff;
  return everybody || ip_address_is_multicast(&plain) || ip_address_is_unspecified(&plain);
}

/* A link-local address is on one interface; elsewhere routing chooses, which may well take another way back. */
static void check_reply_message(lua_State *L, const char *operation, struct ip_send_call *call) {
  struct ip_control *control = &call->control;
  struct target target;
  check_call(L, operation, call);
  read_target(L, true, &target);
  set_target(L, operation, &target, call);
  if (read_address(L, "destination", &control->address) && !is_for_many(&control->address))
    control->items |= IP_CONTROL_ADDRESS;
  bool local_source =
      (control->items & IP_CONTROL_ADDRESS) != 0 && ip_address_is_link_local(&control->address);
  if (local_source || ip_address_is_link_local(&target.address)) read_interface(L, control);
}

static int send_message_again(lua_State *L, const struct ip_outcome *outcome);
static int reply_message_again(lua_State *L, const struct ip_outcome *outcome);

static const struct ip_operation_kind send_message_kind = {.name = "send_message",
                                                           .attempt = ip_transfer_attempt_send,
                                                           .try_last = ip_transfer_try_last_send,
                                                           .push_results = send_message_again};
static const struct ip_operation_kind reply_message_kind = {.name = "reply_message",
                                                            .attempt = ip_transfer_attempt_send,
                                                            .try_last = ip_transfer_try_last_send,
                                                            .push_results = reply_message_again};

static int send_message_again(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_send_call call;
  check_send_message(L, send_message_kind.name, &call);
  return ip_transfer_retry_send(L, &send_message_kind, &call, outcome);
}

static int reply_message_again(lua_State *L, const struct ip_outcome *outcome) {
  struct ip_send_call call;
  check_reply_message(L, reply_message_kind.name, &call);
  return ip_transfer_retry_send(L, &reply_message_kind, &call, outcome);
}

/* sock:send_message(data, info[, flags]) -> n: sends `data` as `info` says: address and port (without: the connected
   peer, else EDESTADDRREQ), source (address to send from; EINVAL unless it is this system's own and of the peer's
   family), interface_index (0: any), hops (1..255), traffic_class (0..255), ecn (0..3), segment_size (0..65507; the
   system splits `data` into datagrams of that size; 0 does not split). Other keys are ignored. Raises what send_to
   does. Suspends: yes, while the system's buffer is full. Source: sendmsg(2), RFC 3542, udp(7). */
int ip_socket_send_message(lua_State *L) {
  struct ip_send_call call;
  check_send_message(L, send_message_kind.name, &call);
  return ip_transfer_start_send(L, &send_message_kind, &call);
}

/* sock:reply_message(data, info[, flags]) -> n: answers what receive_message has reported in `info`: to its address
   and port, from its destination where that is one host's own (not a group, not 255.255.255.255), and between
   link-local addresses over its interface_index. Other keys are ignored. Raises what send_to does, and EINVAL or
   ENETUNREACH where `destination` is no longer an address of this system. Suspends: yes, while the system's buffer is
   full. */
int ip_socket_reply_message(lua_State *L) {
  struct ip_send_call call;
  check_reply_message(L, reply_message_kind.name, &call);
  return ip_transfer_start_send(L, &reply_message_kind, &call);
}
