#include <stdio.h>

#include "dataplane/base/glob.h"
#include "routing/internal.h"

// Which route a part, or one resource of it, takes.

struct sl_pattern sl_pattern_of(const char *text)
{
	struct sl_pattern pattern = {.text = sl_bytes_of(text), .kind = SL_MATCH_GLOB};
	size_t plain;

	if (!text)
		return pattern;
	plain = strcspn(text, "*?\\");
	if (!text[plain]) {
		pattern.kind = SL_MATCH_EQUAL;
	} else if (text[plain] == '*' && !text[plain + 1]) {
		pattern.kind = SL_MATCH_PREFIX;
		pattern.text.size = plain;
	}
	return pattern;
}

bool sl_pattern_match(const struct sl_pattern *pattern, struct sl_bytes text)
{
	if (!pattern->text.data)
		return true;
	switch (pattern->kind) {
	case SL_MATCH_EQUAL:
		return sl_bytes_equal(pattern->text, text);
	case SL_MATCH_PREFIX:
		return sl_bytes_start(text, pattern->text);
	case SL_MATCH_GLOB:
		break;
	}
	return sl_glob_match(pattern->text, text);
}

uint32_t sl_route_find(const struct sl_routing *routing, const struct sl_part *part, uint32_t first)
{
	const uint32_t signal = part->request->signal + 1;

	for (uint32_t i = first; i < routing->route_count; i++) {
		const struct sl_route *route = &routing->routes[i];

		if ((!route->signal || route->signal == signal) &&
		    sl_pattern_match(&route->tenant, part->tenant_name) &&
		    sl_pattern_match(&route->class_name, sl_bytes_of(part->class_name)))
			return i;
	}
	return routing->route_count;
}

// A value that is no scalar is still there, but only the empty pattern and "*" match it.
bool sl_route_attribute_text(const struct sl_view *view, uint32_t resource, struct sl_bytes name,
			     char scratch[32], struct sl_bytes *value)
{
	struct sl_any any;
	double number;

	if (!sl_view_resource_any(view, resource, name, &any))
		return false;
	*value = SL_BYTES_NONE;
	if (any.type == SL_ANY_STRING) {
		*value = any.text;
	} else if (any.type == SL_ANY_BOOL) {
		*value = sl_bytes_of(any.bits ? "true" : "false");
	} else if (any.type == SL_ANY_INT) {
		snprintf(scratch, 32, "%lld", (long long)any.bits);
		*value = sl_bytes_of(scratch);
	} else if (any.type == SL_ANY_DOUBLE) {
		memcpy(&number, &any.bits, sizeof(number));
		snprintf(scratch, 32, "%.17g", number);
		*value = sl_bytes_of(scratch);
	}
	return true;
}

uint32_t sl_route_find_resource(const struct sl_routing *routing, const struct sl_part *part,
				uint32_t envelope)
{
	const struct sl_view *view = &part->request->view;
	uint32_t index = sl_route_find(routing, part, 0);

	for (; index < routing->route_count; index = sl_route_find(routing, part, index + 1)) {
		const struct sl_route *route = &routing->routes[index];
		bool matched = true;

		for (uint32_t i = 0; i < route->attribute_count && matched; i++) {
			struct sl_bytes value;
			char scratch[32];

			matched = sl_route_attribute_text(view, envelope, route->attributes[i].name,
							  scratch, &value) &&
				  sl_pattern_match(&route->attributes[i].value, value);
		}
		if (matched)
			return index;
	}
	return index;
}
