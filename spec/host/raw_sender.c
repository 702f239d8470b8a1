/* raw_sender.c: sends a packet that no socket of a program would send. Linux, as root: raw(7).

   usage: raw_sender udp SOURCE PORT DESTINATION PORT TEXT
             a datagram from any address and port
          raw_sender icmp TYPE CODE SOURCE PORT DESTINATION PORT
             an ICMP error, from DESTINATION, about a datagram from SOURCE to DESTINATION
          raw_sender storm COUNT SOURCE PORT DESTINATION PORT
             so many ICMP errors about such datagrams, of every type and code in turn
          raw_sender peers DESTINATION PORT
             for each line "FIRST COUNT" on its standard input, a datagram of each of the peers FIRST to
             FIRST + COUNT - 1, whose addresses and ports all differ
          raw_sender stream
             for each line "SOURCE PORT DESTINATION PORT HEXADECIMAL" on its standard input, that datagram;
             it goes on after those that the system does not send

   Addresses are IPv4. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { IP_HEADER = 20, UDP_HEADER = 8, ICMP_HEADER = 8, LARGEST_TEXT = 1000, TIME_TO_LIVE = 64 };

struct packet {
  unsigned char bytes[2 * IP_HEADER + ICMP_HEADER + UDP_HEADER + LARGEST_TEXT];
  size_t length;
};

static void fail(const char *what) {
  perror(what);
  exit(2);
}

static void put16(struct packet *packet, unsigned value) {
  packet->bytes[packet->length++] = (unsigned char)(value >> 8);
  packet->bytes[packet->length++] = (unsigned char)value;
}

static void put_address(struct packet *packet, const char *text) {
  if (inet_pton(AF_INET, text, packet->bytes + packet->length) != 1) fail(text);
  packet->length += 4;
}

/* RFC 791, without options. The system fills in the length and the checksum of the outer one. */
static void put_ip_header(struct packet *packet, size_t payload, int protocol, const char *source,
                          const char *destination) {
  put16(packet, 0x4500);
  put16(packet, (unsigned)(IP_HEADER + payload));
  put16(packet, 1);
  put16(packet, 0);
  put16(packet, TIME_TO_LIVE << 8 | (unsigned)protocol);
  put16(packet, 0);
  put_address(packet, source);
  put_address(packet, destination);
}

/* RFC 768; a checksum of 0 is none. */
static void put_datagram(struct packet *packet, const char *from_port, const char *to_port, const void *bytes,
                         size_t length) {
  if (length > LARGEST_TEXT) fail("text");
  put16(packet, (unsigned)atoi(from_port));
  put16(packet, (unsigned)atoi(to_port));
  put16(packet, (unsigned)(UDP_HEADER + length));
  put16(packet, 0);
  memcpy(packet->bytes + packet->length, bytes, length);
  packet->length += length;
}

/* RFC 1071 */
static unsigned checksum(const unsigned char *bytes, size_t length) {
  unsigned sum = 0;
  for (size_t i = 0; i + 1 < length; i += 2)
    sum += (unsigned)bytes[i] << 8 | bytes[i + 1];
  while (sum > 0xffff)
    sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/* RFC 792: a header of eight bytes, and the beginning of the packet that it is about. */
static void put_icmp_error(struct packet *packet, char **argv) {
  size_t begin = packet->length;
  put16(packet, (unsigned)atoi(argv[2]) << 8 | (unsigned)atoi(argv[3]));
  put16(packet, 0);
  put16(packet, 0);
  put16(packet, 0);
  put_ip_header(packet, UDP_HEADER, IPPROTO_UDP, argv[4], argv[6]);
  put_datagram(packet, argv[5], argv[7], "", 0);
  unsigned sum = checksum(packet->bytes + begin, packet->length - begin);
  packet->bytes[begin + 2] = (unsigned char)(sum >> 8);
  packet->bytes[begin + 3] = (unsigned char)sum;
}

static bool try_to_send(const struct packet *packet, const char *destination) {
  static int fd = -1;
  struct sockaddr_in to = {.sin_family = AF_INET};
  if (fd < 0) fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0 || inet_pton(AF_INET, destination, &to.sin_addr) != 1) fail("socket");
  return sendto(fd, packet->bytes, packet->length, 0, (struct sockaddr *)&to, sizeof to) >= 0;
}

static void send_packet(const struct packet *packet, const char *destination) {
  if (!try_to_send(packet, destination)) fail("sendto");
}

static void send_icmp_error(struct packet *packet, char **argv) {
  packet->length = 0;
  put_ip_header(packet, ICMP_HEADER + IP_HEADER + UDP_HEADER, IPPROTO_ICMP, argv[6], argv[4]);
  put_icmp_error(packet, argv);
  send_packet(packet, argv[4]);
}

/* Unreachable (3), source quench (4), redirect (5), time exceeded (11), bad parameter (12), and what RFC 1700
   does not know. */
static void send_storm(struct packet *packet, char **argv) {
  static const char *const types[] = {"3", "3", "11", "12", "3", "4", "5", "3", "42"};
  int count = atoi(argv[2]);
  for (int i = 0; i < count; i++) {
    char type[16], code[16];
    snprintf(type, sizeof type, "%s", types[(size_t)i % (sizeof types / sizeof types[0])]);
    snprintf(code, sizeof code, "%d", i % 17);
    send_icmp_error(packet, (char *[]){argv[0], argv[1], type, code, argv[3], argv[4], argv[5], argv[6]});
  }
}

/* A thousand ports of each address of 127.1.0.0/16. */
static void send_as_peer(struct packet *packet, char **argv, int number) {
  char address[INET_ADDRSTRLEN], port[16];
  int host = number / 1000;
  snprintf(address, sizeof address, "127.1.%d.%d", host / 250 % 256, host % 250 + 1);
  snprintf(port, sizeof port, "%d", 1024 + number % 1000);
  packet->length = 0;
  put_ip_header(packet, UDP_HEADER + 1, IPPROTO_UDP, address, argv[2]);
  put_datagram(packet, port, argv[3], "x", 1);
  send_packet(packet, argv[2]);
}

static void send_as_peers(struct packet *packet, char **argv) {
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char *rest = line;
    long first = strtol(line, &rest, 10), count = strtol(rest, NULL, 10);
    for (long i = 0; i < count; i++)
      send_as_peer(packet, argv, (int)(first + i));
  }
}

static size_t read_hexadecimal(const char *text, unsigned char *bytes) {
  size_t length = 0;
  unsigned byte;
  while (length < LARGEST_TEXT && sscanf(text + 2 * length, "%2x", &byte) == 1)
    bytes[length++] = (unsigned char)byte;
  return length;
}

static void send_stream(struct packet *packet) {
  static char line[2 * LARGEST_TEXT + 100], hexadecimal[2 * LARGEST_TEXT + 1];
  char from[16], from_port[6], to[16], to_port[6];
  while (fgets(line, sizeof line, stdin) != NULL) {
    unsigned char bytes[LARGEST_TEXT];
    hexadecimal[0] = '\0';
    if (sscanf(line, "%15s %5s %15s %5s %2000s", from, from_port, to, to_port, hexadecimal) < 4) fail("line");
    size_t length = read_hexadecimal(hexadecimal, bytes);
    packet->length = 0;
    put_ip_header(packet, UDP_HEADER + length, IPPROTO_UDP, from, to);
    put_datagram(packet, from_port, to_port, bytes, length);
    (void)try_to_send(packet, to);
  }
}

int main(int argc, char **argv) {
  static struct packet packet;
  if (argc == 7 && strcmp(argv[1], "udp") == 0) {
    put_ip_header(&packet, UDP_HEADER + strlen(argv[6]), IPPROTO_UDP, argv[2], argv[4]);
    put_datagram(&packet, argv[3], argv[5], argv[6], strlen(argv[6]));
    send_packet(&packet, argv[4]);
    return 0;
  }
  if (argc == 8 && strcmp(argv[1], "icmp") == 0) {
    send_icmp_error(&packet, argv);
    return 0;
  }
  if (argc == 7 && strcmp(argv[1], "storm") == 0) {
    send_storm(&packet, argv);
    return 0;
  }
  if (argc == 4 && strcmp(argv[1], "peers") == 0) {
    send_as_peers(&packet, argv);
    return 0;
  }
  if (argc == 2 && strcmp(argv[1], "stream") == 0) {
    send_stream(&packet);
    return 0;
  }
  fputs("raw_sender: wrong arguments\n", stderr);
  return 2;
}
