/* bytes_guard.c: tests the search functions of bytes.c with inputs that end or begin at an unreadable page,
   so that a read of one byte outside an input ends the program. Compares every result with that of a naive
   search. Prints each failure and exits with 1, or prints the number of searches and exits with 0.

   cc -std=c11 -iquote src -o bytes_guard spec/host/bytes_guard.c src/net/bytes.c */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "net/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Readable memory between two unreadable pages. */
struct arena {
  unsigned char *begin;
  size_t size;
};

enum { LONGEST = 40, LONGEST_NEEDLE = 6, ROUNDS = 20000 };

static unsigned long searches;
static unsigned long failures;
static uint32_t state = 2463534242u;

static uint32_t random_below(uint32_t limit) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % limit;
}

static struct arena make_arena(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char *pages = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_READ | PROT_WRITE) != 0) {
    perror("bytes_guard: memory");
    exit(2);
  }
  return (struct arena){pages + page, page};
}

/* Puts random bytes of a small alphabet at the beginning or the end of the arena. The rest of the arena has a
   letter of that alphabet, so that a search that reads beyond the input finds wrong results. */
static unsigned char *place(const struct arena *arena, size_t length, bool at_end, uint32_t letters) {
  unsigned char *data = at_end ? arena->begin + (arena->size - length) : arena->begin;
  memset(arena->begin, 'a', arena->size);
  for (size_t i = 0; i < length; i++)
    data[i] = (unsigned char)('a' + random_below(letters));
  return data;
}

static bool matches_at(const unsigned char *data, const unsigned char *needle, size_t count, size_t offset) {
  for (size_t i = 0; i < count; i++)
    if (data[offset + i] != needle[i]) return false;
  return true;
}

static size_t naive_find(const unsigned char *data, size_t length, const unsigned char *needle, size_t count,
                         size_t from) {
  for (size_t i = from; i + count <= length; i++)
    if (matches_at(data, needle, count, i)) return i;
  return IP_BYTES_NONE;
}

static size_t naive_rfind(const unsigned char *data, size_t length, const unsigned char *needle, size_t count,
                          size_t last) {
  size_t result = IP_BYTES_NONE;
  for (size_t i = 0; i <= last && i + count <= length; i++)
    if (matches_at(data, needle, count, i)) result = i;
  return result;
}

static bool naive_has(const unsigned char *members, size_t count, unsigned char byte) {
  for (size_t i = 0; i < count; i++)
    if (members[i] == byte) return true;
  return false;
}

static size_t naive_first(const unsigned char *data, size_t length, const unsigned char *members,
                          size_t count, size_t from, bool member) {
  for (size_t i = from; i < length; i++)
    if (naive_has(members, count, data[i]) == member) return i;
  return IP_BYTES_NONE;
}

static size_t naive_last(const unsigned char *data, size_t length, const unsigned char *members, size_t count,
                         bool member) {
  size_t result = IP_BYTES_NONE;
  for (size_t i = 0; i < length; i++)
    if (naive_has(members, count, data[i]) == member) result = i;
  return result;
}

static void expect(const char *name, size_t expected, size_t got) {
  searches++;
  if (expected == got) return;
  failures++;
  printf("%s: expected %zd, got %zd\n", name, (ssize_t)expected, (ssize_t)got);
}

static void check_needle(const unsigned char *data, size_t length, const unsigned char *needle,
                         size_t count) {
  bool starts = count <= length && matches_at(data, needle, count, 0);
  bool ends = count <= length && matches_at(data, needle, count, length - count);
  expect("equal", starts && count == length, ip_bytes_equal(data, length, needle, count));
  expect("starts_with", starts, ip_bytes_starts_with(data, length, needle, count));
  expect("ends_with", ends, ip_bytes_ends_with(data, length, needle, count));
  for (size_t i = 0; i <= length + 2; i++) {
    expect("find", naive_find(data, length, needle, count, i), ip_bytes_find(data, length, needle, count, i));
    expect("rfind", naive_rfind(data, length, needle, count, i),
           ip_bytes_rfind(data, length, needle, count, i));
  }
  expect("rfind from the end", naive_rfind(data, length, needle, count, length),
         ip_bytes_rfind(data, length, needle, count, SIZE_MAX));
  expect("find from nowhere", IP_BYTES_NONE, ip_bytes_find(data, length, needle, count, SIZE_MAX));
}

static void check_set(const unsigned char *data, size_t length, const unsigned char *members, size_t count) {
  struct ip_byte_set set = ip_byte_set_of(members, count);
  for (size_t i = 0; i <= length; i++) {
    expect("find_first_of", naive_first(data, length, members, count, i, true),
           ip_bytes_find_first_of(data, length, &set, i));
    expect("find_first_not_of", naive_first(data, length, members, count, i, false),
           ip_bytes_find_first_not_of(data, length, &set, i));
    expect("find_last_of", naive_last(data, i, members, count, true), ip_bytes_find_last_of(data, i, &set));
    expect("find_last_not_of", naive_last(data, i, members, count, false),
           ip_bytes_find_last_not_of(data, i, &set));
  }
  size_t first = naive_first(data, length, members, count, 0, false);
  size_t last = naive_last(data, length, members, count, false);
  size_t trimmed = length;
  expect("trim", first == IP_BYTES_NONE ? 0 : first, ip_bytes_trim(data, &trimmed, &set));
  expect("trim: length", first == IP_BYTES_NONE ? 0 : last - first + 1, trimmed);
}

int main(void) {
  struct arena haystack = make_arena();
  struct arena target = make_arena();
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t letters = 1 + random_below(4);
    size_t length = random_below(LONGEST + 1);
    size_t count = random_below(LONGEST_NEEDLE + 1);
    const unsigned char *data = place(&haystack, length, random_below(2) == 0, letters);
    const unsigned char *needle = place(&target, count, random_below(2) == 0, letters);
    check_needle(data, length, needle, count);
    check_set(data, length, needle, count);
  }
  if (failures > 0) {
    printf("%lu of %lu searches failed\n", failures, searches);
    return 1;
  }
  printf("%lu searches\n", searches);
  return 0;
}
