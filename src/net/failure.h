/* failure.h: why a system call failed. */
#ifndef IP_FAILURE_H
#define IP_FAILURE_H

#include <stdbool.h>

struct ip_failure {
  int code;      /* an errno value; 0: it has not failed */
  int mtu;       /* of the path that was too small, with EMSGSIZE; 0: unknown */
  bool deferred; /* of a datagram that an earlier call has queued */
};

static inline struct ip_failure ip_failure(int code) {
  return (struct ip_failure){.code = code, .mtu = 0};
}

#endif
