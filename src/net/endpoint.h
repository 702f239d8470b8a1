/* endpoint.h: addresses and endpoints as bytes; parse and format their text. Layer 1: knows no Lua.

   Owns nothing: every address is a value in the caller's memory. Raises nothing. */
#ifndef IP_ENDPOINT_H
#define IP_ENDPOINT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An IP address as a value. Unused bytes are zero, so that equal addresses are equal bytes. */
struct ip_address {
  uint8_t bytes[16]; /* network order; a v4 address uses the first four */
  uint32_t scope_id; /* v6 only, else 0 */
  uint32_t version;  /* 4 or 6 */
};

/* An address and a port in the form that system calls take. */
struct ip_endpoint {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } name;
  socklen_t length;
};

enum {
  IP_ADDRESS_TEXT_SIZE = 80, /* 45 characters, '%', an interface name (IFNAMSIZ), '\0' */
  IP_ENDPOINT_TEXT_SIZE = IP_ADDRESS_TEXT_SIZE + 8, /* brackets, ':', five digits */
  IP_ENDPOINT_KEY_SIZE = 22                         /* an address, a port, a scope id */
};

/* --- addresses --- */

/* Parses dotted IPv4 or IPv6 text, with an optional %scope (interface name or number) on v6. Returns NULL and
   fills `address`, or returns a static message that says what is wrong and leaves `address` alone. */
const char *ip_address_parse(struct ip_address *address, const char *text, size_t length);

/* Writes RFC 5952 text, scope included, and a '\0'; returns the length without it. `buffer` has
   IP_ADDRESS_TEXT_SIZE. */
size_t ip_address_format(const struct ip_address *address, char *buffer);

/* Order: v4 before v6, then bytes, then scope id. Negative, zero or positive. */
int ip_address_compare(const struct ip_address *a, const struct ip_address *b);

bool ip_address_is_v4_mapped(const struct ip_address *address);

/* The v4-mapped form of a v4 address; a v6 address stays as it is. */
struct ip_address ip_address_to_v6(const struct ip_address *address);

/* The v4 address in a v4-mapped one; anything else stays as it is. */
struct ip_address ip_address_unmapped(const struct ip_address *address);

bool ip_address_is_multicast(const struct ip_address *address);
bool ip_address_is_unspecified(const struct ip_address *address);

/* 127.0.0.0/8 or ::1. No predicate looks at the v4 address in a v4-mapped one. */
bool ip_address_is_loopback(const struct ip_address *address);

bool ip_address_is_link_local(const struct ip_address *address); /* fe80::/10; false for v4 */
bool ip_address_is_site_local(const struct ip_address *address); /* fec0::/10; false for v4 */

/* The scope field (0..15) of a v6 multicast address; -1 for anything else. */
int ip_address_multicast_scope(const struct ip_address *address);

/* Is the address unique on one interface only (RFC 4007 section 4): a link-local address, or a link-local or
   interface-local group? */
bool ip_address_needs_scope(const struct ip_address *address);

/* --- an address and a port as text and as a key --- */

/* Parses "1.2.3.4:53" or "[::1]:53". Returns NULL and fills both, or a static message and leaves both
   alone. */
const char *ip_address_parse_with_port(struct ip_address *address, uint16_t *port, const char *text,
                                       size_t length);

/* Writes text that ip_address_parse_with_port accepts, and a '\0'; returns the length without it. `buffer`
   has IP_ENDPOINT_TEXT_SIZE. */
size_t ip_address_format_with_port(const struct ip_address *address, uint16_t port, char *buffer);

/* Writes the key of an endpoint: 6 bytes for v4 and v4-mapped, else 18, or 22 with a scope id. Returns the
   length. `key` has IP_ENDPOINT_KEY_SIZE. */
size_t ip_address_make_key(const struct ip_address *address, uint16_t port, unsigned char *key);

/* Reads a key that ip_address_make_key wrote; false where no key has that length. */
bool ip_address_read_key(struct ip_address *address, uint16_t *port, const unsigned char *key, size_t length);

/* --- endpoints --- */

/* Fills `endpoint` for a socket of `family` (AF_INET or AF_INET6). A v4 address for a v6 socket becomes
   v4-mapped, and a v4-mapped one for a v4 socket v4; any other v6 address for a v4 socket stays v6, and the
   system refuses it with EAFNOSUPPORT. */
void ip_endpoint_set(struct ip_endpoint *endpoint, int family, const struct ip_address *address,
                     uint16_t port);

/* The address in `endpoint`; 0.0.0.0 if its family is neither AF_INET nor AF_INET6. */
void ip_endpoint_get_address(const struct ip_endpoint *endpoint, struct ip_address *address);

static inline uint16_t ip_endpoint_port(const struct ip_endpoint *endpoint) {
  /* sin_port and sin6_port have the same offset on every system that has both */
  return ntohs(endpoint->name.v4.sin_port);
}

static inline void ip_endpoint_set_port(struct ip_endpoint *endpoint, uint16_t port) {
  endpoint->name.v4.sin_port = htons(port);
}

static inline int ip_endpoint_family(const struct ip_endpoint *endpoint) {
  return endpoint->name.any.sa_family;
}

/* Have both the same family, address, port and scope? The flow label does not identify a peer. An endpoint
   that is neither IPv4 nor IPv6 equals none, not even itself, so that an empty cache never hits. */
bool ip_endpoint_equal(const struct ip_endpoint *a, const struct ip_endpoint *b);

/* The scope of an address that does not need one, such as that of ff05::1%eth0; 0: none. Systems read the
   scope of addresses that need it, and ignore any other (__ipv6_addr_needs_scope_id in net/ipv6.h of Linux):
   a datagram to this endpoint leaves from that interface only if the call says so by other means. */
uint32_t ip_endpoint_wide_scope(const struct ip_endpoint *endpoint);

/* The scope of an address that needs one, such as that of fe80::1%eth0; 0: none. */
uint32_t ip_endpoint_link_scope(const struct ip_endpoint *endpoint);

/* Is this the endpoint's address, scope included? */
bool ip_endpoint_has_address(const struct ip_endpoint *endpoint, const struct ip_address *address);

#endif
