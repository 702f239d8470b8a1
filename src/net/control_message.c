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

/* The value of a message that holds an int or, as IP_TOS on Linux, a single byte. */
static int read_integer(const struct cmsghdr *header) {
  int value = 0;
  unsigned char byte;
  if (header->cmsg_len >= CMSG_LEN(sizeof value)) {
    memcpy(&value, CMSG_DATA(header), sizeof value);
    return value;
  }
  memcpy(&byte, CMSG_DATA(header), sizeof byte);
  return byte;
}

/* Is the address unique on one interface only (RFC 4007 section 4)? Then its scope is that interface. */
static bool has_scope(const struct ip_address *address) {
  int scope = ip_address_multicast_scope(address);
  return ip_address_is_link_local(address) || scope == 1 || scope == 2;
}

static void note_interface(struct ip_control *control, uint32_t index) {
  control->interface_index = index;
  control->items |= IP_CONTROL_ADDRESS;
  if (index != 0) control->items |= IP_CONTROL_INTERFACE;
}

static void parse_v4(const struct cmsghdr *header, bool is_v6, struct ip_control *control) {
  switch (header->cmsg_type) {
#ifdef IP_PKTINFO
  case IP_PKTINFO: {
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(header), sizeof info);
    struct ip_address address = {.version = 4};
    memcpy(address.bytes, &info.ipi_addr, sizeof info.ipi_addr);
    control->address = is_v6 ? ip_address_to_v6(&address) : address;
    note_interface(control, (uint32_t)info.ipi_ifindex);
    break;
  }
#endif
#ifdef IP_RECVTTL
  case IP_RECVTTL:
#endif
  case IP_TTL:
    control->hops = read_integer(header);
    control->items |= IP_CONTROL_HOPS;
    break;
#ifdef IP_RECVTOS
  case IP_RECVTOS:
#endif
  case IP_TOS:
    control->traffic_class = read_integer(header) & 0xff;
    control->items |= IP_CONTROL_TRAFFIC_CLASS;
    break;
  default: break;
  }
}

static void parse_v6(const struct cmsghdr *header, struct ip_control *control) {
  switch (header->cmsg_type) {
#ifdef IPV6_PKTINFO
  case IPV6_PKTINFO: {
    struct in6_pktinfo info;
    memcpy(&info, CMSG_DATA(header), sizeof info);
    control->address = (struct ip_address){.version = 6};
    memcpy(control->address.bytes, &info.ipi6_addr, sizeof info.ipi6_addr);
    if (has_scope(&control->address)) control->address.scope_id = (uint32_t)info.ipi6_ifindex;
    note_interface(control, (uint32_t)info.ipi6_ifindex);
    break;
  }
#endif
#ifdef IPV6_HOPLIMIT
  case IPV6_HOPLIMIT:
    control->hops = read_integer(header);
    control->items |= IP_CONTROL_HOPS;
    break;
#endif
#ifdef IPV6_TCLASS
  case IPV6_TCLASS:
    control->traffic_class = read_integer(header) & 0xff;
    control->items |= IP_CONTROL_TRAFFIC_CLASS;
    break;
#endif
  default: break;
  }
}

static void parse_socket(const struct cmsghdr *header, struct ip_control *control) {
#ifdef SO_TIMESTAMPNS
  if (header->cmsg_type == SO_TIMESTAMPNS) {
    struct timespec stamp;
    memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
    control->timestamp = (int64_t)stamp.tv_sec * 1000000000 + stamp.tv_nsec;
    control->items |= IP_CONTROL_TIMESTAMP;
  }
#endif
#ifdef SO_RXQ_OVFL
  if (header->cmsg_type == SO_RXQ_OVFL) {
    memcpy(&control->dropped, CMSG_DATA(header), sizeof control->dropped);
    control->items |= IP_CONTROL_DROPPED;
  }
#endif
  (void)header;
  (void)control;
}

void ip_control_parse(const struct msghdr *message, bool is_v6, struct ip_control *control) {
  struct msghdr *walked = (struct msghdr *)(size_t)message; /* the macros want no const, and do not write */
  control->items = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(walked); header != NULL; header = CMSG_NXTHDR(walked, header)) {
    switch (header->cmsg_level) {
    case SOL_SOCKET: parse_socket(header, control); break;
    case IPPROTO_IP: parse_v4(header, is_v6, control); break;
    case IPPROTO_IPV6: parse_v6(header, control); break;
#ifdef UDP_GRO
    case IPPROTO_UDP:
      if (header->cmsg_type != UDP_GRO) break;
      control->segment_size = read_integer(header);
      control->items |= IP_CONTROL_SEGMENT_SIZE;
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
  if (control->items & IP_CONTROL_INTERFACE) info.ipi6_ifindex = control->interface_index;
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
static void parse_offender(const struct cmsghdr *header, bool is_v6, struct ip_control_error *error) {
  struct ip_endpoint offender = {.length = 0};
  size_t size = header->cmsg_len - CMSG_LEN(sizeof(struct sock_extended_err));
  if (size > sizeof offender.name) size = sizeof offender.name;
  memcpy(&offender.name, CMSG_DATA(header) + sizeof(struct sock_extended_err), size);
  int family = ip_endpoint_family(&offender);
  if (family != AF_INET && family != AF_INET6) return;
  ip_endpoint_get_address(&offender, &error->offender);
  if (is_v6) error->offender = ip_address_to_v6(&error->offender);
}

bool ip_control_parse_error(const struct msghdr *message, bool is_v6, struct ip_control_error *error) {
  struct msghdr *walked = (struct msghdr *)(size_t)message;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(walked); header != NULL; header = CMSG_NXTHDR(walked, header)) {
    bool v4 = header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_RECVERR;
    bool v6 = header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_RECVERR;
    if ((!v4 && !v6) || header->cmsg_len < CMSG_LEN(sizeof(struct sock_extended_err))) continue;
    struct sock_extended_err extended;
    memcpy(&extended, CMSG_DATA(header), sizeof extended);
    *error = (struct ip_control_error){.error = (int)extended.ee_errno,
                                       .origin = origin_of(extended.ee_origin),
                                       .type = extended.ee_type,
                                       .code = extended.ee_code};
    if (extended.ee_errno == EMSGSIZE) error->mtu = (int)extended.ee_info;
    if (error->origin != IP_ORIGIN_LOCAL) parse_offender(header, is_v6, error);
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
