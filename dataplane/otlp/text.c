#include "dataplane/otlp/text.h"

#include "dataplane/otlp/schema.h"
#include "dataplane/otlp/view.h"

// As deep as the scan lets AnyValues nest.
static bool message_valid(const struct sl_message *message, struct sl_bytes payload)
{
	struct sl_wire_field wire;
	uint32_t offset = 0;

	while (sl_wire_next(payload, &offset, &wire)) {
		const struct sl_field *field = wire.wire_type == 2
						       ? sl_schema_field(message, wire.number)
						       : NULL;

		if (!field)
			continue;
		if (field->type == SL_FIELD_STRING && !sl_utf8_valid(wire.data))
			return false;
		if (field->type == SL_FIELD_MESSAGE && !message_valid(field->message, wire.data))
			return false;
	}
	return true;
}

bool sl_view_text_valid(const struct sl_view *view)
{
	return message_valid(sl_schema_requests[view->signal], view->body);
}
