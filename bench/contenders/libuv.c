/* libuv.c: libuv ROLE PEER_PORT SOCKETS
   C on libuv's own UDP handle, used as its documentation shows: receive callbacks, uv_udp_try_send, and
   uv_udp_send if that would block. */
#include <uv.h>

#include "floor.h"

static char buffer[65536];
static const char *role;
static unsigned long long total;

static void check(int status, const char *what) {
  if (status >= 0) return;
  printf("%s: %s\n", what, uv_strerror(status));
  exit(1);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  (void)handle;
  (void)suggested;
  *buf = uv_buf_init(buffer, sizeof buffer - 1);
}

static void on_sent(uv_udp_send_t *request, int status) {
  free(request);
  check(status, "send");
}

static void give(uv_udp_t *socket, const char *bytes, size_t size, const struct sockaddr *peer) {
  uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)size);
  int status = uv_udp_try_send(socket, &buf, 1, peer);
  if (status != UV_EAGAIN) {
    check(status, "send");
    return;
  }
  uv_udp_send_t *request = malloc(sizeof *request + size);
  if (!request) exit(1);
  memcpy(request + 1, bytes, size);
  buf.base = (char *)(request + 1);
  check(uv_udp_send(request, socket, &buf, 1, peer, on_sent), "send");
}

static void count(uv_udp_t *socket, ssize_t size, const struct sockaddr *peer) {
  if (size > 1) {
    total++;
    return;
  }
  char text[32];
  give(socket, text, (size_t)snprintf(text, sizeof text, "%llu", total), peer);
  total = 0;
}

static void send_on_order(uv_udp_t *socket, ssize_t size, const struct sockaddr *peer) {
  static char payload[65536];
  struct order order = read_order(buffer, (size_t)size);
  for (unsigned long long i = 0; i < order.count; i++)
    give(socket, payload, (size_t)order.size, (struct sockaddr *)&order.target);
  give(socket, "done", 4, peer);
}

static void on_receive(uv_udp_t *socket, ssize_t size, const uv_buf_t *buf, const struct sockaddr *peer,
                       unsigned flags) {
  (void)flags;
  check((int)size, "receive");
  if (!peer) return; /* nothing more to read */
  if (role[0] == 'r' || role[0] == 'b')
    count(socket, size, peer);
  else if (strcmp(role, "send") == 0)
    send_on_order(socket, size, peer);
  else
    give(socket, buf->base, (size_t)size, role[0] == 'c' ? NULL : peer);
}

static void open_handle(uv_loop_t *loop, int peer_port) {
  uv_udp_t *socket = malloc(sizeof *socket);
  struct sockaddr_in local = loopback(0), peer = loopback(peer_port);
  int length = sizeof local, size = 4 << 20;
  if (!socket) exit(1);
  check(uv_udp_init(loop, socket), "init");
  check(uv_udp_bind(socket, (struct sockaddr *)&local, 0), "bind");
  check(uv_udp_getsockname(socket, (struct sockaddr *)&local, &length), "getsockname");
  if (role[0] == 'c') check(uv_udp_connect(socket, (struct sockaddr *)&peer), "connect");
  if (role[0] == 'b') uv_recv_buffer_size((uv_handle_t *)socket, &size);
  check(uv_udp_recv_start(socket, on_allocate, on_receive), "recv_start");
  printf("port %d\n", ntohs(local.sin_port));
}

int main(int argument_count, char **arguments) {
  if (argument_count != 4) return 2;
  role = arguments[1];
  uv_loop_t loop;
  check(uv_loop_init(&loop), "loop");
  int sockets = strcmp(role, "sockets") == 0 ? atoi(arguments[3]) : 1;
  for (int i = 0; i < sockets; i++)
    open_handle(&loop, atoi(arguments[2]));
  ready();
  return uv_run(&loop, UV_RUN_DEFAULT);
}
