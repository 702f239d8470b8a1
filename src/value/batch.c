/* batch.c: ip.udp.batch.

   One userdata owns the arrays and the memory of all slots. Its user values keep a span for each slot, made
   once, the address object of the peer that each entry last had, and the infos. Invariant: an entry's length
   is at most the capacity. Nothing is allocated for a datagram but the address object of a new peer. Raises
   bad-argument errors and memory errors only. */
#include "value/batch.h"

#include "base/util.h"
#include "binding/argument.h"
#include "binding/class.h"
#include "binding/value_text.h"
#include "value/address.h"
#include "value/byte_span.h"

#include <stdint.h>
#include <string.h>

#ifdef __linux__
#include <sys/socket.h>
typedef struct mmsghdr ip_message;
#else
typedef struct msghdr ip_message;
#endif

enum {
  MOST_SLOTS = 65536,
  LARGEST_CAPACITY = 65535,
  DEFAULT_CAPACITY = 1472, /* a frame of Ethernet without the headers of IPv4 and UDP; Async_udp's default */
  DEFAULT_MAX_READY = 12   /* that of `datagrams` */
};

struct ip_batch *ip_batch_check(lua_State *L, int arg) {
  return ip_check_class(L, arg, IP_CLASS_BATCH);
}

/* --- construction --- */

/* Bytes of an array, rounded up so that an array behind it is aligned as well. */
static size_t array_size(size_t count, size_t size) {
  return (count * size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
}

/* Reserves an array at the begin of the free memory. */
static void *reserve(unsigned char **free_memory, size_t count, size_t size) {
  void *array = *free_memory;
  *free_memory += array_size(count, size);
  return array;
}

static size_t size_of_arrays(size_t slots) {
  return array_size(1, sizeof(struct ip_batch)) + 2 * array_size(slots, sizeof(struct iovec)) +
         array_size(slots, sizeof(struct ip_endpoint)) + array_size(slots, sizeof(bool)) +
         array_size(slots, sizeof(void *)) + array_size(slots, sizeof(ip_message)) +
         array_size(slots, sizeof(struct ip_control)) + array_size(slots, sizeof(union ip_control_buffer)) +
         array_size(slots, sizeof(uint8_t));
}

/* Pushes a batch of empty entries. Slots have less than 2^32 bytes in all, so a size_t of 32 bits holds that
   product, but not always the sum with the arrays. [-0, +1, v] */
static struct ip_batch *push_batch(lua_State *L, size_t slots, size_t capacity) {
  size_t arrays = size_of_arrays(slots);
  if (IP_UNLIKELY(slots * capacity > SIZE_MAX - arrays)) ip_error_memory(L);
  unsigned char *block = lua_newuserdatauv(L, arrays + slots * capacity, IP_BATCH_USER_VALUES);
  memset(block, 0, arrays + slots * capacity);
  unsigned char *free_memory = block;
  struct ip_batch *batch = reserve(&free_memory, 1, sizeof *batch);
  batch->slots = slots;
  batch->capacity = capacity;
  batch->parts = reserve(&free_memory, slots, sizeof *batch->parts);
  batch->receive_parts = reserve(&free_memory, slots, sizeof *batch->receive_parts);
  batch->peers = reserve(&free_memory, slots, sizeof *batch->peers);
  batch->truncated = reserve(&free_memory, slots, sizeof *batch->truncated);
  batch->known = reserve(&free_memory, slots, sizeof(void *));
  batch->messages = reserve(&free_memory, slots, sizeof(ip_message));
  batch->controls = reserve(&free_memory, slots, sizeof *batch->controls);
  batch->buffers = reserve(&free_memory, slots, sizeof *batch->buffers);
  batch->singly = reserve(&free_memory, slots, sizeof *batch->singly);
  batch->memory = free_memory;
  batch->max_ready = DEFAULT_MAX_READY;
  for (size_t i = 0; i < slots; i++) {
    batch->parts[i].iov_base = ip_batch_slot(batch, i);
    batch->receive_parts[i] = (struct iovec){.iov_base = ip_batch_slot(batch, i), .iov_len = capacity};
  }
  ip_class_set(L, IP_CLASS_BATCH);
  return batch;
}

/* ip.udp.batch.new(slots[, capacity]) -> batch: `slots` entries (1..65536) of `capacity` bytes (0..65535,
   default 1472). Suspends: no. */
static int batch_new(lua_State *L) {
  size_t slots = (size_t)ip_argument_integer(L, 1, 1, MOST_SLOTS);
  size_t capacity = (size_t)ip_argument_optional_integer(L, 2, 0, LARGEST_CAPACITY, DEFAULT_CAPACITY);
  lua_settop(L, 0);
  struct ip_batch *batch = push_batch(L, slots, capacity);
  lua_createtable(L, (int)slots, 0);
  for (size_t i = 0; i < slots; i++) {
    ip_byte_span_push_window(L, 1, ip_batch_slot(batch, i), 0, capacity)->is_entry = true;
    lua_rawseti(L, 2, (lua_Integer)i + 1);
  }
  lua_setiuservalue(L, 1, IP_BATCH_SPANS);
  lua_createtable(L, (int)slots, 0);
  lua_setiuservalue(L, 1, IP_BATCH_ADDRESSES);
  lua_newtable(L);
  lua_setiuservalue(L, 1, IP_BATCH_INFOS);
  return 1;
}

/* --- entries --- */

size_t ip_batch_check_entry(lua_State *L, const struct ip_batch *batch, int arg) {
  return (size_t)ip_argument_integer(L, arg, 1, (lua_Integer)batch->slots) - 1;
}

/* Pushes the span of an entry, set to exactly its bytes; the batch is at index 1. [-0, +1, -] */
static void push_span(lua_State *L, const struct ip_batch *batch, size_t index) {
  lua_getiuservalue(L, 1, IP_BATCH_SPANS);
  lua_rawgeti(L, -1, (lua_Integer)index + 1);
  lua_remove(L, -2);
  struct ip_bytes *span = lua_touserdata(L, -1);
  span->length = batch->parts[index].iov_len;
}

/* The object is cached with the entry. That of the entry before is looked at as well, for consecutive
   datagrams often have the same peer. */
void ip_batch_push_address(lua_State *L, struct ip_batch *batch, size_t index) {
  const struct ip_endpoint *peer = &batch->peers[index];
  if (peer->length == 0) {
    lua_pushnil(L);
    return;
  }
  lua_getiuservalue(L, 1, IP_BATCH_ADDRESSES);
  if (batch->known[index] != NULL && ip_endpoint_has_address(peer, batch->known[index])) {
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
    lua_remove(L, -2);
    return;
  }
  const struct ip_address *known = index > 0 ? batch->known[index - 1] : NULL;
  if (known != NULL && ip_endpoint_has_address(peer, known)) {
    lua_rawgeti(L, -1, (lua_Integer)index);
  } else {
    struct ip_address address;
    ip_endpoint_get_address(peer, &address);
    known = ip_address_push(L, &address);
  }
  lua_pushvalue(L, -1);
  lua_rawseti(L, -3, (lua_Integer)index + 1);
  batch->known[index] = known;
  lua_remove(L, -2);
}

/* batch:get(i) -> span, address, port, truncated: entry i, 1..slots; address and port are nil when it has
   none. Suspends: no. */
static int batch_get(lua_State *L) {
  struct ip_batch *batch = ip_batch_check(L, 1);
  size_t index = ip_batch_check_entry(L, batch, 2);
  lua_settop(L, 1);
  push_span(L, batch, index);
  ip_batch_push_address(L, batch, index);
  if (lua_isnil(L, -1))
    lua_pushnil(L);
  else
    lua_pushinteger(L, ip_endpoint_port(&batch->peers[index]));
  lua_pushboolean(L, batch->truncated[index]);
  return 4;
}

/* Does one of several parts lie in the slot? Then copying one part could change the next. */
static bool overlaps(const struct ip_batch *batch, size_t index, const struct ip_data *data) {
  uintptr_t slot = (uintptr_t)ip_batch_slot(batch, index);
  for (size_t i = 0; data->count > 1 && i < data->count; i++) {
    uintptr_t part = (uintptr_t)data->parts[i].iov_base;
    if (part < slot + batch->capacity && part + data->parts[i].iov_len > slot) return true;
  }
  return false;
}

/* Stores the info table at index 6, or removes the entry's where that is nil, and notes what the entry needs.
   The table is read when the entry is sent. [-0, +0, m] */
static void set_info(lua_State *L, struct ip_batch *batch, size_t index) {
  bool given = !lua_isnil(L, 6);
  bool had = (batch->singly[index] & IP_SINGLY_INFO) != 0;
  const struct ip_endpoint *peer = &batch->peers[index];
  bool is_scoped = peer->length != 0 && ip_endpoint_wide_scope(peer) != 0;
  batch->singly[index] = is_scoped ? IP_SINGLY_SCOPE : 0;
  if (!given && !had) return;
  lua_getiuservalue(L, 1, IP_BATCH_INFOS);
  lua_pushvalue(L, 6);
  lua_rawseti(L, -2, (lua_Integer)index + 1);
  lua_pop(L, 1);
  if (given) batch->singly[index] |= IP_SINGLY_INFO;
}

/* Reads the peer at 4 and 5; its length is 0 where there is none. [-0, +0, v] */
static void check_peer(lua_State *L, struct ip_endpoint *peer) {
  peer->length = 0;
  if (lua_isnoneornil(L, 4)) {
    ip_argument_check(L, lua_isnoneornil(L, 5), 5, "a port needs an address");
    return;
  }
  struct ip_address address;
  ip_address_argument(L, 4, &address);
  uint16_t port = ip_argument_port(L, 5);
  ip_endpoint_set(peer, address.version == 6 ? AF_INET6 : AF_INET, &address, port);
}

/* Reads the data at 3, and returns its size, which fits the slot. [-0, +(0|1), v] */
static size_t check_data(lua_State *L, const struct ip_batch *batch, struct ip_data *data) {
  ip_argument_data(L, 3, data);
  size_t size = ip_data_size(data);
  if (size > batch->capacity)
    ip_argument_error(L, 3,
                      lua_pushfstring(L, "the data is longer than the slot, which has %I bytes",
                                      (lua_Integer)batch->capacity));
  return size;
}

/* Copies the data at 3 into a slot, and returns its size. [-0, +(0..3), v] */
static size_t fill_slot(lua_State *L, const struct ip_batch *batch, size_t index) {
  unsigned char *slot = ip_batch_slot(batch, index);
  struct ip_data data;
  size_t size = check_data(L, batch, &data);
  if (IP_LIKELY(!overlaps(batch, index, &data))) {
    ip_data_copy(slot, &data);
    return size;
  }
  unsigned char *copy = lua_newuserdatauv(L, batch->capacity, 0);
  size = check_data(L, batch, &data); /* the allocation may have run a finalizer that has changed a part */
  ip_data_copy(copy, &data);
  memcpy(slot, copy, size);
  return size;
}

/* batch:set(i, data[, addr, port[, info]]): makes entry i (1..slots) a datagram of at most `capacity` bytes,
   to `addr` and `port`, or to the connected peer; `count` becomes at least i. Suspends: no. */
static int batch_set(lua_State *L) {
  struct ip_batch *batch = ip_batch_check(L, 1);
  size_t index = ip_batch_check_entry(L, batch, 2);
  struct ip_endpoint peer;
  check_peer(L, &peer);
  if (!lua_isnoneornil(L, 6)) ip_argument_check_type(L, 6, LUA_TTABLE);
  lua_settop(L, 6);
  batch->parts[index].iov_len = fill_slot(L, batch, index);
  batch->peers[index] = peer;
  batch->truncated[index] = false;
  batch->controls[index].items = 0;
  set_info(L, batch, index);
  if (batch->count < index + 1) batch->count = index + 1;
  return 0;
}

/* batch:resize(i, length): entry i has `length` bytes (0..capacity) from now on. Suspends: no. */
static int batch_resize(lua_State *L) {
  struct ip_batch *batch = ip_batch_check(L, 1);
  size_t index = ip_batch_check_entry(L, batch, 2);
  batch->parts[index].iov_len = (size_t)ip_argument_integer(L, 3, 0, (lua_Integer)batch->capacity);
  return 0;
}

/* batch:clear(): all entries are empty and have no address; count is 0. Suspends: no. */
static int batch_clear(lua_State *L) {
  struct ip_batch *batch = ip_batch_check(L, 1);
  batch->count = 0;
  for (size_t i = 0; i < batch->slots; i++) {
    batch->parts[i].iov_len = 0;
    batch->peers[i].length = 0;
    batch->truncated[i] = false;
    batch->controls[i].items = 0;
    batch->singly[i] = 0;
  }
  return 0;
}

static int batch_get_count(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)ip_batch_check(L, 1)->count);
  return 1;
}

static int batch_get_slots(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)ip_batch_check(L, 1)->slots);
  return 1;
}

static int batch_get_capacity(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)ip_batch_check(L, 1)->capacity);
  return 1;
}

static int batch_get_max_ready(lua_State *L) {
  lua_pushinteger(L, ip_batch_check(L, 1)->max_ready);
  return 1;
}

static int batch_set_max_ready(lua_State *L) {
  ip_batch_check(L, 1)->max_ready = ip_argument_integer(L, 3, 1, LUA_MAXINTEGER);
  return 0;
}

/* batch[i] -> the span of entry i; any other key is the name of a method or of a property. */
static int batch_mt_index(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) return ip_class_index(L);
  const struct ip_batch *batch = ip_batch_check(L, 1);
  int is_integer;
  lua_Integer index = lua_tointegerx(L, 2, &is_integer);
  if (!is_integer) ip_error_text(L, "ip.udp.batch index: integer expected, got %s", ip_value_text_push(L, 2));
  if (index < 1 || index > (lua_Integer)batch->slots)
    ip_error_text(L, "ip.udp.batch index %I is outside 1..%I", index, (lua_Integer)batch->slots);
  push_span(L, batch, (size_t)index - 1);
  return 1;
}

static int batch_mt_len(lua_State *L) {
  return batch_get_count(L);
}

/* --- registration --- */

static const luaL_Reg methods[] = {
    {"get", batch_get}, {"set", batch_set}, {"resize", batch_resize}, {"clear", batch_clear}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__len", batch_mt_len}, {NULL, NULL}};

static const struct ip_property properties[] = {{"count", batch_get_count, NULL},
                                                {"slots", batch_get_slots, NULL},
                                                {"capacity", batch_get_capacity, NULL},
                                                {"max_ready", batch_get_max_ready, batch_set_max_ready},
                                                {NULL, NULL, NULL}};

static const luaL_Reg functions[] = {{"new", batch_new}, {NULL, NULL}};

void ip_batch_open(lua_State *L, int core) {
  core = lua_absindex(L, core);
  static const struct ip_class_definition definition = {
      .name = "ip.udp.batch",
      .id = IP_CLASS_BATCH,
      .methods = methods,
      .metamethods = metamethods,
      .properties = properties,
      .index = batch_mt_index,
  };
  ip_class_define(L, core, &definition);
  lua_newtable(L);
  ip_class_functions(L, core, functions);
}
