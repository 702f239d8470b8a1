/* faulty_memory.c: is linked to a second copy of the core whose allocations of C fail now and then, too: the
   linker gives these functions in the place of malloc, calloc and realloc (ld(1), --wrap). */
#include "faulty_system.h"

#include <stddef.h>

#pragma weak faults_allocation

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);

static bool fails(void) {
  return faults_allocation != NULL && faults_allocation();
}

void *__wrap_malloc(size_t size) {
  return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
  return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size) {
  return fails() ? NULL : __real_realloc(block, size);
}
