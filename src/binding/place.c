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
  MOST_FILES = 1024, /* a program that makes up names of chunks without end makes this table no larger: the
                        oldest names are forgotten */
  FILES_AT_FIRST = 8
};

struct file {
  uint16_t number;
  char name[LUA_IDSIZE];
};

struct ip_places {
  const char *own[MOST_OWN_FILES]; /* addresses to compare with */
  size_t own_count;
  struct file *files; /* the number decides the slot */
  size_t count, capacity;
  uint16_t newest; /* number of the newest name */
  size_t last;     /* slot of the name that was asked for last */
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

/* Returns false where memory is short. */
static bool make_space(struct ip_places *places) {
  if (places->count < places->capacity || places->capacity == MOST_FILES) return true;
  size_t capacity = places->capacity == 0 ? FILES_AT_FIRST : 2 * places->capacity;
  void *files = realloc(places->files, capacity * sizeof *places->files);
  if (files == NULL) return false;
  places->files = files;
  places->capacity = capacity;
  return true;
}

/* Gives the name the next number, and the slot of the oldest name where the table is full. Returns the
   number, or 0 where memory is short or all numbers are used: a number never comes to mean another name. */
static uint16_t add(struct ip_places *places, const char *name) {
  if (places->newest == UINT16_MAX || !make_space(places)) return 0;
  size_t slot = places->newest++ % MOST_FILES;
  if (slot >= places->count) places->count = slot + 1;
  places->files[slot].number = places->newest;
  memcpy(places->files[slot].name, name, LUA_IDSIZE);
  places->last = slot;
  return places->newest;
}

/* Returns the number of the name, or 0 where it cannot be kept. */
static uint16_t number_of(struct ip_places *places, const char *name) {
  size_t slot = places->last;
  if (slot < places->count && strcmp(places->files[slot].name, name) == 0) return places->files[slot].number;
  for (slot = 0; slot < places->count; slot++) {
    if (strcmp(places->files[slot].name, name) != 0) continue;
    places->last = slot;
    return places->files[slot].number;
  }
  return add(places, name);
}

/* Returns the name with that number, or NULL where it has been forgotten. */
static const char *name_of(const struct ip_places *places, uint16_t number) {
  size_t slot = (size_t)(number - 1) % MOST_FILES;
  return number != 0 && places->files[slot].number == number ? places->files[slot].name : NULL;
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
  const char *name = places != NULL ? name_of(places, place.file) : NULL;
  if (name == NULL)
    lua_pushnil(L);
  else
    lua_pushfstring(L, "%s:%d", name, (int)place.line);
}

void ip_place_push_prefix(lua_State *L) {
  const struct ip_places *places = places_of(ip_core(L));
  lua_Debug caller;
  if (places != NULL && find_caller(L, places, &caller))
    lua_pushfstring(L, "%s:%d: ", caller.short_src, caller.currentline);
  else
    lua_pushliteral(L, "");
}
