#include "tests/unit/test.h"

#include "dataplane/otlp/view.h"

#define PAIR(text)                                                                                 \
	{                                                                                          \
		(const uint8_t *)(text), sizeof(text) - 1                                          \
	}

// KeyValues in legal forms that few writers use; what they hold by protobuf's rules.
static const struct {
	const char *why;
	struct sl_bytes pair;
	const char *key;
	enum sl_any_type type;
	const char *text;
	uint64_t bits;
} rows[] = {
	{"the common form", PAIR("\x0a\x01k\x12\x03\x0a\x01v"), "k", SL_ANY_STRING, "v", 0},
	{"the value before the key", PAIR("\x12\x03\x0a\x01v\x0a\x01k"), "k", SL_ANY_STRING, "v",
	 0},
	{"the last key counts", PAIR("\x0a\x01x\x0a\x01k\x12\x03\x0a\x01v"), "k", SL_ANY_STRING,
	 "v", 0},
	{"an empty second value merges to nothing new", PAIR("\x0a\x01k\x12\x03\x0a\x01v\x12\x00"),
	 "k", SL_ANY_STRING, "v", 0},
	{"so does one of unknown fields only",
	 PAIR("\x0a\x01k\x12\x03\x0a\x01v\x12\x03\x9a\x06\x00"), "k", SL_ANY_STRING, "v", 0},
	{"a member of another wire type is unknown", PAIR("\x0a\x01k\x12\x05\x0a\x01v\x08\x07"),
	 "k", SL_ANY_STRING, "v", 0},
	{"a key of another wire type too", PAIR("\x0a\x01k\x08\x05\x12\x03\x0a\x01v"), "k",
	 SL_ANY_STRING, "v", 0},
	{"a group before the string", PAIR("\x0a\x01k\x12\x07\xa3\x06\xa4\x06\x0a\x01v"), "k",
	 SL_ANY_STRING, "v", 0},
	{"a group in the pair", PAIR("\xa3\x06\xa4\x06\x0a\x01k\x12\x03\x0a\x01v"), "k",
	 SL_ANY_STRING, "v", 0},
	{"the last member of the oneof counts", PAIR("\x0a\x01k\x12\x05\x0a\x01v\x18\x07"), "k",
	 SL_ANY_INT, "", 7},
	{"over two values as well", PAIR("\x0a\x01k\x12\x02\x18\x07\x12\x02\x10\x01"), "k",
	 SL_ANY_BOOL, "", 1},
	{"a double's bits", PAIR("\x0a\x01k\x12\x09\x21\0\0\0\0\0\0\xf0\x3f"), "k", SL_ANY_DOUBLE,
	 "", 0x3ff0000000000000},
	{"no value", PAIR("\x0a\x01k"), "k", SL_ANY_NONE, "", 0},
	{"nothing at all", PAIR(""), "", SL_ANY_NONE, "", 0},
};

static void pairs_read_as_protobuf_reads_them(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_bytes key;
		struct sl_any any;

		sl_wire_key_value(rows[i].pair, &key, &any);
		if (!sl_bytes_equal(key, sl_bytes_of(rows[i].key)) || any.type != rows[i].type ||
		    !sl_bytes_equal(any.text, sl_bytes_of(rows[i].text)) ||
		    any.bits * (any.type >= SL_ANY_BOOL) != rows[i].bits)
			fail_msg("%s: type %d, bits %llu", rows[i].why, any.type,
				 (unsigned long long)any.bits);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(pairs_read_as_protobuf_reads_them)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
