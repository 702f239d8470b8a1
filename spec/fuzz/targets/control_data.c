/* control_data.c: ancillary data as a system may give it, cut or not, and what the library builds. The parser
   is compared with a walk over the messages that cmsg(3) describes; AddressSanitizer sees reads outside. */
#include "target.h"

#include "net/control_message.h"

#include <linux/errqueue.h>
#include <time.h>

enum { LARGEST = 600 };
static const int64_t BILLION = 1000000000;

static struct msghdr message_of(unsigned char *data, size_t size, bool cut) {
  return (struct msghdr){.msg_control = data, .msg_controllen = size, .msg_flags = cut ? MSG_CTRUNC : 0};
}

static uint32_t items_of_socket(int type, const unsigned char *data, size_t size) {
  if (type == SO_RXQ_OVFL && size >= 4) return IP_CONTROL_DROPPED;
  if (type != SO_TIMESTAMPNS || size < sizeof(struct timespec)) return 0;
  struct timespec stamp;
  memcpy(&stamp, data, sizeof stamp);
  if (stamp.tv_sec > INT64_MAX / BILLION || stamp.tv_sec < INT64_MIN / BILLION) return 0;
  int64_t seconds = stamp.tv_sec * BILLION;
  bool fits =
      stamp.tv_nsec >= 0 ? seconds <= INT64_MAX - stamp.tv_nsec : seconds >= INT64_MIN - stamp.tv_nsec;
  return fits ? IP_CONTROL_TIMESTAMP : 0;
}

static uint32_t address_items(const unsigned char *index, size_t size, size_t needed) {
  unsigned number;
  if (size < needed) return 0;
  memcpy(&number, index, sizeof number);
  return number != 0 ? IP_CONTROL_ADDRESS | IP_CONTROL_INTERFACE : IP_CONTROL_ADDRESS;
}

static uint32_t items_of_message(int level, int type, const unsigned char *data, size_t size) {
  bool whole = size >= sizeof(int);
  if (level == SOL_SOCKET) return items_of_socket(type, data, size);
  if (level == IPPROTO_UDP) return type == UDP_GRO && whole ? IP_CONTROL_SEGMENT_SIZE : 0;
  if (level == IPPROTO_IP) {
    if (type == IP_PKTINFO) return address_items(data, size, sizeof(struct in_pktinfo));
    if (type == IP_TTL) return whole ? IP_CONTROL_HOPS : 0;
    if (type == IP_TOS || type == IP_RECVTOS) return size >= 1 ? IP_CONTROL_TRAFFIC_CLASS : 0;
  }
  if (level == IPPROTO_IPV6) {
    size_t needed = sizeof(struct in6_pktinfo);
    if (type == IPV6_PKTINFO) return size < needed ? 0 : address_items(data + needed - 4, size, needed);
    if (type == IPV6_HOPLIMIT) return whole ? IP_CONTROL_HOPS : 0;
    if (type == IPV6_TCLASS) return whole ? IP_CONTROL_TRAFFIC_CLASS : 0;
  }
  return 0;
}

static bool is_error(int level, int type, size_t size) {
  bool known = (level == IPPROTO_IP && type == IP_RECVERR) || (level == IPPROTO_IPV6 && type == IPV6_RECVERR);
  return known && size >= sizeof(struct sock_extended_err);
}

/* What the messages that are complete mean. */
static uint32_t model(const unsigned char *data, size_t size, bool *has_error) {
  uint32_t items = 0;
  size_t at = 0;
  *has_error = false;
  while (at <= size && size - at >= CMSG_LEN(0)) {
    struct cmsghdr header;
    memcpy(&header, data + at, sizeof header);
    if (header.cmsg_len < CMSG_LEN(0) || header.cmsg_len > size - at) break;
    size_t length = header.cmsg_len - CMSG_LEN(0);
    items |= items_of_message(header.cmsg_level, header.cmsg_type, data + at + CMSG_LEN(0), length);
    if (is_error(header.cmsg_level, header.cmsg_type, length)) *has_error = true;
    at += CMSG_SPACE(length);
  }
  return items;
}

static void check_parse(const uint8_t *data, size_t size, bool cut, bool is_v6) {
  unsigned char *exact = copy_exactly(data, size);
  struct msghdr message = message_of(exact, size, cut);
  struct ip_control control;
  struct ip_control_error error;
  bool has_error;
  uint32_t items = model(exact, size, &has_error);
  ip_control_parse(&message, is_v6, &control);
  uint32_t local = control.items & IP_CONTROL_LOCAL;
  PROMISE((control.items & ~local) == items, "what is complete counts, and nothing else");
  PROMISE(local == 0 || (items & IP_CONTROL_ADDRESS) != 0, "a local address comes with a destination");
  PROMISE(ip_control_parse_error(&message, is_v6, &error) == has_error, "an error that is complete is found");
  free(exact);
}

static struct ip_control take_control(struct input *input) {
  struct ip_control control = {.items = take_byte(input) & 31u};
  control.address.version = take_byte(input) & 1 ? 6 : 4;
  for (int i = 0; i < (control.address.version == 6 ? 16 : 4); i++)
    control.address.bytes[i] = take_byte(input);
  control.interface_index = take_below(input, 65536);
  control.hops = take_byte(input);
  control.traffic_class = take_byte(input);
  control.segment_size = (int)take_below(input, 65536);
  return control;
}

/* What is built stays in its buffer, is whole, and says what was asked for. Segment sizes are UDP_SEGMENT when
   they are sent and UDP_GRO when they are received. */
static void check_build(struct input *input) {
  struct ip_control control = take_control(input), parsed;
  bool v4_path = take_byte(input) & 1;
  struct msghdr message = {.msg_flags = 0};
  union ip_control_buffer *buffer = malloc(sizeof *buffer);
  if (buffer == NULL) abort();
  memset(buffer, 0xaa, sizeof *buffer);
  int error = ip_control_build(&message, buffer, &control, v4_path);
  PROMISE(error == 0 || (control.items & IP_CONTROL_ADDRESS) != 0,
          "only an address can be of another family");
  if (error == 0 && control.items != 0) {
    PROMISE(message.msg_controllen <= sizeof *buffer, "it fits");
    size_t walked = 0;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each != NULL; each = CMSG_NXTHDR(&message, each)) {
      size_t space = CMSG_SPACE(each->cmsg_len - CMSG_LEN(0));
      for (size_t i = each->cmsg_len; i < space; i++)
        PROMISE(((unsigned char *)each)[i] == 0, "padding discloses nothing");
      walked += space;
    }
    PROMISE(walked == message.msg_controllen, "the messages fill it");
    ip_control_parse(&message, !v4_path, &parsed);
    if (control.items & IP_CONTROL_HOPS) PROMISE(parsed.hops == control.hops, "hops");
    if (control.items & IP_CONTROL_TRAFFIC_CLASS)
      PROMISE(parsed.traffic_class == control.traffic_class, "traffic class");
  }
  free(buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1 || size > LARGEST) return 0;
  struct input input = {.data = data + 1, .left = size - 1};
  if (data[0] & 4)
    check_build(&input);
  else
    check_parse(data + 1, size - 1, data[0] & 1, data[0] & 2);
  return 0;
}
