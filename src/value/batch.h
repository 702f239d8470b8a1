/* batch.h: the Lua type ip.udp.batch: preallocated slots for many datagrams. Layer 3.

   A batch owns its slots and arrays, which never move. The files that send and receive batches write them. */
#ifndef IP_BATCH_H
#define IP_BATCH_H

#include "base/compat.h"
#include "net/control_message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* One userdata holds this struct, then the arrays, then the memory of the slots. */
struct ip_batch {
  size_t slots;
  size_t capacity;                  /* bytes of a slot */
  size_t count;                     /* entries that were received or set, from the first on */
  struct iovec *parts;              /* of each entry: its memory and its length */
  struct iovec *receive_parts;      /* of each entry: its whole memory, to receive into; never changes */
  struct ip_endpoint *peers;        /* of each entry; length 0: none */
  bool *truncated;                  /* of each entry */
  const struct ip_address **known;  /* content of the address object that is cached for each entry, or NULL */
  struct ip_control *controls;      /* of each received entry: its ancillary data, parsed */
  union ip_control_buffer *buffers; /* of each entry, to receive ancillary data into */
  uint8_t *singly;                  /* of each entry: why it has to be sent by itself, a union of ip_singly */
  void *messages;                   /* an array of the system's struct, for the file that makes the calls */
  size_t prepared;                  /* of those, from the first on, are ready to receive */
  unsigned char *memory;            /* of all slots */
  lua_Integer max_ready;            /* batches in a row before receive_many lets other fibers run */
  lua_Integer in_row;               /* batches received in `iteration` */
  uint32_t iteration;               /* of the loop: it changes when other coroutines have run */
};

enum ip_singly {
  IP_SINGLY_INFO = 1, /* the table IP_BATCH_INFOS has an info to send with it */
  IP_SINGLY_SCOPE = 2 /* the scope of its peer's address is one that the system ignores */
};

/* The user values of a batch: for each entry its span, its cached address object, its info. */
enum { IP_BATCH_SPANS = 1, IP_BATCH_ADDRESSES, IP_BATCH_INFOS, IP_BATCH_USER_VALUES = IP_BATCH_INFOS };

/* The memory of slot `index`, counted from 0. */
static inline unsigned char *ip_batch_slot(const struct ip_batch *batch, size_t index) {
  return batch->memory + index * batch->capacity;
}

/* Defines the class (core at stack index `core`) and pushes the module table ip.udp.batch. [-0, +1, m] */
void ip_batch_open(lua_State *L, int core);

/* The index (from 0) of the entry numbered at `arg`, 1..slots. [-0, +0, v] */
size_t ip_batch_check_entry(lua_State *L, const struct ip_batch *batch, int arg);

/* Pushes the address of an entry's peer, or nil; the batch is at index 1. [-0, +1, m] */
void ip_batch_push_address(lua_State *L, struct ip_batch *batch, size_t index);

/* The batch at `arg`, or a bad-argument error. [-0, +0, v] */
struct ip_batch *ip_batch_check(lua_State *L, int arg);

#endif
