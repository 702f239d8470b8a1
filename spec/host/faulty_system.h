/* faulty_system.h: makes system calls and allocations fail now and then; faulty_system.c is loaded before the
   other libraries (LD_PRELOAD). Programs find these functions by dlsym(3), for nothing links them. */
#ifndef FAULTY_SYSTEM_H
#define FAULTY_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>

/* What fails from now on, in the calling thread alone. 0 in place of a number: nothing of the kind. */
struct fault_plan {
  uint64_t seed;
  unsigned system; /* of so many system calls one fails */
  unsigned memory; /* of so many allocations one begins a shortage of some allocations */
  bool soft; /* system calls fail only in ways after which nothing is lost: EINTR, EAGAIN, short counts */
};

struct fault_counts {
  uint64_t calls;       /* system calls that could have failed */
  uint64_t failed;      /* and those that did */
  uint64_t hard;        /* of these, those that a caller is told of */
  uint64_t allocations; /* that could have failed */
  uint64_t no_memory;   /* and those that did */
  uint64_t polls;       /* epoll_wait and epoll_pwait: how often the loop has looked for events */
  uint64_t codes[256];  /* by errno value */
};

void faults_set(const struct fault_plan *wanted);

/* The next call of a kind ("setsockopt", "a send", see faulty_system.c) fails with an errno value, after so many
   that do not. */
void faults_fail_next(const char *calls, int code, unsigned after);

/* Holds faults back (+1), or lets go of that (-1). */
void faults_hold(int change);

/* Is this allocation to fail? */
bool faults_allocation(void);

const struct fault_counts *faults_counts(void);

#endif
