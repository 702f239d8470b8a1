/* failure.h: why a system call failed. */
#ifndef IP_FAILURE_H
#define IP_FAILURE_H

#include <stdbool.h>

struct ip_failure {
  int code; /* an errno value; 0: it has not failed */
  /* Of the path that was too small, with EMSGSIZE; 0: unknown. Its complement, which is negative: the
     datagram was queued by an earlier call. So a failure is as large as two numbers, and every operation has
     one. */
  int mtu;
};

static inline struct ip_failure ip_failure(int code) {
  return (struct ip_failure){.code = code, .mtu = 0};
}

/* Was the datagram queued by an earlier call? */
static inline bool ip_failure_is_deferred(struct ip_failure failure) {
  return failure.mtu < 0;
}

static inline struct ip_failure ip_failure_defer(struct ip_failure failure) {
  if (failure.mtu >= 0) failure.mtu = ~failure.mtu;
  return failure;
}

static inline int ip_failure_mtu(struct ip_failure failure) {
  return failure.mtu < 0 ? ~failure.mtu : failure.mtu;
}

#endif
