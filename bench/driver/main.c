/* main.c: driver LOAD [OPTION VALUE]... -- COMMAND... [-- COMMAND...]
   Starts the command, loads it, and prints the cost in one line:
     ok SECONDS DATAGRAMS LOST CPU DELAY ROUND_TRIP_MEDIAN ROUND_TRIP_P99
   or, with exit code 1, "unavailable: REASON", as printed by the command, or "failed: REASON". LOAD is echo,
   connected (an echo by a connected server), receive, send, or bulk, which takes two commands: receiver and
   sender. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

static void set_option(struct plan *plan, const char *name, const char *value) {
  if (strcmp(name, "--seconds") == 0)
    plan->seconds = atof(value);
  else if (strcmp(name, "--warm-up") == 0)
    plan->warm_up = atof(value);
  else if (strcmp(name, "--in-flight") == 0)
    plan->in_flight = atoi(value);
  else if (strcmp(name, "--size") == 0)
    plan->size = atoi(value);
  else if (strcmp(name, "--sockets") == 0)
    plan->sockets = atoi(value);
  else if (strcmp(name, "--server-core") == 0)
    plan->server_core = atoi(value);
  else if (strcmp(name, "--client-core") == 0)
    plan->client_core = atoi(value);
  else if (strcmp(name, "--latency") == 0)
    plan->latency = atoi(value) != 0;
  else
    die("failed: unknown option %s", name);
}

static void read_plan(struct plan *plan, char **arguments) {
  if (!arguments[1]) die("failed: no load");
  plan->load = arguments[1];
  char **next = arguments + 2;
  for (; *next && strcmp(*next, "--") != 0; next += 2) {
    if (!next[1]) die("failed: %s without value", *next);
    set_option(plan, next[0], next[1]);
  }
  if (!*next || !next[1]) die("failed: no command");
  plan->command = plan->other_command = ++next;
  for (; *next; next++) {
    if (strcmp(*next, "--") != 0) continue;
    *next = NULL;
    plan->other_command = next + 1;
    break;
  }
  if (plan->size < 8 || plan->size > MAXIMUM_SIZE) die("failed: size");
  if (plan->in_flight < 1 || plan->sockets < 1 || plan->seconds <= 0) die("failed: a number is out of range");
}

int main(int count, char **arguments) {
  (void)count;
  struct plan plan = {
      .seconds = 0.25, .warm_up = 0.05, .in_flight = 32, .size = 64, .sockets = 1, .client_core = 1};
  struct outcome outcome = {0};
  read_plan(&plan, arguments);
  if (strcmp(plan.load, "echo") == 0 || strcmp(plan.load, "connected") == 0)
    run_echo(&plan, &outcome);
  else if (strcmp(plan.load, "receive") == 0)
    run_receive(&plan, &outcome);
  else if (strcmp(plan.load, "send") == 0)
    run_send(&plan, &outcome);
  else if (strcmp(plan.load, "bulk") == 0)
    run_bulk(&plan, &outcome);
  else
    die("failed: unknown load %s", plan.load);
  if (outcome.datagrams == 0) die("failed: it has handled nothing");
  printf("ok %.6f %llu %llu %llu %llu %.9f %.9f\n", outcome.seconds, (unsigned long long)outcome.datagrams,
         (unsigned long long)outcome.lost, (unsigned long long)outcome.cpu, (unsigned long long)outcome.delay,
         outcome.round_trip_median, outcome.round_trip_p99);
  return 0;
}
