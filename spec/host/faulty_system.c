/* faulty_system.c: a library that is loaded before the others (LD_PRELOAD). Its system calls fail at a seeded
   rate, in the thread that has asked for it (faulty_system.h), with errors that Linux gives:

   - recvfrom, recv, recvmsg, recvmmsg: EINTR; EAGAIN, which a datagram with a wrong checksum causes, too
     (select(2), BUGS); ENOMEM, ENOBUFS, and an ICMP error. recvmmsg returns fewer datagrams than are there.
   - sendto, sendmsg, sendmmsg: EINTR, EAGAIN, ENOBUFS, ENOMEM, EPERM (a firewall), ICMP errors, EMSGSIZE, and
     EIO for messages (udp(7), UDP_SEGMENT). sendmmsg sends fewer messages than it was given.
   - socket, eventfd, epoll_create1, timerfd_create, pipe2, dup3, fcntl(F_DUPFD_CLOEXEC): no descriptor, no
     memory.
   - bind, connect, getsockname, getpeername, getsockopt, setsockopt, ioctl: what their manual pages name and
     what does not depend on the arguments.
   - epoll_ctl: ENOSPC and ENOMEM for EPOLL_CTL_ADD of what is not registered; Linux needs no memory for the
     other operations.
   - epoll_wait, epoll_pwait: EINTR where they may block, and fewer events than there are.
   - poll: EINTR where nothing is ready (Linux fs/select.c, do_poll).
   - pthread_create: EAGAIN.
   - close: EINTR, after it has closed the descriptor (close(2), NOTES).

   What does not fail: setsockopt(UDP_GRO), which only notes a number (Linux net/ipv4/udp.c,
   udp_lib_setsockopt), and could not be taken back where it failed; timerfd_settime, which has no error for valid arguments without TFD_TIMER_CANCEL_ON_SET;
   read and write, which the library uses on no descriptor. libuv aborts the process by design where it cannot
   have its signal pipes or its threads, and where it cannot register what it has made for itself: its pipe2
   does not fail, nor its registration of such descriptors, nor pthread_create for its own functions once the
   library has made a thread. The library tries all of these before it lets libuv do so (loop_probe.c,
   thread_probe.c, watcher.c). */
#include "faulty_system.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* The headers of these calls would declare them with types that only the C library can repeat. */
struct epoll_event;
struct itimerspec;
struct mmsghdr;
struct pollfd;

enum { ADD = 1, DEL = 2 };               /* epoll_ctl(2) */
enum { LEVEL_UDP = 17, JOIN = 104 };     /* udp(7), UDP_GRO */
enum { DUPLICATE_CLOSE_ON_EXEC = 1030 }; /* fcntl(2), F_DUPFD_CLOEXEC */
enum { MOST_DESCRIPTORS = 4096, LONGEST_SHORTAGE = 40 };

static _Thread_local bool active;
static struct fault_plan plan;
static struct fault_counts counts;
static int held;
static uint64_t state;
static unsigned shortage; /* allocations that still fail */
static bool traces;       /* to stderr: FAULTS_TRACE is in the environment */
static bool of_libuv[MOST_DESCRIPTORS];

/* --- chance --- */

/* splitmix64: https://prng.di.unimi.it/splitmix64.c */
static uint64_t next_random(void) {
  uint64_t x = state += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

static unsigned below(unsigned count) {
  return (unsigned)(next_random() % count);
}

static bool is_playing(unsigned rate) {
  return active && held == 0 && rate != 0;
}

void faults_set(const struct fault_plan *wanted) {
  plan = *wanted;
  state = plan.seed;
  shortage = 0;
  active = true;
  traces = getenv("FAULTS_TRACE") != NULL;
}

void faults_hold(int change) {
  held += change;
}

const struct fault_counts *faults_counts(void) {
  return &counts;
}

/* Lua collects garbage and tries again after a failure, so most shortages are longer than one allocation. */
bool faults_allocation(void) {
  if (!is_playing(plan.memory)) return false;
  counts.allocations++;
  if (shortage == 0 && below(plan.memory) == 0) shortage = 1 + below(LONGEST_SHORTAGE);
  if (shortage == 0) return false;
  shortage--;
  counts.no_memory++;
  if (traces) fprintf(stderr, "fault: allocation %lu\n", (unsigned long)counts.allocations);
  return true;
}

/* --- errors --- */

struct errors {
  const char *calls;
  int soft[2], hard[8]; /* 0 ends a list that is not full */
};

static const struct errors receive_errors = {
    "a receive", {EINTR, EAGAIN}, {ENOMEM, ENOBUFS, ECONNREFUSED, EHOSTUNREACH}};
static const struct errors send_errors = {
    "a send", {EINTR, EAGAIN}, {ENOBUFS, ENOMEM, EPERM, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EMSGSIZE}};
static const struct errors message_errors = {
    "a send", {EINTR, EAGAIN}, {ENOBUFS, ENOMEM, EPERM, ECONNREFUSED, EHOSTUNREACH, EIO}};
static const struct errors descriptor_errors = {"a new descriptor", {0}, {EMFILE, ENFILE, ENOMEM}};
static const struct errors socket_errors = {"socket", {0}, {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES}};
static const struct errors bind_errors = {"bind", {0}, {EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOMEM}};
static const struct errors connect_errors = {
    "connect", {0}, {EAGAIN, EADDRNOTAVAIL, ENETUNREACH, EPERM, ENOBUFS}};
static const struct errors name_errors = {"getsockname, getpeername", {0}, {ENOBUFS}};
static const struct errors option_errors = {"getsockopt", {0}, {ENOMEM, ENOBUFS}};
static const struct errors set_errors = {"setsockopt", {0}, {ENOMEM, ENOBUFS, EPERM}};
static const struct errors control_errors = {"ioctl", {0}, {ENOMEM, EACCES}};
static const struct errors register_errors = {"epoll_ctl", {0}, {ENOSPC, ENOMEM}};
static const struct errors thread_errors = {"pthread_create", {0}, {EAGAIN}};
static const struct errors interruption = {"a wait or close", {EINTR}, {0}};

static unsigned length_of(const int *list, unsigned most) {
  unsigned length = 0;
  while (length < most && list[length] != 0)
    length++;
  return length;
}

static int choose(const struct errors *errors) {
  unsigned soft = length_of(errors->soft, 2), hard = plan.soft ? 0 : length_of(errors->hard, 8);
  if (soft + hard == 0) return 0;
  unsigned choice = below(soft + hard);
  if (choice >= soft) counts.hard++;
  return choice < soft ? errors->soft[choice] : errors->hard[choice - soft];
}

static char next_calls[32];
static int next_code;
static unsigned next_after;

void faults_fail_next(const char *calls, int code, unsigned after) {
  (void)snprintf(next_calls, sizeof next_calls, "%s", calls);
  next_code = code;
  next_after = after;
  active = true;
}

static bool is_next(const struct errors *errors) {
  if (next_code == 0 || !active || strcmp(errors->calls, next_calls) != 0 || next_after-- != 0) return false;
  errno = next_code;
  next_code = 0;
  return true;
}

/* Does the call fail? Then errno says why. */
static bool fails(const struct errors *errors) {
  if (is_next(errors)) return true;
  if (!is_playing(plan.system)) return false;
  counts.calls++;
  if (below(plan.system) != 0) return false;
  int error = choose(errors);
  if (error == 0) return false;
  counts.failed++;
  counts.codes[error & 255]++;
  if (traces)
    fprintf(stderr, "fault %lu: %s: %s\n", (unsigned long)counts.failed, errors->calls, strerror(error));
  errno = error;
  return true;
}

/* How many of `count` a call takes. */
static unsigned shorten(unsigned count) {
  if (count < 2 || !is_playing(plan.system) || below(plan.system) != 0) return count;
  counts.failed++;
  return 1 + below(count - 1);
}

/* --- who calls --- */

/* Is the address in a library of that name? */
static bool is_in(const void *address, const char *library) {
  Dl_info info;
  return dladdr(address, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, library) != NULL;
}

static bool is_libuv(const void *address) {
  return is_in(address, "libuv");
}

static int note_descriptor(int fd, bool libuv) {
  if (fd >= 0 && fd < MOST_DESCRIPTORS) of_libuv[fd] = libuv;
  return fd;
}

/* --- datagrams --- */

ssize_t recvfrom(int fd, void *data, size_t size, int flags, void *source, void *length) {
  if (fails(&receive_errors)) return -1;
  return syscall(SYS_recvfrom, fd, data, size, flags, source, length);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
  return recvfrom(fd, data, size, flags, NULL, NULL);
}

ssize_t recvmsg(int fd, void *message, int flags) {
  if (fails(&receive_errors)) return -1;
  return syscall(SYS_recvmsg, fd, message, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, void *timeout) {
  if (fails(&receive_errors)) return -1;
  return (int)syscall(SYS_recvmmsg, fd, messages, shorten(count), flags, timeout);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const void *to, unsigned length) {
  if (fails(&send_errors)) return -1;
  return syscall(SYS_sendto, fd, data, size, flags, to, length);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  return sendto(fd, data, size, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const void *message, int flags) {
  if (fails(&message_errors)) return -1;
  return syscall(SYS_sendmsg, fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  if (fails(&message_errors)) return -1;
  return (int)syscall(SYS_sendmmsg, fd, messages, shorten(count), flags);
}

/* --- sockets --- */

int socket(int family, int type, int protocol) {
  return fails(&socket_errors) ? -1
                               : note_descriptor((int)syscall(SYS_socket, family, type, protocol), false);
}

int bind(int fd, const void *name, unsigned length) {
  return fails(&bind_errors) ? -1 : (int)syscall(SYS_bind, fd, name, length);
}

int connect(int fd, const void *name, unsigned length) {
  return fails(&connect_errors) ? -1 : (int)syscall(SYS_connect, fd, name, length);
}

int getsockname(int fd, void *name, void *length) {
  return fails(&name_errors) ? -1 : (int)syscall(SYS_getsockname, fd, name, length);
}

int getpeername(int fd, void *name, void *length) {
  return fails(&name_errors) ? -1 : (int)syscall(SYS_getpeername, fd, name, length);
}

int getsockopt(int fd, int level, int name, void *value, void *length) {
  return fails(&option_errors) ? -1 : (int)syscall(SYS_getsockopt, fd, level, name, value, length);
}

int setsockopt(int fd, int level, int name, const void *value, unsigned length) {
  bool joins = level == LEVEL_UDP && name == JOIN;
  return !joins && fails(&set_errors) ? -1 : (int)syscall(SYS_setsockopt, fd, level, name, value, length);
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  return fails(&control_errors) ? -1 : (int)syscall(SYS_ioctl, fd, request, argument);
}

/* --- descriptors --- */

int eventfd(unsigned initial, int flags) {
  if (fails(&descriptor_errors)) return -1;
  return note_descriptor((int)syscall(SYS_eventfd2, initial, flags), is_libuv(__builtin_return_address(0)));
}

int pipe2(int ends[2], int flags) {
  bool libuv = is_libuv(__builtin_return_address(0));
  if (!libuv && fails(&descriptor_errors)) return -1;
  if (syscall(SYS_pipe2, ends, flags) != 0) return -1;
  note_descriptor(ends[0], libuv);
  note_descriptor(ends[1], libuv);
  return 0;
}

int epoll_create1(int flags) {
  return fails(&descriptor_errors) ? -1 : note_descriptor((int)syscall(SYS_epoll_create1, flags), false);
}

int timerfd_create(int clock, int flags) {
  return fails(&descriptor_errors) ? -1
                                   : note_descriptor((int)syscall(SYS_timerfd_create, clock, flags), false);
}

int dup3(int from, int to, int flags) {
  return fails(&descriptor_errors) ? -1 : note_descriptor((int)syscall(SYS_dup3, from, to, flags), false);
}

int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  if (command == DUPLICATE_CLOSE_ON_EXEC && fails(&descriptor_errors)) return -1;
  int result = (int)syscall(SYS_fcntl, fd, command, argument);
  return command == DUPLICATE_CLOSE_ON_EXEC ? note_descriptor(result, false) : result;
}

int close(int fd) {
  note_descriptor(fd, false);
  int result = (int)syscall(SYS_close, fd);
  return result == 0 && fails(&interruption) ? -1 : result;
}

/* --- waiting --- */

/* Registers as the kernel would, to learn whether it is registered already, and takes that back. */
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
  int result = (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
  bool libuv = fd >= 0 && fd < MOST_DESCRIPTORS && of_libuv[fd];
  if (operation != ADD || result != 0 || libuv || !fails(&register_errors)) return result;
  int error = errno;
  syscall(SYS_epoll_ctl, epoll, DEL, fd, event);
  errno = error;
  return -1;
}

static int wait_for_events(int epoll, struct epoll_event *events, int most, int timeout, const void *mask) {
  enum { MASK_SIZE = 8 };
  counts.polls++;
  if (timeout != 0 && fails(&interruption)) return -1;
  return (int)syscall(SYS_epoll_pwait, epoll, events, (int)shorten((unsigned)most), timeout, mask, MASK_SIZE);
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const void *mask) {
  return wait_for_events(epoll, events, most, timeout, mask);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
  const void *no_mask = NULL;
  return wait_for_events(epoll, events, most, timeout, no_mask);
}

int poll(struct pollfd *descriptors, unsigned long count, int timeout) {
  long time[2] = {timeout / 1000, timeout % 1000 * 1000000L}; /* a struct timespec */
  int result = (int)syscall(SYS_ppoll, descriptors, count, timeout < 0 ? NULL : time, NULL, 0L);
  return result == 0 && fails(&interruption) ? -1 : result;
}

/* --- threads --- */

typedef int (*thread_creator)(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                              void *argument);

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument) {
  static thread_creator real;
  static bool was_tried; /* by the library */
  if (real == NULL) {
    void *found = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&real, &found, sizeof real);
  }
  const void *function;
  memcpy(&function, &run, sizeof function);
  bool unknown = is_in(function, "libasan") || is_in(function, "libtsan"); /* they wrap the function */
  bool by_libuv = is_libuv(function);
  if (is_playing(plan.system) && !unknown && !(by_libuv && was_tried) && fails(&thread_errors)) return errno;
  int error = real(thread, attributes, run, argument);
  if (error == 0 && !unknown && !by_libuv) was_tried = true;
  return error;
}
