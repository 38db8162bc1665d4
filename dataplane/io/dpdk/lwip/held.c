#include <lwip/memp.h>
#include <lwip/priv/memp_priv.h>

#include "dataplane/io/dpdk/lwip/internal.h"

// What is not in a pool's list of free objects is held. It walks them all.
uint32_t sl_lwip_held(void)
{
	uint32_t held = 0;

#ifndef SL_LWIP_MALLOC
	for (unsigned i = 0; i < MEMP_MAX; i++) {
		held += memp_pools[i]->num;
		for (const struct memp *one = *memp_pools[i]->tab; one; one = one->next)
			held--;
	}
#endif
	return held;
}
