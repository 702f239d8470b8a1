/* control_data.c: gives the parser of ancillary data messages that are cut, malformed, unaligned or random.
   Each lies at the end of a page that an unreadable one follows, so that a read of one byte outside it ends
   the program. Prints each failure and exits with 1, or prints the number of messages and exits with 0.
   Linux. */
#include "net/control_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/errqueue.h>

enum { ROUNDS = 200000, LARGEST = 256 };

static unsigned char *page_end;
static unsigned long parsed, failures;
static uint32_t state = 2463534242u;

static uint32_t random_below(uint32_t limit) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % limit;
}

static void map_page(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char *pages = mmap(NULL, 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages, page, PROT_READ | PROT_WRITE) != 0) {
    perror("control_data: memory");
    exit(2);
  }
  page_end = pages + page;
}

static void check(bool holds, const char *promise, int level, int type, size_t size) {
  if (holds) return;
  printf("FAILED %s (level %d, type %d, %zu bytes)\n", promise, level, type, size);
  failures++;
}

/* --- what a message is made of --- */

struct buffer {
  unsigned char bytes[2 * LARGEST];
  size_t used;
};

/* Appends a message that claims `claimed` bytes of data and has `size`. */
static void append(struct buffer *buffer, int level, int type, size_t claimed, const void *data,
                   size_t size) {
  struct cmsghdr header = {.cmsg_len = CMSG_LEN(claimed), .cmsg_level = level, .cmsg_type = type};
  size_t space = CMSG_SPACE(size);
  memset(buffer->bytes + buffer->used, 0, space);
  memcpy(buffer->bytes + buffer->used, &header, sizeof header);
  memcpy(buffer->bytes + buffer->used + CMSG_LEN(0), data, size);
  buffer->used += space;
}

/* The first `size` bytes of the buffer, before the unreadable page. */
static struct msghdr place(const struct buffer *buffer, size_t size) {
  unsigned char *start = page_end - size;
  if (size != 0) memcpy(start, buffer->bytes, size);
  parsed++;
  return (struct msghdr){.msg_control = start, .msg_controllen = size, .msg_flags = MSG_CTRUNC};
}

static uint32_t items_of(const struct buffer *buffer, size_t size) {
  struct ip_control control;
  struct msghdr message = place(buffer, size);
  ip_control_parse(&message, true, &control);
  return control.items;
}

/* --- what datagrams come with --- */

#define PACKET_INFO (IP_CONTROL_ADDRESS | IP_CONTROL_INTERFACE | IP_CONTROL_LOCAL)

static const struct known {
  int level, type;
  size_t size;
  uint32_t items;
} known[] = {
    {IPPROTO_IP, IP_PKTINFO, sizeof(struct in_pktinfo), PACKET_INFO},
    {IPPROTO_IPV6, IPV6_PKTINFO, sizeof(struct in6_pktinfo), PACKET_INFO},
    {IPPROTO_IP, IP_TTL, sizeof(int), IP_CONTROL_HOPS},
    {IPPROTO_IPV6, IPV6_HOPLIMIT, sizeof(int), IP_CONTROL_HOPS},
    {IPPROTO_IP, IP_TOS, 1, IP_CONTROL_TRAFFIC_CLASS},
    {IPPROTO_IPV6, IPV6_TCLASS, sizeof(int), IP_CONTROL_TRAFFIC_CLASS},
    {IPPROTO_UDP, UDP_GRO, sizeof(int), IP_CONTROL_SEGMENT_SIZE},
    {SOL_SOCKET, SO_RXQ_OVFL, sizeof(uint32_t), IP_CONTROL_DROPPED},
    {SOL_SOCKET, SO_TIMESTAMPNS, sizeof(struct timespec), IP_CONTROL_TIMESTAMP},
};
enum { KNOWN = sizeof known / sizeof known[0] };

static unsigned char ones[LARGEST];
static const unsigned char zeros[LARGEST];

/* As a time, ones would not fit. */
static const unsigned char *data_of(const struct known *each) {
  return each->level == SOL_SOCKET && each->type == SO_TIMESTAMPNS ? zeros : ones;
}

/* A message counts where all of it has come, alone and behind another, and what comes before it counts in any
   case. */
static void check_lengths(const struct known *each) {
  for (size_t size = 0; size <= each->size; size++) {
    uint32_t due = size == each->size ? each->items : 0;
    struct buffer alone = {.used = 0}, behind = {.used = 0};
    append(&alone, each->level, each->type, size, data_of(each), size);
    check(items_of(&alone, CMSG_LEN(size)) == due, "cut by the system", each->level, each->type, size);
    append(&behind, SOL_SOCKET, SO_RXQ_OVFL, 4, ones, 4);
    size_t first = behind.used;
    append(&behind, each->level, each->type, each->size, data_of(each), each->size);
    size_t length = first + CMSG_LEN(size);
    check(items_of(&behind, length) == (IP_CONTROL_DROPPED | due), "longer than what is left", each->level,
          each->type, size);
  }
}

/* Lengths that no message has: shorter than a header, longer than the buffer, and those whose sums wrap
   round. */
static void check_claims(const struct known *each) {
  static const size_t claims[] = {0,       1, CMSG_LEN(0) - 1, CMSG_LEN(LARGEST), SIZE_MAX / 2, SIZE_MAX - 8,
                                  SIZE_MAX};
  for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
    struct buffer buffer = {.used = 0};
    append(&buffer, each->level, each->type, claims[i] - CMSG_LEN(0), data_of(each), each->size);
    check(items_of(&buffer, buffer.used) == 0, "a length that is none", each->level, each->type, each->size);
  }
}

static void check_headers(void) {
  struct buffer buffer = {.used = 0};
  append(&buffer, SOL_SOCKET, SO_RXQ_OVFL, 4, ones, 4);
  for (size_t size = 0; size < CMSG_LEN(4); size++)
    check(items_of(&buffer, size) == 0, "a header that is cut", SOL_SOCKET, SO_RXQ_OVFL, size);
  struct msghdr none = {.msg_control = NULL, .msg_controllen = 0};
  struct ip_control control;
  ip_control_parse(&none, true, &control);
  check(control.items == 0, "no buffer", 0, 0, 0);
}

/* A time that does not fit. */
static void check_timestamp(void) {
  struct timespec stamp = {.tv_nsec = 999999999};
  memset(&stamp.tv_sec, 0x7f, sizeof stamp.tv_sec);
  struct buffer buffer = {.used = 0};
  append(&buffer, SOL_SOCKET, SO_TIMESTAMPNS, sizeof stamp, &stamp, sizeof stamp);
  check(items_of(&buffer, buffer.used) == 0, "a time that does not fit", SOL_SOCKET, SO_TIMESTAMPNS,
        sizeof stamp);
}

/* --- the error queue --- */

static bool parse_error(const struct buffer *buffer, size_t size, struct ip_control_error *error) {
  struct msghdr message = place(buffer, size);
  return ip_control_parse_error(&message, true, error);
}

struct queued {
  struct sock_extended_err what;
  struct sockaddr_in6 offender;
};

static void check_error(int level, int type, int family, size_t offender_size) {
  struct queued queued = {.what = {.ee_errno = 111, .ee_origin = SO_EE_ORIGIN_ICMP, .ee_type = 3}};
  memset(&queued.offender, 0x11, sizeof queued.offender);
  memcpy(&queued.offender, &(sa_family_t){(sa_family_t)family}, sizeof(sa_family_t));
  size_t whole = sizeof queued.what + offender_size;
  for (size_t size = 0; size <= sizeof queued; size++) {
    struct ip_control_error error = {.error = 0};
    struct buffer buffer = {.used = 0};
    append(&buffer, level, type, size, &queued, size);
    bool found = parse_error(&buffer, CMSG_LEN(size), &error);
    check(found == (size >= sizeof queued.what), "an error that is cut", level, type, size);
    check(!found || error.error == 111, "the error", level, type, size);
    bool has_offender = error.offender.version != 0;
    check(has_offender == (found && offender_size != 0 && size >= whole), "an offender that is cut", level,
          type, size);
  }
}

static void check_errors(void) {
  check_error(IPPROTO_IP, IP_RECVERR, AF_INET, sizeof(struct sockaddr_in));
  check_error(IPPROTO_IPV6, IPV6_RECVERR, AF_INET6, sizeof(struct sockaddr_in6));
  check_error(IPPROTO_IP, IP_RECVERR, AF_UNSPEC, 0);
}

/* --- anything --- */

/* Headers that look right now and then, at places that need not be aligned, among random bytes. */
static void parse_anything(void) {
  static const int error_types[][2] = {{IPPROTO_IP, IP_RECVERR}, {IPPROTO_IPV6, IPV6_RECVERR}};
  struct buffer buffer = {.used = random_below(LARGEST)};
  for (size_t i = 0; i < buffer.used; i++)
    buffer.bytes[i] = (unsigned char)random_below(256);
  for (size_t at = 0; at + sizeof(struct cmsghdr) <= buffer.used; at += 1 + random_below(64)) {
    const struct known *each = &known[random_below(KNOWN)];
    const int *error = error_types[random_below(2)];
    bool is_error = random_below(3) == 0;
    struct cmsghdr header = {.cmsg_len = random_below(LARGEST),
                             .cmsg_level = is_error ? error[0] : each->level,
                             .cmsg_type = is_error ? error[1] : each->type};
    memcpy(buffer.bytes + at, &header, sizeof header);
  }
  struct ip_control_error error;
  (void)items_of(&buffer, buffer.used);
  (void)parse_error(&buffer, buffer.used, &error);
}

int main(void) {
  map_page();
  memset(ones, 1, sizeof ones);
  for (size_t i = 0; i < KNOWN; i++) {
    check_lengths(&known[i]);
    check_claims(&known[i]);
  }
  check_headers();
  check_timestamp();
  check_errors();
  for (int i = 0; i < ROUNDS; i++)
    parse_anything();
  if (failures == 0) printf("%lu messages\n", parsed);
  return failures != 0;
}

#else

int main(void) {
  puts("0 messages");
  return 0;
}

#endif
