/* driver.h: one measurement: start a server, load it, read its cost. Declares what the loads share. */
#ifndef DRIVER_H
#define DRIVER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BATCH 64 /* datagrams that a load sends or receives in one call */
#define MAXIMUM_SIZE 2048

struct plan {
  const char *load; /* echo, receive, send or bulk */
  double seconds;   /* length of the measurement */
  double warm_up;   /* seconds before that */
  int in_flight;    /* echo: datagrams in flight */
  int size;         /* bytes per datagram */
  int sockets;      /* of the server */
  int server_core, client_core;
  bool latency;         /* echo: record the time of every round trip */
  char **command;       /* of the server; bulk: of the receiver */
  char **other_command; /* bulk: of the sender */
};

struct outcome {
  double seconds;     /* wall time */
  uint64_t datagrams; /* handled by the server */
  uint64_t lost;
  uint64_t cpu;   /* nanoseconds of the server, user and system */
  uint64_t delay; /* nanoseconds for which it was ready to run while another process had its core */
  double round_trip_median, round_trip_p99; /* seconds; 0 if not recorded */
};

struct server {
  pid_t pid;
  int output;      /* pipe from its standard output */
  uint16_t *ports; /* of its sockets */
  int port_count;
};

/* Ends the program with a message that the runner shows. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

double now(void); /* seconds */
void pause_for(double seconds);
void pin(int core);
struct sockaddr_in loopback(uint16_t port);

/* A non-blocking socket on loopback with a large receive buffer. */
int open_socket(uint16_t *port);

/* Starts `command ROLE PEER_PORT SOCKETS` on `core` and waits until it is ready. */
void server_start(struct server *server, char **command, const char *role, uint16_t peer_port, int sockets,
                  int core);
void server_stop(struct server *server);

/* The CPU time of all its threads. */
struct usage {
  uint64_t cpu, delay; /* nanoseconds, as in struct outcome */
};

/* Waits until the server sleeps, because the system updates the time of a running process only at ticks. */
struct usage server_usage(const struct server *server);

/* Writes the CPU time since `before` to `outcome`. */
void server_usage_since(const struct server *server, struct usage before, struct outcome *outcome);

void run_echo(const struct plan *plan, struct outcome *outcome);
void run_receive(const struct plan *plan, struct outcome *outcome);
void run_send(const struct plan *plan, struct outcome *outcome);
void run_bulk(const struct plan *plan, struct outcome *outcome);

/* Sends `count` consecutive datagrams of `size` bytes as one message with segmentation offload, which is
   cheap enough to keep any server busy. */
void send_segments(int fd, const char *bytes, int size, int count);

#endif
