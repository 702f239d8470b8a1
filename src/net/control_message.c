/* control_message.c: ancillary data of a struct msghdr.

   Owns nothing; raises nothing. IPv4 traffic of a dual-stack socket arrives with messages of the level
   IPPROTO_IP, and a datagram to a v4-mapped peer obeys messages of that level alone (measured on Linux 6.18).
   Sources: cmsg(3), ip(7), ipv6(7), udp(7), RFC 3542. */
#include "net/control_message.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#ifdef __linux__
#include <linux/errqueue.h>
#include <netinet/udp.h>
#endif

/* --- received --- */

/* One message, as far as it is complete. Its data may be unaligned. */
struct item {
  int level, type;
  const unsigned char *data;
  size_t size;
};

/* Reads the message at *offset and moves on; false when there is none, or it reaches beyond what was
   received. The buffer may hold anything: the descriptor may have options that its maker chose, the system
   cuts the last message where the buffer is full (MSG_CTRUNC), and the macros of cmsg(3) check cmsg_len on
   some systems only. */
static bool next_item(const struct msghdr *message, size_t *offset, struct item *item) {
  size_t left = (size_t)message->msg_controllen - *offset;
  if (message->msg_control == NULL || left < CMSG_LEN(0)) return false;
  const unsigned char *start = (const unsigned char *)message->msg_control + *offset;
  struct cmsghdr header;
  memcpy(&header, start, sizeof header);
  size_t length = (size_t)header.cmsg_len;
  if (length < CMSG_LEN(0) || length > left) return false;
  item->level = header.cmsg_level;
  item->type = header.cmsg_type;
  item->data = start + CMSG_LEN(0);
  item->size = length - CMSG_LEN(0);
  size_t space = CMSG_SPACE(item->size);
  *offset += space < left ? space : left;
  return true;
}

/* Copies a value of `size` bytes; false where the message has fewer. */
static bool read_value(const struct item *item, void *value, size_t size) {
  if (item->size < size) return false;
  memcpy(value, item->data, size);
  return true;
}

/* Stores an integer and notes that `bit` is set. */
static void note_integer(const struct item *item, int *member, struct ip_control *control, uint32_t bit) {
  if (read_value(item, member, sizeof *member)) control->items |= bit;
}

/* The same of a message that holds an int or, as IP_TOS on Linux and the messages of BSD, a single byte. */
static void note_byte(const struct item *item, int *member, struct ip_control *control, uint32_t bit) {
  unsigned char byte;
  if (item->size >= sizeof *member) {
    note_integer(item, member, control, bit);
  } else if (read_value(item, &byte, sizeof byte)) {
    *member = byte;
    control->items |= bit;
  }
}

static void note_traffic_class(const struct item *item, struct ip_control *control) {
  note_byte(item, &control->traffic_class, control, IP_CONTROL_TRAFFIC_CLASS);
  if (control->items & IP_CONTROL_TRAFFIC_CLASS) control->traffic_class &= 0xff;
}

static void note_local(struct ip_control *control, const struct ip_address *address, bool is_v6) {
  if (ip_address_is_multicast(address) || ip_address_is_unspecified(address)) return;
  control->local = is_v6 ? ip_address_to_v6(address) : *address;
  control->items |= IP_CONTROL_LOCAL;
}

static void note_interface(struct ip_control *control, uint32_t index) {
  control->interface_index = index;
  control->items |= IP_CONTROL_ADDRESS;
  if (index != 0) control->items |= IP_CONTROL_INTERFACE;
}

#ifdef IP_PKTINFO

static void note_v4_info(const struct item *item, bool is_v6, struct ip_control *control) {
  struct in_pktinfo info;
  if (!read_value(item, &info, sizeof info)) return;
  struct ip_address address = {.version = 4};
  memcpy(address.bytes, &info.ipi_addr, sizeof info.ipi_addr);
  control->address = is_v6 ? ip_address_to_v6(&address) : address;
  note_interface(control, (uint32_t)info.ipi_ifindex);
  memcpy(address.bytes, &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
  note_local(control, &address, is_v6);
}

#endif

static void parse_v4(const struct item *item, bool is_v6, struct ip_control *control) {
  switch (item->type) {
#ifdef IP_PKTINFO
  case IP_PKTINFO: note_v4_info(item, is_v6, control); break;
#endif
#ifdef __linux__
  case IP_TTL: note_integer(item, &control->hops, control, IP_CONTROL_HOPS); break;
#else
#ifdef IP_RECVTTL
  case IP_RECVTTL:
#endif
  case IP_TTL: note_byte(item, &control->hops, control, IP_CONTROL_HOPS); break;
#endif
#ifdef IP_RECVTOS
  case IP_RECVTOS:
#endif
  case IP_TOS: note_traffic_class(item, control); break;
  default: break;
  }
}

#ifdef IPV6_PKTINFO

static void note_v6_info(const struct item *item, struct ip_control *control) {
  struct in6_pktinfo info;
  if (!read_value(item, &info, sizeof info)) return;
  control->address = (struct ip_address){.version = 6};
  memcpy(control->address.bytes, &info.ipi6_addr, sizeof info.ipi6_addr);
  if (ip_address_needs_scope(&control->address)) control->address.scope_id = (uint32_t)info.ipi6_ifindex;
  note_interface(control, (uint32_t)info.ipi6_ifindex);
  note_local(control, &control->address, true);
}

#endif

static void parse_v6(const struct item *item, struct ip_control *control) {
  switch (item->type) {
#ifdef IPV6_PKTINFO
  case IPV6_PKTINFO: note_v6_info(item, control); break;
#endif
#ifdef IPV6_HOPLIMIT
  case IPV6_HOPLIMIT: note_integer(item, &control->hops, control, IP_CONTROL_HOPS); break;
#endif
#ifdef IPV6_TCLASS
  case IPV6_TCLASS:
    if (item->size >= sizeof(int)) note_traffic_class(item, control);
    break;
#endif
  default: break;
  }
}

#ifdef SO_TIMESTAMPNS

/* A time that nanoseconds in 64 bits cannot hold is none. */
static void note_timestamp(const struct item *item, struct ip_control *control) {
  struct timespec stamp;
  if (!read_value(item, &stamp, sizeof stamp)) return;
  int64_t seconds = (int64_t)stamp.tv_sec, nanoseconds;
  if (__builtin_mul_overflow(seconds, INT64_C(1000000000), &nanoseconds)) return;
  if (__builtin_add_overflow(nanoseconds, (int64_t)stamp.tv_nsec, &control->timestamp)) return;
  control->items |= IP_CONTROL_TIMESTAMP;
}

#endif

static void parse_socket(const struct item *item, struct ip_control *control) {
#ifdef SO_TIMESTAMPNS
  if (item->type == SO_TIMESTAMPNS) note_timestamp(item, control);
#endif
#ifdef SO_RXQ_OVFL
  if (item->type == SO_RXQ_OVFL && read_value(item, &control->dropped, sizeof control->dropped))
    control->items |= IP_CONTROL_DROPPED;
#endif
  (void)item;
  (void)control;
}

void ip_control_parse(const struct msghdr *message, bool is_v6, struct ip_control *control) {
  struct item item;
  size_t offset = 0;
  control->items = 0;
  while (next_item(message, &offset, &item)) {
    switch (item.level) {
    case SOL_SOCKET: parse_socket(&item, control); break;
    case IPPROTO_IP: parse_v4(&item, is_v6, control); break;
    case IPPROTO_IPV6: parse_v6(&item, control); break;
#ifdef UDP_GRO
    case IPPROTO_UDP:
      if (item.type == UDP_GRO) note_integer(&item, &control->segment_size, control, IP_CONTROL_SEGMENT_SIZE);
      break;
#endif
    default: break;
    }
  }
}

/* --- sent --- */

/* Clears the part of the buffer that the message takes, for its padding must not disclose the stack's old
   contents. The rest of the buffer is never sent. */
static inline void append(struct msghdr *message, int level, int type, const void *data, size_t size) {
  size_t used = message->msg_controllen;
  struct cmsghdr *header = (struct cmsghdr *)(void *)((char *)message->msg_control + used);
  memset(header, 0, CMSG_SPACE(size));
  header->cmsg_level = level;
  header->cmsg_type = type;
  header->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(header), data, size);
  message->msg_controllen = used + CMSG_SPACE(size);
}

static void append_integer(struct msghdr *message, int level, int type, int value) {
  append(message, level, type, &value, sizeof value);
}

static int append_v4_source(struct msghdr *message, const struct ip_control *control) {
#ifdef IP_PKTINFO
  struct in_pktinfo info = {.ipi_ifindex = 0};
  if (control->items & IP_CONTROL_INTERFACE) info.ipi_ifindex = (int)control->interface_index;
  if (control->items & IP_CONTROL_ADDRESS) {
    struct ip_address source = ip_address_unmapped(&control->address);
    if (source.version != 4) return EINVAL;
    memcpy(&info.ipi_spec_dst, source.bytes, sizeof info.ipi_spec_dst);
  }
  append(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  return 0;
#else
  (void)message, (void)control;
  return ENOTSUP;
#endif
}

static int append_v6_source(struct msghdr *message, const struct ip_control *control) {
#ifdef IPV6_PKTINFO
  struct in6_pktinfo info = {.ipi6_ifindex = 0};
  if (control->items & IP_CONTROL_ADDRESS) {
    if (control->address.version != 6 || ip_address_is_v4_mapped(&control->address)) return EINVAL;
    memcpy(&info.ipi6_addr, control->address.bytes, sizeof info.ipi6_addr);
    info.ipi6_ifindex = control->address.scope_id;
  }
  if (control->items & IP_CONTROL_INTERFACE) {
    if (info.ipi6_ifindex != 0 && info.ipi6_ifindex != control->interface_index) return EINVAL;
    info.ipi6_ifindex = control->interface_index;
  }
  append(message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  return 0;
#else
  (void)message, (void)control;
  return ENOTSUP;
#endif
}

#ifdef UDP_SEGMENT

static void append_segment_size(struct msghdr *message, size_t size) {
  uint16_t segment_size = (uint16_t)size;
  append(message, IPPROTO_UDP, UDP_SEGMENT, &segment_size, sizeof segment_size);
}

void ip_control_set_segment_size(struct msghdr *message, union ip_segment_control *buffer, size_t size) {
  message->msg_control = buffer;
  message->msg_controllen = 0;
  append_segment_size(message, size);
}

#endif

int ip_control_build(struct msghdr *message, union ip_control_buffer *buffer,
                     const struct ip_control *control, bool v4_path) {
  message->msg_control = buffer;
  message->msg_controllen = 0;
  if (control->items & (IP_CONTROL_ADDRESS | IP_CONTROL_INTERFACE)) {
    int error = v4_path ? append_v4_source(message, control) : append_v6_source(message, control);
    if (error != 0) return error;
  }
  int level = v4_path ? IPPROTO_IP : IPPROTO_IPV6;
  if (control->items & IP_CONTROL_HOPS)
    append_integer(message, level, v4_path ? IP_TTL : IPV6_HOPLIMIT, control->hops);
  if (control->items & IP_CONTROL_TRAFFIC_CLASS)
    append_integer(message, level, v4_path ? IP_TOS : IPV6_TCLASS, control->traffic_class);
  if (control->items & IP_CONTROL_SEGMENT_SIZE) {
#ifdef UDP_SEGMENT
    append_segment_size(message, (size_t)control->segment_size);
#else
    return ENOTSUP;
#endif
  }
  if (message->msg_controllen == 0) message->msg_control = NULL;
  return 0;
}

/* --- the error queue --- */

#ifdef __linux__

static int origin_of(int origin) {
  switch (origin) {
  case SO_EE_ORIGIN_LOCAL: return IP_ORIGIN_LOCAL;
  case SO_EE_ORIGIN_ICMP: return IP_ORIGIN_ICMP;
  case SO_EE_ORIGIN_ICMP6: return IP_ORIGIN_ICMP6;
  default: return IP_ORIGIN_OTHER;
  }
}

/* The address of the host that reported the error follows the fixed part (IP_RECVERR in ip(7)). */
static void parse_offender(const struct item *item, bool is_v6, struct ip_control_error *error) {
  const unsigned char *name = item->data + sizeof(struct sock_extended_err);
  size_t size = item->size - sizeof(struct sock_extended_err);
  struct ip_endpoint offender;
  memset(&offender, 0, sizeof offender);
  memcpy(&offender.name, name, size < sizeof offender.name ? size : sizeof offender.name);
  int family = ip_endpoint_family(&offender);
  bool is_complete = (family == AF_INET && size >= sizeof offender.name.v4) ||
                     (family == AF_INET6 && size >= sizeof offender.name.v6);
  if (!is_complete) return;
  ip_endpoint_get_address(&offender, &error->offender);
  if (is_v6) error->offender = ip_address_to_v6(&error->offender);
}

static bool holds_error(const struct item *item) {
  bool v4 = item->level == IPPROTO_IP && item->type == IP_RECVERR;
  return v4 || (item->level == IPPROTO_IPV6 && item->type == IPV6_RECVERR);
}

bool ip_control_parse_error(const struct msghdr *message, bool is_v6, struct ip_control_error *error) {
  struct item item;
  size_t offset = 0;
  while (next_item(message, &offset, &item)) {
    struct sock_extended_err extended;
    if (!holds_error(&item) || !read_value(&item, &extended, sizeof extended)) continue;
    *error = (struct ip_control_error){.error = (int)extended.ee_errno,
                                       .origin = origin_of(extended.ee_origin),
                                       .type = extended.ee_type,
                                       .code = extended.ee_code};
    if (extended.ee_errno == EMSGSIZE) error->mtu = (int)extended.ee_info;
    if (error->origin != IP_ORIGIN_LOCAL) parse_offender(&item, is_v6, error);
    return true;
  }
  return false;
}

#else

bool ip_control_parse_error(const struct msghdr *message, bool is_v6, struct ip_control_error *error) {
  (void)message, (void)is_v6, (void)error;
  return false;
}

#endif
