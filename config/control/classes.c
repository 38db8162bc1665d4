#include "config/control/control.h"
#include "routing/settings.h"
#include "sampling/rules.h"
#include "tenants/table.h"

// What no policy folder can see alone: names in one that another has to know.

static const char *name_of(const void *self, uint32_t index)
{
	return ((const struct sl_tenants *)self)->classes[index].name;
}

static void check_name(const struct sl_tenants *tenants, const char *name, const char *who,
		       const struct sl_where *where, struct sl_errors *errors)
{
	const char *near;

	// A pattern may be for those to come; the empty name is that of tenants without a class.
	if (!name || !name[0] || name[strcspn(name, "*?\\")])
		return;
	for (uint32_t i = 0; i < tenants->class_count; i++) {
		if (strcmp(tenants->classes[i].name, name) == 0)
			return;
	}
	near = sl_nearest(name, name_of, tenants, tenants->class_count);
	sl_errors_add(errors, where, "%s: match: class: no class is named \"%s\", expected %s%s%s",
		      who, name, near ? "\"" : "one of the tenants' classes", near ? near : "",
		      near ? "\", perhaps" : "");
}

void sl_control_check_classes(const struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	const struct sl_tenants *tenants = snapshot->parts[SL_MODULE_TENANTS];
	const struct sl_tenants_module_config *config = snapshot->configs[SL_MODULE_TENANTS];
	const struct sl_routing_config *routing = snapshot->configs[SL_MODULE_ROUTING];
	const struct sl_sampling_config *sampling = snapshot->configs[SL_MODULE_SAMPLING];
	const struct sl_route_config *routes = routing->routes.items;
	const struct sl_sampling_rule_config *rules = sampling->rules.items;

	if (config->tenants.redis)
		return;
	for (size_t i = 0; i < routing->routes.count; i++) {
		if (routes[i].match)
			check_name(tenants, routes[i].match->class_name, "routes",
				   &routes[i].match->class_where, errors);
	}
	for (size_t i = 0; i < sampling->rules.count; i++)
		check_name(tenants, rules[i].match.class_name, "sampling",
			   &rules[i].match.class_where, errors);
}
