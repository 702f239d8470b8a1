/* load.c: keeps IN_FLIGHT datagrams of SIZE bytes on their way to an echo server until COUNT have come back, or for at
   most 60 seconds. It polls and never sleeps, so that no wake-up of its own is charged to the server. A datagram that
   is lost is replaced after a tenth of a second. Usage: load PORT IN_FLIGHT SIZE COUNT; prints seconds and count. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
  if (count != 5) {
    fprintf(stderr, "usage: %s PORT IN_FLIGHT SIZE COUNT\n", arguments[0]);
    return 2;
  }
  int in_flight = atoi(arguments[2]);
  size_t size = (size_t)atol(arguments[3]);
  long wanted = atol(arguments[4]);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in server = {.sin_family = AF_INET,
                               .sin_port = htons((unsigned short)atoi(arguments[1])),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) != 0) {
    perror("load");
    return 1;
  }
  char buffer[65536] = {0};
  long received = 0;
  double start = now(), last = start;
  for (int i = 0; i < in_flight; i++)
    send(fd, buffer, size, 0);
  while (received < wanted && last - start < 60) {
    if (recv(fd, buffer, sizeof buffer, 0) >= 0) {
      received++;
      send(fd, buffer, size, 0);
      if (received % 64 == 0) last = now();
    } else if (now() - last > 0.1) {
      send(fd, buffer, size, 0);
      last = now();
    }
  }
  printf("%.6f %ld\n", now() - start, received);
  return received < wanted;
}
