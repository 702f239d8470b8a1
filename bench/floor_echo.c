/* floor_echo.c: the floor to measure against: an echo server in C, one recvfrom and one sendto per datagram, epoll only
   after EAGAIN. Prints its port. Ends by a signal. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

int main(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof local;
  if (fd < 0 || bind(fd, (struct sockaddr *)&local, sizeof local) != 0 ||
      getsockname(fd, (struct sockaddr *)&local, &length) != 0) {
    perror("floor_echo");
    return 1;
  }
  printf("listening on 127.0.0.1:%d\n", ntohs(local.sin_port));
  fflush(stdout);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    perror("floor_echo");
    return 1;
  }
  char buffer[2048];
  for (;;) {
    struct sockaddr_in peer;
    length = sizeof peer;
    ssize_t received = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &length);
    if (received >= 0) {
      if (sendto(fd, buffer, (size_t)received, 0, (struct sockaddr *)&peer, length) < 0 && errno != EAGAIN)
        perror("sendto");
    } else if (errno == EAGAIN) {
      epoll_wait(epoll, &event, 1, -1);
    }
  }
}
