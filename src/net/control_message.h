/* control_message.h: what travels beside the bytes of a datagram: build and parse it on a struct msghdr. Layer 1:
   knows no Lua. */
#ifndef IP_CONTROL_MESSAGE_H
#define IP_CONTROL_MESSAGE_H

#include "net/endpoint.h"

#include <netinet/udp.h>
#include <sys/socket.h>

#if defined(__linux__) && !defined(UDP_SEGMENT)
#define UDP_SEGMENT 103 /* linux/udp.h, which older C libraries do not know of */
#endif

enum ip_control_item {
  IP_CONTROL_ADDRESS = 1, /* destination of what was received, source of what is sent */
  IP_CONTROL_INTERFACE = 2,
  IP_CONTROL_HOPS = 4,
  IP_CONTROL_TRAFFIC_CLASS = 8,
  IP_CONTROL_SEGMENT_SIZE = 16,
  IP_CONTROL_TIMESTAMP = 32, /* received only */
  IP_CONTROL_DROPPED = 64    /* received only */
};

struct ip_control {
  struct ip_address address;
  int64_t timestamp; /* nanoseconds since the epoch */
  uint32_t items;    /* which of the members hold something */
  uint32_t interface_index;
  uint32_t dropped;
  int hops;
  int traffic_class;
  int segment_size;
};

/* Room for everything that this library asks for, for both families at once. */
enum { IP_CONTROL_BUFFER_SIZE = 512 };
union ip_control_buffer {
  struct cmsghdr aligned;
  char bytes[IP_CONTROL_BUFFER_SIZE];
};

/* Room for the size of segments alone. */
union ip_segment_control {
  char bytes[CMSG_SPACE(sizeof(uint16_t))];
  size_t alignment; /* that of struct cmsghdr */
};

/* Reads what `message` came with. On a v6 socket a v4 destination is v4-mapped. */
void ip_control_parse(const struct msghdr *message, bool is_v6, struct ip_control *control);

/* Puts what is asked for into `buffer` and hangs it on `message`. v4_path: the datagram leaves as IPv4, also where
   the socket is a v6 one. Returns 0; EINVAL for an address of the other family; ENOTSUP for what the platform
   lacks. */
int ip_control_build(struct msghdr *message, union ip_control_buffer *buffer,
                     const struct ip_control *control, bool v4_path);

#ifdef UDP_SEGMENT
/* Asks the system to cut `message`, which asks for nothing else, into datagrams of `size` bytes. */
void ip_control_set_segment_size(struct msghdr *message, union ip_segment_control *buffer, size_t size);
#endif

/* One entry of the error queue. */
enum ip_error_origin { IP_ORIGIN_OTHER, IP_ORIGIN_LOCAL, IP_ORIGIN_ICMP, IP_ORIGIN_ICMP6 };

struct ip_control_error {
  struct ip_address offender; /* version 0: none */
  int error;                  /* errno value */
  int origin;                 /* enum ip_error_origin */
  int type, code;             /* of the ICMP message */
  int mtu;                    /* 0: unknown */
};

/* False when the message holds no such thing. */
bool ip_control_parse_error(const struct msghdr *message, bool is_v6, struct ip_control_error *error);

#endif
