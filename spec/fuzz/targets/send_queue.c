/* send_queue.c: the send queue on a system of this file's own, which takes, cuts and refuses what the input
   says. What a send has accepted leaves once, whole and in order; where the system refuses a datagram for
   good, a later call tells it. */
#include "target.h"

#include "udp/parts.h"
#include "udp/send_queue.h"

#include <errno.h>
#include <poll.h>

enum { MOST = 4096, LARGEST_DATAGRAM = 3000, PEERS = 3 };

static struct input input;
static bool refuses;    /* errors that lose a datagram are played */
static size_t path_mtu; /* a larger segment is refused each time */

/* Datagrams that sends have accepted, and how many of them have left or were lost. */
struct datagram {
  size_t length;
  unsigned number;
  uint16_t port;
};
static struct datagram accepted[MOST];
static size_t accepted_count, left_count, lost_count, told_count;
static unsigned numbers;

/* --- the system --- */

static void leaves(const unsigned char *bytes, size_t length, const struct sockaddr_in *to) {
  uint16_t port = to != NULL ? ntohs(to->sin_port) : 0;
  while (left_count < accepted_count) {
    const struct datagram *each = &accepted[left_count++];
    bool same = each->length == length && each->port == port;
    if (same && (length == 0 || memcmp(bytes, noise(each->number), length) == 0)) return;
    PROMISE(refuses, "what was accepted leaves whole and in order");
    lost_count++;
  }
  PROMISE(false, "nothing leaves that was not accepted");
}

static size_t segment_of(const struct msghdr *message) {
  const struct cmsghdr *header = CMSG_FIRSTHDR(message);
  uint16_t size;
  if (header == NULL) return SIZE_MAX;
  PROMISE(header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_SEGMENT, "a segment size");
  memcpy(&size, CMSG_DATA(header), sizeof size);
  return size;
}

/* The errno value that the next call ends with; 0: none. `segment`: SIZE_MAX without segmentation. */
static int next_error(size_t segment) {
  static const int soft[] = {EINTR, EAGAIN}, hard[] = {ENOBUFS, EPERM, EHOSTUNREACH, EMSGSIZE};
  bool segmented = segment != SIZE_MAX;
  unsigned kind = take_byte(&input);
  if (kind < 24) return soft[kind % 2];
  if (segmented && segment > path_mtu) return EMSGSIZE;
  if (kind < 48 && segmented) return kind & 1 ? EIO : EINVAL;
  if (kind < 56 && refuses) return hard[kind % 4];
  return 0;
}

static void leaves_in_segments(const struct msghdr *message) {
  unsigned char *bytes = malloc(65536);
  size_t length = 0, segment = segment_of(message);
  if (bytes == NULL) abort();
  for (size_t i = 0; i < message->msg_iovlen; i++) {
    PROMISE(length + message->msg_iov[i].iov_len <= 65507, "a message is not too large");
    memcpy(bytes + length, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    length += message->msg_iov[i].iov_len;
  }
  PROMISE(segment == SIZE_MAX || length <= segment * IP_MOST_SEGMENTS, "nor has it too many segments");
  for (size_t at = 0; at < length || length == 0; at += segment) {
    size_t size = length - at < segment ? length - at : segment;
    leaves(bytes + at, size, message->msg_name);
    if (length == 0 || segment == SIZE_MAX) break;
  }
  free(bytes);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  (void)fd, (void)flags;
  int error = next_error(segment_of(message));
  if (error == 0) {
    leaves_in_segments(message);
    return (ssize_t)message->msg_iov[0].iov_len;
  }
  errno = error;
  return -1;
}

#ifdef __GLIBC__
typedef __CONST_SOCKADDR_ARG address_argument;
#else
typedef const struct sockaddr *address_argument;
#endif

ssize_t sendto(int fd, const void *data, size_t size, int flags, address_argument to, socklen_t length) {
  (void)fd, (void)flags, (void)length;
  const struct sockaddr_in *address;
  memcpy(&address, &to, sizeof address);
  int error = next_error(SIZE_MAX);
  if (error == 0) {
    leaves(data, size, address);
    return (ssize_t)size;
  }
  errno = error;
  return -1;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  unsigned done = 0, most = 1 + take_below(&input, 70);
  while (done < count && done < most) {
    if (sendmsg(fd, &messages[done].msg_hdr, flags) < 0) break;
    done++;
  }
  return done != 0 ? (int)done : -1;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
  (void)fd, (void)level, (void)name;
  memset(value, 0, *length);
  return 0;
}

/* --- the calls --- */

static void tell(struct ip_failure failure) {
  if (failure.code != 0 && failure.code != EAGAIN) told_count++;
}

static void send_one(struct ip_channel *channel, unsigned kind) {
  struct ip_endpoint peers[PEERS];
  struct ip_address loopback = {.bytes = {127, 0, 0, 1}, .version = 4};
  unsigned peer = take_below(&input, PEERS + 1);
  for (unsigned i = 0; i < PEERS; i++)
    ip_endpoint_set(&peers[i], AF_INET, &loopback, (uint16_t)(i + 1));
  size_t length = kind & 8 ? take_below(&input, LARGEST_DATAGRAM) : take_below(&input, 100), sent = 0;
  if (accepted_count == MOST) return;
  unsigned char bytes[LARGEST_DATAGRAM];
  unsigned number = numbers++;
  if (length != 0) memcpy(bytes, noise(number), length);
  struct ip_send call = {.to = peer < PEERS ? &peers[peer] : NULL, .flags = kind & 16 ? MSG_CONFIRM : 0};
  ip_data_set(&call.data, bytes, length);
  accepted[accepted_count] = (struct datagram){length, number, peer < PEERS ? (uint16_t)(peer + 1) : 0};
  accepted_count++; /* it may leave during the call */
  size_t left = left_count;
  struct ip_failure failure = ip_send_queue_send(channel, &call, &sent);
  if (failure.code == 0) {
    PROMISE(sent == length, "a send tells the length");
    return;
  }
  tell(failure);
  /* EMSGSIZE of a train may be told, for an older datagram, where the next try would block */
  bool due = refuses || failure.code == EAGAIN || failure.code == EMSGSIZE;
  PROMISE(due, "a send raises only what the system says");
  PROMISE(left_count < accepted_count || left == left_count || refuses, "what failed has not left");
  if (left_count < accepted_count) accepted_count--;
}

/* Behind the input the system takes everything. */
static void drain(struct ip_channel *channel) {
  input = (struct input){.left = 0, .rest = 255};
  for (int i = 0; i < 100 && !ip_send_queue_flush(channel); i++)
    continue;
  tell(ip_send_queue_pop_failure(channel));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input = (struct input){.data = data, .left = size, .rest = 255};
  accepted_count = left_count = lost_count = told_count = 0;
  numbers = 0;
  struct ip_channel channel = {.fd = -1, .has_port = true};
  static struct ip_connection connection;
  channel.connection = &connection;
  refuses = take_byte(&input) & 1;
  path_mtu = 100 + take_below(&input, 3000);
  if (ip_send_queue_set(&channel, NULL, true) != 0) abort();
  for (int i = 0; i < 1000 && input.left > 0; i++) {
    unsigned kind = take_byte(&input);
    if (kind % 8 == 7)
      (void)ip_send_queue_flush(&channel);
    else
      send_one(&channel, kind);
  }
  drain(&channel);
  size_t bytes = 0;
  PROMISE(ip_send_queue_count(&channel, &bytes) == 0 && bytes == 0, "the queue empties");
  lost_count += accepted_count - left_count;
  PROMISE(refuses || lost_count == 0, "nothing is lost");
  PROMISE(lost_count == 0 || told_count != 0, "what is lost is told");
  channel.connection = NULL;
  ip_send_queue_free(&channel);
  return 0;
}
