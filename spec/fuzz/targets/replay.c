/* replay.c: gives a target the inputs of a corpus, without libFuzzer. Prints how many there were.

   usage: replay_TARGET DIRECTORY */
#include "target.h"

#include <dirent.h>
#include <errno.h>

enum { LARGEST = 1 << 16 };

static void replay(const char *directory, const char *name) {
  static uint8_t bytes[LARGEST];
  char path[4096];
  (void)snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    perror(path);
    exit(2);
  }
  size_t size = fread(bytes, 1, sizeof bytes, file);
  (void)fclose(file);
  unsigned char *copy = copy_exactly(bytes, size);
  (void)LLVMFuzzerTestOneInput(copy, size);
  free(copy);
}

int main(int count, char **arguments) {
  if (count != 2) {
    fprintf(stderr, "usage: %s DIRECTORY\n", arguments[0]);
    return 2;
  }
  DIR *directory = opendir(arguments[1]);
  if (directory == NULL) {
    perror(arguments[1]);
    return 2;
  }
  unsigned long inputs = 0;
  /* cppcheck-suppress readdirCalled ; there is one thread */
  for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    replay(arguments[1], entry->d_name);
    inputs++;
  }
  closedir(directory);
  printf("%lu inputs\n", inputs);
  return 0;
}
