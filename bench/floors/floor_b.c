/* floor_b.c: floor_b ROLE PEER_PORT SOCKETS
   recvmmsg and sendmmsg of up to 64 datagrams, epoll only after EAGAIN. */
#include <sys/epoll.h>

#include "floor.h"

#define SLOTS 64
#define CAPACITY 2048

static char bytes[SLOTS][CAPACITY];
static struct sockaddr_in peers[SLOTS];
static struct iovec vectors[SLOTS];
static struct mmsghdr messages[SLOTS];

static void prepare(void) {
  for (int i = 0; i < SLOTS; i++) {
    vectors[i] = (struct iovec){bytes[i], CAPACITY};
    messages[i].msg_hdr = (struct msghdr){
        .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
  }
}

/* Waits for a datagram, and receives all that are there. The last call changed the entries before `used`. */
static int receive(int fd, int epoll, int used) {
  for (int i = 0; i < used; i++) {
    vectors[i].iov_len = CAPACITY;
    messages[i].msg_hdr.msg_namelen = sizeof peers[i];
  }
  for (;;) {
    struct epoll_event event;
    int count = recvmmsg(fd, messages, SLOTS, MSG_DONTWAIT, NULL);
    if (count > 0) return count;
    if (errno != EAGAIN && errno != EINTR) fail("recvmmsg");
    epoll_wait(epoll, &event, 1, -1);
  }
}

static void give(int fd, struct mmsghdr *first, int count) {
  for (int done = 0; done < count;) {
    int sent = sendmmsg(fd, first + done, (unsigned)(count - done), 0);
    if (sent < 0 && errno != EAGAIN) fail("sendmmsg");
    if (sent > 0) done += sent;
  }
}

static void echo(int fd, int epoll) {
  int count = 0;
  for (;;) {
    count = receive(fd, epoll, count);
    for (int i = 0; i < count; i++)
      vectors[i].iov_len = messages[i].msg_len;
    give(fd, messages, count);
  }
}

static void count_datagrams(int fd, int epoll) {
  unsigned long long total = 0;
  for (;;) {
    int count = receive(fd, epoll, SLOTS);
    int last = count - 1;
    total += (unsigned long long)count;
    if (messages[last].msg_len > 1) continue;
    vectors[last].iov_len = (size_t)snprintf(bytes[last], CAPACITY, "%llu", total - 1);
    give(fd, messages + last, 1);
    total = 0;
  }
}

static void send_on_order(int fd, int epoll) {
  static struct mmsghdr out[SLOTS];
  static char payload[CAPACITY];
  for (;;) {
    receive(fd, epoll, SLOTS);
    struct order order = read_order(bytes[0], messages[0].msg_len);
    struct iovec vector = {payload, (size_t)order.size};
    for (int i = 0; i < SLOTS; i++)
      out[i].msg_hdr = (struct msghdr){
          .msg_name = &order.target, .msg_namelen = sizeof order.target, .msg_iov = &vector, .msg_iovlen = 1};
    for (unsigned long long left = order.count; left > 0;) {
      int count = left < SLOTS ? (int)left : SLOTS;
      give(fd, out, count);
      left -= (unsigned long long)count;
    }
    memcpy(bytes[0], "done", 4);
    vectors[0].iov_len = 4;
    give(fd, messages, 1);
  }
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  int fd = open_socket(), epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll");
  prepare();
  ready();
  if (strcmp(arguments[1], "bulk") == 0) take_large_buffer(fd);
  if (strcmp(arguments[1], "receive") == 0 || strcmp(arguments[1], "bulk") == 0) count_datagrams(fd, epoll);
  if (strcmp(arguments[1], "send") == 0) send_on_order(fd, epoll);
  echo(fd, epoll);
}
