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

/* Restores what a read has changed. */
static void prepare_slot(struct ip_read_ahead_memory *memory, size_t index) {
  struct msghdr *header = &memory->headers[index].msg_hdr;
  header->msg_name = &memory->slots[index].source.name;
  header->msg_namelen = sizeof memory->slots[index].source.name;
  header->msg_controllen = sizeof memory->controls[index];
}

static void init_slot(struct ip_read_ahead_memory *memory, size_t index) {
  struct slot *slot = &memory->slots[index];
  slot->part = (struct iovec){.iov_base = memory->bytes + index * SLOT_DISTANCE, .iov_len = SLOT_SIZE};
  memory->headers[index].msg_hdr =
      (struct msghdr){.msg_iov = &slot->part, .msg_iovlen = 1, .msg_control = &memory->controls[index]};
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

static struct ip_read_ahead_memory *new_memory(void) {
  enum { SLOTS = IP_READ_AHEAD_MOST };
  struct ip_read_ahead_memory *memory = calloc(1, sizeof *memory + SLOTS * sizeof memory->slots[0]);
  if (memory == NULL) return NULL;
  memory->bytes = malloc((size_t)SLOTS * SLOT_DISTANCE);
  if (memory->bytes != NULL && add_headers(memory, SLOTS)) return memory;
  free_memory(memory);
  return NULL;
}

struct ip_read_ahead *ip_read_ahead_new(void) {
  struct ip_read_ahead *buffer = calloc(1, sizeof *buffer);
  if (buffer == NULL) return NULL;
  buffer->memory = new_memory();
  if (buffer->memory == NULL) {
    free(buffer);
    return NULL;
  }
  for (size_t i = 0; i < IP_READ_AHEAD_MOST; i++)
    init_slot(buffer->memory, i);
  return buffer;
}

void ip_read_ahead_free(struct ip_read_ahead *buffer) {
  if (buffer == NULL) return;
  free_memory(buffer->memory);
  free(buffer);
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
static uint8_t adapt(const struct ip_read_ahead *buffer, uint8_t wanted) {
  size_t bytes = 0;
  for (size_t i = 0; i < buffer->end; i++)
    bytes += buffer->memory->headers[i].msg_len;
  if (bytes > LARGE_READ && wanted > 1) return wanted / 2;
  bool small = bytes <= LARGE_READ / 2 && buffer->end == wanted && wanted * 2 <= IP_READ_AHEAD_MOST;
  return small ? (uint8_t)(wanted * 2) : wanted;
}

/* Prepares the slots that the last read has used. */
static void restore(struct ip_read_ahead *buffer) {
  for (size_t i = 0; i < buffer->end; i++)
    prepare_slot(buffer->memory, i);
  buffer->next = buffer->end = 0;
}

int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6, uint8_t *wanted) {
  int count;
  restore(buffer);
  do
    count = recvmmsg(fd, buffer->memory->headers, *wanted, 0, NULL);
  while (IP_UNLIKELY(count < 0) && errno == EINTR);
  if (count < 0) return errno;
  buffer->end = (size_t)count;
  buffer->is_v6 = is_v6;
  *wanted = adapt(buffer, *wanted);
  begin(buffer, is_v6);
  return 0;
}

int ip_read_ahead_read(struct ip_read_ahead *buffer, int fd, bool is_v6, const struct ip_endpoint *source) {
  struct mmsghdr *header = &buffer->memory->headers[0];
  ssize_t length;
  if (buffer->end == 1)
    prepare_slot(buffer->memory, 0);
  else
    restore(buffer);
  if (source != NULL) header->msg_hdr.msg_name = NULL;
  do
    length = recvmsg(fd, &header->msg_hdr, 0);
  while (IP_UNLIKELY(length < 0) && errno == EINTR);
  buffer->end = buffer->next = 1; /* one slot is to be restored */
  if (length < 0) return errno;
  buffer->next = 0;
  header->msg_len = (unsigned)length;
  buffer->is_v6 = is_v6;
  begin(buffer, is_v6);
  if (source != NULL) buffer->source = source;
  return 0;
}

#else

/* One slot is used: the system neither joins datagrams nor reads several. */
static void begin(struct ip_read_ahead *buffer, bool is_v6) {
  (void)buffer, (void)is_v6;
}

int ip_read_ahead_read(struct ip_read_ahead *buffer, int fd, bool is_v6, const struct ip_endpoint *source) {
  (void)source;
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
  buffer->data = slot->part.iov_base;
  buffer->source = &datagram->source;
  return 0;
}

int ip_read_ahead_fill(struct ip_read_ahead *buffer, int fd, bool is_v6, uint8_t *wanted) {
  (void)wanted;
  return ip_read_ahead_read(buffer, fd, is_v6, NULL);
}

#endif

void ip_read_ahead_advance(struct ip_read_ahead *buffer, size_t length) {
  buffer->at += length;
  if (buffer->at < buffer->length) return;
  buffer->next++;
  if (buffer->next < buffer->end) begin(buffer, buffer->is_v6);
}
