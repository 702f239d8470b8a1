/* alarm.c: what wakes the loop for its timers.

   libuv's timers count whole milliseconds. So on Linux one timerfd(2), on the clock of uv_hrtime, wakes the
   loop through a uv_poll_t, on a grid of GRID nanoseconds: what is due within one wakes it once. It is set
   when the earliest deadline becomes earlier, and before the loop polls, so that a call that ends before its
   deadline costs no system call as a rule. An alarm that finds nothing due sets itself anew. Where no timerfd
   can be made, a uv_timer_t does the same on a grid of a millisecond.

   The runtime owns the alarm; the handles are closed with the loop. Nothing here calls Lua or raises. */
#include "loop/alarm.h"

#include "base/util.h"
#include "loop/fork.h"
#include "loop/registration.h"
#include "loop/runtime.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/timerfd.h>
#endif

enum { NANOSECONDS_PER_MILLISECOND = 1000000, NANOSECONDS_PER_SECOND = 1000000000 };
enum { GRID = 20000 };

struct ip_alarm {
  struct ip_flusher flusher;
  struct ip_runtime *runtime;
  uv_timer_t timer; /* in use while there is no timerfd */
  uv_poll_t poll;   /* of the timerfd */
  int fd;           /* -1: there is no timerfd */
  bool rung;        /* the timerfd stays readable until it is set again */
  ip_deadline set;  /* what the alarm is set for; IP_NEVER: for nothing */
};

static ip_deadline round_up(ip_deadline deadline, uint64_t grid) {
  uint64_t rest = deadline % grid;
  return rest == 0 ? deadline : deadline + (grid - rest);
}

/* --- a uv_timer_t --- */

static void on_timer(uv_timer_t *timer);

/* `tick` is in milliseconds of the loop's clock, which is uv_hrtime's. */
static void set_timer(struct ip_alarm *alarm, ip_deadline deadline) {
  alarm->set = deadline == IP_NEVER ? IP_NEVER : round_up(deadline, NANOSECONDS_PER_MILLISECOND);
  if (deadline == IP_NEVER) {
    uv_timer_stop(&alarm->timer); /* cannot fail */
    return;
  }
  uint64_t tick = alarm->set / NANOSECONDS_PER_MILLISECOND;
  uv_update_time(alarm->runtime->loop);
  uint64_t now = uv_now(alarm->runtime->loop);
  uv_timer_start(&alarm->timer, on_timer, tick > now ? tick - now : 0, 0); /* fails only without a callback */
}

/* libuv up to 1.44 runs timers before it polls: for that poll the alarm has to be set here. */
static void on_timer(uv_timer_t *timer) {
  struct ip_alarm *alarm = ip_container_of(timer, struct ip_alarm, timer);
  (void)ip_timers_fire(alarm->runtime);
  set_timer(alarm, ip_timers_next(&alarm->runtime->timers));
}

/* --- a timerfd --- */

static void on_rung(uv_poll_t *poll, int status, int events);

#ifdef __linux__

static const ip_deadline LATEST =
    (ip_deadline)INT32_MAX * NANOSECONDS_PER_SECOND; /* fits time_t everywhere */

static int open_timerfd(void) {
  return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

/* Makes another timerfd under the same number, which the uv_poll_t watches. The old one is closed first: then
   there is a number left. */
static bool replace_timerfd(int fd) {
  close(fd);
  int fresh = open_timerfd();
  if (fresh < 0 || fresh == fd) return fresh == fd;
  bool replaced = dup3(fresh, fd, O_CLOEXEC) == fd;
  close(fresh);
  return replaced;
}

/* Setting a timerfd makes it unreadable (Linux fs/timerfd.c, timerfd_setup). False: the descriptor is no
   timerfd any more, for somebody has closed it. */
static bool set_timerfd(struct ip_alarm *alarm, ip_deadline deadline) {
  struct itimerspec when = {.it_value = {0, 0}};
  alarm->set = IP_NEVER;
  if (deadline != IP_NEVER) {
    alarm->set = round_up(deadline < LATEST ? deadline : LATEST, GRID);
    when.it_value.tv_sec = (time_t)(alarm->set / NANOSECONDS_PER_SECOND);
    when.it_value.tv_nsec = (long)(alarm->set % NANOSECONDS_PER_SECOND);
  }
  alarm->rung = false;
  return timerfd_settime(alarm->fd, TFD_TIMER_ABSTIME, &when, NULL) == 0;
}

#else

static int open_timerfd(void) {
  return -1;
}

static bool replace_timerfd(int fd) {
  (void)fd;
  return false;
}

static bool set_timerfd(struct ip_alarm *alarm, ip_deadline deadline) {
  (void)alarm, (void)deadline;
  return false;
}

#endif

/* From here on the uv_timer_t is the alarm. */
static void give_timerfd_up(struct ip_alarm *alarm) {
  uv_poll_stop(&alarm->poll); /* never fails (libuv src/unix/poll.c) */
  alarm->fd = -1;
  alarm->rung = false;
  alarm->set = IP_NEVER;
}

static void set(struct ip_alarm *alarm, ip_deadline deadline) {
  if (alarm->fd >= 0) {
    if (set_timerfd(alarm, deadline)) return;
    give_timerfd_up(alarm);
  }
  set_timer(alarm, deadline);
}

/* Most timers are followed by another one before the loop polls again, and then the alarm is set once for
   both. */
static void on_rung(uv_poll_t *poll, int status, int events) {
  struct ip_alarm *alarm = ip_container_of(poll, struct ip_alarm, poll);
  (void)events;
  if (ip_fork_happened(alarm->runtime)) return; /* a host's loop in a child: it is the parent's */
  if (status < 0) give_timerfd_up(alarm);       /* libuv has stopped it */
  alarm->rung = true;
  if (ip_timers_fire(alarm->runtime) && status >= 0)
    ip_runtime_schedule(alarm->runtime, &alarm->flusher);
  else
    set(alarm, ip_timers_next(&alarm->runtime->timers));
}

/* --- for all --- */

static void flush(struct ip_flusher *flusher) {
  struct ip_alarm *alarm = ip_container_of(flusher, struct ip_alarm, flusher);
  if (ip_fork_check(alarm->runtime) != 0) return; /* whoever polls finds out */
  ip_deadline next = ip_timers_next(&alarm->runtime->timers);
  if (alarm->rung || next < alarm->set) set(alarm, next);
}

/* A host's loop is to go on while a timer runs, and no longer. */
static void keep_host(struct ip_alarm *alarm, bool running) {
  uv_handle_t *handle = alarm->fd >= 0 ? (uv_handle_t *)&alarm->poll : (uv_handle_t *)&alarm->timer;
  if (running)
    uv_ref(handle);
  else
    uv_unref(handle);
}

void ip_alarm_hasten(struct ip_alarm *alarm, ip_deadline deadline) {
  if (alarm->runtime->driver != NULL) keep_host(alarm, true);
  if (deadline < alarm->set) ip_runtime_schedule(alarm->runtime, &alarm->flusher);
}

void ip_alarm_rest(struct ip_alarm *alarm) {
  if (alarm->runtime->driver != NULL) keep_host(alarm, false);
}

ip_deadline ip_alarm_time(const struct ip_alarm *alarm, ip_deadline deadline) {
  return round_up(deadline, alarm->fd >= 0 ? GRID : NANOSECONDS_PER_MILLISECOND);
}

/* The loop cannot watch the timerfd, which is this process's own. */
static void drop_timerfd(struct ip_alarm *alarm) {
  int fd = alarm->fd;
  give_timerfd_up(alarm);
  close(fd);
}

static bool is_registered(const struct ip_alarm *alarm) {
  return ip_registration_make(alarm->runtime->loop, alarm->fd, UV_READABLE) == 0;
}

/* Without a timerfd, or a loop that can watch it, the uv_timer_t is the alarm. */
static void watch_timerfd(struct ip_alarm *alarm) {
  alarm->fd = open_timerfd();
  if (alarm->fd < 0) return;
  int status = uv_poll_init(alarm->runtime->loop, &alarm->poll, alarm->fd);
  if (status != 0) {
    close(alarm->fd);
    alarm->fd = -1;
    return;
  }
  alarm->poll.data = alarm->runtime;
  ip_runtime_handle_opened(alarm->runtime);
  bool watched = uv_poll_start(&alarm->poll, UV_READABLE, on_rung) == 0 && is_registered(alarm);
  if (!watched) drop_timerfd(alarm);
}

struct ip_alarm *ip_alarm_new(struct ip_runtime *runtime) {
  struct ip_alarm *alarm = calloc(1, sizeof *alarm);
  if (alarm == NULL) return NULL;
  *alarm = (struct ip_alarm){.flusher = {.flush = flush}, .runtime = runtime, .fd = -1, .set = IP_NEVER};
  ip_queue_init(&alarm->flusher.link);
  uv_timer_init(runtime->loop, &alarm->timer); /* cannot fail */
  alarm->timer.data = runtime;
  ip_runtime_handle_opened(runtime);
  watch_timerfd(alarm);
  ip_alarm_rest(alarm);
  return alarm;
}

void ip_alarm_forked(struct ip_alarm *alarm) {
  alarm->rung = false;
  alarm->set = IP_NEVER;
  if (alarm->fd >= 0 && !replace_timerfd(alarm->fd)) give_timerfd_up(alarm);
  if (alarm->fd >= 0 && !is_registered(alarm)) drop_timerfd(alarm);
  ip_deadline next = ip_timers_next(&alarm->runtime->timers);
  if (next != IP_NEVER) set(alarm, next);
}

void ip_alarm_free(struct ip_alarm *alarm) {
  if (alarm == NULL) return;
  ip_queue_remove(&alarm->flusher.link);
  if (alarm->fd >= 0) close(alarm->fd);
  free(alarm);
}
