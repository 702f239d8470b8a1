/* echo.c: keeps datagrams in flight to an echo server. The client polls and never sleeps, because its
   wake-ups would be charged to the server. It compares each echo with the datagram that it sent. Lost
   datagrams do not stop the load: if no echo arrives for a while, all datagrams in flight count as lost, and
   the load starts again. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "driver.h"

#define SILENCE 0.2 /* seconds after which datagrams count as lost */
#define MAXIMUM_ROUND_TRIPS 4000000
#define PATTERN 'i'

struct head { /* the first bytes of a datagram */
  uint32_t epoch, index;
};

struct load {
  const struct plan *plan;
  const struct server *server;
  int fd;
  bool yields;  /* client and server share a core: polling yields */
  bool rotates; /* each datagram goes to the next socket */
  struct sockaddr_in *targets;
  uint32_t epoch, cursor;
  uint64_t outstanding, received, lost;
  uint32_t resend[BATCH]; /* targets of the next datagrams to send */
  int resend_count;
  char bytes[BATCH * MAXIMUM_SIZE];
  char incoming[BATCH][MAXIMUM_SIZE];
  struct iovec vectors[BATCH], incoming_vectors[BATCH];
  struct mmsghdr messages[BATCH], incoming_messages[BATCH];
  float *round_trips; /* seconds */
  size_t round_trip_count;
};

static void prepare(struct load *load) {
  size_t size = (size_t)load->plan->size;
  memset(load->bytes, PATTERN, sizeof load->bytes);
  for (size_t i = 0; i < BATCH; i++) {
    load->vectors[i] = (struct iovec){load->bytes + i * size, size};
    load->messages[i].msg_hdr = (struct msghdr){.msg_iov = &load->vectors[i], .msg_iovlen = 1};
    load->incoming_vectors[i] = (struct iovec){load->incoming[i], sizeof load->incoming[i]};
    load->incoming_messages[i].msg_hdr =
        (struct msghdr){.msg_iov = &load->incoming_vectors[i], .msg_iovlen = 1};
  }
}

/* Sends the datagrams of `resend`. */
static void send_all(struct load *load) {
  int count = load->resend_count, size = load->plan->size;
  load->resend_count = 0;
  if (count == 0) return;
  for (int i = 0; i < count; i++) {
    struct head head = {load->epoch, load->resend[i]};
    memcpy(load->bytes + i * size, &head, sizeof head);
  }
  load->outstanding += (uint64_t)count;
  if (load->server->port_count == 1) {
    send_segments(load->fd, load->bytes, size, count);
    return;
  }
  for (int i = 0; i < count; i++) {
    load->messages[i].msg_hdr.msg_name = &load->targets[load->resend[i]];
    load->messages[i].msg_hdr.msg_namelen = sizeof *load->targets;
  }
  for (int done = 0; done < count;) {
    int sent = sendmmsg(load->fd, load->messages + done, (unsigned)(count - done), 0);
    if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) die("failed: sendmmsg: %s", strerror(errno));
    if (sent > 0) done += sent;
  }
}

static void fill(struct load *load) {
  for (int left = load->plan->in_flight; left > 0;) {
    load->resend_count = 0;
    for (; left > 0 && load->resend_count < BATCH; left--) {
      load->resend[load->resend_count++] = load->cursor;
      load->cursor = (load->cursor + 1) % (uint32_t)load->server->port_count;
    }
    send_all(load);
  }
}

static void check(struct load *load, const char *bytes, size_t length) {
  struct head head;
  if (length != (size_t)load->plan->size) die("failed: it echoes %zu bytes for %d", length, load->plan->size);
  memcpy(&head, bytes, sizeof head);
  for (size_t i = sizeof head; i < length; i++)
    if (bytes[i] != PATTERN) die("failed: it echoes other bytes than were sent");
  if (head.index >= (uint32_t)load->server->port_count) die("failed: it echoes what was not sent");
  if (head.epoch != load->epoch) return; /* already counted as lost */
  load->received++;
  load->outstanding--;
  uint32_t target = head.index;
  if (load->rotates) {
    target = load->cursor;
    load->cursor = (load->cursor + 1) % (uint32_t)load->server->port_count;
  }
  load->resend[load->resend_count++] = target;
}

/* Receives at most BATCH echoes; returns false if there were none. */
static bool take(struct load *load) {
  int count = recvmmsg(load->fd, load->incoming_messages, BATCH, MSG_DONTWAIT, NULL);
  if (count < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED)
    die("failed: recvmmsg: %s", strerror(errno));
  for (int i = 0; i < count; i++)
    check(load, load->incoming[i], load->incoming_messages[i].msg_len);
  return count > 0;
}

/* Runs for that long; returns the actual number of seconds, until the last echo. */
static double run(struct load *load, double seconds) {
  double start = now(), last = start, current = start;
  load->received = load->lost = load->outstanding = 0;
  load->round_trip_count = 0;
  load->epoch++;
  fill(load);
  while ((current = now()) - start < seconds) {
    if (take(load)) {
      if (load->round_trips && load->round_trip_count < MAXIMUM_ROUND_TRIPS)
        load->round_trips[load->round_trip_count++] = (float)(now() - last);
      last = load->round_trips ? now() : current;
      send_all(load);
    } else if (current - last > SILENCE) {
      load->lost += load->outstanding;
      load->outstanding = 0;
      load->epoch++;
      last = current;
      fill(load);
    } else if (load->yields) {
      sched_yield();
    }
  }
  while (load->outstanding > 0 && (current = now()) - last < SILENCE) {
    if (take(load)) {
      load->resend_count = 0;
      last = current;
    } else if (load->yields) {
      sched_yield();
    }
  }
  load->lost += load->outstanding;
  return last - start;
}

static int compare(const void *a, const void *b) {
  float first = *(const float *)a, second = *(const float *)b;
  return (first > second) - (first < second);
}

void run_echo(const struct plan *plan, struct outcome *outcome) {
  static struct load load;
  struct server server;
  uint16_t port;
  load = (struct load){.plan = plan, .server = &server, .yields = plan->server_core == plan->client_core};
  load.fd = open_socket(&port);
  const char *role = plan->sockets > 1 ? "sockets" : plan->load;
  server_start(&server, plan->command, role, port, plan->sockets, plan->server_core);
  if (server.port_count != plan->sockets) die("failed: it opened %d sockets", server.port_count);
  pin(plan->client_core);
  load.rotates = plan->sockets > plan->in_flight;
  load.targets = calloc((size_t)server.port_count, sizeof *load.targets);
  for (int i = 0; i < server.port_count; i++)
    load.targets[i] = loopback(server.ports[i]);
  if (server.port_count == 1 && connect(load.fd, (struct sockaddr *)load.targets, sizeof *load.targets) != 0)
    die("failed: connect: %s", strerror(errno));
  if (plan->latency) load.round_trips = calloc(MAXIMUM_ROUND_TRIPS, sizeof *load.round_trips);
  prepare(&load);

  run(&load, plan->warm_up);
  struct usage before = server_usage(&server);
  outcome->seconds = run(&load, plan->seconds);
  server_usage_since(&server, before, outcome);
  outcome->datagrams = load.received;
  outcome->lost = load.lost;
  if (load.round_trip_count > 0) {
    qsort(load.round_trips, load.round_trip_count, sizeof *load.round_trips, compare);
    outcome->round_trip_median = (double)load.round_trips[load.round_trip_count / 2];
    outcome->round_trip_p99 = (double)load.round_trips[load.round_trip_count * 99 / 100];
  }
  server_stop(&server);
}
