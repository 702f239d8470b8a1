/* message.c: receive_message, send_message, reply_message: datagrams with ancillary data.

   Owns nothing: an info table belongs to the caller. It is read and written without metamethods, which could
   close the socket. A reused table causes no garbage except addresses that differ from the last ones. Each
   function says what it may raise. */
#include "udp/message.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/error.h"
#include "binding/raise.h"
#include "binding/value_text.h"
#include "net/datagram_io.h"
#include "udp/receive.h"
#include "value/address.h"

#include <errno.h>
#include <limits.h>
#include <netinet/ip.h>

enum { SELF = 1, DATA, INFO, FLAGS }; /* stack indices of all three methods */

enum key {
  ADDRESS,
  PORT,
  TRUNCATED,
  DESTINATION,
  INTERFACE_INDEX,
  HOPS,
  ECN,
  TRAFFIC_CLASS,
  TIMESTAMP,
  SEGMENT_SIZE,
  DROPPED,
  SOURCE,
  LOCAL_ADDRESS,
  KEY_COUNT
};

static const char *const keys[KEY_COUNT] = {[ADDRESS] = "address",
                                            [PORT] = "port",
                                            [TRUNCATED] = "truncated",
                                            [DESTINATION] = "destination",
                                            [INTERFACE_INDEX] = "interface_index",
                                            [HOPS] = "hops",
                                            [ECN] = "ecn",
                                            [TRAFFIC_CLASS] = "traffic_class",
                                            [TIMESTAMP] = "timestamp",
                                            [SEGMENT_SIZE] = "segment_size",
                                            [DROPPED] = "dropped",
                                            [SOURCE] = "source",
                                            [LOCAL_ADDRESS] = "local_address"};

/* The keys are upvalues of the functions that use them, after the core: creating a string for each access
   would cost as much as the access itself, and leave garbage. */
enum { FIRST_KEY = 2 };

void ip_message_add_functions(lua_State *L, int core, const luaL_Reg *functions) {
  lua_pushvalue(L, core);
  for (int key = 0; key < KEY_COUNT; key++)
    lua_pushstring(L, keys[key]);
  luaL_setfuncs(L, functions, 1 + KEY_COUNT);
}

static void push_key(lua_State *L, enum key key) {
  lua_pushvalue(L, lua_upvalueindex(FIRST_KEY + (int)key));
}

/* Pushes a field of the info table; returns its type. [-0, +1, -] */
static int get_field(lua_State *L, enum key key) {
  push_key(L, key);
  return lua_rawget(L, INFO);
}

/* --- receive_message --- */

/* Values that are read for a comparison stay on the stack until the call returns: popping them costs a third
   of the access. There are at most eleven, and a C function has twenty slots (LUA_MINSTACK). */

/* [-0, +(0|1), m] */
static void clear_field(lua_State *L, enum key key) {
  if (IP_LIKELY(get_field(L, key) == LUA_TNIL)) return;
  push_key(L, key);
  lua_pushnil(L);
  lua_rawset(L, INFO);
}

/* [-0, +(0|1), m] */
static void set_integer(lua_State *L, enum key key, bool known, lua_Integer value) {
  if (!known) {
    clear_field(L, key);
    return;
  }
  push_key(L, key);
  lua_pushinteger(L, value);
  lua_rawset(L, INFO);
}

/* [-0, +1, -] */
static const struct ip_address *get_address(lua_State *L, enum key key) {
  if (get_field(L, key) != LUA_TUSERDATA) return NULL;
  return ip_test_class(L, -1, IP_CLASS_ADDRESS);
}

/* Reuses the address object in the table if it is equal: addresses are immutable. [-0, +1, m] */
static void set_source(lua_State *L, const struct ip_socket_box *box, const struct ip_endpoint *source) {
  const struct ip_socket *socket = box->socket;
  bool is_object = get_field(L, ADDRESS) == LUA_TUSERDATA;
  const struct ip_address *held = is_object ? lua_touserdata(L, -1) : NULL;
  if (held == NULL || socket == NULL || held != socket->peer) /* the last peer is known to be an address */
    held = is_object ? ip_test_class(L, -1, IP_CLASS_ADDRESS) : NULL;
  if (IP_LIKELY(held != NULL && ip_endpoint_has_address(source, held))) return;
  push_key(L, ADDRESS);
  ip_receive_push_source(L, SELF, box, source);
  lua_rawset(L, INFO);
}

/* [-0, +1, m] */
static void set_destination(lua_State *L, const struct ip_address *address) {
  const struct ip_address *held = get_address(L, DESTINATION);
  if (held != NULL && ip_address_compare(held, address) == 0) return;
  push_key(L, DESTINATION);
  ip_address_push(L, address);
  lua_rawset(L, INFO);
}

/* The local address is the destination, for which there is an object, unless that is for many. [-0, +1, m] */
static void set_local_address(lua_State *L, const struct ip_control *control) {
  const struct ip_address *held = get_address(L, LOCAL_ADDRESS);
  if (held != NULL && ip_address_compare(held, &control->local) == 0) return;
  push_key(L, LOCAL_ADDRESS);
  if (ip_address_compare(&control->address, &control->local) == 0)
    get_field(L, DESTINATION);
  else
    ip_address_push(L, &control->local);
  lua_rawset(L, INFO);
}

/* Sets what the ancillary data says of addresses. [-0, +(0..2), m] */
static void set_own_addresses(lua_State *L, const struct ip_control *control) {
  if (control->items & IP_CONTROL_ADDRESS)
    set_destination(L, &control->address);
  else
    clear_field(L, DESTINATION);
  if (control->items & IP_CONTROL_LOCAL)
    set_local_address(L, control);
  else
    clear_field(L, LOCAL_ADDRESS);
}

/* Sets all fields except the addresses. It runs no finalizer, so nothing can change `control` meanwhile.
   [-0, +?, m] */
static void fill_numbers(lua_State *L, const struct ip_control *control, bool truncated) {
  uint32_t items = control->items;
  bool classed = (items & IP_CONTROL_TRAFFIC_CLASS) != 0;
  push_key(L, TRUNCATED);
  lua_pushboolean(L, truncated);
  lua_rawset(L, INFO);
  set_integer(L, INTERFACE_INDEX, (items & IP_CONTROL_INTERFACE) != 0, control->interface_index);
  set_integer(L, HOPS, (items & IP_CONTROL_HOPS) != 0, control->hops);
  set_integer(L, TRAFFIC_CLASS, classed, control->traffic_class);
  set_integer(L, ECN, classed, control->traffic_class & 3);
  set_integer(L, TIMESTAMP, (items & IP_CONTROL_TIMESTAMP) != 0, control->timestamp);
  set_integer(L, SEGMENT_SIZE, (items & IP_CONTROL_SEGMENT_SIZE) != 0, control->segment_size);
  set_integer(L, DROPPED, (items & IP_CONTROL_DROPPED) != 0, control->dropped);
}

void ip_message_fill_info(lua_State *L, const struct ip_control *control, bool truncated) {
  fill_numbers(L, control, truncated);
  set_own_addresses(L, control);
}

void ip_message_prepare_info(lua_State *L) {
  lua_settop(L, INFO);
  if (!lua_isnil(L, INFO)) return;
  lua_createtable(L, 0, KEY_COUNT);
  lua_replace(L, INFO);
}

void ip_message_set_peer(lua_State *L, bool known, uint16_t port) {
  push_key(L, ADDRESS);
  lua_insert(L, -2);
  lua_rawset(L, INFO);
  set_integer(L, PORT, known, port);
}

/* Pushes n, info for the datagram that was just received. [-0, +?, m] */
static int push_message(lua_State *L, struct ip_received *received) {
  const struct ip_socket_box *box = lua_touserdata(L, SELF);
  const struct ip_datagram *datagram = &received->datagram;
  struct ip_control *control = &received->control;
  if (box->socket != NULL) ip_receive_path_count_drops(&box->socket->channel, control);
  fill_numbers(L, control, datagram->truncated);
  set_integer(L, PORT, true, ip_endpoint_port(&datagram->source));
  set_source(L, box, &datagram->source);
  set_own_addresses(L, control);
  lua_pushinteger(L, (lua_Integer)datagram->length);
  lua_pushvalue(L, INFO);
  return 2;
}

static int push_received_message(lua_State *L, struct ip_result *result) {
  return push_message(L, result->received);
}

static const struct ip_operation_type receive_message_type = {.name = "receive_message",
                                                              .attempt = ip_receive_attempt,
                                                              .final_attempt = ip_receive_final_attempt,
                                                              .push_results = push_received_message};

/* Creates the info table if the call has none. Other errors in the arguments are found afterwards.
   [-0, +?, m] */
static void make_info(lua_State *L) {
  int count = lua_gettop(L);
  if (count < DATA || !lua_isnoneornil(L, INFO)) return;
  if (count < FLAGS) lua_settop(L, FLAGS);
  lua_createtable(L, 0, KEY_COUNT);
  lua_replace(L, INFO);
}

/* Checks the arguments (self, buf[, info[, flags]]), and creates `info` before, because that may run a
   finalizer. Checked values may stay on the stack. [-0, +?, e] */
static void check_receive(lua_State *L, const char *operation, struct ip_receive_call *call) {
  if (IP_UNLIKELY(lua_type(L, INFO) != LUA_TTABLE)) make_info(L);
  ip_receive_read(L, operation, FLAGS, IP_WANTS_SOURCE | IP_WANTS_CONTROL | IP_WANTS_JOINED, call);
  if (IP_UNLIKELY(lua_type(L, INFO) != LUA_TTABLE)) ip_argument_check_type(L, INFO, LUA_TTABLE);
}

/* sock:receive_message(buf[, info[, flags]]) -> n, info: like receive_from, with ancillary data in the table
   `info`, whose fields are replaced (a new table without the argument): address, port, truncated, and, where
   the option receive_... is on, destination, interface_index, hops, traffic_class, ecn, timestamp (ns since
   the epoch), dropped, and segment_size if the system has joined several datagrams. Raises the errors of
   receive. Suspends: yes. Source: recvmsg(2), RFC 3542. */
static int receive_message(lua_State *L) {
  const struct ip_operation_type *type = &receive_message_type;
  struct ip_receive_call call;
  struct ip_received received;
  bool yields = false;
  check_receive(L, type->name, &call);
  if (IP_LIKELY(ip_receive_start(L, type, &call, &received, &yields))) return push_message(L, &received);
  return ip_receive_wait(L, type, &call, yields);
}

/* sock:try_receive_message(buf[, info[, flags]]) -> n, info | nil, err: receive_message without waiting. The
   info table is created for a datagram only. Suspends: no. */
static int try_receive_message(lua_State *L) {
  static const struct ip_operation_type type = {.name = "try_receive_message"};
  struct ip_receive_call call;
  struct ip_received received;
  if (lua_gettop(L) >= DATA) lua_settop(L, FLAGS); /* checked values are left above */
  ip_receive_read(L, type.name, FLAGS, IP_WANTS_SOURCE | IP_WANTS_CONTROL | IP_WANTS_JOINED, &call);
  if (!lua_isnil(L, INFO)) ip_argument_check_type(L, INFO, LUA_TTABLE);
  if (!ip_receive_at_once(L, &type, &call, &received))
    return ip_error_fail(L, IP_ERROR_RETURN_AGAIN, EAGAIN, type.name);
  lua_settop(L, FLAGS);
  make_info(L);
  return push_message(L, &received);
}

/* --- the fields of a send --- */

/* Stack indices of read_control_apart, which has info at INFO, too. */
enum { OPERATION = 1, CALL = 2, ENTRY = INFO + 1 };

static int field_error(lua_State *L, enum key key, const char *problem) {
  problem = lua_pushfstring(L, "field '%s': %s", keys[key], problem);
  if (!lua_islightuserdata(L, OPERATION)) return ip_argument_error(L, INFO, problem);
  ip_error_text(L, "bad argument #1 to '%s' (entry %I: %s)", (const char *)lua_touserdata(L, OPERATION),
                lua_tointeger(L, ENTRY), problem);
}

static int field_type_error(lua_State *L, enum key key, const char *expected) {
  return field_error(L, key, lua_pushfstring(L, "%s expected, got %s", expected, ip_value_text_push(L, -1)));
}

/* Reads an integer field; false if it is absent. [-0, +1, v] */
static bool read_integer(lua_State *L, enum key key, lua_Integer low, lua_Integer high, lua_Integer *value) {
  int type = get_field(L, key);
  if (type == LUA_TNIL) return false;
  if (IP_UNLIKELY(type != LUA_TNUMBER)) field_type_error(L, key, "integer");
  int exact;
  *value = lua_tointegerx(L, -1, &exact);
  if (IP_UNLIKELY(!exact)) field_type_error(L, key, "integer");
  if (IP_UNLIKELY(*value < low || *value > high))
    field_error(L, key, lua_pushfstring(L, "%I is outside %I..%I", *value, low, high));
  return true;
}

/* Reads an address field; false if it is absent. `likely`, an address object or NULL, needs no class check.
   [-0, +1, v] */
static bool read_address(lua_State *L, enum key key, const struct ip_address *likely,
                         struct ip_address *address) {
  int type = get_field(L, key);
  if (type == LUA_TNIL) return false;
  const struct ip_address *object = type == LUA_TUSERDATA ? lua_touserdata(L, -1) : NULL;
  if (object != NULL && object != likely) object = ip_test_class(L, -1, IP_CLASS_ADDRESS);
  if (IP_LIKELY(object != NULL)) {
    *address = *object;
  } else if (type == LUA_TSTRING) {
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    const char *problem = ip_address_parse(address, text, length);
    if (problem != NULL) field_error(L, key, ip_address_push_problem(L, lua_gettop(L), problem));
  } else {
    field_type_error(L, key, "ip.address or string");
  }
  return true;
}

struct target {
  struct ip_address address;
  uint16_t port;
  bool given;
};

static void read_target(lua_State *L, bool required, const struct ip_address *peer, struct target *target) {
  lua_Integer port;
  target->given = read_address(L, ADDRESS, peer, &target->address);
  bool has_port = read_integer(L, PORT, 0, UINT16_MAX, &port);
  if (!target->given && (has_port || required))
    field_error(L, ADDRESS, "ip.address or string expected, got nil");
  if (target->given && !has_port) field_error(L, PORT, "integer expected, got nil");
  target->port = has_port ? (uint16_t)port : 0;
}

static void read_interface(lua_State *L, struct ip_control *control) {
  lua_Integer index;
  if (!read_integer(L, INTERFACE_INDEX, 0, INT_MAX, &index) || index == 0) return;
  control->interface_index = (uint32_t)index;
  control->items |= IP_CONTROL_INTERFACE;
}

/* Returns the traffic class that the option gives every datagram on this path. */
static int default_class(lua_State *L, const struct ip_channel *channel, const struct ip_endpoint *to,
                         const char *operation) {
  int value;
  bool v4_path = ip_channel_is_v4_path(channel, to);
  int error = ip_datagram_get_option(channel->fd, v4_path ? IPPROTO_IP : IPPROTO_IPV6,
                                     v4_path ? IP_TOS : IPV6_TCLASS, &value);
  if (error != 0) ip_error_raise(L, error, operation);
  return value < 0 ? 0 : value;
}

/* Reads traffic_class and ecn. The two low bits of the traffic class are the ECN field (RFC 3168): a datagram
   may set either part. */
static void read_class(lua_State *L, const char *operation, struct ip_send_call *call) {
  struct ip_control *control = &call->send.control;
  lua_Integer class = 0, ecn = 0;
  bool has_class = read_integer(L, TRAFFIC_CLASS, 0, 255, &class);
  bool has_ecn = read_integer(L, ECN, 0, 3, &ecn);
  if (!has_class && !has_ecn) return;
  if (!has_class) class = default_class(L, &call->box->socket->channel, call->send.to, operation);
  control->traffic_class = (int)(has_ecn ? (class & ~(lua_Integer)3) | ecn : class);
  control->items |= IP_CONTROL_TRAFFIC_CLASS;
}

static void read_sizes(lua_State *L, struct ip_control *control) {
  lua_Integer value;
  if (read_integer(L, HOPS, 1, 255, &value)) {
    control->hops = (int)value;
    control->items |= IP_CONTROL_HOPS;
  }
  if (read_integer(L, SEGMENT_SIZE, 0, 65507, &value)) {
    control->segment_size = (int)value;
    control->items |= IP_CONTROL_SEGMENT_SIZE;
  }
}

/* --- send_message, reply_message --- */

/* Checks the arguments (self, data, info[, flags]) except the fields. [-?, +?, e] */
static void check_call(lua_State *L, const char *operation, struct ip_send_call *call) {
  ip_send_read_call(L, operation, INFO, call);
  ip_send_read_data(L, operation, call);
  if (IP_UNLIKELY(lua_type(L, INFO) != LUA_TTABLE)) ip_argument_check_type(L, INFO, LUA_TTABLE);
}

static void set_target(lua_State *L, const char *operation, const struct target *target,
                       struct ip_send_call *call) {
  const struct ip_socket *socket = call->box->socket;
  if (!target->given) {
    if (socket->channel.connection == NULL) ip_error_raise(L, EDESTADDRREQ, operation);
    return;
  }
  ip_endpoint_set(&call->send.remote, ip_channel_family(&socket->channel), &target->address, target->port);
  call->send.to = &call->send.remote;
}

/* Reads the fields of info except the destination. [-0, +0, e] */
static void read_control(lua_State *L, const char *operation, struct ip_send_call *call) {
  if (read_address(L, SOURCE, NULL, &call->send.control.address))
    call->send.control.items |= IP_CONTROL_ADDRESS;
  read_interface(L, &call->send.control);
  read_sizes(L, &call->send.control);
  read_class(L, operation, call);
}

/* (operation, call, info, entry): reads the fields in a frame of its own, because the functions above expect
   info at a fixed index. */
static int read_control_apart(lua_State *L) {
  read_control(L, lua_touserdata(L, OPERATION), lua_touserdata(L, CALL));
  return 0;
}

static const char control_reader_key;

void ip_message_read_control(lua_State *L, const char *operation, size_t entry, struct ip_send_call *call) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &control_reader_key);
  lua_pushlightuserdata(L, (void *)(size_t)operation);
  lua_pushlightuserdata(L, call);
  lua_rotate(L, -4, 3); /* info comes last */
  lua_pushinteger(L, (lua_Integer)entry);
  lua_call(L, 4, 0);
}

static void use_scope(lua_State *L, const char *operation, struct ip_send_call *call) {
  int error = ip_send_path_use_scope(&call->box->socket->channel, &call->send);
  if (error != 0) ip_error_raise(L, error, operation);
}

static void read_send_message(lua_State *L, const char *operation, struct ip_send_call *call) {
  struct target target;
  check_call(L, operation, call);
  read_target(L, false, call->box->socket->peer, &target);
  set_target(L, operation, &target, call);
  read_control(L, operation, call);
  use_scope(L, operation, call);
}

/* Is it an address that no single host owns (a group, a broadcast, the wildcard)? */
static bool is_for_many(const struct ip_address *address) {
  struct ip_address plain = ip_address_unmapped(address);
  const uint8_t *bytes = plain.bytes;
  bool everybody = plain.version == 4 && (bytes[0] & bytes[1] & bytes[2] & bytes[3]) == 0xff;
  return everybody || ip_address_is_multicast(&plain) || ip_address_is_unspecified(&plain);
}

/* Reads the address to answer from. The destination says it where `info` is not of this library's making.
   [-0, +0, v] */
static bool read_own_address(lua_State *L, struct ip_address *address) {
  if (read_address(L, LOCAL_ADDRESS, NULL, address)) return true;
  return read_address(L, DESTINATION, NULL, address) && !is_for_many(address);
}

/* Fills the call from the info of a received datagram. A link-local address belongs to one interface; for any
   other address, routing chooses the interface, which may differ from the receiving one. */
static void read_reply_message(lua_State *L, const char *operation, struct ip_send_call *call) {
  struct ip_control *control = &call->send.control;
  struct target target;
  check_call(L, operation, call);
  read_target(L, true, call->box->socket->peer, &target);
  set_target(L, operation, &target, call);
  if (read_own_address(L, &control->address)) control->items |= IP_CONTROL_ADDRESS;
  bool local_source =
      (control->items & IP_CONTROL_ADDRESS) != 0 && ip_address_is_link_local(&control->address);
  if (local_source || ip_address_is_link_local(&target.address)) read_interface(L, control);
  use_scope(L, operation, call);
}

/* Names the endpoint in info. */
static void describe_message(lua_State *L, struct ip_error_detail *detail) {
  if (lua_type(L, INFO) != LUA_TTABLE) return;
  get_field(L, ADDRESS);
  get_field(L, PORT);
  int port = lua_gettop(L);
  ip_send_describe_endpoint(L, port - 1, port, detail);
  lua_pop(L, 2);
}

/* The same, and says so where the source cannot send to the endpoint. */
static void describe_send_message(lua_State *L, struct ip_error_detail *detail) {
  describe_message(L, detail);
  if (detail->error.code != EINVAL || detail->address.version == 0) return;
  struct ip_address source;
  get_field(L, SOURCE);
  bool given = ip_address_read(L, -1, &source);
  lua_pop(L, 1);
  if (given && ip_address_unmapped(&source).version != ip_address_unmapped(&detail->address).version)
    detail->hint = "the source is of the other family";
}

static const struct ip_send_type send_message_type =
    IP_SEND_TYPE("send_message", read_send_message, describe_send_message);
static const struct ip_send_type reply_message_type =
    IP_SEND_TYPE("reply_message", read_reply_message, describe_message);
static const struct ip_send_type try_send_message_type =
    IP_SEND_TYPE("try_send_message", read_send_message, describe_send_message);

/* sock:send_message(data, info[, flags]) -> n: sends `data` with the fields of `info`: address and port
   (absent: the connected peer, else EDESTADDRREQ), source (address to send from; EINVAL unless it is this
   system's own and of the peer's family), interface_index (0: any), hops (1..255), traffic_class (0..255),
   ecn (0..3), segment_size (0..65507; the system splits `data` into datagrams of that size; 0 does not
   split). Other keys are ignored. Raises the errors of send_to. Suspends: yes, while the system's buffer is
   full. Source: sendmsg(2), RFC 3542, udp(7). */
static int send_message(lua_State *L) {
  return ip_send_start(L, &send_message_type);
}

/* sock:try_send_message(data, info[, flags]) -> n | nil, err. Suspends: no. */
static int try_send_message(lua_State *L) {
  return ip_send_at_once(L, &try_send_message_type);
}

/* sock:reply_message(data, info[, flags]) -> n: answers a datagram whose `info` receive_message has filled:
   to its address and port, from its local_address or, without that, from its destination if that is one
   host's own (not a group, not 255.255.255.255), and between link-local addresses over its interface_index.
   Other keys are ignored. Raises the errors of send_to, and EINVAL or ENETUNREACH if `destination` is no
   longer an address of this system. Suspends: yes, while the system's buffer is full. */
static int reply_message(lua_State *L) {
  return ip_send_start(L, &reply_message_type);
}

/* --- registration --- */

const luaL_Reg ip_message_methods[] = {
    {"receive_message", receive_message},   {"send_message", send_message},
    {"reply_message", reply_message},       {"try_receive_message", try_receive_message},
    {"try_send_message", try_send_message}, {NULL, NULL}};

void ip_message_open(lua_State *L, int core) {
  static const luaL_Reg internals[] = {{"read_control", read_control_apart}, {NULL, NULL}};
  core = lua_absindex(L, core);
  lua_newtable(L);
  ip_message_add_functions(L, core, internals);
  lua_getfield(L, -1, internals[0].name);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &control_reader_key);
  lua_pop(L, 1);
}
