/* session_table.h: the sessions of a listener, found by the endpoint of their peer. Knows neither Lua nor the
   loop.

   Whoever sends chooses the endpoints. So the hash depends on a random key, and nobody can choose endpoints
   that meet in one bucket. */
#ifndef IP_SESSION_TABLE_H
#define IP_SESSION_TABLE_H

#include "net/endpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IP_SESSION_KEYS = 7 }; /* one for each word of an endpoint, and one more */

/* The part of a session that the table links. The session owns it. */
struct ip_session_entry {
  struct ip_session_entry *next; /* in its bucket */
  uint32_t hash;
  struct ip_endpoint endpoint;
};

struct ip_session_table {
  struct ip_session_entry **buckets;
  size_t size; /* buckets: a power of two */
  size_t count;
  uint64_t keys[IP_SESSION_KEYS];
};

/* Makes an empty table. `keys` are random. Returns 0 or ENOMEM. */
int ip_session_table_init(struct ip_session_table *table, const uint64_t keys[IP_SESSION_KEYS]);
void ip_session_table_fini(struct ip_session_table *table);

/* The entry of an endpoint, or NULL. */
struct ip_session_entry *ip_session_table_find(const struct ip_session_table *table,
                                               const struct ip_endpoint *endpoint);

/* Adds an entry whose endpoint is set and not in the table. */
void ip_session_table_add(struct ip_session_table *table, struct ip_session_entry *entry);
void ip_session_table_remove(struct ip_session_table *table, struct ip_session_entry *entry);

#endif
