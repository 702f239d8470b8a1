/* peers.c: the peers of one socket: reads it, and brings each datagram to the session of its sender.

   Owns the socket, the sessions that are open, and their datagrams. A session that is over belongs to its
   box, which keeps it until its last datagram has been received. Nothing here raises. What reads may call the
   program's accept function, which may do anything except suspend: close a session, or the listener. So the
   memory of the peers is pinned meanwhile, and what was looked at before is looked at again. */
#include "udp/peers.h"

#include "base/util.h"
#include "udp/error_queue.h"
#include "udp/receive_path.h"
#include "udp/send.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  READ_MOST = 128, /* datagrams of others that one call reads before it waits */
  PROBE_EVERY = 32 /* one in so many receives that may wait without a try makes a try */
};

static struct ip_socket *socket_of(const struct ip_peers *peers) {
  return peers->socket.socket;
}

static struct ip_channel *channel_of(const struct ip_peers *peers) {
  return &socket_of(peers)->channel;
}

static struct ip_runtime *runtime_of(const struct ip_peers *peers) {
  return peers->point.wait.runtime;
}

static struct ip_session *session_of(struct ip_queue *link) {
  return ip_container_of(link, struct ip_session, link);
}

/* --- points --- */

static bool has_datagram(const struct ip_wait_point *point) {
  const struct ip_session *session =
      ip_container_of((const struct ip_peer_point *)point, const struct ip_session, point);
  return session->datagrams.count != 0 || session->failure.code != 0;
}

static bool has_session(const struct ip_wait_point *point) {
  const struct ip_peers *peers = ((const struct ip_peer_point *)point)->peers;
  return !ip_queue_is_empty(&peers->pending) || peers->raises;
}

/* Before a session ends, the socket is read once more: libuv may run a timer before it polls. */
static void on_silence(struct ip_runtime *runtime, struct ip_timer *timer) {
  (void)runtime;
  struct ip_peers *peers = timer->owner;
  peers->idle_due = true;
  ip_watcher_attempt_soon(&socket_of(peers)->watcher, IP_SIDE_READ);
}

/* The timer runs only while somebody waits: otherwise the next call finds out that a session is over. */
static void start_timer(struct ip_peers *peers) {
  if (peers->timer == NULL || peers->timer->fire != NULL || ip_queue_is_empty(&peers->accepted)) return;
  ip_deadline deadline = session_of(peers->accepted.next)->active + peers->idle_timeout;
  ip_timer_start(runtime_of(peers), peers->timer, deadline, on_silence, peers);
}

/* Datagrams that were read ahead cause no event. */
static void wake_reader(struct ip_peers *peers) {
  if (peers->hungry != 0 && ip_receive_path_has_read_ahead(channel_of(peers)))
    ip_watcher_attempt_soon(&socket_of(peers)->watcher, IP_SIDE_READ);
}

/* Counts the points that need the reader, and lets it read while there are any. */
static void count_hungry(struct ip_wait_point *wait) {
  struct ip_peer_point *point = (struct ip_peer_point *)wait;
  struct ip_peers *peers = point->peers;
  bool hungry = ip_wait_point_is_awaited(wait) && !ip_wait_point_is_ready(wait);
  if (hungry == point->hungry) return;
  point->hungry = hungry;
  if (hungry)
    peers->hungry++;
  else
    peers->hungry--;
  if (!ip_peers_is_open(peers)) return;
  ip_watcher_set_reader(&socket_of(peers)->watcher, peers->hungry != 0 ? &peers->reader : NULL);
  if (!hungry) return;
  wake_reader(peers);
  start_timer(peers);
}

static void expire_waiters(struct ip_wait_point *wait) {
  struct ip_peer_point *point = (struct ip_peer_point *)wait;
  if (!ip_queue_is_linked(&point->expiring)) ip_queue_append(&point->peers->expiring, &point->expiring);
  ip_watcher_attempt_soon(&socket_of(point->peers)->watcher, IP_SIDE_READ);
}

static const struct ip_wait_point_type receive_point = {
    .is_ready = has_datagram, .changed = count_hungry, .expire = expire_waiters};
static const struct ip_wait_point_type accept_point = {
    .is_ready = has_session, .changed = count_hungry, .expire = expire_waiters};

static void init_point(struct ip_peer_point *point, struct ip_peers *peers, struct ip_runtime *runtime,
                       const struct ip_wait_point_type *type) {
  ip_wait_point_init(&point->wait, runtime, type);
  point->peers = peers;
  point->hungry = false;
  ip_queue_init(&point->expiring);
}

static void end_point(struct ip_peer_point *point, int code) {
  ip_wait_point_fini(&point->wait, code);
  count_hungry(&point->wait);
  ip_queue_remove(&point->expiring);
  if (point->peers->woken == point) point->peers->woken = NULL;
}

/* There is something new at the point. */
static void wake(struct ip_peer_point *point) {
  ip_wait_point_notify(&point->wait);
  count_hungry(&point->wait);
  point->peers->woken = point;
}

void ip_peers_final_attempt(struct ip_operation *operation) {
  expire_waiters(operation->object);
}

void ip_peers_note_error(struct ip_peers *peers) {
  peers->raises = true;
  wake(&peers->point);
}

void ip_peers_take_error(struct ip_peers *peers) {
  peers->raises = false;
  count_hungry(&peers->point.wait);
}

/* --- the life of a session --- */

static struct ip_session *new_session(struct ip_peers *peers, const struct ip_endpoint *endpoint) {
  struct ip_session *session = calloc(1, sizeof *session);
  if (session == NULL) return NULL;
  session->entry.endpoint = *endpoint;
  init_point(&session->point, peers, runtime_of(peers), &receive_point);
  ip_session_table_add(&peers->table, &session->entry);
  ip_queue_append(&peers->pending, &session->link);
  return session;
}

/* What the peer sends from now on begins a new session. */
static void end_session(struct ip_session *session, int code) {
  struct ip_peers *peers = session->point.peers;
  struct ip_session_box *box = session->box;
  ip_session_table_remove(&peers->table, &session->entry);
  ip_queue_remove(&session->link);
  end_point(&session->point, code);
  session->point.peers = NULL;
  if (box == NULL) return;
  ip_send_fail_owner(&socket_of(peers)->watcher, box, code);
  box->socket.socket = NULL;
  box->socket.generation++;
  box->dropped = session->dropped;
}

static void free_session(struct ip_session *session, struct ip_datagram_pool *pool) {
  ip_datagram_queue_clear(&session->datagrams, pool);
  if (session->box != NULL) session->box->session = NULL;
  free(session);
}

void ip_session_close(struct ip_session *session) {
  struct ip_peers *peers = session->point.peers;
  if (peers != NULL) end_session(session, ECANCELED);
  free_session(session, peers != NULL ? &peers->pool : NULL);
}

/* The box keeps the session while it has datagrams. */
static void end_idle(struct ip_session *session) {
  struct ip_datagram_pool *pool = &session->point.peers->pool;
  end_session(session, ETIMEDOUT);
  session->box->idle = true;
  if (session->datagrams.count == 0) free_session(session, pool);
}

struct ip_session *ip_peers_accept(struct ip_peers *peers, struct ip_session_box *box) {
  struct ip_session *session = session_of(ip_queue_pop(&peers->pending));
  ip_queue_append(&peers->accepted, &session->link);
  session->box = box;
  box->session = session;
  box->remote = session->entry.endpoint;
  box->socket = (struct ip_socket_box){.socket = socket_of(peers),
                                       .receive_timeout = peers->socket.receive_timeout,
                                       .send_timeout = peers->socket.send_timeout};
  ip_session_touch(session);
  count_hungry(&peers->point.wait);
  return session;
}

/* --- silence --- */

/* Does a call wait for the peer, or look whether something has come from it? */
static bool is_awaited(const struct ip_session *session) {
  return session->looks != 0 || ip_wait_point_is_awaited(&session->point.wait);
}

static bool is_overdue(const struct ip_session *session, uint64_t now) {
  const struct ip_peers *peers = session->point.peers;
  return peers->timer != NULL && session->box != NULL && session->active + peers->idle_timeout <= now;
}

void ip_session_touch(struct ip_session *session) {
  struct ip_peers *peers = session->point.peers;
  if (peers->timer == NULL || session->box == NULL) return;
  session->active = uv_hrtime();
  ip_queue_remove(&session->link);
  ip_queue_append(&peers->accepted, &session->link);
}

void ip_session_expire(struct ip_session *session) {
  const struct ip_peers *peers = session->point.peers;
  if (peers == NULL || peers->timer == NULL || is_awaited(session)) return;
  if (is_overdue(session, uv_hrtime())) end_idle(session);
}

/* Ends sessions that have been silent for too long; without `awaited`, only those in which no call waits. */
static void end_overdue(struct ip_peers *peers, bool awaited) {
  if (peers->timer == NULL) return;
  uint64_t now = uv_hrtime();
  struct ip_queue *link = peers->accepted.next;
  while (link != &peers->accepted && is_overdue(session_of(link), now)) {
    struct ip_session *session = session_of(link);
    link = link->next;
    if (awaited || !is_awaited(session)) end_idle(session);
  }
}

/* --- bringing a datagram to its session --- */

static void deliver(struct ip_peers *peers, struct ip_session *session, const void *data, size_t length) {
  if (session->datagrams.count >= peers->session_capacity ||
      !ip_datagram_queue_push(&session->datagrams, &peers->pool, data, length)) {
    session->dropped++;
    return;
  }
  wake(&session->point);
}

/* Notes that the peer has sent something, and to which address. No answer leaves from a group or a
   broadcast. */
static void note_received(const struct ip_peers *peers, struct ip_session *session,
                          const struct ip_control *control) {
  ip_session_touch(session);
  if (!peers->answers_from) return;
  session->answer.items = 0;
  if (!(control->items & IP_CONTROL_LOCAL)) return;
  session->answer.items = IP_CONTROL_ADDRESS;
  session->answer.address = control->local;
  if (!ip_address_is_link_local(&control->local)) return;
  session->answer.items |= control->items & IP_CONTROL_INTERFACE;
  session->answer.interface_index = control->interface_index;
}

static bool is_full(struct ip_peers *peers) {
  if (peers->table.count < peers->max_sessions) return false;
  end_overdue(peers, false);
  return peers->table.count >= peers->max_sessions;
}

static struct ip_session *find(const struct ip_peers *peers, const struct ip_endpoint *endpoint) {
  return (struct ip_session *)ip_session_table_find(&peers->table, endpoint);
}

/* Begins the session of a new peer with its first datagram. */
static void begin_session(struct ip_peers *peers, const struct ip_received *received, const void *data) {
  const struct ip_datagram *datagram = &received->datagram;
  struct ip_session *session = is_full(peers) ? NULL : new_session(peers, &datagram->source);
  if (session == NULL) {
    peers->dropped++;
    return;
  }
  note_received(peers, session, &received->control);
  deliver(peers, session, data, datagram->length);
  wake(&peers->point);
}

/* The program's answer may take long, and change everything: the peer may have a session afterwards. */
static void ask(lua_State *L, struct ip_peers *peers, const struct ip_received *received, const void *data) {
  const struct ip_datagram *datagram = &received->datagram;
  if (is_full(peers)) {
    peers->dropped++;
    return;
  }
  data = peers->ask(L, peers, &datagram->source, data, datagram->length);
  if (data == NULL) return;
  if (ip_peers_is_open(peers)) {
    struct ip_session *session = find(peers, &datagram->source);
    if (session != NULL)
      deliver(peers, session, data, datagram->length);
    else
      begin_session(peers, received, data);
  }
  lua_pop(L, 1);
}

/* Returns the session of a datagram, or NULL. A session that is over by now, and that no call awaits, ends:
   the datagram begins a new one. */
static struct ip_session *find_live(struct ip_peers *peers, const struct ip_endpoint *source) {
  struct ip_session *session = find(peers, source);
  if (peers->timer == NULL || session == NULL) return session;
  ip_session_expire(session);
  return find(peers, source);
}

/* --- errors that the network reports --- */

/* Brings each error to the session of the peer that it concerns. The listener is the only user of the error
   queue, so the reports, which name no peer, are not needed. */
static void deliver_errors(struct ip_peers *peers) {
  struct ip_channel *channel = channel_of(peers);
  struct ip_queued_error *error;
  while ((error = ip_error_queue_pop(channel->errors)) != NULL) {
    struct ip_session *session = find(peers, &error->destination);
    if (session != NULL && error->what.origin != IP_ORIGIN_LOCAL) {
      session->failure = (struct ip_failure){.code = error->what.error, .mtu = error->what.mtu};
      wake(&session->point);
    }
    free(error);
  }
  while (ip_error_queue_has_report(channel))
    (void)ip_error_queue_pop_report(channel);
}

static bool has_errors(const struct ip_channel *channel) {
  return channel->errors != NULL && channel->errors->first != NULL;
}

/* Receives a datagram into the scratch buffer; EAGAIN: there is none. */
static struct ip_failure receive(struct ip_peers *peers, void *scratch, struct ip_received *received) {
  struct ip_channel *channel = channel_of(peers);
  struct ip_receive call = {.data = scratch,
                            .size = IP_SCRATCH_SIZE,
                            .wants =
                                peers->answers_from ? IP_WANTS_CONTROL | IP_WANTS_SOURCE : IP_WANTS_SOURCE};
  if (IP_UNLIKELY(has_errors(channel))) deliver_errors(peers);
  struct ip_failure failure = ip_receive_path_attempt(channel, &call, received);
  if (IP_LIKELY(failure.code == 0 || channel->errors == NULL)) return failure;
  ip_error_queue_drain(channel);
  if (!has_errors(channel)) return failure;
  deliver_errors(peers);
  return ip_receive_path_attempt(channel, &call, received);
}

/* --- reading --- */

static void note_empty(struct ip_peers *peers) {
  struct ip_channel *channel = channel_of(peers);
  peers->drained_in = runtime_of(peers)->iteration;
  if (channel->would_block_streak < IP_SKIP_AFTER) channel->would_block_streak++;
}

/* Reads one datagram. `*is_wanted`: it belongs to the session `wanted` (NULL: none), and stays in the scratch
   buffer. */
static struct ip_failure read_one(lua_State *L, struct ip_peers *peers, const struct ip_session *wanted,
                                  struct ip_received *received, bool *is_wanted) {
  void *scratch = ip_runtime_scratch(runtime_of(peers));
  if (scratch == NULL) return ip_failure(ENOMEM);
  struct ip_failure failure = receive(peers, scratch, received);
  if (failure.code == EAGAIN) note_empty(peers);
  if (failure.code != 0) return failure;
  const struct ip_datagram *datagram = &received->datagram;
  if (!ip_receive_path_reads_several(channel_of(peers))) channel_of(peers)->would_block_streak = 0;
  struct ip_session *session = find_live(peers, &datagram->source);
  *is_wanted = session != NULL && session == wanted;
  if (session != NULL) {
    note_received(peers, session, &received->control);
    if (!*is_wanted) deliver(peers, session, scratch, datagram->length);
  } else if (peers->ask != NULL) {
    ask(L, peers, received, scratch);
  } else {
    begin_session(peers, received, scratch);
  }
  return failure;
}

static void free_peers(struct ip_peers *peers) {
  ip_session_table_fini(&peers->table);
  ip_datagram_pool_clear(&peers->pool);
  free(peers);
}

/* Ends a use of the peers that began with `pins++`. */
static void unpin(struct ip_peers *peers) {
  peers->pins--;
  if (ip_peers_is_open(peers))
    wake_reader(peers);
  else if (peers->pins == 0)
    free_peers(peers);
}

/* Has the program ended it: the peers, or the session of the box? */
static bool is_ended(const struct ip_peers *peers, const struct ip_session_box *box) {
  return !ip_peers_is_open(peers) || (box != NULL && box->socket.socket == NULL);
}

struct ip_failure ip_peers_read(lua_State *L, struct ip_peers *peers, struct ip_session_box *box,
                                bool *direct, struct ip_received *received) {
  struct ip_session *session = box != NULL ? box->session : NULL;
  const struct ip_session *wanted = *direct ? session : NULL;
  const struct ip_peer_point *point = session != NULL ? &session->point : &peers->point;
  struct ip_failure failure = ip_failure(0);
  *direct = false;
  peers->pins++;
  if (session != NULL) session->looks++;
  for (int i = 0; i < READ_MOST && failure.code == 0 && !*direct; i++) {
    failure = read_one(L, peers, wanted, received, direct);
    if (is_ended(peers, box))
      failure = ip_failure(EBADF);
    else if (ip_wait_point_is_ready(&point->wait))
      break;
    else if (i == READ_MOST - 1 && failure.code == 0 && !*direct)
      failure = ip_failure(EAGAIN);
  }
  if (box != NULL && box->session != NULL) box->session->looks--;
  unpin(peers);
  return failure;
}

bool ip_peers_look(lua_State *L, struct ip_peers *peers, struct ip_session_box *box) {
  const struct ip_peer_point *point = box != NULL ? &box->session->point : &peers->point;
  if (ip_wait_point_is_ready(&point->wait)) return true;
  bool read_all = peers->drained_in == runtime_of(peers)->iteration;
  if (read_all && !ip_receive_path_has_read_ahead(channel_of(peers))) return false;
  if (L == NULL && peers->ask != NULL) return false;
  struct ip_received received;
  bool direct = false;
  return ip_peers_read(L, peers, box, &direct, &received).code != EAGAIN;
}

bool ip_peers_skips_try(const struct ip_peers *peers, double timeout) {
  const struct ip_runtime *runtime = runtime_of(peers);
  struct ip_channel *channel = channel_of(peers);
  if (timeout == 0 || runtime->scopes_at_once != 0) return false;
  if (ip_receive_path_has_read_ahead(channel) || has_errors(channel)) return false;
  if (peers->drained_in == runtime->iteration) return true;
  if (channel->would_block_streak < IP_SKIP_AFTER) return false;
  if (channel->probe_countdown == 0) channel->probe_countdown = PROBE_EVERY;
  if (--channel->probe_countdown == 0) return false;
  ip_receive_path_note_wait(channel);
  return true;
}

void ip_peers_wait(struct ip_peer_point *point, struct ip_operation *operation, bool yields, bool first) {
  struct ip_peers *peers = point->peers;
  ip_operation_wait_externally(operation);
  ip_wait_point_wait(&point->wait, operation, first);
  if (ip_wait_point_is_ready(&point->wait))
    ip_wait_point_notify(&point->wait);
  else if (yields && operation->is.nonblocking)
    expire_waiters(&point->wait);
  else if (yields)
    ip_watcher_attempt_soon(&socket_of(peers)->watcher, IP_SIDE_READ);
}

/* --- the reader of the event loop --- */

/* Times out what has got its final attempt. */
static void end_expiring(struct ip_peers *peers) {
  for (struct ip_queue *link = ip_queue_pop(&peers->expiring); link != NULL;
       link = ip_queue_pop(&peers->expiring)) {
    struct ip_wait_point *wait = &ip_container_of(link, struct ip_peer_point, expiring)->wait;
    if (ip_wait_point_is_ready(wait))
      ip_wait_point_notify(wait);
    else
      ip_wait_point_time_out(wait);
  }
}

/* The reader could not read, because of `code`; `fruitless`: nor did it before, since the event. */
static void end_reading(struct ip_peers *peers, int code, bool fruitless) {
  if (code != EAGAIN)
    peers->reader.failed(&peers->reader, code);
  else if (fruitless)
    ip_watcher_note_fruitless(&socket_of(peers)->watcher);
}

/* Reads while somebody waits, and resumes each call as soon as its datagram is there. */
static void read_and_serve(lua_State *L, struct ip_peers *peers) {
  const struct ip_runtime *runtime = runtime_of(peers);
  const struct ip_watcher *watcher = &socket_of(peers)->watcher;
  int count = 0;
  while (count < READ_MOST && peers->hungry != 0 && peers->drained_in != runtime->iteration) {
    struct ip_received received;
    bool is_wanted;
    peers->woken = NULL;
    struct ip_failure failure = read_one(L, peers, NULL, &received, &is_wanted);
    if (failure.code != 0) {
      end_reading(peers, failure.code, count == 0);
      return;
    }
    count++;
    if (peers->woken != NULL) ip_wait_point_dispatch(L, &peers->woken->wait);
    if (runtime->main_done || runtime->dispatching != watcher) return;
  }
}

static void serve_readable(lua_State *L, struct ip_reader *reader) {
  struct ip_peers *peers = (struct ip_peers *)reader;
  peers->pins++;
  read_and_serve(L, peers);
  if (ip_peers_is_open(peers)) {
    end_expiring(peers);
    if (peers->idle_due) end_overdue(peers, true);
    peers->idle_due = false;
    if (peers->hungry != 0) start_timer(peers);
  }
  unpin(peers);
}

/* The observers try, and meet the error themselves. */
static void fail_point(struct ip_peer_point *point, int code) {
  ip_wait_point_fail(&point->wait, code);
  ip_wait_point_notify(&point->wait);
  count_hungry(&point->wait);
}

static void fail_all(struct ip_reader *reader, int code) {
  struct ip_peers *peers = (struct ip_peers *)reader;
  fail_point(&peers->point, code);
  for (struct ip_queue *link = peers->accepted.next; link != &peers->accepted; link = link->next)
    fail_point(&session_of(link)->point, code);
}

/* --- the life of the peers --- */

static void close_at_end(struct ip_resource *resource) {
  ip_peers_close(ip_container_of(resource, struct ip_peers, resource));
}

static const struct ip_resource_type peers_type = {.name = "listener", .close = close_at_end};

/* The resource stands before that of the socket, which it closes. */
static void add_resource(struct ip_peers *peers, struct ip_runtime *runtime) {
  struct ip_resource *socket = &socket_of(peers)->watcher.resource;
  ip_runtime_add_resource(runtime, &peers->resource, &peers_type);
  ip_queue_remove(&socket->link);
  ip_queue_append(&runtime->resources, &socket->link);
}

static int init(struct ip_peers *peers, struct ip_runtime *runtime, double idle_timeout) {
  uint64_t keys[IP_SESSION_KEYS];
  int error = -uv_random(NULL, NULL, keys, sizeof keys, 0, NULL);
  if (error == 0) error = ip_session_table_init(&peers->table, keys);
  if (error != 0 || idle_timeout < 0) return error;
  static const double longest = 1e9; /* 31 years: sums of it do not overflow */
  peers->idle_timeout = (ip_deadline)((idle_timeout < longest ? idle_timeout : longest) * 1e9);
  peers->timer = ip_timer_new(runtime);
  return peers->timer == NULL ? ENOMEM : 0;
}

int ip_peers_new(struct ip_socket_box *socket, double idle_timeout, struct ip_peers **peers_made) {
  struct ip_runtime *runtime = socket->socket->watcher.runtime;
  struct ip_peers *peers = calloc(1, sizeof *peers);
  if (peers == NULL) return ENOMEM;
  int error = init(peers, runtime, idle_timeout);
  if (error != 0) {
    free_peers(peers);
    return error;
  }
  peers->reader = (struct ip_reader){.readable = serve_readable, .failed = fail_all};
  peers->socket = *socket;
  peers->drained_in = runtime->iteration - 1;
  init_point(&peers->point, peers, runtime, &accept_point);
  ip_queue_init(&peers->pending);
  ip_queue_init(&peers->accepted);
  ip_queue_init(&peers->expiring);
  add_resource(peers, runtime);
  socket->socket->peer = NULL; /* held by the box that loses the socket */
  socket->socket = NULL;
  socket->generation++;
  *peers_made = peers;
  return 0;
}

/* To end a session removes it from its list. */
static void close_sessions(struct ip_peers *peers, struct ip_queue *sessions) {
  while (!ip_queue_is_empty(sessions)) {
    struct ip_session *session = session_of(sessions->next);
    end_session(session, ECANCELED);
    free_session(session, &peers->pool);
  }
}

void ip_peers_close(struct ip_peers *peers) {
  close_sessions(peers, &peers->pending);
  close_sessions(peers, &peers->accepted);
  end_point(&peers->point, ECANCELED);
  if (peers->timer != NULL && !runtime_of(peers)->closed) ip_timer_free(runtime_of(peers), peers->timer);
  peers->timer = NULL;
  ip_queue_remove(&peers->resource.link);
  ip_socket_end(&peers->socket);
  if (peers->pins == 0) free_peers(peers);
}

/* --- receiving --- */

void ip_session_copy(const void *data, size_t length, const struct ip_receive *receive,
                     struct ip_datagram *datagram) {
  datagram->length = length < receive->size ? length : receive->size;
  datagram->truncated = length > receive->size;
  if (datagram->length != 0 && data != receive->data) memcpy(receive->data, data, datagram->length);
}

bool ip_session_take(struct ip_session *session, const struct ip_receive *receive,
                     struct ip_datagram *datagram, struct ip_failure *failure) {
  struct ip_peers *peers = session->point.peers;
  const struct ip_queued_datagram *oldest = session->datagrams.first;
  *failure = session->failure;
  session->failure = ip_failure(0);
  if (failure->code == 0) {
    if (oldest == NULL) return false;
    ip_session_copy(oldest->data, oldest->length, receive, datagram);
    if (receive->flags & MSG_PEEK) return true;
    ip_datagram_queue_drop(&session->datagrams, peers != NULL ? &peers->pool : NULL);
  }
  if (peers != NULL) count_hungry(&session->point.wait);
  return true;
}
