#pragma once

#include "tenants/table.h"

// Classes while a snapshot is built: each gets what it extends, with the keys that it names itself
// replaced, at every level.
//
// Threading: control thread. Memory: the index is the builder's, the classes the snapshot's.

#define SL_CLASSES_MAX 4096

// Names of classes are looked up for every tenant.
struct sl_classes {
	struct sl_tenants *tenants;
	struct sl_table_index index;
	const struct sl_class_config **configs; // by class index, while the files live
};

// Takes the classes of all files. Returns 0, -EINVAL or -ENOMEM; problems go to `errors`.
int sl_classes_build(struct sl_classes *classes, struct sl_tenants *tenants,
		     const struct sl_tenants_file *const *files, uint32_t count,
		     struct sl_errors *errors);
void sl_classes_fini(struct sl_classes *classes); // a zeroed one is fine

// The class of that name, or NULL after a message that says what `what` (as "tenant a") wants.
const struct sl_tenant_class *sl_classes_find(const struct sl_classes *classes, const char *name,
					      const char *what, const struct sl_where *where,
					      struct sl_errors *errors);
