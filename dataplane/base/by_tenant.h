#pragma once

#include "dataplane/base/base.h"

// An array by tenant's number, for state that only tenants with traffic have: address space for all
// numbers there may be, taken at once, so that no request ever waits for it to grow; pages come as
// tenants do. New items are zero.
//
// Threading: its owner's. Memory: SL_TENANTS_MAX items of address space, 4 KiB for each page that
// was touched.
#define SL_TENANTS_MAX (UINT32_C(1) << 20)

struct sl_by_tenant {
	void *items;
	size_t bytes;
};

// Returns 0 or -ENOMEM.
int sl_by_tenant_init(struct sl_by_tenant *array, size_t item_bytes);
void sl_by_tenant_fini(struct sl_by_tenant *array); // a zeroed one is fine

// The item of a tenant, of an array of that type.
#define SL_BY_TENANT(array_, type_, tenant_)                                                       \
	(assert((tenant_) < SL_TENANTS_MAX), &((type_ *)(array_)->items)[tenant_])
