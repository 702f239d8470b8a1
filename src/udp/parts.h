/* parts.h: all parts of a channel together. Does not use Lua. */
#ifndef IP_PARTS_H
#define IP_PARTS_H

#include "udp/buffer_pool.h"
#include "udp/channel.h"

/* Creates an error queue and the parts whose paths read it, or frees the error queue. Returns 0 or ENOMEM. */
int ip_parts_set_errors(struct ip_channel *channel, bool on);

/* Reads the options of a descriptor that somebody else has opened, and creates the parts that they need.
   `pool` as for ip_receive_path_set_offload. Returns 0 or an errno value. */
int ip_parts_adopt(struct ip_channel *channel, struct ip_buffer_pool *pool);

void ip_parts_free(struct ip_channel *channel);

#endif
