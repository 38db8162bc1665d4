#include "tenants/classes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"

// A name is compared with all others to find the nearest: not for a file that is wrong all over.
#define NEAREST_ERRORS_MAX 20

static uint32_t *find(const struct sl_classes *classes, struct sl_bytes name)
{
	const struct sl_table_index *index = &classes->index;
	uint32_t at = (uint32_t)sl_hash(name) & index->mask;

	while (index->slots[at] &&
	       !sl_bytes_equal(sl_bytes_of(classes->tenants->classes[index->slots[at] - 1].name),
			       name))
		at = (at + 1) & index->mask;
	return &index->slots[at];
}

static const char *class_name(const void *self, uint32_t index)
{
	return ((const struct sl_tenants *)self)->classes[index].name;
}

const struct sl_tenant_class *sl_classes_find(const struct sl_classes *classes, const char *name,
					      const char *what, const struct sl_where *where,
					      struct sl_errors *errors)
{
	const struct sl_tenants *tenants = classes->tenants;
	const uint32_t slot = *find(classes, sl_bytes_of(name));
	const char *near = NULL;

	if (slot)
		return &tenants->classes[slot - 1];
	if (sl_errors_count(errors) < NEAREST_ERRORS_MAX)
		near = sl_nearest(name, class_name, tenants, tenants->class_count);
	sl_errors_add(errors, where, "%s: there is no class %s%s%s%s", what, name,
		      near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	return NULL;
}

static int add(struct sl_classes *classes, const struct sl_class_config *from,
	       struct sl_errors *errors)
{
	struct sl_tenants *tenants = classes->tenants;
	const struct sl_bytes name = sl_bytes_of(from->name);

	if (!sl_tenant_name_valid(name)) {
		sl_errors_add(errors, &from->where, "%s is no name of a class", from->name);
		return 0;
	}

	uint32_t *slot = find(classes, name);

	if (*slot) {
		sl_errors_add(errors, &from->where, "there is another class %s, at %s:%u",
			      from->name, classes->configs[*slot - 1]->where.file,
			      classes->configs[*slot - 1]->where.line);
		return 0;
	}

	struct sl_tenant_class *class = &tenants->classes[tenants->class_count];

	class->name = sl_registry_class_name(tenants->registry, name);
	if (!class->name)
		return -ENOMEM;
	class->extends = UINT16_MAX;
	classes->configs[tenants->class_count] = from;
	*slot = ++tenants->class_count;
	return 0;
}

static void link_parents(struct sl_classes *classes, struct sl_errors *errors)
{
	struct sl_tenants *tenants = classes->tenants;
	char what[SL_TENANT_NAME_MAX + 16];

	for (uint32_t i = 0; i < tenants->class_count; i++) {
		const struct sl_class_config *from = classes->configs[i];
		const struct sl_tenant_class *parent;

		if (!from->extends)
			continue;
		snprintf(what, sizeof(what), "class %s", from->name);
		parent = sl_classes_find(classes, from->extends, what, &from->extends_where,
					 errors);
		if (parent)
			tenants->classes[i].extends = (uint16_t)(parent - tenants->classes);
	}
}

static void tell_cycle(const struct sl_classes *classes, uint32_t from, struct sl_errors *errors)
{
	const struct sl_tenants *tenants = classes->tenants;
	char text[400];
	size_t used = 0;
	uint32_t at = from;

	do {
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s extends ",
					 tenants->classes[at].name);
		at = tenants->classes[at].extends;
	} while (at != from && used < sizeof(text) - 1);
	sl_errors_add(errors, &classes->configs[from]->extends_where, "classes in a circle: %s%s",
		      text, used < sizeof(text) - 1 ? tenants->classes[from].name : "...");
}

enum state { STATE_NEW, STATE_OPEN, STATE_DONE };

// A class after what it extends. `chain` has room for all of them: no recursion, however long.
static void settle(struct sl_classes *classes, uint32_t first, uint8_t *states, uint32_t *chain,
		   struct sl_errors *errors)
{
	struct sl_tenants *tenants = classes->tenants;
	uint32_t count = 0, at = first;
	char what[SL_TENANT_NAME_MAX + 16];

	while (at != UINT16_MAX && states[at] == STATE_NEW) {
		states[at] = STATE_OPEN;
		chain[count++] = at;
		at = tenants->classes[at].extends;
	}
	if (at != UINT16_MAX && states[at] == STATE_OPEN) {
		tell_cycle(classes, at, errors);
		tenants->classes[chain[count - 1]].extends = UINT16_MAX;
	}
	while (count-- > 0) {
		struct sl_tenant_class *class = &tenants->classes[chain[count]];
		const struct sl_class_config *own = classes->configs[chain[count]];

		class->config = *own;
		if (class->extends != UINT16_MAX) {
			class->config = tenants->classes[class->extends].config;
			sl_settings_override(&sl_class_settings, &class->config, own);
		}
		class->limits = sl_tenants_limits(&class->config, NULL, tenants->observe);
		snprintf(what, sizeof(what), "class %s", own->name);
		sl_tenants_check_quota(&own->quota, &class->limits, what, &own->where, errors);
		states[chain[count]] = STATE_DONE;
	}
}

int sl_classes_build(struct sl_classes *classes, struct sl_tenants *tenants,
		     const struct sl_tenants_file *const *files, uint32_t count,
		     struct sl_errors *errors)
{
	size_t most = 0;
	uint8_t *states = NULL;
	uint32_t *chain = NULL;
	int error = -ENOMEM;

	*classes = (struct sl_classes){.tenants = tenants};
	for (uint32_t i = 0; i < count; i++)
		most += files[i]->classes.count;
	if (most > SL_CLASSES_MAX) {
		sl_errors_add(errors, NULL, "more than %d classes", SL_CLASSES_MAX);
		return -EINVAL;
	}
	tenants->classes = calloc(most + 1, sizeof(*tenants->classes));
	classes->configs = calloc(most + 1, sizeof(*classes->configs));
	states = calloc(most + 1, sizeof(*states));
	chain = calloc(most + 1, sizeof(*chain));
	if (!tenants->classes || !classes->configs || !states || !chain ||
	    sl_table_index_init(&classes->index, most))
		goto done;
	error = 0;
	for (uint32_t i = 0; i < count && !error; i++) {
		const struct sl_class_config *configs = files[i]->classes.items;

		for (size_t j = 0; j < files[i]->classes.count && !error; j++)
			error = add(classes, &configs[j], errors);
	}
	if (error)
		goto done;
	link_parents(classes, errors);
	for (uint32_t i = 0; i < tenants->class_count; i++)
		settle(classes, i, states, chain, errors);
done:
	free(states);
	free(chain);
	return error;
}

void sl_classes_fini(struct sl_classes *classes)
{
	free(classes->index.slots);
	free(classes->configs);
	*classes = (struct sl_classes){0};
}
