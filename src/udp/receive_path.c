/* udp_intake.c: what stands between a receive and the system: datagrams that were read ahead, datagrams of
   strangers that were queued before connect, and errors of datagrams sent earlier.

   Owns nothing: the stage belongs to the socket's struct ip_messages. Raises nothing; no Lua. */
#include "udp/message.h"

#include "base/util.h"
#include "net/datagram_message_io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <netinet/udp.h>
#endif

/* --- the stage --- */

/* Reads what may be several datagrams. A read that took all there was saves the next receive its try. */
static int fill_stage(struct ip_socket *socket) {
  struct ip_messages *messages = socket->messages;
  int error = ip_stage_fill(messages->stage, socket->readiness.fd, socket->is_v6);
  if (error != 0) return error;
  messages->has_staged = true;
  if (messages->coalesce) socket->misses = messages->stage->drained ? IP_SKIP_AFTER : 0;
  return 0;
}

/* Hands out the next datagram of the stage, or, `together`, all that is left of those that were joined with it. */
static void hand_out(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                     bool together, struct ip_datagram *datagram) {
  struct ip_messages *messages = socket->messages;
  struct ip_stage *stage = messages->stage;
  size_t real = together ? stage->length - stage->at : ip_stage_next_length(stage);
  datagram->length = real < size ? real : size;
  datagram->truncated = real > size;
  datagram->source = *stage->source;
  if (datagram->length != 0) memcpy(data, stage->data + stage->at, datagram->length);
  if (what >= IP_TAKE_MESSAGE) {
    struct ip_control *control = &socket->readiness.runtime->control;
    *control = stage->control;
    if (real <= stage->stride) control->items &= ~(uint32_t)IP_CONTROL_SEGMENT_SIZE;
  }
  if (flags & MSG_PEEK) return;
  ip_stage_advance(stage, real);
  messages->has_staged = !ip_stage_is_empty(stage);
}

/* --- one datagram --- */

static int take_directly(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                         struct ip_datagram *datagram) {
  int fd = socket->readiness.fd;
  int error = what >= IP_TAKE_MESSAGE
                  ? ip_datagram_receive_message(fd, socket->is_v6, data, size, flags, datagram,
                                                &socket->readiness.runtime->control)
                  : ip_datagram_receive(fd, data, size, flags, datagram, true);
  if (error == 0 && ip_messages_coalesces(socket)) socket->misses = 0;
  return error;
}

/* Does a receive have to look here first? What a receive_message is to get in one piece it reads itself. */
static bool goes_through_stage(const struct ip_messages *messages, bool together) {
  if (messages == NULL) return false;
  if (messages->has_staged) return true;
  return messages->stage != NULL && (messages->joins || messages->coalesce) && !together;
}

static int take_one(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                    struct ip_datagram *datagram) {
  struct ip_messages *messages = socket->messages;
  bool together = what == IP_TAKE_MESSAGE && messages != NULL && messages->offload;
  if (!goes_through_stage(messages, together))
    return take_directly(socket, data, size, flags, what, datagram);
  int error = messages->has_staged ? 0 : fill_stage(socket);
  if (error == 0) hand_out(socket, data, size, flags, what, together, datagram);
  return error;
}

/* Datagrams that were queued before `connect` are still delivered after it, whoever sent them: they are
   dropped here until the queue has once been empty; from then on the kernel filters. */
static int take_from_peer(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                          struct ip_datagram *datagram) {
  for (;;) {
    int error = take_one(socket, data, size, flags, what, datagram);
    if (error == EAGAIN) socket->filtering = false;
    if (error != 0 || ip_endpoint_equal(&datagram->source, &socket->connection->remote)) return error;
    if (!(flags & MSG_PEEK)) continue;
    struct ip_datagram dropped;
    error = take_one(socket, NULL, 0, 0, IP_TAKE_BYTES, &dropped);
    if (error != 0) return error;
  }
}

static int set_joining(struct ip_socket *socket, bool on) {
#ifdef UDP_GRO
  int error = ip_datagram_set_option(socket->readiness.fd, IPPROTO_UDP, UDP_GRO, on);
  if (error == 0) socket->messages->joins = on;
  return error == ENOPROTOOPT ? ENOTSUP : error;
#else
  (void)socket, (void)on;
  return ENOTSUP;
#endif
}

static bool is_readable(const struct ip_socket *socket) {
  struct pollfd descriptor = {.fd = socket->readiness.fd, .events = POLLIN};
  return poll(&descriptor, 1, 0) != 0 && (descriptor.revents & POLLIN) != 0;
}

/* What the system has joined stays joined, and with the option off it hands that out as one without telling. So it is
   told to stop when the socket is empty; if something has come meanwhile, the option is needed for that still. */
static void stop_joining(struct ip_socket *socket) {
  if (set_joining(socket, false) == 0 && is_readable(socket)) (void)set_joining(socket, true);
}

static bool is_to_stop(const struct ip_messages *messages) {
  return messages->joins && !messages->offload && !messages->coalesce;
}

/* Without errors of the past. */
static int take_or_empty(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                         struct ip_datagram *datagram) {
  int error = socket->filtering ? take_from_peer(socket, data, size, flags, what, datagram)
                                : take_one(socket, data, size, flags, what, datagram);
  if (error != EAGAIN || socket->messages == NULL) return error;
  if (is_to_stop(socket->messages)) stop_joining(socket);
  return error;
}

int ip_intake_take(struct ip_socket *socket, void *data, size_t size, int flags, enum ip_take what,
                   struct ip_datagram *datagram) {
  struct ip_messages *messages = socket->messages;
  if (messages != NULL && messages->report_count != 0) return ip_errors_next_report(socket);
  if (messages != NULL && messages->has_staged && !socket->filtering) {
    hand_out(socket, data, size, flags, what, what == IP_TAKE_MESSAGE && messages->offload, datagram);
    return 0;
  }
  int error = take_or_empty(socket, data, size, flags, what, datagram);
  if (error == 0 || error == EAGAIN) return error;
  ip_errors_drain(socket);
  if (messages != NULL && messages->report_count != 0) return ip_errors_next_report(socket);
  return ip_errors_note(socket, error);
}

/* --- what io_control and the option ask --- */

int ip_socket_drop_strangers(struct ip_socket *socket) {
  if (!socket->filtering) return 0;
  struct ip_datagram datagram;
  int error = take_or_empty(socket, NULL, 0, MSG_PEEK, IP_TAKE_BYTES, &datagram);
  return error == EAGAIN ? 0 : error;
}

int ip_intake_bytes_readable(struct ip_socket *socket, int *bytes) {
  struct ip_messages *messages = socket->messages;
  int error = ip_socket_drop_strangers(socket);
  if (error == 0 && messages != NULL && !messages->has_staged && goes_through_stage(messages, false))
    error = fill_stage(socket);
  if (error != 0 && error != EAGAIN) {
    if (messages == NULL || !messages->errors) return error;
    ip_errors_drain(socket); /* for the next receive */
  }
  if (messages == NULL || !messages->has_staged)
    return ip_datagram_bytes_readable(socket->readiness.fd, bytes);
  *bytes = (int)ip_stage_next_length(messages->stage);
  return 0;
}

/* A stage of at least so many slots; 0 or ENOMEM. */
static int prepare_stage(struct ip_messages *messages, size_t slots) {
  struct ip_stage *former = messages->stage;
  if (former != NULL && former->slots >= slots) return 0;
  struct ip_stage *stage = ip_stage_new(slots);
  if (stage == NULL) return ENOMEM;
  if (former != NULL) ip_stage_take_over(stage, former);
  ip_stage_free(former);
  messages->stage = stage;
  return 0;
}

void ip_intake_stop_joining(struct ip_socket *socket) {
  struct ip_messages *messages = socket->messages;
  if (messages == NULL || messages->has_staged || !is_to_stop(messages)) return;
  if (!is_readable(socket)) stop_joining(socket);
}

int ip_intake_set_offload(struct ip_socket *socket, bool on) {
  struct ip_messages *messages = socket->messages;
  if (!on) {
    messages->offload = false;
    ip_intake_stop_joining(socket);
    return 0;
  }
  int error = prepare_stage(messages, 1);
  if (error == 0) error = set_joining(socket, true);
  if (error == 0) messages->offload = true;
  return error;
}

/* What the system cannot join is read several at a time all the same. */
int ip_intake_set_coalesce(struct ip_socket *socket, bool on) {
  struct ip_messages *messages = socket->messages;
  if (!on) {
    messages->coalesce = false;
    ip_intake_stop_joining(socket);
    return 0;
  }
#ifdef __linux__
  int error = prepare_stage(messages, IP_STAGE_MOST);
  if (error == 0) error = set_joining(socket, true);
  if (error != 0 && error != ENOTSUP) return error;
#endif
  messages->coalesce = true;
  return 0;
}

/* 0 where the platform has no such option. */
static int option_of(const struct ip_socket *socket, int level, int number) {
  int value;
  return ip_datagram_get_option(socket->readiness.fd, level, number, &value) == 0 ? value : 0;
}

int ip_intake_adopt(struct ip_socket *socket) {
#if defined(UDP_GRO) && defined(UDP_SEGMENT) && defined(SO_RXQ_OVFL)
  bool errors = socket->is_v6 ? option_of(socket, IPPROTO_IPV6, IPV6_RECVERR) != 0
                              : option_of(socket, IPPROTO_IP, IP_RECVERR) != 0;
  bool counts = option_of(socket, SOL_SOCKET, SO_RXQ_OVFL) != 0;
  bool joins = option_of(socket, IPPROTO_UDP, UDP_GRO) != 0;
  int segment_size = option_of(socket, IPPROTO_UDP, UDP_SEGMENT);
  if (!errors && !counts && !joins && segment_size == 0) return 0;
  struct ip_messages *messages = ip_messages_of(socket);
  if (messages == NULL) return ENOMEM;
  messages->errors = errors;
  messages->counts = counts;
  messages->segment_size = segment_size;
  return joins ? ip_intake_set_offload(socket, true) : 0;
#else
  (void)socket;
  return 0;
#endif
}
