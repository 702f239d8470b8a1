/* wanted_error.h: what the libraries that make one system call fail share. */
#ifndef WANTED_ERROR_H
#define WANTED_ERROR_H

#include <stdio.h>
#include <stdlib.h>

/* The number in the file that an environment variable names; 0 while there is none. */
static inline int wanted_error(const char *variable) {
  const char *path = getenv(variable);
  FILE *file = path != NULL ? fopen(path, "r") : NULL;
  int error = 0;
  if (file == NULL) return 0;
  if (fscanf(file, "%d", &error) != 1) error = 0;
  fclose(file);
  return error;
}

#endif
