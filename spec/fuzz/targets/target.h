/* target.h: what the targets of libFuzzer share. A target is one function of an input; libFuzzer calls it with
   inputs that it makes (scripts/fuzz_targets.sh), and replay.c with those that are kept in spec/fuzz/corpus. */
#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process where a promise does not hold. */
#define PROMISE(holds, text)                                                                                 \
  do {                                                                                                       \
    if (!(holds)) {                                                                                          \
      fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, (text));                            \
      abort();                                                                                               \
    }                                                                                                        \
  } while (0)

/* The bytes of an input, read one after the other; `rest` after its end. */
struct input {
  const uint8_t *data;
  size_t left;
  uint8_t rest;
};

static inline uint8_t take_byte(struct input *input) {
  if (input->left == 0) return input->rest;
  input->left--;
  return *input->data++;
}

static inline unsigned take_below(struct input *input, unsigned limit) {
  unsigned value = take_byte(input);
  if (limit > 256) value = value << 8 | take_byte(input);
  return value % limit;
}

/* A copy in memory of exactly that size, so that AddressSanitizer sees each byte that is read outside. */
static inline unsigned char *copy_exactly(const void *data, size_t size) {
  unsigned char *copy = calloc(1, size != 0 ? size : 1);
  if (copy == NULL) abort();
  if (size != 0) memcpy(copy, data, size);
  return copy;
}

/* Bytes without a short period, from which datagrams are cut: one that is shifted, or has bytes of another,
   differs. */
enum { NOISE_SIZE = 65536 + 4096 };

static inline const unsigned char *noise(unsigned number) {
  static unsigned char bytes[NOISE_SIZE];
  uint32_t state = 12345;
  for (size_t i = 0; bytes[0] == 0 && i < sizeof bytes; i++) {
    state = state * 1103515245u + 12345u;
    bytes[sizeof bytes - 1 - i] = (unsigned char)(state >> 16 | (i == sizeof bytes - 1 ? 1u : 0u));
  }
  return bytes + 1 + number * 37u % 4001u;
}

#endif
