#include "dataplane/base/ring.h"

#include <errno.h>
#include <stdlib.h>

int sl_ring_init(struct sl_ring *ring, uint32_t count)
{
	uint32_t size = 2;

	assert(count <= UINT32_C(1) << 30);
	while (size < count)
		size *= 2;
	*ring = (struct sl_ring){.mask = size - 1, .slots = calloc(size, sizeof(void *))};
	return ring->slots ? 0 : -ENOMEM;
}

void sl_ring_fini(struct sl_ring *ring)
{
	free(ring->slots);
	ring->slots = NULL;
}
