/* session_table.c: a hash table of endpoints with chains. Owns the buckets, and links the entries of others.
   Raises nothing.

   The hash is multilinear: the sum of the words of an endpoint, each multiplied by a random key of 64 bits,
   of which the upper half is used. That is strongly universal: for an unknown key, two endpoints collide with
   probability 2^-32, whoever has chosen them (D. Lemire, O. Kaser, "Strongly universal string hashing is
   fast", 2014). */
#include "udp/session_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SIZE = 64 };

int ip_session_table_init(struct ip_session_table *table, const uint64_t keys[IP_SESSION_KEYS]) {
  *table = (struct ip_session_table){.size = FIRST_SIZE};
  memcpy(table->keys, keys, sizeof table->keys);
  table->buckets = calloc(FIRST_SIZE, sizeof(struct ip_session_entry *));
  return table->buckets == NULL ? ENOMEM : 0;
}

void ip_session_table_fini(struct ip_session_table *table) {
  free(table->buckets);
  table->buckets = NULL;
}

static uint32_t hash(const struct ip_session_table *table, const struct ip_endpoint *endpoint) {
  const uint64_t *keys = table->keys;
  uint64_t sum = keys[0] + keys[1] * endpoint->name.v4.sin_port; /* that of a v6 endpoint is in its place */
  if (ip_endpoint_family(endpoint) != AF_INET6)
    return (uint32_t)((sum + keys[2] * endpoint->name.v4.sin_addr.s_addr) >> 32);
  uint32_t words[4];
  memcpy(words, &endpoint->name.v6.sin6_addr, sizeof words);
  for (int i = 0; i < 4; i++)
    sum += keys[2 + i] * words[i];
  return (uint32_t)((sum + keys[6] * endpoint->name.v6.sin6_scope_id) >> 32);
}

static struct ip_session_entry **bucket_of(const struct ip_session_table *table, uint32_t hash) {
  return &table->buckets[hash & (table->size - 1)];
}

struct ip_session_entry *ip_session_table_find(const struct ip_session_table *table,
                                               const struct ip_endpoint *endpoint) {
  uint32_t wanted = hash(table, endpoint);
  struct ip_session_entry *entry = *bucket_of(table, wanted);
  while (entry != NULL && (entry->hash != wanted || !ip_endpoint_equal(&entry->endpoint, endpoint)))
    entry = entry->next;
  return entry;
}

/* Without memory the chains grow instead. */
static void grow(struct ip_session_table *table) {
  struct ip_session_table larger = {.size = table->size * 2};
  larger.buckets = calloc(larger.size, sizeof(struct ip_session_entry *));
  if (larger.buckets == NULL) return;
  for (size_t i = 0; i < table->size; i++)
    while (table->buckets[i] != NULL) {
      struct ip_session_entry *entry = table->buckets[i];
      table->buckets[i] = entry->next;
      struct ip_session_entry **bucket = bucket_of(&larger, entry->hash);
      entry->next = *bucket;
      *bucket = entry;
    }
  free(table->buckets);
  table->buckets = larger.buckets;
  table->size = larger.size;
}

void ip_session_table_add(struct ip_session_table *table, struct ip_session_entry *entry) {
  if (table->count >= table->size) grow(table);
  entry->hash = hash(table, &entry->endpoint);
  struct ip_session_entry **bucket = bucket_of(table, entry->hash);
  entry->next = *bucket;
  *bucket = entry;
  table->count++;
}

void ip_session_table_remove(struct ip_session_table *table, struct ip_session_entry *entry) {
  struct ip_session_entry **link = bucket_of(table, entry->hash);
  while (*link != entry)
    link = &(*link)->next;
  *link = entry->next;
  table->count--;
}
