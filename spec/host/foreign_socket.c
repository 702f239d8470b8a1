/* foreign_socket.c: runs a program that gets a UDP socket on loopback whose maker has done something of his
   own with it.

   usage: foreign_socket timestamps COMMAND...
             the system stamps every datagram that it sends (SO_TIMESTAMPING)
          foreign_socket twin COMMAND...
             another process has it, too, and shuts it down when it gets a datagram with the side:
             "r", "w" or "b"

   The descriptor is appended to the command, and the port to which that datagram goes. Linux. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/net_tstamp.h>
#include <signal.h>
#include <sys/prctl.h>

static void fail(const char *what) {
  perror(what);
  exit(2);
}

static int open_socket(struct sockaddr_in *local) {
  *local = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof *local;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)local, length) != 0) fail("socket");
  if (getsockname(fd, (struct sockaddr *)local, &length) != 0) fail("getsockname");
  return fd;
}

static void ask_for_timestamps(int fd) {
  int flags = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY;
  if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags) != 0) fail("SO_TIMESTAMPING");
}

/* Ends with the program. */
static void wait_and_shut(int fd, int control) {
  char side;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (recv(control, &side, 1, 0) != 1) fail("recv");
  if (shutdown(fd, side == 'r' ? SHUT_RD : side == 'w' ? SHUT_WR : SHUT_RDWR) != 0) fail("shutdown");
  pause();
  exit(0);
}

static void share(int fd, int control, const struct sockaddr_in *local) {
  if (connect(fd, (const struct sockaddr *)local, sizeof *local) != 0) fail("connect"); /* to itself */
  pid_t pid = fork();
  if (pid < 0) fail("fork");
  if (pid == 0) wait_and_shut(fd, control);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  struct sockaddr_in local, control_end;
  int fd = open_socket(&local), control = open_socket(&control_end);
  if (strcmp(argv[1], "timestamps") == 0)
    ask_for_timestamps(fd);
  else
    share(fd, control, &local);
  char descriptor[16], port[16];
  char **words = calloc((size_t)argc + 2, sizeof *words);
  if (words == NULL) fail("memory");
  memcpy(words, argv + 2, ((size_t)argc - 2) * sizeof *words);
  snprintf(descriptor, sizeof descriptor, "%d", fd);
  snprintf(port, sizeof port, "%d", ntohs(control_end.sin_port));
  words[argc - 2] = descriptor;
  words[argc - 1] = port;
  execvp(words[0], words);
  perror(words[0]);
  free(words);
  return 2;
}

#else

int main(void) {
  return 2;
}

#endif
