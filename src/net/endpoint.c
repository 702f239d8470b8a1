/* endpoint.c: addresses and endpoints as bytes; parse and format their text.

   Owns nothing: everything is a value in the caller's memory. Raises nothing. Invariants: the bytes of an
   ip_address that its version does not use are zero, and so is the scope id of a v4 address; what the
   formatter writes the parser reads back as the same value. */
#include "net/endpoint.h"

#include "net/interface_index.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* --- parsing --- */

/* A decimal number of nothing but digits, at most `limit`; false if the text is anything else. */
static bool parse_decimal(const char *text, size_t length, uint32_t limit, uint32_t *value) {
  uint64_t sum = 0;
  if (length == 0) return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    sum = sum * 10 + (uint64_t)(text[i] - '0');
    if (sum > limit) return false;
  }
  *value = (uint32_t)sum;
  return true;
}

static bool is_digits(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if (text[i] < '0' || text[i] > '9') return false;
  return length > 0;
}

/* Digits are always a number, even where an interface has that name: put_scope relies on it. */
static const char *parse_scope(uint32_t *scope_id, const char *text, size_t length) {
  if (length == 0) return "the scope is empty";
  if (is_digits(text, length))
    return parse_decimal(text, length, UINT32_MAX, scope_id) ? NULL
                                                             : "the scope id is larger than 4294967295";
  char name[IFNAMSIZ];
  if (length >= sizeof name) return "the scope is longer than an interface name can be";
  memcpy(name, text, length);
  name[length] = '\0';
  unsigned index;
  int error = ip_interface_index(name, &index);
  *scope_id = index;
  if (error == 0) return NULL;
  if (error == EMFILE || error == ENFILE) return "the scope cannot be looked up: too many open files";
  return "the scope names no interface of this system";
}

/* inet_pton is strict on both families: four decimal parts without leading zeros, at most four hex digits a
   group. */
static const char *parse_bare(struct ip_address *address, const char *text, size_t length) {
  char copy[INET6_ADDRSTRLEN];
  if (length >= sizeof copy) return "not an IPv4 or IPv6 address";
  memcpy(copy, text, length);
  copy[length] = '\0';
  if (inet_pton(AF_INET, copy, address->bytes) == 1)
    address->version = 4;
  else if (inet_pton(AF_INET6, copy, address->bytes) == 1)
    address->version = 6;
  else
    return "not an IPv4 or IPv6 address";
  return NULL;
}

const char *ip_address_parse(struct ip_address *address, const char *text, size_t length) {
  if (memchr(text, '\0', length) != NULL) return "the address contains a zero byte";
  const char *percent = memchr(text, '%', length);
  size_t bare_length = percent != NULL ? (size_t)(percent - text) : length;
  struct ip_address result = {.version = 0};
  const char *message = parse_bare(&result, text, bare_length);
  if (message == NULL && percent != NULL) {
    if (result.version == 4) return "an IPv4 address has no scope";
    message = parse_scope(&result.scope_id, percent + 1, length - bare_length - 1);
  }
  if (message == NULL) *address = result;
  return message;
}

/* The last `wanted` in the text, for an interface name may contain ':' on some systems, and ']' on all. */
static const char *find_last(const char *text, size_t length, char wanted) {
  while (length > 0)
    if (text[--length] == wanted) return text + length;
  return NULL;
}

static const char *parse_bracketed(struct ip_address *address, const char *text, size_t length,
                                   const char **rest) {
  const char *bracket = find_last(text, length, ']');
  if (bracket == NULL) return "']' is missing";
  *rest = bracket + 1;
  const char *message = ip_address_parse(address, text + 1, (size_t)(bracket - text) - 1);
  if (message == NULL && address->version == 4) return "an IPv4 address is not written in brackets";
  return message;
}

static const char *parse_unbracketed(struct ip_address *address, const char *text, size_t length,
                                     const char **rest) {
  const char *colon = find_last(text, length, ':');
  *rest = colon != NULL ? colon : text + length;
  const char *message = ip_address_parse(address, text, (size_t)(*rest - text));
  if (message == NULL && address->version == 6) return "an IPv6 address with a port is written in brackets";
  /* "::1" would otherwise be reported as the malformed address ":" */
  struct ip_address whole;
  if (message != NULL && ip_address_parse(&whole, text, length) == NULL) return "the port is missing";
  return message;
}

const char *ip_address_parse_with_port(struct ip_address *address, uint16_t *port, const char *text,
                                       size_t length) {
  struct ip_address result;
  const char *rest;
  const char *message = length > 0 && text[0] == '[' ? parse_bracketed(&result, text, length, &rest)
                                                     : parse_unbracketed(&result, text, length, &rest);
  if (message != NULL) return message;
  size_t rest_length = length - (size_t)(rest - text);
  if (rest_length == 0) return "the port is missing";
  uint32_t number;
  if (rest[0] != ':' || !parse_decimal(rest + 1, rest_length - 1, UINT16_MAX, &number))
    return "the port is not a decimal number within 0..65535";
  /* some parsers take such digits for octal, and an endpoint has one text only */
  if (rest[1] == '0' && rest_length > 2) return "the port has a leading zero";
  *address = result;
  *port = (uint16_t)number;
  return NULL;
}

/* --- formatting: each put_* writes at `out` and returns where the next character goes --- */

static char *put_number(char *out, uint32_t value, uint32_t base) {
  char digits[10]; /* 4294967295 */
  size_t count = 0;
  do {
    digits[count++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value > 0);
  while (count > 0)
    *out++ = digits[--count];
  return out;
}

static char *put_v4(char *out, const uint8_t *bytes) {
  for (int i = 0; i < 4; i++) {
    if (i > 0) *out++ = '.';
    out = put_number(out, bytes[i], 10);
  }
  return out;
}

static uint32_t group_at(const uint8_t *bytes, int group) {
  return (uint32_t)bytes[2 * group] << 8 | bytes[2 * group + 1];
}

struct zero_run {
  int first, length;
};

/* The run of zero groups that "::" stands for: the longest, the first of equals, never a single group (RFC
   5952, 4.2). Length 0: none. */
static struct zero_run find_zero_run(const uint8_t *bytes) {
  struct zero_run best = {.first = 0, .length = 0};
  for (int first = 0; first < 8; first++) {
    int end = first;
    while (end < 8 && group_at(bytes, end) == 0)
      end++;
    if (end - first >= 2 && end - first > best.length)
      best = (struct zero_run){.first = first, .length = end - first};
  }
  return best;
}

static char *put_groups(char *out, const uint8_t *bytes) {
  struct zero_run run = find_zero_run(bytes);
  for (int group = 0; group < 8;) {
    if (group == run.first && run.length > 0) {
      *out++ = ':';
      *out++ = ':';
      group += run.length;
      continue;
    }
    if (group > 0 && out[-1] != ':') *out++ = ':';
    out = put_number(out, group_at(bytes, group), 16);
    group++;
  }
  return out;
}

/* Writes the name of an interface for a link-local scope, where the parser reads that name as the same scope;
   else the number. */
static char *put_scope(char *out, const struct ip_address *address) {
  if (address->scope_id == 0) return out;
  *out++ = '%';
  char name[IFNAMSIZ];
  bool may_have_name = ip_address_is_link_local(address) || ip_address_multicast_scope(address) == 2;
  if (!may_have_name || if_indextoname(address->scope_id, name) == NULL || is_digits(name, strlen(name)))
    return put_number(out, address->scope_id, 10);
  size_t length = strlen(name);
  memcpy(out, name, length);
  return out + length;
}

static char *put_address(char *out, const struct ip_address *address) {
  if (address->version == 4) return put_v4(out, address->bytes);
  if (ip_address_is_v4_mapped(address)) {
    memcpy(out, "::ffff:", 7);
    out = put_v4(out + 7, address->bytes + 12);
  } else {
    out = put_groups(out, address->bytes);
  }
  return put_scope(out, address);
}

size_t ip_address_format(const struct ip_address *address, char *buffer) {
  char *end = put_address(buffer, address);
  *end = '\0';
  return (size_t)(end - buffer);
}

size_t ip_address_format_with_port(const struct ip_address *address, uint16_t port, char *buffer) {
  char *out = buffer;
  if (address->version == 6) *out++ = '[';
  out = put_address(out, address);
  if (address->version == 6) *out++ = ']';
  *out++ = ':';
  out = put_number(out, port, 10);
  *out = '\0';
  return (size_t)(out - buffer);
}

/* --- properties of an address --- */

int ip_address_compare(const struct ip_address *a, const struct ip_address *b) {
  if (a->version != b->version) return a->version < b->version ? -1 : 1;
  int order = memcmp(a->bytes, b->bytes, sizeof a->bytes);
  if (order != 0 || a->scope_id == b->scope_id) return order;
  return a->scope_id < b->scope_id ? -1 : 1;
}

bool ip_address_is_v4_mapped(const struct ip_address *address) {
  return address->version == 6 && memcmp(address->bytes, mapped_prefix, sizeof mapped_prefix) == 0;
}

struct ip_address ip_address_to_v6(const struct ip_address *address) {
  if (address->version == 6) return *address;
  struct ip_address result = {.version = 6};
  memcpy(result.bytes, mapped_prefix, sizeof mapped_prefix);
  memcpy(result.bytes + 12, address->bytes, 4);
  return result;
}

struct ip_address ip_address_unmapped(const struct ip_address *address) {
  if (!ip_address_is_v4_mapped(address)) return *address;
  struct ip_address result = {.version = 4}; /* a v4 address has no scope */
  memcpy(result.bytes, address->bytes + 12, 4);
  return result;
}

bool ip_address_is_multicast(const struct ip_address *address) {
  return address->version == 4 ? (address->bytes[0] & 0xf0) == 0xe0 : address->bytes[0] == 0xff;
}

bool ip_address_is_unspecified(const struct ip_address *address) {
  static const uint8_t zero[16];
  return memcmp(address->bytes, zero, sizeof zero) == 0;
}

bool ip_address_is_loopback(const struct ip_address *address) {
  static const uint8_t loopback[16] = {[15] = 1};
  if (address->version == 4) return address->bytes[0] == 127;
  return memcmp(address->bytes, loopback, sizeof loopback) == 0;
}

bool ip_address_is_link_local(const struct ip_address *address) {
  return address->version == 6 && address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

bool ip_address_is_site_local(const struct ip_address *address) {
  return address->version == 6 && address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0xc0;
}

int ip_address_multicast_scope(const struct ip_address *address) {
  return address->version == 6 && address->bytes[0] == 0xff ? address->bytes[1] & 0x0f : -1;
}

bool ip_address_needs_scope(const struct ip_address *address) {
  int scope = ip_address_multicast_scope(address);
  return ip_address_is_link_local(address) || scope == 1 || scope == 2;
}

/* --- keys: address, port, scope id if there is one, all in network order --- */

size_t ip_address_make_key(const struct ip_address *address, uint16_t port, unsigned char *key) {
  bool mapped = ip_address_is_v4_mapped(address);
  size_t length = mapped || address->version == 4 ? 4 : 16;
  memcpy(key, mapped ? address->bytes + 12 : address->bytes, length);
  key[length++] = (unsigned char)(port >> 8);
  key[length++] = (unsigned char)(port & 0xff);
  if (mapped || address->scope_id == 0) return length;
  uint32_t scope = htonl(address->scope_id);
  memcpy(key + length, &scope, sizeof scope);
  return length + sizeof scope;
}

bool ip_address_read_key(struct ip_address *address, uint16_t *port, const unsigned char *key,
                         size_t length) {
  if (length != 6 && length != 18 && length != 22) return false;
  size_t size = length == 6 ? 4 : 16;
  struct ip_address result = {.version = length == 6 ? 4 : 6};
  memcpy(result.bytes, key, size);
  if (length == 22) {
    uint32_t scope;
    memcpy(&scope, key + 18, sizeof scope);
    result.scope_id = ntohl(scope);
  }
  *port = (uint16_t)(key[size] << 8 | key[size + 1]);
  *address = ip_address_unmapped(&result); /* only a key of another origin can hold a mapped address */
  return true;
}

/* --- endpoints --- */

static void set_v4(struct ip_endpoint *endpoint, const uint8_t *bytes, uint16_t port) {
  endpoint->name.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
  memcpy(&endpoint->name.v4.sin_addr, bytes, 4);
  endpoint->length = sizeof endpoint->name.v4;
}

void ip_endpoint_set(struct ip_endpoint *endpoint, int family, const struct ip_address *address,
                     uint16_t port) {
  if (family == AF_INET && address->version == 4) {
    set_v4(endpoint, address->bytes, port);
    return;
  }
  if (family == AF_INET && ip_address_is_v4_mapped(address)) {
    struct ip_address v4 = ip_address_unmapped(address);
    set_v4(endpoint, v4.bytes, port);
    return;
  }
  struct ip_address v6 = ip_address_to_v6(address);
  endpoint->name.v6 =
      (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = v6.scope_id};
  memcpy(&endpoint->name.v6.sin6_addr, v6.bytes, 16);
  endpoint->length = sizeof endpoint->name.v6;
}

void ip_endpoint_get_address(const struct ip_endpoint *endpoint, struct ip_address *address) {
  *address = (struct ip_address){.version = 4};
  int family = ip_endpoint_family(endpoint);
  if (family == AF_INET) memcpy(address->bytes, &endpoint->name.v4.sin_addr, 4);
  if (family != AF_INET6) return;
  address->version = 6;
  memcpy(address->bytes, &endpoint->name.v6.sin6_addr, 16);
  address->scope_id = endpoint->name.v6.sin6_scope_id;
}

uint32_t ip_endpoint_wide_scope(const struct ip_endpoint *endpoint) {
  if (ip_endpoint_family(endpoint) != AF_INET6 || endpoint->name.v6.sin6_scope_id == 0) return 0;
  struct ip_address address;
  ip_endpoint_get_address(endpoint, &address);
  bool has_none = ip_address_needs_scope(&address) || ip_address_is_v4_mapped(&address);
  return has_none ? 0 : address.scope_id;
}

uint32_t ip_endpoint_link_scope(const struct ip_endpoint *endpoint) {
  if (ip_endpoint_family(endpoint) != AF_INET6 || endpoint->name.v6.sin6_scope_id == 0) return 0;
  struct ip_address address;
  ip_endpoint_get_address(endpoint, &address);
  return ip_address_needs_scope(&address) ? address.scope_id : 0;
}

bool ip_endpoint_has_address(const struct ip_endpoint *endpoint, const struct ip_address *address) {
  int family = ip_endpoint_family(endpoint);
  if (family == AF_INET)
    return address->version == 4 && memcmp(&endpoint->name.v4.sin_addr, address->bytes, 4) == 0;
  /* a memcmp of constant size becomes two loads and compares */
  return family == AF_INET6 && address->version == 6 &&
         address->scope_id == endpoint->name.v6.sin6_scope_id &&
         memcmp(&endpoint->name.v6.sin6_addr, address->bytes, 16) == 0;
}

static bool same_address(const struct ip_endpoint *a, const struct ip_endpoint *b) {
  int family = ip_endpoint_family(a);
  if (family != ip_endpoint_family(b)) return false;
  if (family == AF_INET) return a->name.v4.sin_addr.s_addr == b->name.v4.sin_addr.s_addr;
  return family == AF_INET6 && a->name.v6.sin6_scope_id == b->name.v6.sin6_scope_id &&
         memcmp(&a->name.v6.sin6_addr, &b->name.v6.sin6_addr, 16) == 0;
}

bool ip_endpoint_equal(const struct ip_endpoint *a, const struct ip_endpoint *b) {
  return a->name.v4.sin_port == b->name.v4.sin_port && same_address(a, b);
}
