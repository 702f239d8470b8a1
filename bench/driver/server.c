/* server.c: starts and stops a contender, and reads its cost. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

#define START_SECONDS 20
#define PATIENCE 0.5 /* seconds for a server to end */
#define MAXIMUM_ARGUMENTS 32

static const struct server *started[2]; /* die() kills these */

void die(const char *format, ...) {
  for (int i = 0; i < 2; i++)
    if (started[i]) kill(-started[i]->pid, SIGKILL);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stdout, format, arguments);
  va_end(arguments);
  putchar('\n');
  exit(1);
}

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void pause_for(double seconds) {
  struct timespec time = {.tv_sec = (time_t)seconds,
                          .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) {
  }
}

void pin(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET((size_t)core, &cores);
  if (sched_setaffinity(0, sizeof cores, &cores) != 0)
    die("failed: cannot use core %d: %s", core, strerror(errno));
}

static void become_server(char **command, const char *role, uint16_t peer_port, int sockets, int core,
                          int output) {
  char port_text[16], sockets_text[16], *arguments[MAXIMUM_ARGUMENTS + 4];
  int count = 0;
  while (command[count] && count < MAXIMUM_ARGUMENTS) {
    arguments[count] = command[count];
    count++;
  }
  snprintf(port_text, sizeof port_text, "%d", peer_port);
  snprintf(sockets_text, sizeof sockets_text, "%d", sockets);
  arguments[count++] = (char *)(uintptr_t)role;
  arguments[count++] = port_text;
  arguments[count++] = sockets_text;
  arguments[count] = NULL;
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pin(core);
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execvp(arguments[0], arguments);
  printf("unavailable: %s: %s\n", arguments[0], strerror(errno));
  fflush(stdout);
  _exit(1);
}

/* Returns the next line without its end; if there is none, die()s with the last output of the server. */
static void read_line(struct server *server, char *line, size_t size, double deadline) {
  size_t length = 0;
  for (;;) {
    struct pollfd ready = {.fd = server->output, .events = POLLIN};
    int left = (int)((deadline - now()) * 1000);
    if (left <= 0 || poll(&ready, 1, left) <= 0)
      die("failed: it was not ready after %d seconds", START_SECONDS);
    char byte;
    ssize_t count = read(server->output, &byte, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      line[length] = 0;
      die("failed: it ended instead of serving%s%s", length ? ": " : "", line);
    }
    if (byte == '\n') break;
    if (length + 1 < size) line[length++] = byte;
  }
  line[length] = 0;
}

void server_start(struct server *server, char **command, const char *role, uint16_t peer_port, int sockets,
                  int core) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) die("failed: pipe: %s", strerror(errno));
  fflush(stdout);
  server->pid = fork();
  if (server->pid < 0) die("failed: fork: %s", strerror(errno));
  if (server->pid == 0) {
    close(pipe_ends[0]);
    become_server(command, role, peer_port, sockets, core, pipe_ends[1]);
  }
  setpgid(server->pid, server->pid); /* in parent and child: either may run first */
  close(pipe_ends[1]);
  started[started[0] != NULL] = server;
  server->output = pipe_ends[0];
  server->port_count = 0;
  server->ports = calloc((size_t)sockets, sizeof *server->ports);
  double deadline = now() + START_SECONDS;
  char line[512], complaint[512] = "";
  for (;;) {
    read_line(server, line, sizeof line, deadline);
    int port;
    if (strcmp(line, "ready") == 0) break;
    if (strncmp(line, "unavailable", 11) == 0) die("%s", line);
    if (sscanf(line, "port %d", &port) == 1 && server->port_count < sockets) {
      server->ports[server->port_count++] = (uint16_t)port;
    } else if (complaint[0] == 0) {
      /* The first line of an error message is the error; the rest is the traceback. */
      snprintf(complaint, sizeof complaint, "failed: %.400s", line);
      struct pollfd ended = {.fd = server->output, .events = POLLIN};
      poll(&ended, 1, 200);
      die("%s", complaint);
    }
  }
  if (server->port_count == 0) die("failed: it told no port");
}

void server_stop(struct server *server) {
  /* SIGTERM first, and to all processes that the command has started, so that `strace -c` in front of a
     server can print its table. */
  kill(-server->pid, SIGTERM);
  for (double start = now(); waitpid(server->pid, NULL, WNOHANG) == 0;) {
    if (now() - start > PATIENCE) kill(-server->pid, SIGKILL);
    pause_for(0.001);
  }
  close(server->output);
  free(server->ports);
  for (int i = 0; i < 2; i++)
    if (started[i] == server) started[i] = NULL;
}

/* Ends the measurement if the server has ended, with the last output of the server. */
static void check_alive(const struct server *server) {
  if (waitpid(server->pid, NULL, WNOHANG) == 0) return;
  char text[400] = "";
  struct pollfd ready = {.fd = server->output, .events = POLLIN};
  ssize_t length = poll(&ready, 1, 0) > 0 ? read(server->output, text, sizeof text - 1) : 0;
  text[length > 0 ? length : 0] = 0;
  text[strcspn(text, "\n")] = 0;
  die("failed: it ended under load%s%s", text[0] ? ": " : "", text);
}

static struct usage read_usage(pid_t pid) {
  char path[320];
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *tasks = opendir(path);
  if (!tasks) die("failed: it has ended");
  struct usage sum = {0};
  struct dirent *entry;
  while ((entry = readdir(tasks))) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, entry->d_name);
    FILE *file = fopen(path, "r");
    if (!file) continue; /* the thread has just ended */
    unsigned long long cpu = 0, delay = 0;
    if (fscanf(file, "%llu %llu", &cpu, &delay) == 2) {
      sum.cpu += cpu;
      sum.delay += delay;
    }
    fclose(file);
  }
  closedir(tasks);
  return sum;
}

struct usage server_usage(const struct server *server) {
  check_alive(server);
  struct usage last = read_usage(server->pid);
  for (int i = 0; i < 20; i++) { /* a server that never sleeps is read while it runs */
    pause_for(0.002);
    struct usage current = read_usage(server->pid);
    if (current.cpu == last.cpu) return current;
    last = current;
  }
  return last;
}

void server_usage_since(const struct server *server, struct usage before, struct outcome *outcome) {
  struct usage after = server_usage(server);
  outcome->cpu = after.cpu - before.cpu;
  outcome->delay = after.delay - before.delay;
}
