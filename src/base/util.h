/* util.h: small macros that every file may use. Layer 0. */
#ifndef IP_UTIL_H
#define IP_UTIL_H

#include <stddef.h>

/* The object that contains `member` at address `pointer`. */
#define ip_container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define ip_count_of(array) (sizeof(array) / sizeof((array)[0]))

/* Marks what the loader or a C host looks up; all other symbols are hidden. */
#define IP_EXPORT __attribute__((visibility("default")))

/* Marks a function that always raises. Its return type only lets a caller write `return f(...)`. */
#define IP_NO_RETURN __attribute__((noreturn))

#define IP_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define IP_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#endif
