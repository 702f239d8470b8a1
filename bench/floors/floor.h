/* floor.h: shared by the floors: set-up, and the protocol between driver and server (bench/README.md). */
#ifndef FLOOR_H
#define FLOOR_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

static inline _Noreturn void fail(const char *what) {
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}

static inline _Noreturn void unavailable(const char *reason) {
  printf("unavailable: %s\n", reason);
  exit(1);
}

static inline struct sockaddr_in loopback(int port) {
  return (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Opens a non-blocking socket on a port of loopback, and prints the port. */
static inline int open_socket(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in local = loopback(0);
  socklen_t length = sizeof local;
  if (fd < 0 || bind(fd, (struct sockaddr *)&local, sizeof local) != 0 ||
      getsockname(fd, (struct sockaddr *)&local, &length) != 0)
    fail("socket");
  printf("port %d\n", ntohs(local.sin_port));
  return fd;
}

/* A bulk receiver has to buffer the datagrams that arrive while it wakes up. The system may grant less. */
static inline void take_large_buffer(int fd) {
  int size = 4 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

static inline void connect_to(int fd, int port) {
  struct sockaddr_in peer = loopback(port);
  if (connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0) fail("connect");
}

static inline void ready(void) {
  puts("ready");
  fflush(stdout);
}

/* The request to a sender: "COUNT SIZE PORT". */
struct order {
  unsigned long long count;
  int size;
  struct sockaddr_in target;
};

static inline struct order read_order(char *text, size_t length) {
  struct order order = {0};
  int port = 0;
  text[length] = 0;
  if (sscanf(text, "%llu %d %d", &order.count, &order.size, &port) != 3) {
    puts("an order that is none");
    exit(1);
  }
  order.target = loopback(port);
  return order;
}

#endif
