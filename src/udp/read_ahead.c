/* udp_stage.c: datagrams that were read ahead and have not been handed out. Owns the memory that they lie in. Raises
   nothing; no Lua.

   Each slot can take the largest joined read, 64 KiB, because the system may join any time. Pages that nothing was
   written to cost nothing. Large reads want a smaller working set: then fewer slots are offered. */
#include "udp/read_ahead.h"

#include "base/util.h"
#include "net/datagram_message_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  SLOT_SIZE = 65536,
  SLOT_DISTANCE =
      SLOT_SIZE + 320, /* slots at multiples of 64 KiB would compete for the same lines of the caches */
  LARGE_READ = 65536
};

struct slot {
  struct ip_endpoint source;
  struct iovec part;
};

struct ip_stage_memory {
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

static bool add_headers(struct ip_stage_memory *memory, size_t slots) {
  memory->headers = calloc(slots, sizeof *memory->headers);
  memory->controls = calloc(slots, sizeof *memory->controls);
  return memory->headers != NULL && memory->controls != NULL;
}

static void free_headers(struct ip_stage_memory *memory) {
  free(memory->headers);
  free(memory->controls);
}

/* A read changes the lengths of what it has used. */
static void prepare_slot(struct ip_stage_memory *memory, size_t index) {
  struct msghdr *header = &memory->headers[index].msg_hdr;
  header->msg_namelen = sizeof memory->slots[index].source.name;
  header->msg_controllen = sizeof memory->controls[index];
}

static void init_slot(struct ip_stage_memory *memory, size_t index) {
  struct slot *slot = &memory->slots[index];
  slot->part = (struct iovec){.iov_base = memory->bytes + index * SLOT_DISTANCE, .iov_len = SLOT_SIZE};
  memory->headers[index].msg_hdr = (struct msghdr){.msg_name = &slot->source.name,
                                                   .msg_iov = &slot->part,
                                                   .msg_iovlen = 1,
                                                   .msg_control = &memory->controls[index]};
  prepare_slot(memory, index);
}

#else

static bool add_headers(struct ip_stage_memory *memory, size_t slots) {
  (void)memory, (void)slots;
  return true;
}

static void free_headers(struct ip_stage_memory *memory) {
  (void)memory;
}

static void init_slot(struct ip_stage_memory *memory, size_t index) {
  memory->slots[index].part =
      (struct iovec){.iov_base = memory->bytes + index * SLOT_DISTANCE, .iov_len = SLOT_SIZE};
}

#endif

static void free_memory(struct ip_stage_memory *memory) {
  if (memory == NULL) return;
  free_headers(memory);
  free(memory->bytes);
  free(memory);
}

static struct ip_stage_memory *new_memory(size_t slots) {
  struct ip_stage_memory *memory = calloc(1, sizeof *memory + slots * sizeof memory->slots[0]);
  if (memory == NULL) return NULL;
  memory->bytes = malloc(slots * SLOT_DISTANCE);
  if (memory->bytes != NULL && add_headers(memory, slots)) return memory;
  free_memory(memory);
  return NULL;
}

struct ip_stage *ip_stage_new(size_t slots) {
  struct ip_stage *stage = calloc(1, sizeof *stage);
  if (stage == NULL) return NULL;
  stage->memory = new_memory(slots);
  if (stage->memory == NULL) {
    free(stage);
    return NULL;
  }
  stage->slots = stage->wanted = slots;
  for (size_t i = 0; i < slots; i++)
    init_slot(stage->memory, i);
  return stage;
}

void ip_stage_free(struct ip_stage *stage) {
  if (stage == NULL) return;
  free_memory(stage->memory);
  free(stage);
}

void ip_stage_take_over(struct ip_stage *stage, const struct ip_stage *from) {
  struct slot *slot = &stage->memory->slots[0];
  stage->next = 0;
  stage->end = ip_stage_is_empty(from) ? 0 : 1;
  if (stage->end == 0) return;
  stage->at = 0;
  stage->length = from->length - from->at;
  stage->stride = from->stride;
  stage->control = from->control;
  stage->data = slot->part.iov_base;
  slot->source = *from->source;
  stage->source = &slot->source;
  if (stage->length != 0) memcpy(stage->data, from->data + from->at, stage->length);
}

/* --- reading --- */

#ifdef __linux__

/* Makes the slot `next` the one that is handed out. */
static void begin(struct ip_stage *stage, bool is_v6) {
  struct ip_stage_memory *memory = stage->memory;
  const struct mmsghdr *header = &memory->headers[stage->next];
  struct slot *slot = &memory->slots[stage->next];
  stage->at = 0;
  stage->length = header->msg_len;
  stage->stride = SLOT_SIZE;
  stage->data = slot->part.iov_base;
  slot->source.length = header->msg_hdr.msg_namelen;
  stage->source = &slot->source;
  stage->control.items = 0;
  if (header->msg_hdr.msg_controllen != 0) ip_control_parse(&header->msg_hdr, is_v6, &stage->control);
  bool joined = (stage->control.items & IP_CONTROL_SEGMENT_SIZE) != 0 && stage->control.segment_size > 0;
  if (joined) stage->stride = (size_t)stage->control.segment_size;
}

/* What is read at once should stay in the caches. */
static void adapt(struct ip_stage *stage, size_t count) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++)
    bytes += stage->memory->headers[i].msg_len;
  if (bytes > LARGE_READ && stage->wanted > 1)
    stage->wanted /= 2;
  else if (bytes <= LARGE_READ / 2 && count == stage->wanted && stage->wanted * 2 <= stage->slots)
    stage->wanted *= 2;
}

int ip_stage_fill(struct ip_stage *stage, int fd, bool is_v6) {
  struct ip_stage_memory *memory = stage->memory;
  for (size_t i = 0; i < stage->end; i++)
    prepare_slot(memory, i);
  stage->next = stage->end = 0;
  int count;
  do
    count = recvmmsg(fd, memory->headers, (unsigned)stage->wanted, 0, NULL);
  while (IP_UNLIKELY(count < 0) && errno == EINTR);
  if (count < 0) return errno;
  stage->end = (size_t)count;
  stage->drained = stage->end < stage->wanted;
  stage->is_v6 = is_v6;
  adapt(stage, stage->end);
  begin(stage, is_v6);
  return 0;
}

#else

/* One slot: there is neither joining nor reading of several. */
static void begin(struct ip_stage *stage, bool is_v6) {
  (void)stage, (void)is_v6;
}

int ip_stage_fill(struct ip_stage *stage, int fd, bool is_v6) {
  struct slot *slot = &stage->memory->slots[0];
  struct ip_datagram *datagram = &stage->memory->datagram;
  int error =
      ip_datagram_receive_message(fd, is_v6, slot->part.iov_base, SLOT_SIZE, 0, datagram, &stage->control);
  if (error != 0) return error;
  stage->next = 0;
  stage->end = 1;
  stage->at = 0;
  stage->length = datagram->length;
  stage->stride = SLOT_SIZE;
  stage->drained = false;
  stage->data = slot->part.iov_base;
  stage->source = &datagram->source;
  return 0;
}

#endif

void ip_stage_advance(struct ip_stage *stage, size_t length) {
  stage->at += length;
  if (stage->at < stage->length) return;
  stage->next++;
  if (stage->next < stage->end) begin(stage, stage->is_v6);
}
