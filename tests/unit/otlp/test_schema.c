#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/otlp/schema.h"

// Walks every message that the requests reach, each once.
static void walk(const struct sl_message *message, const struct sl_message **seen, unsigned *count,
		 void (*each)(const struct sl_message *))
{
	for (unsigned i = 0; i < *count; i++)
		if (seen[i] == message)
			return;
	assert_true(*count < 64);
	seen[(*count)++] = message;
	each(message);
	for (unsigned i = 0; i < message->field_count; i++)
		if (message->fields[i].type == SL_FIELD_MESSAGE)
			walk(message->fields[i].message, seen, count, each);
}

static unsigned walk_all(void (*each)(const struct sl_message *))
{
	const struct sl_message *seen[64];
	unsigned count = 0;

	for (unsigned i = 0; i < SL_SIGNALS; i++)
		walk(sl_schema_requests[i], seen, &count, each);
	return count;
}

static void check_message(const struct sl_message *message)
{
	unsigned indexed = 0;

	for (unsigned i = 0; i < message->field_count; i++) {
		const struct sl_field *field = &message->fields[i];

		assert_true(i == 0 || field->number > message->fields[i - 1].number);
		assert_ptr_equal(sl_schema_field(message, field->number), field);
		assert_ptr_equal(sl_schema_field_named(message, sl_bytes_of(field->name)), field);
		assert_int_equal(field->type == SL_FIELD_MESSAGE, field->message != NULL);
		assert_int_equal(field->type == SL_FIELD_ENUM, field->names != NULL);
		assert_int_equal(field->type == SL_FIELD_ID, field->id_bytes != 0);
		assert_true(!field->oneof || field->optional);
		assert_true(!field->repeated || !field->optional);
	}
	for (unsigned i = 0; i < SL_COUNT_OF(message->by_number); i++)
		indexed += message->by_number[i] != 0;
	assert_int_equal(indexed, message->field_count);
}

static void test_tables_agree(void **state)
{
	(void)state;
	// 3 requests, 6 envelopes, Resource, EntityRef, Scope, KeyValue, AnyValue, ArrayValue,
	// KeyValueList, Span, Event, Link, Status, LogRecord, Metric, 5 kinds of points with their
	// 4 points, Exemplar, Buckets, ValueAtQuantile.
	assert_int_equal(walk_all(check_message), 9 + 7 + 4 + 1 + 1 + 5 + 4 + 3);
}

static void test_known_fields(void **state)
{
	(void)state;
	static const struct {
		const char *why;
		const struct sl_message *message;
		const char *name;
		unsigned number, type, wire_type;
	} rows[] = {
		{"item 44: ids", &sl_schema_span, "traceId", 1, SL_FIELD_ID, 2},
		{"flags' tag takes two bytes", &sl_schema_span, "flags", 16, SL_FIELD_FIXED32, 5},
		{"4 is reserved, 5 is next", &sl_schema_log_record, "body", 5, SL_FIELD_MESSAGE, 2},
		{"the last of a log record", &sl_schema_log_record, "eventName", 12,
		 SL_FIELD_STRING, 2},
		{"items 10: known, though ignored", &sl_schema_any_value, "stringValueStrindex", 8,
		 SL_FIELD_INT32, 0},
		{"item 47: 64 bits", &sl_schema_any_value, "intValue", 3, SL_FIELD_INT64, 0},
		{"gaps around 8", &sl_schema_metric, "histogram", 9, SL_FIELD_MESSAGE, 2},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_field *field = sl_schema_field_named(rows[i].message,
								     sl_bytes_of(rows[i].name));

		print_message("%s\n", rows[i].why);
		assert_non_null(field);
		assert_int_equal(field->number, rows[i].number);
		assert_int_equal(field->type, rows[i].type);
		assert_int_equal(sl_schema_wire_type(field), rows[i].wire_type);
	}
}

static void test_unknown_fields(void **state)
{
	(void)state;
	static const uint64_t numbers[] = {0, 17, 19, 20, 255, 256, 257, 1000, UINT64_MAX};
	static const char *const names[] = {"", "trace_id", "TraceId", "traceI", "traceIdd"};

	for (size_t i = 0; i < SL_COUNT_OF(numbers); i++)
		assert_null(sl_schema_field(&sl_schema_span, numbers[i]));
	for (size_t i = 0; i < SL_COUNT_OF(names); i++)
		assert_null(sl_schema_field_named(&sl_schema_span, sl_bytes_of(names[i])));
	assert_null(sl_schema_field_named(&sl_schema_span, sl_bytes("traceId\0x", 9)));
	assert_null(sl_schema_field(&sl_schema_log_record, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables_agree),
		cmocka_unit_test(test_known_fields),
		cmocka_unit_test(test_unknown_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
