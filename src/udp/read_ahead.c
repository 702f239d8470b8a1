/* read_ahead.c: a read-ahead buffer: datagrams that were read from the system and have not been received yet.
   Owns their memory. Does not use Lua and raises nothing.

   Each slot has space for the largest joined buffer, 64 KiB, because the system may join datagrams at any
   time. Pages that are never written cost nothing. After large reads, fewer slots are offered, so that the
   data of one read stays in the caches. */
#include "udp/read_ahead.h"

#include "base/util.h"
#include "net/datagram_message_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  SLOT_SIZE = 65536,
  SLOT_DISTANCE = SLOT_SIZE + 320, /* a distance of 64 KiB would map all slots to the same cache lines */
  LARGE_READ = 65536
};

struct slot {
  struct ip_endpoint source;
  struct iovec part;
};

struct ip_read_ahead_memory {
#ifdef __linux__
  struct mmsghdr *headers;
  union ip_control_buffer *controls;
#else
  struct ip_datagram datagram;
#endif
  unsigned char *bytes;
  struct slot slots[];
};

#ifdef __linux__

static bool add_headers(struct ip_read_ahead_memory *memory, size_t slots) {
  memory->headers = calloc(slots, sizeof *memory->headers);
  memory->controls = calloc(slots, sizeof *memory->controls);
  return memory->headers != NULL && memory->controls != NULL;
}

static void free_headers(struct ip_read_ahead_memory *memory) {
  free(memory->headers);
  free(memory->controls);
}

/* Restores the lengths that a read has changed. */
static void prepare_slot(struct ip_read_ahead_memory *memory, size_t index) {
  struct msghdr *header = &memory->headers[index].msg_hdr;
  header->msg_namelen = sizeof memory->slots[index].source.name;
  header->msg_controllen = sizeof memory->controls[index];
}

static void init_slot(struct ip_read_ahead_memory *memory, size_t index) {
  struct slot *slot = &memory->slots[index];
  slot->part = (struct iovec){.iov_base = memory->bytes + index * SLOT_DISTANCE, .iov_len = SLOT_SIZE};
  memory->headers[index].msg_hdr = (struct msghdr){.msg_name = &slot->source.name,
                                                   .msg_iov = &slot->part,
                                                   .msg_iovlen = 1,
                                                   .msg_control = &memory->controls[index]};
  prepare_slot(memory, index);
}

#else

static bool add_headers(struct ip_read_ahead_memory *memory, size_t slots) {
  (void)memory, (void)slots;
  return true;
}

static void free_headers(struct ip_read_ahead_memory *memory) {
  (void)memory;
}

static void init_slot(struct ip_read_ahead_memory *memory, size_t index) {
  memory->slots[index].part =
      (struct iovec){.iov_base = memory->bytes + index * SLOT_DISTANCE, .iov_len = SLOT_SIZE};
}

#endif

static void free_memory(struct ip_read_ahead_memory *memory) {
  if (memory == NULL) return;
  free_headers(memory);
  free(memory->bytes);
  free(memory);
}

static struct ip_read_ahead_memory *new_memory(size_t slots) {
  struct ip_read_ahead_memory *memory = calloc(1, sizeof *memory + slots * sizeof memory->slots[0]);
  if (memory == NULL) return NULL;
  memory->bytes = malloc(slots * SLOT_DISTANCE);
  if (memory->bytes != NULL && add_headers(memory, slots)) return memory;
  free_memory(memory);
  return NULL;
}

struct ip_read_ahead *ip_read_ahead_new(size_t slots) {
  struct ip_read_ahead *buffer = calloc(1, sizeof *buffer);
  if (buffer == NULL) return NULL;
  buffer->memory = new_memory(slots);
  if (buffer->memory == NULL) {
    free(buffer);
    return NULL;
  }
  buffer->slots = buffer->wanted = slots;
  for (size_t i = 0; i < slots; i++)
    init_slot(buffer->memory, i);
  return buffer;
}

void ip_read_ahead_free(struct ip_read_ahead *buffer) {
  if (buffer == NULL) return;
  free_memory(buffer->memory);
  free(buffer);
}

void ip_read_ahead_move(struct ip_read_ahead *buffer, const struct ip_read_ahead *from) {
  struct slot *slot = &buffer->memory->slots[0];
  buffer->next = 0;
  buffer->end = ip_read_ahead_is_empty(from) ? 0 : 1;
  if (buffer->end == 0) return;
  buffer->at = 0;
  buffer->length = from->length - from->at;
  buffer->stride = from->stride;
  buffer->control = from->control;
  buffer->data = slot->part.iov_base;
  slot->source = *from->source;
  buffer->source = &slot->source;
  if (buffer->length != 0) memcpy(buffer->data, from->data + from->at, buffer->length);
}

/* --- reading --- */

#ifdef __linux__

/* Makes the slot `next` the current one. */
static void begin(struct ip_read_ahead *buffer, bool is_v6) {
  struct ip_read_ahead_memory *memory = buffer->memory;
  const struct mmsghdr *header = &memory->headers[buffer->next];
  struct slot *slot = &memory->slots[buffer->next];
  buffer->at = 0;
  buffer->length = header->msg_len;
  buffer->stride = SLOT_SIZE;
  buffer->data = slot->part.iov_base;
  slot->source.length = header->msg_hdr.msg_namelen;
  buffer->source = &slot->source;
  buffer->control.items = 0;
  if (header->msg_hdr.msg_controllen != 0) ip_control_parse(&header->msg_hdr, is_v6, &buffer->control);
  bool joined = (buffer->control.items & IP_CONTROL_SEGMENT_SIZE) != 0 && buffer->control.segment_size > 0;
  if (joined) buffer->stride = (size_t)buffer->control.segment_size;
}

/* Halves or doubles the number of slots, so that the data of one read stays in the caches. */
static void adapt(struct ip_read_ahead *buffer, size_t count) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++)
    bytes += buffer->memory->headers[i].msg_len;
  if (bytes > LARGE_READ && buffer->wanted > 1)
    buffer->wanted /= 2;
  else if (bytes <= LARGE_READ / 2 && count == buffer->wanted && buffer->wanted * 2 <= buffer->slots)
    buffer->wanted *= 2;
}

int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6) {
  struct ip_read_ahead_memory *memory = buffer->memory;
  for (size_t i = 0; i < buffer->end; i++)
    prepare_slot(memory, i);
  buffer->next = buffer->end = 0;
  int count;
  do
    count = recvmmsg(fd, memory->headers, (unsigned)buffer->wanted, 0, NULL);
  while (IP_UNLIKELY(count < 0) && errno == EINTR);
  if (count < 0) return errno;
  buffer->end = (size_t)count;
  buffer->drained = buffer->end < buffer->wanted;
  buffer->is_v6 = is_v6;
  adapt(buffer, buffer->end);
  begin(buffer, is_v6);
  return 0;
}

#else

/* There is one slot: the system neither joins datagrams nor reads several. */
static void begin(struct ip_read_ahead *buffer, bool is_v6) {
  (void)buffer, (void)is_v6;
}

int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6) {
  struct slot *slot = &buffer->memory->slots[0];
  struct ip_datagram *datagram = &buffer->memory->datagram;
  int error =
      ip_datagram_receive_message(fd, is_v6, slot->part.iov_base, SLOT_SIZE, 0, datagram, &buffer->control);
  if (error != 0) return error;
  buffer->next = 0;
  buffer->end = 1;
  buffer->at = 0;
  buffer->length = datagram->length;
  buffer->stride = SLOT_SIZE;
  buffer->drained = false;
  buffer->data = slot->part.iov_base;
  buffer->source = &datagram->source;
  return 0;
}

#endif

void ip_read_ahead_advance(struct ip_read_ahead *buffer, size_t length) {
  buffer->at += length;
  if (buffer->at < buffer->length) return;
  buffer->next++;
  if (buffer->next < buffer->end) begin(buffer, buffer->is_v6);
}
