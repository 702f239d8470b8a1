/* util.h: small macros that every room may use. Layer 0. */
#ifndef IP_UTIL_H
#define IP_UTIL_H

#include <stddef.h>

/* The object that contains `member` at address `pointer`. */
#define ip_container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define ip_count_of(array) (sizeof(array) / sizeof((array)[0]))

/* All symbols are hidden but those that the loader or a C host looks up. */
#define IP_EXPORT __attribute__((visibility("default")))

/* What raises, whatever type it has. */
#define IP_NO_RETURN __attribute__((noreturn))

#define IP_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define IP_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#endif
