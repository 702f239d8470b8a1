/* parts.h: all parts of a channel together. Knows no Lua. */
#ifndef IP_PARTS_H
#define IP_PARTS_H

#include "udp/channel.h"

/* Provides an error queue, and with it the other parts, whose paths look at it; or drops it. Returns 0 or ENOMEM. */
int ip_parts_set_errors(struct ip_channel *channel, bool on);

/* For a descriptor that somebody else has opened: finds out which options are on that a part has to know of. Returns 0 or an
   errno value. */
int ip_parts_adopt(struct ip_channel *channel);

void ip_parts_free(struct ip_channel *channel);

#endif
