/* control_message.h: the ancillary data of a datagram (cmsg(3)): build it for a struct msghdr, and parse it
   from one. Layer 1: knows no Lua.

   Owns nothing; raises nothing. */
#ifndef IP_CONTROL_MESSAGE_H
#define IP_CONTROL_MESSAGE_H

#include "net/endpoint.h"

#include <netinet/udp.h>
#include <sys/socket.h>

#if defined(__linux__) && !defined(UDP_SEGMENT)
#define UDP_SEGMENT 103 /* from linux/udp.h; the headers of older C libraries lack it */
#endif

enum ip_control_item {
  IP_CONTROL_ADDRESS = 1, /* the local address: destination of a received datagram, source of a sent one */
  IP_CONTROL_INTERFACE = 2,
  IP_CONTROL_HOPS = 4,
  IP_CONTROL_TRAFFIC_CLASS = 8,
  IP_CONTROL_SEGMENT_SIZE = 16,
  IP_CONTROL_TIMESTAMP = 32, /* received only */
  IP_CONTROL_DROPPED = 64,   /* received only */
  IP_CONTROL_LOCAL = 128     /* received only */
};

struct ip_control {
  struct ip_address address;
  struct ip_address local; /* the unicast address of this system to answer from */
  int64_t timestamp;       /* nanoseconds since the epoch */
  uint32_t items;          /* the members that are set, as a union of enum ip_control_item */
  uint32_t interface_index;
  uint32_t dropped;
  int hops;
  int traffic_class;
  int segment_size;
};

/* Has the capacity for all items that this library asks for, of both families at once. */
enum { IP_CONTROL_BUFFER_SIZE = 512 };
union ip_control_buffer {
  struct cmsghdr aligned;
  char bytes[IP_CONTROL_BUFFER_SIZE];
};

/* Has the capacity for the size of segments alone. */
union ip_segment_control {
  char bytes[CMSG_SPACE(sizeof(uint16_t))];
  size_t alignment; /* that of struct cmsghdr */
};

/* Parses the ancillary data of a received message. On a v6 socket a v4 destination is v4-mapped. */
void ip_control_parse(const struct msghdr *message, bool is_v6, struct ip_control *control);

/* Builds in `buffer` the ancillary data that `control` names, and lets `message` point to it. v4_path: the
   datagram leaves as IPv4, be it on a v6 socket. Returns 0, or EINVAL for an address of the other family, or
   ENOTSUP for an item that the platform lacks. */
int ip_control_build(struct msghdr *message, union ip_control_buffer *buffer,
                     const struct ip_control *control, bool v4_path);

#ifdef UDP_SEGMENT
/* Asks the system to send `message` as datagrams of `size` bytes (UDP_SEGMENT in udp(7), Linux 4.18). The
   message gets no other ancillary data. */
void ip_control_set_segment_size(struct msghdr *message, union ip_segment_control *buffer, size_t size);
#endif

/* Where an entry of the error queue comes from (SO_EE_ORIGIN_ in ip(7)). */
enum ip_error_origin { IP_ORIGIN_OTHER, IP_ORIGIN_LOCAL, IP_ORIGIN_ICMP, IP_ORIGIN_ICMP6 };

/* One entry of the error queue. */
struct ip_control_error {
  struct ip_address offender; /* version 0: none */
  int error;                  /* errno value */
  int origin;                 /* enum ip_error_origin */
  int type, code;             /* of the ICMP message */
  int mtu;                    /* 0: unknown */
};

/* Parses the entry of the error queue that `message` was received with; false when it was received with
   none. */
bool ip_control_parse_error(const struct msghdr *message, bool is_v6, struct ip_control_error *error);

#endif
