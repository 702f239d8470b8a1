/* floor_a.c: floor_a epoll|poll|spin|connected ROLE PEER_PORT SOCKETS
   One recvfrom and one sendto per datagram. After EAGAIN it waits with epoll, or with poll, or does not wait
   (spin). `connected` connects its socket to the peer, and waits with epoll. */
#include <poll.h>
#include <sys/epoll.h>

#include "floor.h"

#define EVENTS 1024

static enum { EPOLL, POLL, SPIN } method = EPOLL;
static bool connected;
static int epoll = -1;
static char buffer[65536];

static void watch(int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll < 0) epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll");
}

static void wait_for(int fd) {
  struct epoll_event event;
  struct pollfd entry = {.fd = fd, .events = POLLIN};
  if (method == EPOLL)
    epoll_wait(epoll, &event, 1, -1);
  else if (method == POLL)
    poll(&entry, 1, -1);
}

static ssize_t receive(int fd, struct sockaddr_in *peer) {
  socklen_t length = sizeof *peer;
  ssize_t count = connected ? recv(fd, buffer, sizeof buffer - 1, 0)
                            : recvfrom(fd, buffer, sizeof buffer - 1, 0, (struct sockaddr *)peer, &length);
  if (count < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED) fail("recvfrom");
  return count;
}

static void give(int fd, const char *bytes, size_t size, const struct sockaddr_in *peer) {
  ssize_t count = connected ? send(fd, bytes, size, 0)
                            : sendto(fd, bytes, size, 0, (const struct sockaddr *)peer, sizeof *peer);
  if (count < 0 && errno != EAGAIN && errno != ECONNREFUSED) fail("sendto");
}

/* Waits for the next datagram, and returns its size. */
static ssize_t receive_waiting(int fd, struct sockaddr_in *peer) {
  for (;;) {
    ssize_t count = receive(fd, peer);
    if (count >= 0) return count;
    wait_for(fd);
  }
}

static void echo(int fd) {
  struct sockaddr_in peer;
  for (;;) {
    ssize_t count = receive_waiting(fd, &peer);
    give(fd, buffer, (size_t)count, &peer);
  }
}

static void echo_many(void) {
  static struct epoll_event events[EVENTS];
  struct sockaddr_in peer;
  for (;;) {
    int ready_count = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready_count; i++) {
      int fd = events[i].data.fd;
      ssize_t count;
      while ((count = receive(fd, &peer)) >= 0)
        give(fd, buffer, (size_t)count, &peer);
    }
  }
}

static void count_datagrams(int fd) {
  struct sockaddr_in peer;
  unsigned long long total = 0;
  for (;;) {
    ssize_t count = receive_waiting(fd, &peer);
    if (count > 1) {
      total++;
    } else {
      char text[32];
      give(fd, text, (size_t)snprintf(text, sizeof text, "%llu", total), &peer);
      total = 0;
    }
  }
}

static void send_on_order(int fd) {
  struct sockaddr_in peer;
  static char bytes[65536];
  for (;;) {
    ssize_t length = receive_waiting(fd, &peer);
    struct order order = read_order(buffer, (size_t)length);
    for (unsigned long long i = 0; i < order.count; i++)
      give(fd, bytes, (size_t)order.size, &order.target);
    give(fd, "done", 4, &peer);
  }
}

static void serve_many(int sockets) {
  if (connected || method != EPOLL) unavailable("it has one socket");
  for (int i = 0; i < sockets; i++)
    watch(open_socket());
  ready();
  echo_many();
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  if (strcmp(arguments[1], "poll") == 0) method = POLL;
  if (strcmp(arguments[1], "spin") == 0) method = SPIN;
  const char *role = arguments[2];
  connected = strcmp(arguments[1], "connected") == 0 || strcmp(role, "connected") == 0;
  if (strcmp(role, "sockets") == 0) serve_many(atoi(arguments[4]));
  int fd = open_socket();
  if (connected) connect_to(fd, atoi(arguments[3]));
  if (method == EPOLL) watch(fd);
  ready();
  if (strcmp(role, "bulk") == 0) take_large_buffer(fd);
  if (strcmp(role, "receive") == 0 || strcmp(role, "bulk") == 0) count_datagrams(fd);
  if (strcmp(role, "send") == 0) send_on_order(fd);
  echo(fd);
}
