/* endpoint_text.c: the text of addresses and endpoints. What is accepted is what inet_pton(3) accepts, and what
   is written reads back as the same value. */
#include "target.h"

#include "net/endpoint.h"

#include <arpa/inet.h>
#include <net/if.h>

enum { LONGEST = 200 };

/* Does inet_pton accept the text, which may have zeros in it? Fills the bytes of an address. */
static bool accepts(int family, const char *text, size_t length, uint8_t *bytes) {
  char copy[LONGEST + 1];
  if (length > LONGEST || memchr(text, '\0', length) != NULL) return false;
  memcpy(copy, text, length);
  copy[length] = '\0';
  return inet_pton(family, copy, bytes) == 1;
}

static void check_format(const struct ip_address *address) {
  char text[IP_ADDRESS_TEXT_SIZE];
  struct ip_address again;
  size_t length = ip_address_format(address, text);
  PROMISE(length == strlen(text) && length < sizeof text, "the length is that of the text");
  PROMISE(ip_address_parse(&again, text, length) == NULL, "what is written can be read");
  PROMISE(memcmp(&again, address, sizeof again) == 0, "and is the same address");
  for (size_t i = 0; i < length && text[i] != '%'; i++)
    PROMISE(text[i] < 'A' || text[i] > 'Z', "hexadecimal digits are small (RFC 5952)");
}

/* Without a scope an address is what inet_pton says. */
static void check_model(const char *text, size_t length, const char *error,
                        const struct ip_address *address) {
  uint8_t bytes[16] = {0};
  bool v4 = accepts(AF_INET, text, length, bytes);
  bool v6 = !v4 && accepts(AF_INET6, text, length, bytes);
  PROMISE((error == NULL) == (v4 || v6), "accepted is what inet_pton accepts");
  if (error != NULL) return;
  PROMISE(address->version == (v4 ? 4 : 6) && address->scope_id == 0, "of the same family");
  PROMISE(memcmp(address->bytes, bytes, sizeof bytes) == 0, "with the same bytes, and zeros behind them");
}

/* With a scope it is a v6 address before the sign, and the number or the name of an interface behind it. */
static void check_scope(const char *text, size_t length, const char *scope, const char *error,
                        const struct ip_address *address) {
  uint8_t bytes[16];
  bool v6 = accepts(AF_INET6, text, (size_t)(scope - text), bytes);
  if (error != NULL) return; /* whether there is such an interface is the system's to say */
  PROMISE(v6, "only v6 addresses have a scope");
  PROMISE(memcmp(address->bytes, bytes, sizeof bytes) == 0, "the address stands before its scope");
  PROMISE(scope + 1 < text + length, "an empty scope is none");
}

static void check_address(const char *text, size_t length) {
  struct ip_address untouched, address;
  memset(&untouched, 0x5a, sizeof untouched);
  address = untouched;
  const char *error = ip_address_parse(&address, text, length);
  if (error != NULL) PROMISE(memcmp(&address, &untouched, sizeof address) == 0, "a failure changes nothing");
  const char *scope = length != 0 ? memchr(text, '%', length) : NULL;
  if (scope == NULL)
    check_model(text, length, error, &address);
  else
    check_scope(text, length, scope, error, &address);
  if (error == NULL) check_format(&address);
}

static void check_key(const struct ip_address *address, uint16_t port) {
  unsigned char key[IP_ENDPOINT_KEY_SIZE];
  struct ip_address again;
  uint16_t same_port = 0;
  size_t length = ip_address_make_key(address, port, key);
  unsigned char *exact = copy_exactly(key, length);
  PROMISE(ip_address_read_key(&again, &same_port, exact, length), "a key can be read");
  free(exact);
  struct ip_address plain = ip_address_unmapped(address), plain_again = ip_address_unmapped(&again);
  PROMISE(ip_address_compare(&plain, &plain_again) == 0 && port == same_port, "and is the same endpoint");
}

static void check_endpoint(const char *text, size_t length) {
  struct ip_address address, again;
  uint16_t port = 0, same_port = 0;
  if (ip_address_parse_with_port(&address, &port, text, length) != NULL) return;
  char own[IP_ENDPOINT_TEXT_SIZE];
  size_t own_length = ip_address_format_with_port(&address, port, own);
  PROMISE(own_length == strlen(own), "the length is that of the text");
  PROMISE(ip_address_parse_with_port(&again, &same_port, own, own_length) == NULL, "an endpoint can be read");
  PROMISE(memcmp(&again, &address, sizeof again) == 0 && port == same_port, "and is the same");
  PROMISE((text[0] == '[') == (address.version == 6), "brackets are for v6");
  check_key(&address, port);
}

static void check_any_key(const uint8_t *data, size_t size) {
  struct ip_address address;
  uint16_t port;
  if (ip_address_read_key(&address, &port, data, size)) check_key(&address, port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > LONGEST) return 0;
  unsigned char *text = copy_exactly(data, size);
  check_address((const char *)text, size);
  if (size != 0) check_endpoint((const char *)text, size);
  check_any_key(text, size);
  free(text);
  return 0;
}
