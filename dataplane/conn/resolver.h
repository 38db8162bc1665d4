#pragma once

#include "dataplane/base/address.h"

// Names to addresses, off the shards: one thread of the process asks by c-ares, for many at a time,
// so that a name whose servers are silent holds up no other.
//
// Threading: ask, look and drop from any thread; a lookup belongs to who asked. The askers look
// from a timer: a name is resolved seldom, and nothing waits for it but a dial.
// Memory:    a lookup goes when both its asker and the resolver have let go of it.
#define SL_LOOKUP_ADDRESSES_MAX 16

struct sl_lookup;

// Asks. NULL when out of memory or threads.
struct sl_lookup *sl_lookup_start(const char *host, uint16_t port);
// Returns how many addresses were found (they go to `addresses`), 0 while it is not known, or -1
// with `error` pointing to a constant text.
int sl_lookup_look(struct sl_lookup *lookup, struct sl_address addresses[SL_LOOKUP_ADDRESSES_MAX],
		   const char **error);
void sl_lookup_drop(struct sl_lookup *lookup); // NULL is fine
