/* udp_gather.c: sends that wait for the end of the loop's turn, to leave together; flush.

   A gather belongs to its socket. It keeps datagrams in the order of the sends, as runs: datagrams of one size to one
   peer stand behind each other and leave as one message that the system cuts into segments (UDP_SEGMENT in udp(7)),
   and all messages leave in one call. Where a path refuses to cut, they leave one by one.

   What a send would be told at once it is told here, too: what can be foretold to fail, and what has more to it than
   bytes and a peer, goes to the system directly. An error that the system names later is kept for the next send. */
#include "udp/message.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 65536, MOST_RUNS = 64, MOST_MESSAGES = 64 };

/* `count` datagrams of `segment` bytes, the last one perhaps shorter, from `at` on. */
struct run {
  struct ip_endpoint to; /* length 0: the connected peer */
  size_t at, bytes, segment;
  size_t count;
  bool singly;   /* the path has refused to cut this one */
  bool on_trial; /* likewise, and it is not known yet whether that was the reason */
};

struct ip_gather {
  struct ip_queue link; /* in runtime->gathered */
  struct ip_socket *socket;
  size_t first, end;    /* the runs */
  size_t used;          /* bytes of `room` */
  size_t count, bytes;  /* datagrams kept, and their bytes */
  size_t refused;       /* size of the smallest segment that a path was too small for */
  int error, error_mtu; /* for the next send; 0: none */
  bool v6_only;
  bool has_port; /* the system has chosen one */
  struct run runs[MOST_RUNS];
  unsigned char room[ROOM];
};

static struct ip_gather *gather_of(const struct ip_socket *socket) {
  return socket->messages != NULL ? socket->messages->gather : NULL;
}

/* --- the errors of what was kept --- */

/* The first one stays. */
static void note_error(struct ip_socket *socket, struct ip_gather *gather, int error) {
  if (gather->error != 0) return;
  gather->error = ip_errors_note(socket, error);
  gather->error_mtu = error == EMSGSIZE ? socket->readiness.runtime->error_mtu : 0;
}

/* The error that is kept, or 0. Its mtu is noted for ip_errors_note. */
static int take_error(struct ip_socket *socket, struct ip_gather *gather) {
  int error = gather->error;
  gather->error = 0;
  if (error != 0) socket->messages->local_mtu = gather->error_mtu;
  return error;
}

/* --- keeping --- */

static bool takes_segment(const struct run *run, size_t size) {
  bool complete = run->bytes == run->count * run->segment;
  return complete && size != 0 && size <= run->segment && run->count < IP_MOST_SEGMENTS &&
         run->bytes + size <= IP_LARGEST_SEGMENTED;
}

static bool is_for(const struct run *run, const struct ip_endpoint *to) {
  if (to == NULL || run->to.length == 0) return to == NULL && run->to.length == 0;
  return ip_endpoint_equal(&run->to, to);
}

/* The run that the datagram belongs to: the last one or a new one; NULL where there is no room. */
static struct run *find_run(struct ip_gather *gather, const struct ip_endpoint *to, size_t size) {
  if (size > ROOM - gather->used) return NULL;
  struct run *last = gather->end > gather->first ? &gather->runs[gather->end - 1] : NULL;
  if (last != NULL && takes_segment(last, size) && is_for(last, to)) return last;
  if (gather->end == MOST_RUNS) return NULL;
  struct run *run = &gather->runs[gather->end++];
  run->at = gather->used;
  run->bytes = run->count = 0;
  run->segment = size;
  run->singly = run->on_trial = false;
  if (to != NULL)
    run->to = *to;
  else
    run->to.length = 0;
  return run;
}

static void copy_parts(unsigned char *to, const struct ip_data *data) {
  for (size_t i = 0; i < data->count; i++) {
    if (data->parts[i].iov_len != 0) memcpy(to, data->parts[i].iov_base, data->parts[i].iov_len);
    to += data->parts[i].iov_len;
  }
}

static bool keep(struct ip_socket *socket, struct ip_gather *gather, const struct ip_send_call *call,
                 size_t size) {
  struct run *run = find_run(gather, call->to, size);
  if (run == NULL) return false;
  copy_parts(gather->room + gather->used, &call->data);
  run->bytes += size;
  run->count++;
  gather->used += size;
  gather->bytes += size;
  if (gather->count++ == 0) ip_runtime_gather(socket->readiness.runtime, &gather->link);
  return true;
}

/* --- handing over --- */

/* What one message takes from the runs. */
struct message {
  struct run *run;
  size_t at, bytes, count;
};

static bool leaves_whole(struct ip_socket *socket, const struct ip_gather *gather, const struct run *run) {
  if (run->count == 1) return true;
  return !run->singly && run->segment < gather->refused && ip_split_can_cut(socket);
}

/* The oldest datagrams as messages; their number. */
static size_t plan(struct ip_socket *socket, struct ip_gather *gather, struct message *messages) {
  size_t planned = 0;
  for (size_t i = gather->first; i < gather->end; i++) {
    struct run *run = &gather->runs[i];
    if (leaves_whole(socket, gather, run)) {
      messages[planned++] = (struct message){run, run->at, run->bytes, run->count};
      if (planned == MOST_MESSAGES) return planned;
      continue;
    }
    for (size_t done = 0; done < run->bytes; done += run->segment) {
      size_t left = run->bytes - done;
      size_t bytes = left < run->segment ? left : run->segment;
      messages[planned++] = (struct message){run, run->at + done, bytes, 1};
      if (planned == MOST_MESSAGES) return planned;
    }
  }
  return planned;
}

/* One datagram: the plain call is the cheapest. */
static int hand_over_one(const struct ip_socket *socket, struct ip_gather *gather,
                         const struct message *message) {
  size_t sent;
  struct iovec part = {.iov_base = gather->room + message->at, .iov_len = message->bytes};
  const struct ip_endpoint *to = message->run->to.length != 0 ? &message->run->to : NULL;
  int error = ip_datagram_send(socket->readiness.fd, &part, 1, to, 0, &sent);
  return error != 0 ? -error : 1;
}

#ifdef __linux__

/* Several messages, or one of several datagrams, in one call. */
static int hand_over_many(const struct ip_socket *socket, struct ip_gather *gather,
                          const struct message *messages, size_t count) {
  struct mmsghdr headers[MOST_MESSAGES];
  struct iovec parts[MOST_MESSAGES];
  union ip_segment_control controls[MOST_MESSAGES];
  for (size_t i = 0; i < count; i++) {
    struct ip_endpoint *to = &messages[i].run->to;
    parts[i] = (struct iovec){.iov_base = gather->room + messages[i].at, .iov_len = messages[i].bytes};
    headers[i] = (struct mmsghdr){.msg_hdr = {.msg_name = to->length != 0 ? &to->name : NULL,
                                              .msg_namelen = to->length,
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1}};
    if (messages[i].count > 1)
      ip_control_set_segment_size(&headers[i].msg_hdr, &controls[i], messages[i].run->segment);
  }
  int sent;
  do
    sent = count == 1 ? sendmsg(socket->readiness.fd, &headers[0].msg_hdr, MSG_NOSIGNAL) < 0 ? -1 : 1
                      : sendmmsg(socket->readiness.fd, headers, (unsigned)count, MSG_NOSIGNAL);
  while (IP_UNLIKELY(sent < 0) && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

#else

static int hand_over_many(const struct ip_socket *socket, struct ip_gather *gather,
                          const struct message *messages, size_t count) {
  (void)count;
  return hand_over_one(socket, gather, &messages[0]);
}

#endif

/* The number of messages that the system took, or a negative errno value. */
static int hand_over(const struct ip_socket *socket, struct ip_gather *gather, const struct message *messages,
                     size_t count) {
  if (count == 1 && messages[0].count == 1) return hand_over_one(socket, gather, &messages[0]);
  return hand_over_many(socket, gather, messages, count);
}

/* The oldest message is gone. */
static void forget(struct ip_gather *gather, const struct message *message) {
  struct run *run = message->run;
  run->at += message->bytes;
  run->bytes -= message->bytes;
  run->count -= message->count;
  gather->count -= message->count;
  gather->bytes -= message->bytes;
  if (run->count == 0) gather->first++;
  if (gather->count == 0) gather->first = gather->end = gather->used = 0;
}

/* Sent: where a run has left singly because it was refused as a whole, its size was the reason. */
static void forget_sent(struct ip_gather *gather, const struct message *messages, size_t count) {
  for (size_t i = 0; i < count; i++) {
    struct run *run = messages[i].run;
    if (run->on_trial && run->segment < gather->refused) gather->refused = run->segment;
    run->on_trial = false;
    forget(gather, &messages[i]);
  }
}

/* --- what the system refuses --- */

/* Several datagrams in one message: the path cannot cut (EIO), a segment is larger than what it carries (EMSGSIZE; EINVAL
   before Linux 6.14), or something else that each datagram may be told by itself. */
static void refuse_whole(struct ip_socket *socket, struct run *run, int error) {
  run->singly = true;
  run->on_trial = error == EINVAL || error == EMSGSIZE;
  if (error == EIO) socket->sends_singly = true;
}

/* What one flush knows of the datagram that does not leave. */
struct trouble {
  int error; /* that the last attempt met; 0: none */
  int tries;
};

/* An error of an older datagram stands in the way of the next one, whomever that is for, once. With receive_errors it is
   for a receive (udp_error_queue.c), else for the next send. */
static void note_older(struct ip_socket *socket, struct ip_gather *gather, const struct trouble *trouble) {
  if (trouble->error != 0 && !socket->messages->errors) note_error(socket, gather, trouble->error);
}

/* True: the datagram has to be sent again; false: the error is its own. */
static bool is_older(struct ip_socket *socket, struct ip_gather *gather, struct trouble *trouble, int error) {
  bool drained = ip_errors_drain(socket) != 0;
  if (trouble->tries++ == IP_SEND_RETRIES) return false;
  if (!drained && error == trouble->error) return false;
  if (!drained && error == EMSGSIZE && socket->messages->errors) return false; /* it would be in the queue */
  note_older(socket, gather, trouble);
  trouble->error = error;
  return true;
}

static void meet(struct ip_socket *socket, struct ip_gather *gather, const struct message *message,
                 struct trouble *trouble, int error) {
  bool of_whole = error == EIO || error == EINVAL || error == ENOBUFS; /* no ICMP error has these names */
  if (message->count > 1 && of_whole) {
    refuse_whole(socket, message->run, error);
    return;
  }
  if (is_older(socket, gather, trouble, error)) return;
  *trouble = (struct trouble){.error = 0};
  if (message->count > 1) {
    refuse_whole(socket, message->run, error);
    return;
  }
  note_error(socket, gather, error);
  message->run->on_trial = false;
  forget(gather, message);
}

/* --- flushing --- */

/* False: the system takes no more now. */
static bool send_all(struct ip_socket *socket, struct ip_gather *gather) {
  struct trouble trouble = {.error = 0};
  struct message messages[MOST_MESSAGES];
  while (gather->count != 0) {
    if (trouble.tries == 0) socket->messages->local_mtu = 0;
    size_t planned = plan(socket, gather, messages);
    int sent = hand_over(socket, gather, messages, planned);
    if (sent == -EAGAIN) {
      note_older(socket, gather, &trouble);
      return false;
    }
    if (sent < 0) {
      meet(socket, gather, &messages[0], &trouble, -sent);
      continue;
    }
    note_older(socket, gather, &trouble);
    trouble = (struct trouble){.error = 0};
    forget_sent(gather, messages, (size_t)sent);
  }
  return true;
}

/* Makes room behind what could not leave. */
static void close_up(struct ip_gather *gather) {
  size_t gap = gather->runs[gather->first].at;
  memmove(gather->room, gather->room + gap, gather->used - gap);
  memmove(gather->runs, gather->runs + gather->first, (gather->end - gather->first) * sizeof gather->runs[0]);
  gather->end -= gather->first;
  gather->first = 0;
  gather->used -= gap;
  for (size_t i = 0; i < gather->end; i++)
    gather->runs[i].at -= gap;
}

bool ip_gather_flush(struct ip_socket *socket) {
  struct ip_gather *gather = gather_of(socket);
  if (gather == NULL || gather->count == 0) return true;
  ip_queue_remove(&gather->link);
  if (send_all(socket, gather)) {
    (void)ip_readiness_set_writes(&socket->readiness, false); /* to false it cannot fail */
    return true;
  }
  close_up(gather);
  int error = ip_readiness_set_writes(&socket->readiness, true);
  if (error != 0) { /* the next turn tries again */
    note_error(socket, gather, error);
    ip_runtime_gather(socket->readiness.runtime, &gather->link);
  }
  return false;
}

/* One that cannot be waited for comes back to the queue: it is for the next turn. */
void ip_gather_flush_all(struct ip_runtime *runtime) {
  struct ip_queue due;
  ip_queue_init(&due);
  ip_queue_move(&due, &runtime->gathered);
  for (struct ip_queue *link = ip_queue_pop(&due); link != NULL; link = ip_queue_pop(&due))
    ip_gather_flush(ip_container_of(link, struct ip_gather, link)->socket);
}

void ip_gather_write_ready(struct ip_readiness *readiness) {
  ip_gather_flush(ip_container_of(readiness, struct ip_socket, readiness));
}

void ip_gather_end(struct ip_socket *socket) {
  struct ip_gather *gather = gather_of(socket);
  if (gather == NULL || gather->count == 0) return;
  (void)send_all(socket, gather);
  gather->first = gather->end = gather->used = gather->count = gather->bytes = 0;
  ip_queue_remove(&gather->link);
  (void)ip_readiness_set_writes(&socket->readiness, false); /* to false it cannot fail */
}

void ip_gather_leave_peer(struct ip_socket *socket) {
  struct ip_gather *gather = gather_of(socket);
  if (gather == NULL) return;
  gather->has_port = false; /* the system may take it back */
  gather->refused = SIZE_MAX;
  if (ip_gather_flush(socket) || socket->connection == NULL) return;
  for (size_t i = gather->first; i < gather->end; i++)
    if (gather->runs[i].to.length == 0) gather->runs[i].to = socket->connection->remote;
}

size_t ip_gather_count(const struct ip_socket *socket, size_t *bytes) {
  const struct ip_gather *gather = gather_of(socket);
  if (gather == NULL) return 0;
  *bytes += gather->bytes;
  return gather->count;
}

/* --- a send --- */

static size_t size_of(const struct ip_data *data) {
  size_t total = 0;
  for (size_t i = 0; i < data->count; i++)
    total += data->parts[i].iov_len;
  return total;
}

static bool is_limited_broadcast(const struct ip_endpoint *to) {
  if (ip_endpoint_family(to) == AF_INET) return to->name.v4.sin_addr.s_addr == htonl(INADDR_BROADCAST);
  static const uint8_t ones[4] = {0xff, 0xff, 0xff, 0xff};
  return IN6_IS_ADDR_V4MAPPED(&to->name.v6.sin6_addr) &&
         memcmp(&to->name.v6.sin6_addr.s6_addr[12], ones, sizeof ones) == 0;
}

/* Nothing that the system would say at once is in the way of this one. */
static bool can_wait(const struct ip_socket *socket, const struct ip_gather *gather,
                     const struct ip_send_call *call, size_t size) {
  const struct ip_messages *messages = socket->messages;
  if (!messages->coalesce || call->flags != 0 || call->control.items != 0 || messages->segment_size != 0)
    return false;
  if (!socket->bound && socket->connection == NULL && !gather->has_port)
    return false; /* the port is to be seen */
  const struct ip_endpoint *to = call->to;
  bool v4_path = ip_socket_is_v4_path(socket, to != NULL ? to : &socket->connection->remote);
  if (size > (v4_path ? IP_LARGEST_V4 : IP_LARGEST_V6)) return false;
  if (to == NULL) return true;
  if (ip_endpoint_family(to) != ip_socket_family(socket) || ip_endpoint_port(to) == 0) return false;
  return !(socket->is_v6 && v4_path && gather->v6_only) && !is_limited_broadcast(to);
}

static int send_directly(struct ip_socket *socket, struct ip_gather *gather, struct ip_send_call *call,
                         size_t *sent) {
  if (!ip_gather_flush(socket)) return EAGAIN;
  if (gather->error != 0) return take_error(socket, gather);
  int error = ip_split_send_now(socket, call, sent);
  if (error == 0) gather->has_port = true;
  return error;
}

int ip_gather_send(struct ip_socket *socket, struct ip_send_call *call, size_t *sent) {
  struct ip_gather *gather = socket->messages->gather;
  if (IP_UNLIKELY(gather->error != 0)) return take_error(socket, gather);
  size_t size = size_of(&call->data);
  if (IP_UNLIKELY(!can_wait(socket, gather, call, size))) return send_directly(socket, gather, call, sent);
  *sent = size;
  if (IP_LIKELY(keep(socket, gather, call, size))) return 0;
  ip_gather_flush(socket);
  if (gather->error != 0) return take_error(socket, gather);
  return keep(socket, gather, call, size) ? 0 : EAGAIN;
}

/* --- life --- */

void ip_gather_look_again(struct ip_socket *socket) {
  struct ip_gather *gather = gather_of(socket);
  int v6_only = 0;
  if (gather == NULL || !socket->is_v6) return;
  if (ip_datagram_get_option(socket->readiness.fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only) == 0)
    gather->v6_only = v6_only != 0;
}

int ip_gather_set(struct ip_socket *socket, bool on) {
  struct ip_messages *messages = socket->messages;
  if (!on) {
    ip_gather_flush(socket); /* what cannot leave now still leaves in order: the gather stays */
    return 0;
  }
  if (messages->gather != NULL) return 0;
  struct ip_gather *gather = malloc(sizeof *gather);
  if (gather == NULL) return ENOMEM;
  memset(gather, 0, offsetof(struct ip_gather, runs));
  ip_queue_init(&gather->link);
  gather->socket = socket;
  gather->refused = SIZE_MAX;
  messages->gather = gather;
  ip_gather_look_again(socket);
  return 0;
}

void ip_gather_free(struct ip_gather *gather) {
  if (gather == NULL) return;
  ip_queue_remove(&gather->link);
  free(gather);
}

/* --- flush --- */

static bool attempt_flush(struct ip_operation *operation) {
  struct ip_socket *socket = operation->object;
  struct ip_gather *gather = gather_of(socket);
  if (!ip_gather_flush(socket)) return false;
  operation->status = gather != NULL ? ip_errors_note(socket, take_error(socket, gather)) : 0;
  return true;
}

static int push_nothing(lua_State *L, const struct ip_outcome *outcome) {
  (void)L, (void)outcome;
  return 0;
}

static const struct ip_operation_kind flush_kind = {.name = "flush",
                                                    .attempt = attempt_flush,
                                                    .try_last = ip_transfer_try_last_send,
                                                    .push_results = push_nothing,
                                                    .carries_nothing = true};

/* sock:flush(): hands what `coalesce` keeps to the system now; without that option there is nothing. Raises the error of a
   datagram sent earlier, EBADF, ETIMEDOUT (send_timeout), ECANCELED. Suspends: yes, while the system's buffer is full. */
int ip_socket_flush(lua_State *L) {
  struct ip_socket_box *box = ip_socket_check_open(L, flush_kind.name);
  struct ip_runtime *runtime = ip_runtime(L);
  ip_operation_check(L, runtime, &flush_kind);
  struct ip_socket *socket = box->socket;
  struct ip_gather *gather = gather_of(socket);
  bool done = ip_gather_flush(socket);
  int error = gather != NULL ? take_error(socket, gather) : 0;
  if (error != 0) ip_transfer_raise(L, runtime, ip_errors_note(socket, error), flush_kind.name);
  if (done) return 0;
  struct ip_operation *operation = ip_operation_acquire(L, runtime, &flush_kind, box->send_timeout, false);
  socket = ip_transfer_tie(L, operation, box);
  operation->size = 0;
  ip_readiness_wait_first(&socket->readiness, IP_SIDE_WRITE, operation);
  return ip_operation_suspend(L, operation);
}
