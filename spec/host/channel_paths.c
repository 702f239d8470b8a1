/* channel_paths.c: tests the files that work on a channel, linked without Lua and without libuv: read_ahead,
   receive_path, send_path, send_queue, error_queue, association, parts. Sends on loopback and prints a line
   for each check. Exit code 1: a check has failed. */
#include "net/datagram_io.h"
#include "udp/association.h"
#include "udp/buffer_pool.h"
#include "udp/error_queue.h"
#include "udp/parts.h"
#include "udp/read_ahead.h"
#include "udp/receive_path.h"
#include "udp/send_queue.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(bool holds, const char *promise) {
  printf("%s %s\n", holds ? "ok" : "FAILED", promise);
  if (!holds) exit(1);
}

/* Opens a channel on a new socket, bound to loopback. */
static struct ip_channel open_channel(struct ip_endpoint *local) {
  struct ip_channel channel = {.fd = -1};
  struct ip_address loopback = {.bytes = {127, 0, 0, 1}, .version = 4};
  ip_endpoint_set(local, AF_INET, &loopback, 0);
  bool open = ip_datagram_open(AF_INET, &channel.fd) == 0 && ip_datagram_bind(channel.fd, local) == 0 &&
              ip_datagram_local(channel.fd, local) == 0;
  if (!open) {
    perror("a socket on loopback");
    exit(2);
  }
  channel.has_port = true;
  return channel;
}

static void close_channel(struct ip_channel *channel) {
  ip_parts_free(channel);
  ip_datagram_close(channel->fd);
}

static struct ip_failure send_text(struct ip_channel *channel, const struct ip_endpoint *to,
                                   const char *text) {
  struct ip_send call = {.to = to, .flags = 0};
  size_t sent;
  ip_data_set(&call.data, (void *)(size_t)text, strlen(text));
  return ip_send_queue_send(channel, &call, &sent);
}

/* Waits until the channel is readable, for at most five seconds. */
static void await(const struct ip_channel *channel) {
  if (ip_receive_path_has_read_ahead(channel) || ip_error_queue_has_report(channel)) return;
  struct pollfd descriptor = {.fd = channel->fd, .events = POLLIN};
  poll(&descriptor, 1, 5000);
}

static struct ip_failure receive_text(struct ip_channel *channel, char *text, size_t size) {
  struct ip_received received;
  struct ip_receive call = {.data = text, .size = size - 1, .wants = IP_WANTS_SOURCE};
  await(channel);
  struct ip_failure failure = ip_receive_path_attempt(channel, &call, &received);
  text[failure.code == 0 ? received.datagram.length : 0] = '\0';
  return failure;
}

static bool receives(struct ip_channel *channel, const char *expected) {
  char text[64];
  return receive_text(channel, text, sizeof text).code == 0 && strcmp(text, expected) == 0;
}

static bool is_empty(struct ip_channel *channel) {
  struct ip_received received;
  char byte;
  struct ip_receive call = {.data = &byte, .size = 1};
  return ip_receive_path_attempt(channel, &call, &received).code == EAGAIN;
}

static void check_plain(struct ip_channel *a, struct ip_channel *b, const struct ip_endpoint *to) {
  check(is_empty(b), "an empty channel says EAGAIN");
  check(send_text(a, to, "plain").code == 0 && receives(b, "plain"), "a plain datagram arrives");
}

/* Queued datagrams leave with the flush, and the read-ahead buffer returns them one by one. */
static void check_queue(struct ip_channel *a, struct ip_channel *b, const struct ip_endpoint *to) {
  size_t bytes = 0;
  check(ip_send_queue_set(a, NULL, true) == 0, "a send queue is made");
  check(ip_receive_path_set_coalesce(b, NULL, true) == 0, "a read-ahead buffer is made");
  static const char *const texts[] = {"12", "34", "5"};
  for (int i = 0; i < 3; i++)
    check(send_text(a, to, texts[i]).code == 0, "a datagram is queued");
  check(ip_send_queue_count(a, &bytes) == 3 && bytes == 5, "the queue counts datagrams and bytes");
  check(is_empty(b), "a queued datagram has not left");
  check(ip_send_queue_flush(a) && ip_send_queue_count(a, &bytes) == 0, "a flush empties the queue");
  for (int i = 0; i < 3; i++)
    check(receives(b, texts[i]), "queued datagrams arrive in order and apart");
  check(is_empty(b), "nothing arrives twice");
}

/* Data larger than one datagram leaves in segments of the size in the call. */
static void check_segments(struct ip_channel *a, struct ip_channel *b, const struct ip_endpoint *to) {
  char text[] = "aaaabbbbcc";
  struct ip_send call = {.to = to, .control = {.items = IP_CONTROL_SEGMENT_SIZE, .segment_size = 4}};
  size_t sent = 0;
  ip_data_set(&call.data, text, strlen(text));
  check(ip_send_path_send(a, &call, &sent).code == 0 && sent == strlen(text), "segments are sent");
  check(receives(b, "aaaa") && receives(b, "bbbb") && receives(b, "cc"), "each segment is a datagram");
}

static void check_peer_filter(struct ip_channel *a, struct ip_channel *b, const struct ip_endpoint *from,
                              const struct ip_endpoint *to) {
  struct ip_endpoint other_end;
  struct ip_channel other = open_channel(&other_end);
  check(send_text(&other, to, "other").code == 0 && send_text(a, to, "peer").code == 0,
        "two datagrams are sent");
  ip_send_queue_flush(a);
  check(ip_association_connect(b, from) == 0, "a channel is connected");
  check(receives(b, "peer"), "what others sent before the connection is dropped");
  check(ip_association_dissolve(b) == 0 && b->connection == NULL, "the association is dissolved");
  close_channel(&other);
}

#ifdef __linux__

/* faulty_memory.c asks whether an allocation of the code under test is to fail. */
static bool memory_is_short;

bool faults_allocation(void);

bool faults_allocation(void) {
  return memory_is_short;
}

/* A receive that gets no buffer says so, and has read nothing; a send that gets no queue leaves at once. */
static void check_short_memory(struct ip_channel *a, struct ip_channel *b, const struct ip_endpoint *to) {
  struct ip_read_ahead *held = ip_buffer_pool_take(b->receive->pool);
  void *queue = ip_buffer_list_take(&a->send->pool->queues);
  size_t bytes = 0;
  char text[64];
  memory_is_short = true;
  check(send_text(a, to, "kept").code == 0, "without memory for a queue a datagram is sent");
  check(ip_send_queue_count(a, &bytes) == 0, "and leaves at once");
  for (int i = 0; i < 3; i++)
    check(receive_text(b, text, sizeof text).code == ENOMEM, "a receive says that memory is short");
  memory_is_short = false;
  check(receives(b, "kept") && is_empty(b), "and the datagram is still there");
  ip_buffer_pool_give_back(b->receive->pool, held);
  ip_buffer_pool_give_queue_back(a->send->pool, queue);
}

/* A receive returns an ICMP error once, the error queue has its details, and no send fails because of it. */
static void check_errors(void) {
  struct ip_endpoint own, gone_end;
  struct ip_channel channel = open_channel(&own), gone = open_channel(&gone_end);
  close_channel(&gone);
  check(ip_parts_set_errors(&channel, true) == 0, "an error queue is made");
  check(ip_datagram_set_option(channel.fd, IPPROTO_IP, IP_RECVERR, 1) == 0, "the system queues errors");
  check(send_text(&channel, &gone_end, "anybody?").code == 0, "a datagram to nobody is sent");
  await(&channel);
  check(send_text(&channel, &own, "me").code == 0, "an older error stops no send");
  char text[64];
  check(receive_text(&channel, text, sizeof text).code == ECONNREFUSED, "a receive reports the error");
  check(receives(&channel, "me") && is_empty(&channel), "the error is reported once");
  struct ip_queued_error *error = ip_error_queue_pop(channel.errors);
  check(error != NULL && error->what.error == ECONNREFUSED && error->length == strlen("anybody?"),
        "the queue holds its details");
  free(error);
  check(ip_error_queue_pop(channel.errors) == NULL, "the queue is empty");
  close_channel(&channel);
}

/* The errors of v4 traffic on a v6 socket obey the option of v4, which its maker may have set alone. */
static void check_adopted_errors(void) {
  struct ip_channel channel = {.fd = -1, .is_v6 = true};
  if (ip_datagram_open(AF_INET6, &channel.fd) != 0) return; /* the system has no v6 */
  check(ip_parts_adopt(&channel, NULL) == 0 && channel.errors == NULL,
        "an adopted socket has no error queue");
  check(ip_datagram_set_option(channel.fd, IPPROTO_IP, IP_RECVERR, 1) == 0, "v4 errors are queued");
  check(ip_parts_adopt(&channel, NULL) == 0 && channel.errors != NULL, "then an adopted v6 socket has one");
  close_channel(&channel);
}

#else

static void check_errors(void) {
}

static void check_adopted_errors(void) {
}

static void check_short_memory(struct ip_channel *a, struct ip_channel *b, const struct ip_endpoint *to) {
  (void)a, (void)b, (void)to;
}

#endif

int main(void) {
  struct ip_endpoint from, to;
  struct ip_channel a = open_channel(&from), b = open_channel(&to);
  check_plain(&a, &b, &to);
  check_queue(&a, &b, &to);
  check_short_memory(&a, &b, &to);
  check_segments(&a, &b, &to);
  check_peer_filter(&a, &b, &from, &to);
  close_channel(&a);
  close_channel(&b);
  check_adopted_errors();
  check_errors();
  return 0;
}
