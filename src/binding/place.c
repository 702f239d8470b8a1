/* place.c: the place in a program that an error names.

   Owns the names of files, in memory of the core, and a registry entry that keeps the library's own chunks: a
   file is known by the address of the name that all its functions share, which Lua keeps as long as one of
   them lives. Raises memory errors only, and those where a comment says so. */
#include "binding/place.h"

#include "base/util.h"
#include "binding/core.h"

#include <stdlib.h>
#include <string.h>

enum {
  MOST_OWN_FILES = 32,
  MOST_FILES = 1024, /* a program that makes up names of chunks without end makes this table no larger */
  FILES_AT_FIRST = 8
};

struct ip_places {
  const char *own[MOST_OWN_FILES]; /* addresses to compare with */
  size_t own_count;
  char (*files)[LUA_IDSIZE];
  size_t count, capacity;
  size_t last; /* the file that was named last */
};

/* Registry: a table that keeps the main functions of the library's own files. */
static const char own_key;

bool ip_place_open(struct ip_core *core) {
  core->places = calloc(1, sizeof *core->places);
  return core->places != NULL;
}

/* Returns NULL in a function that is not the library's, and after the end of the state. */
static struct ip_places *places_of(const struct ip_core *core) {
  return core != NULL ? core->places : NULL;
}

void ip_place_free(struct ip_core *core) {
  if (core->places == NULL) return;
  free(core->places->files);
  free(core->places);
  core->places = NULL;
}

/* --- the library's own files --- */

int ip_place_own_file(lua_State *L) {
  lua_Debug caller;
  struct ip_places *places = places_of(ip_core(L));
  if (places == NULL || places->own_count == MOST_OWN_FILES) return 0;
  if (lua_getstack(L, 1, &caller) == 0 || lua_getinfo(L, "fS", &caller) == 0) return 0;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &own_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &own_key);
  }
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (lua_Integer)places->own_count + 1);
  places->own[places->own_count++] = caller.source;
  return 0;
}

static bool is_own(const struct ip_places *places, const char *source) {
  for (size_t i = 0; i < places->own_count; i++)
    if (places->own[i] == source) return true;
  return false;
}

/* --- names of files --- */

/* Returns false where the table is full or memory is short. */
static bool make_space(struct ip_places *places) {
  if (places->count < places->capacity) return true;
  if (places->capacity == MOST_FILES) return false;
  size_t capacity = places->capacity == 0 ? FILES_AT_FIRST : 2 * places->capacity;
  void *files = realloc(places->files, capacity * sizeof *places->files);
  if (files == NULL) return false;
  places->files = files;
  places->capacity = capacity;
  return true;
}

/* Returns the number of the name, or 0 where it cannot be kept. */
static uint16_t number_of(struct ip_places *places, const char *name) {
  if (places->last < places->count && strcmp(places->files[places->last], name) == 0)
    return (uint16_t)(places->last + 1);
  size_t i = 0;
  while (i < places->count && strcmp(places->files[i], name) != 0)
    i++;
  if (i == places->count) {
    if (!make_space(places)) return 0;
    memcpy(places->files[places->count++], name, LUA_IDSIZE);
  }
  places->last = i;
  return (uint16_t)(i + 1);
}

/* --- places --- */

/* Finds the nearest function with line numbers outside the library's own files. */
static bool find_caller(lua_State *L, const struct ip_places *places, lua_Debug *caller) {
  for (int level = 1; lua_getstack(L, level, caller) != 0; level++) {
    lua_getinfo(L, "l", caller);
    if (caller->currentline <= 0) continue; /* a C function, or a chunk that was stripped */
    lua_getinfo(L, "S", caller);
    if (!is_own(places, caller->source)) return true;
  }
  return false;
}

struct ip_place ip_place_note(lua_State *L) {
  struct ip_place nowhere = {0, 0};
  struct ip_places *places = places_of(ip_core(L));
  lua_Debug caller;
  if (places == NULL || !find_caller(L, places, &caller)) return nowhere;
  uint16_t file = number_of(places, caller.short_src);
  return file == 0 ? nowhere : (struct ip_place){caller.currentline, file};
}

void ip_place_push(lua_State *L, struct ip_place place) {
  const struct ip_places *places = places_of(ip_core(L));
  if (place.file == 0 || places == NULL)
    lua_pushnil(L);
  else
    lua_pushfstring(L, "%s:%d", places->files[place.file - 1], (int)place.line);
}

void ip_place_push_prefix(lua_State *L) {
  const struct ip_places *places = places_of(ip_core(L));
  lua_Debug caller;
  if (places != NULL && find_caller(L, places, &caller))
    lua_pushfstring(L, "%s:%d: ", caller.short_src, caller.currentline);
  else
    lua_pushliteral(L, "");
}
