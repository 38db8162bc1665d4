#include "dataplane/base/by_tenant.h"

#include <errno.h>
#include <sys/mman.h>

int sl_by_tenant_init(struct sl_by_tenant *array, size_t item_bytes)
{
	const size_t bytes = SL_TENANTS_MAX * item_bytes;
	void *items = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*array = (struct sl_by_tenant){0};
	if (items == MAP_FAILED)
		return -ENOMEM;
	*array = (struct sl_by_tenant){items, bytes};
	return 0;
}

void sl_by_tenant_fini(struct sl_by_tenant *array)
{
	if (array->items)
		munmap(array->items, array->bytes);
	*array = (struct sl_by_tenant){0};
}
