/* read_ahead.c: the receive path with its read-ahead buffer, on a system of this file's own: its socket has the
   datagrams that the input describes, alone or joined (GRO), and fails when the input says so. Each datagram
   comes once, whole or cut as asked for, in order. */
#include "target.h"

#include "udp/buffer_pool.h"
#include "udp/parts.h"
#include "udp/receive_path.h"

#include <errno.h>
#include <poll.h>

enum { MOST_READS = 400, LARGEST = 65536 };

static struct input input;

/* The buffer that the system has given last, and what was received of it. */
struct system_read {
  size_t length, stride;
  uint16_t port;
  unsigned char first;
};

static struct system_read reads[MOST_READS];
static size_t given, taken, position; /* reads given; the one that is being received, and where */

static void fill(struct msghdr *message, struct system_read *each) {
  size_t size = message->msg_iov[0].iov_len;
  if (each->length > size) each->length = size;
  if (each->length != 0) memcpy(message->msg_iov[0].iov_base, noise(each->first), each->length);
  if (message->msg_name != NULL) {
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_port = htons(each->port)};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(message->msg_name, &source, sizeof source);
    message->msg_namelen = sizeof source;
  }
  bool joined = each->stride < each->length;
  struct cmsghdr header = {
      .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_GRO};
  if (joined && message->msg_controllen >= CMSG_SPACE(sizeof(int))) {
    int stride = (int)each->stride;
    memcpy(message->msg_control, &header, sizeof header);
    memcpy((unsigned char *)message->msg_control + CMSG_LEN(0), &stride, sizeof stride);
    message->msg_controllen = CMSG_SPACE(sizeof(int));
  } else {
    message->msg_controllen = 0;
  }
  message->msg_flags = 0;
}

/* Fills in what the input says; -1 with errno set where it says so, or has ended. */
static int read_one(struct msghdr *message) {
  if (given == MOST_READS || input.left == 0) {
    errno = EAGAIN;
    return -1;
  }
  static const int errors[] = {EINTR, EAGAIN, ECONNREFUSED, ENOMEM};
  unsigned kind = take_byte(&input);
  if (kind < 16) {
    errno = errors[kind % 4];
    return -1;
  }
  struct system_read *each = &reads[given];
  each->length = take_below(&input, (kind & 12) == 12 ? 60000 : 3000);
  each->stride = kind & 2 ? 1 + take_below(&input, 1500) : LARGEST;
  each->port = (uint16_t)(1 + take_below(&input, 4));
  each->first = take_byte(&input);
  fill(message, each);
  if (each->stride >= each->length) each->stride = LARGEST;
  given++;
  return (int)each->length;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
  (void)fd, (void)flags, (void)timeout;
  unsigned done = 0;
  while (done < count) {
    int length = read_one(&messages[done].msg_hdr);
    if (length < 0) break;
    messages[done++].msg_len = (unsigned)length;
  }
  return done != 0 ? (int)done : -1;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  (void)fd, (void)flags;
  return read_one(message);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
  (void)fd, (void)level, (void)name, (void)value, (void)length;
  return 0;
}

int poll(struct pollfd *descriptors, nfds_t count, int timeout) {
  (void)timeout;
  for (nfds_t i = 0; i < count; i++)
    descriptors[i].revents = 0;
  return 0;
}

/* --- the model --- */

/* The bytes that the next receive gets: one datagram, or the rest of a joined buffer. */
static size_t next_size(bool joined) {
  const struct system_read *each = &reads[taken];
  size_t left = each->length - position;
  return joined || left < each->stride ? left : each->stride;
}

static void check_received(const struct ip_received *received, const unsigned char *bytes, size_t size,
                           bool joined) {
  PROMISE(taken < given, "nothing comes that was not read");
  const struct system_read *each = &reads[taken];
  size_t real = next_size(joined);
  PROMISE(received->datagram.length == (real < size ? real : size), "a datagram is as long as it was");
  PROMISE(received->datagram.truncated == (real > size), "and says whether it was cut");
  PROMISE(ip_endpoint_port(&received->datagram.source) == each->port, "and whose it is");
  size_t length = received->datagram.length;
  PROMISE(length == 0 || memcmp(bytes, noise(each->first) + position, length) == 0, "and has its bytes");
}

static void advance(bool joined) {
  position += next_size(joined);
  if (position < reads[taken].length) return;
  taken++;
  position = 0;
}

/* Returns whether a receive could bring more. */
static bool receive_once(struct ip_channel *channel, size_t size, bool joined, bool peeks) {
  unsigned char *bytes = malloc(size != 0 ? size : 1);
  if (bytes == NULL) abort();
  struct ip_received received = {.datagram = {.length = 0}};
  struct ip_receive call = {
      .data = bytes, .size = size, .flags = peeks ? MSG_PEEK : 0, .wants = IP_WANTS_SOURCE};
  if (joined) call.wants |= IP_WANTS_CONTROL | IP_WANTS_JOINED;
  struct ip_failure failure = ip_receive_path_attempt(channel, &call, &received);
  if (failure.code == 0) {
    check_received(&received, bytes, size, joined);
    if (!peeks) advance(joined);
  }
  free(bytes);
  return failure.code != EAGAIN || input.left != 0;
}

/* The plain receives of this path would need a socket: all go through the buffer, which a joined receive with
   the option does only while it is not empty. */
static void play(struct ip_channel *channel) {
  for (int i = 0; i < 2000; i++) {
    unsigned kind = take_byte(&input);
    size_t size = kind & 1 ? LARGEST : take_below(&input, 2000);
    bool joined = (kind & 6) == 6 && ip_receive_path_has_read_ahead(channel) && channel->receive->offload;
    if (!receive_once(channel, size, joined, (kind & 24) == 24)) break;
  }
  PROMISE(input.left != 0 || taken <= given, "the model is whole");
}

/* The buffers are large: they are made once for each choice of options. Nothing of the last input is left. */
static struct ip_channel *channel_with(bool offload, bool coalesce) {
  static struct ip_channel channels[4];
  struct ip_channel *channel = &channels[offload * 2 + coalesce];
  if (channel->receive == NULL) {
    *channel = (struct ip_channel){.fd = -1};
    if (offload && ip_receive_path_set_offload(channel, NULL, true) != 0) abort();
    if (coalesce && ip_receive_path_set_coalesce(channel, NULL, true) != 0) abort();
  }
  struct ip_receive_state *state = channel->receive;
  ip_buffer_pool_give_back(state->pool, state->read_ahead);
  state->read_ahead = NULL;
  state->wanted = IP_READ_AHEAD_MOST;
  state->lone_reads = state->in_row = 0;
  channel->would_block_streak = 0;
  return channel;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input = (struct input){.data = data, .left = size};
  given = taken = position = 0;
  unsigned options = take_byte(&input);
  bool offload = options & 1;
  struct ip_channel *channel = channel_with(offload, !offload || (options & 2) != 0);
  play(channel);
  PROMISE(ip_receive_path_has_read_ahead(channel) == (taken < given), "nothing is forgotten");
  return 0;
}
