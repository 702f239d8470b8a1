/* transfer.c: one direction only. A receiving server counts datagrams, and answers a datagram of one byte
   with the count. A sending server gets a request in a datagram of text, and answers "done" after it has
   sent. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "driver.h"

/* linux/udp.h has these, but cannot be included beside netinet/udp.h everywhere. */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

#define SILENCE 0.05 /* seconds after which a server counts as done */
#define PATIENCE 5.0 /* seconds for an answer */
#define BREATH 50e-6 /* seconds after which an empty socket is read again */
#define ATTEMPTS 4
#define CALIBRATION 20000 /* datagrams */

struct sockaddr_in loopback(uint16_t port) {
  return (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int open_socket(uint16_t *port) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), size = 4 << 20;
  struct sockaddr_in local = loopback(0);
  socklen_t length = sizeof local;
  if (fd < 0 || bind(fd, (struct sockaddr *)&local, sizeof local) != 0 ||
      getsockname(fd, (struct sockaddr *)&local, &length) != 0)
    die("failed: socket: %s", strerror(errno));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* the system may grant less */
  *port = ntohs(local.sin_port);
  return fd;
}

static void connect_to(int fd, uint16_t port) {
  struct sockaddr_in peer = loopback(port);
  if (connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0) die("failed: connect: %s", strerror(errno));
}

void send_segments(int fd, const char *bytes, int size, int count) {
  struct iovec vector = {(void *)(uintptr_t)bytes, (size_t)(size * count)};
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr alignment;
  } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count > 1) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    uint16_t segment = (uint16_t)size;
    memcpy(CMSG_DATA(header), &segment, sizeof segment);
  }
  while (sendmsg(fd, &message, 0) < 0) {
    if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR && errno != ECONNREFUSED)
      die("failed: sendmsg with UDP_SEGMENT (Linux 4.18): %s", strerror(errno));
  }
}

/* Asks how many datagrams the server has counted since the last question. */
static uint64_t ask_count(int fd) {
  double start = now(), asked = 0;
  for (;;) {
    double current = now();
    if (current - start > PATIENCE) die("failed: it does not tell its count");
    if (current - asked > 0.2) { /* the question may get lost in a full buffer */
      if (send(fd, "?", 1, 0) < 0 && errno != EAGAIN && errno != ECONNREFUSED)
        die("failed: send: %s", strerror(errno));
      asked = current;
    }
    char text[32];
    ssize_t length = recv(fd, text, sizeof text - 1, 0);
    if (length <= 0) continue;
    text[length] = 0;
    return strtoull(text, NULL, 10);
  }
}

void run_receive(const struct plan *plan, struct outcome *outcome) {
  struct server server;
  uint16_t port;
  static char bytes[BATCH * MAXIMUM_SIZE];
  int fd = open_socket(&port);
  server_start(&server, plan->command, "receive", port, 1, plan->server_core);
  pin(plan->client_core);
  connect_to(fd, server.ports[0]);
  bool yields = plan->server_core == plan->client_core;
  struct usage before = {0};
  uint64_t sent = 0;
  double start = 0;
  for (int turn = 0; turn < 2; turn++) {
    pause_for(0.002);
    ask_count(fd);
    before = server_usage(&server);
    start = now();
    double seconds = turn == 0 ? plan->warm_up : plan->seconds;
    for (sent = 0; now() - start < seconds; sent += BATCH) {
      send_segments(fd, bytes, plan->size, BATCH);
      if (yields) sched_yield(); /* until the server has received them and sleeps */
    }
  }
  outcome->seconds = now() - start;
  server_usage_since(&server, before, outcome); /* returns when the server sleeps, having received all */
  outcome->datagrams = ask_count(fd);
  outcome->lost = sent - outcome->datagrams;
  server_stop(&server);
}

/* Passes time without a system call: repeated reads of an empty socket would delay the sender. */
static void spin(double seconds) {
  double start = now();
  while (now() - start < seconds) {
  }
}

static void command(int fd, uint64_t count, int size, uint16_t port) {
  char text[64];
  int length = snprintf(text, sizeof text, "%llu %d %d", (unsigned long long)count, size, port);
  if (send(fd, text, (size_t)length, 0) < 0) die("failed: send: %s", strerror(errno));
}

/* Makes the server send `count` datagrams to `fd` and receives them. Returns the seconds that this took;
   *taken is the number of datagrams received. */
static double command_send(int fd, uint64_t count, int size, uint16_t port, uint64_t *taken) {
  char incoming[BATCH][64];
  struct iovec vectors[BATCH];
  struct mmsghdr messages[BATCH];
  for (int i = 0; i < BATCH; i++) {
    vectors[i] = (struct iovec){incoming[i], sizeof incoming[i]};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
  }
  command(fd, count, size, port);
  double start = now(), last = start, current = start;
  uint64_t bytes = 0;
  bool done = false;
  while (!done && (bytes == 0 || current - last < SILENCE)) {
    /* MSG_TRUNC returns the real length of the datagram; only its first bytes are copied. */
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
    current = now();
    if (got > 0)
      last = current;
    else
      spin(BREATH);
    for (int i = 0; i < got; i++) {
      bool says_done = messages[i].msg_len == 4 && memcmp(incoming[i], "done", 4) == 0;
      if (!says_done) bytes += messages[i].msg_len;
      done = done || says_done;
    }
    if (current - start > PATIENCE && bytes == 0) die("failed: it sends nothing");
  }
  *taken = bytes / (uint64_t)size;
  return last - start;
}

/* Makes the server send to another process, and sleeps until it is done, because both cores are busy. */
static double command_send_to(int fd, uint64_t count, int size, uint16_t port, uint64_t *taken) {
  *taken = 0; /* the other process counts */
  command(fd, count, size, port);
  double start = now();
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  char text[64];
  if (poll(&ready, 1, (int)(PATIENCE * 1000) * 2) <= 0 || recv(fd, text, sizeof text, 0) != 4)
    die("failed: it does not say that it has sent");
  return now() - start;
}

/* Returns how many datagrams `send_some` sends in `seconds`. Requests larger counts until one takes long
   enough to measure. */
static uint64_t calibrate(double (*send_some)(int, uint64_t, int, uint16_t, uint64_t *), int fd, int size,
                          uint16_t port, double seconds) {
  for (uint64_t count = CALIBRATION;; count *= 8) {
    uint64_t taken;
    double took = send_some(fd, count, size, port, &taken);
    if (took > seconds / 10) return (uint64_t)((double)count / took * seconds) + 1;
  }
}

void run_send(const struct plan *plan, struct outcome *outcome) {
  struct server server;
  uint16_t port;
  int fd = open_socket(&port), on = 1;
  /* A segmented message arrives in one piece, because its segmentation would be charged to the sender. */
  setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on);
  server_start(&server, plan->command, "send", port, 1, plan->server_core);
  pin(plan->client_core);
  connect_to(fd, server.ports[0]);
  uint64_t count = calibrate(command_send, fd, plan->size, port, plan->seconds);
  outcome->datagrams = count;
  /* A datagram that does not fit into the client's receive buffer costs its sender less. If the client could
     not run in time, measure once more. */
  for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
    uint64_t taken;
    struct usage before = server_usage(&server);
    outcome->seconds = command_send(fd, count, plan->size, port, &taken);
    server_usage_since(&server, before, outcome);
    outcome->lost = count - taken;
    if (outcome->lost <= count / 100) break;
  }
  server_stop(&server);
}

void run_bulk(const struct plan *plan, struct outcome *outcome) {
  struct server receiver, sender;
  uint16_t receiver_peer, sender_peer;
  int to_receiver = open_socket(&receiver_peer), to_sender = open_socket(&sender_peer);
  server_start(&receiver, plan->command, "bulk", receiver_peer, 1, plan->server_core);
  server_start(&sender, plan->other_command, "send", sender_peer, 1, plan->client_core);
  connect_to(to_receiver, receiver.ports[0]);
  connect_to(to_sender, sender.ports[0]);
  uint16_t port = receiver.ports[0];
  uint64_t count = calibrate(command_send_to, to_sender, plan->size, port, plan->seconds);
  ask_count(to_receiver);
  struct usage before = server_usage(&receiver);
  uint64_t taken;
  outcome->seconds = command_send_to(to_sender, count, plan->size, port, &taken);
  server_usage_since(&receiver, before, outcome);
  outcome->datagrams = ask_count(to_receiver);
  outcome->lost = count - outcome->datagrams;
  server_stop(&sender);
  server_stop(&receiver);
}
