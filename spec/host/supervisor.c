/* supervisor.c: starts a program like a service manager with socket activation (sd_listen_fds(3)): the
   program inherits descriptor 3, a blocking UDP socket bound to a port of loopback, and the variables
   LISTEN_FDS and LISTEN_PID. The supervisor sends one datagram to the socket before the program runs.

   usage: supervisor PROGRAM [ARGUMENT...] */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_DESCRIPTOR = 3 };

static int fail(const char *what) {
  perror(what);
  return 1;
}

/* Sends a datagram from another socket, as a client would. */
static int greet(int fd) {
  static const char greeting[] = "queued before exec";
  struct sockaddr_in local;
  socklen_t length = sizeof local;
  if (getsockname(fd, (struct sockaddr *)&local, &length) != 0) return -1;
  int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (client < 0) return -1;
  ssize_t sent = sendto(client, greeting, strlen(greeting), 0, (struct sockaddr *)&local, length);
  close(client);
  return sent < 0 ? -1 : 0;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) return fail("socket");
  struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(fd, (struct sockaddr *)&local, sizeof local) != 0) {
    int status = fail("bind");
    close(fd);
    return status;
  }
  if (fd != FIRST_DESCRIPTOR) {
    if (dup2(fd, FIRST_DESCRIPTOR) < 0) return fail("dup2");
    close(fd);
  }
  if (greet(FIRST_DESCRIPTOR) != 0) return fail("greet");
  char pid[32];
  snprintf(pid, sizeof pid, "%ld", (long)getpid());
  if (setenv("LISTEN_FDS", "1", 1) != 0 || setenv("LISTEN_PID", pid, 1) != 0) return fail("setenv");
  execvp(argv[1], argv + 1);
  return fail(argv[1]);
}
