/* floor_c.c: floor_c ROLE PEER_PORT SOCKETS
   Reads a joined buffer (UDP_GRO) in one call, and sends a message for segmentation (UDP_SEGMENT) in one
   call; epoll only after EAGAIN. */
#include <sys/epoll.h>

#include "floor.h"

#define LARGEST 65507
#define SEGMENTS 64

union control {
  char bytes[CMSG_SPACE(sizeof(int))];
  struct cmsghdr alignment;
};

static char buffer[65536];

/* Waits for a joined buffer of datagrams of *segment bytes (the last may be shorter), and reads it. */
static size_t receive(int fd, int epoll, struct sockaddr_in *peer, size_t *segment) {
  for (;;) {
    union control control;
    struct iovec vector = {buffer, sizeof buffer - 1};
    struct msghdr message = {.msg_name = peer,
                             .msg_namelen = sizeof *peer,
                             .msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control.bytes};
    struct epoll_event event;
    ssize_t length = recvmsg(fd, &message, 0);
    if (length < 0 && errno != EAGAIN && errno != EINTR) fail("recvmsg");
    if (length < 0) {
      epoll_wait(epoll, &event, 1, -1);
      continue;
    }
    *segment = (size_t)length;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_UDP && header->cmsg_type == UDP_GRO) {
      int size;
      memcpy(&size, CMSG_DATA(header), sizeof size);
      *segment = (size_t)size;
    }
    return (size_t)length;
  }
}

static void give(int fd, char *bytes, size_t length, size_t segment, struct sockaddr_in *peer) {
  union control control = {0};
  struct iovec vector = {bytes, length};
  struct msghdr message = {
      .msg_name = peer, .msg_namelen = sizeof *peer, .msg_iov = &vector, .msg_iovlen = 1};
  if (segment < length) {
    uint16_t size = (uint16_t)segment;
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof size);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(header), &size, sizeof size);
  }
  if (sendmsg(fd, &message, 0) < 0 && errno != EAGAIN) fail("sendmsg");
}

static void echo(int fd, int epoll) {
  struct sockaddr_in peer;
  for (;;) {
    size_t segment, length = receive(fd, epoll, &peer, &segment);
    give(fd, buffer, length, segment, &peer);
  }
}

static void count_datagrams(int fd, int epoll) {
  struct sockaddr_in peer;
  unsigned long long total = 0;
  for (;;) {
    size_t segment, length = receive(fd, epoll, &peer, &segment);
    if (length > 1) {
      total += (length + segment - 1) / segment;
      continue;
    }
    length = (size_t)snprintf(buffer, sizeof buffer, "%llu", total);
    give(fd, buffer, length, length, &peer);
    total = 0;
  }
}

static void send_on_order(int fd, int epoll) {
  struct sockaddr_in peer;
  static char payload[65536];
  memset(payload, 1, sizeof payload); /* all unwritten pages would be the same page of zeros */
  for (;;) {
    size_t segment, length = receive(fd, epoll, &peer, &segment);
    struct order order = read_order(buffer, length);
    size_t size = (size_t)order.size, most = LARGEST / size < SEGMENTS ? LARGEST / size : SEGMENTS;
    for (unsigned long long left = order.count; left > 0;) {
      size_t count = left < most ? (size_t)left : most;
      give(fd, payload, count * size, size, &order.target);
      left -= count;
    }
    memcpy(buffer, "done", 4);
    give(fd, buffer, 4, 4, &peer);
  }
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  int fd = open_socket(), epoll = epoll_create1(EPOLL_CLOEXEC), on = 1;
  struct epoll_event event = {.events = EPOLLIN};
  if (setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) != 0) unavailable("UDP_GRO needs Linux 5.0");
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll");
  ready();
  if (strcmp(arguments[1], "bulk") == 0) take_large_buffer(fd);
  if (strcmp(arguments[1], "receive") == 0 || strcmp(arguments[1], "bulk") == 0) count_datagrams(fd, epoll);
  if (strcmp(arguments[1], "send") == 0) send_on_order(fd, epoll);
  echo(fd, epoll);
}
