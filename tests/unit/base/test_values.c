#include "tests/unit/test.h"

#include "dataplane/base/address.h"
#include "dataplane/base/glob.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "dataplane/base/varint.h"

static const struct {
	const char *why;
	uint8_t bytes[12];
	size_t size;
	int want;
	uint64_t value;
} varints[] = {
	{"one byte", {0x7f}, 1, 1, 127},
	{"two bytes, the rest is not ours", {0x80, 0x01, 0xff}, 3, 2, 128},
	{"padding is legal", {0x80, 0x00}, 2, 2, 0},
	{"ten bytes hold 64 bits",
	 {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	 10,
	 10,
	 UINT64_MAX},
	{"a 65th bit does not fit",
	 {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
	 10,
	 -1,
	 0},
	{"eleven bytes are too many",
	 {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00},
	 11,
	 -1,
	 0},
	{"nothing there", {0}, 0, 0, 0},
	{"cut in the middle", {0x80, 0x80}, 2, 0, 0},
};

static void varints_decode(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(varints); i++) {
		uint64_t value = 0;
		const int got = sl_varint_get(varints[i].bytes, varints[i].size, &value);

		if (got != varints[i].want || (got > 0 && value != varints[i].value))
			fail_msg("%s: %d", varints[i].why, got);
	}
}

static void varints_round_trip(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (int delta = -1; delta <= 1; delta++) {
			const uint64_t value = (UINT64_C(1) << bit) + (uint64_t)delta;
			uint8_t bytes[SL_VARINT_BYTES_MAX];
			const unsigned size = sl_varint_put(bytes, value);
			uint64_t back = 0;

			assert_int_equal(size, sl_varint_bytes(value));
			assert_int_equal(sl_varint_get(bytes, size, &back), (int)size);
			assert_int_equal(back, value);
		}
	}
}

static const struct {
	const char *pattern, *text;
	bool want;
} globs[] = {
	{"*", "", true},
	{"*", "abc", true},
	{"gold*", "gold", true},
	{"gold*", "golden", true},
	{"gold*", "old", false},
	{"*x", "aaxbx", true},
	{"*x*y", "axbxcy", true},
	{"a?c", "abc", true},
	{"a?c", "ac", false},
	{"a\\*", "a*", true},
	{"a\\*", "ab", false},
	{"", "", true},
	{"", "a", false},
	{"***", "a", true},
	{"a*b*c", "aXXbXXc", true},
	{"a*b*c", "aXXbXX", false},
};

static void globs_match(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(globs); i++) {
		if (sl_glob_match(sl_bytes_of(globs[i].pattern), sl_bytes_of(globs[i].text)) !=
		    globs[i].want)
			fail_msg("%s ~ %s", globs[i].pattern, globs[i].text);
	}
}

static const struct {
	const char *text, *want; // NULL: refused
} addresses[] = {
	{"127.0.0.1:4317", "127.0.0.1:4317"},
	{"[::1]:80", "[::1]:80"},
	{":4317", "[::]:4317"},
	{"0.0.0.0:0", "0.0.0.0:0"},
	{"127.0.0.1", NULL},
	{"::1:80", NULL},
	{"127.0.0.1:65536", NULL},
	{"127.0.0.1:-1", NULL},
	{"127.0.0.1: 1", NULL},
	{"localhost:1", NULL},
	{"127.0.0.1:", NULL},
	{"", NULL},
	{"[::1:80", NULL},
};

static void addresses_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(addresses); i++) {
		struct sl_address address;
		char text[SL_ADDRESS_TEXT_MAX];
		const int got = sl_address_parse(&address, addresses[i].text);

		if ((got == 0) != (addresses[i].want != NULL))
			fail_msg("%s: %d", addresses[i].text, got);
		if (got == 0)
			assert_string_equal(sl_address_text(&address, text), addresses[i].want);
	}
}

static const struct {
	const char *cidr, *address;
	int want; // -1: the block is refused
} blocks[] = {
	{"10.0.0.0/8", "10.255.0.1:1", 1},
	{"10.0.0.0/8", "11.0.0.1:1", 0},
	{"10.0.0.0/8", "[::ffff:10.1.1.1]:1", 1},
	{"0.0.0.0/0", "1.2.3.4:1", 1},
	{"0.0.0.0/0", "[2001:db8::1]:1", 0},
	{"fd00::/8", "[fd12::1]:1", 1},
	{"192.168.1.7", "192.168.1.7:1", 1},
	{"192.168.1.7", "192.168.1.6:1", 0},
	{"192.168.0.0/23", "192.168.1.255:1", 1},
	{"192.168.0.0/23", "192.168.2.0:1", 0},
	{"10.0.0.0/33", "10.0.0.1:1", -1},
	{"10.0.0.0/", "10.0.0.1:1", -1},
	{"ten", "10.0.0.1:1", -1},
};

static void blocks_match(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(blocks); i++) {
		struct sl_address address;
		struct sl_cidr cidr;

		assert_int_equal(sl_address_parse(&address, blocks[i].address), 0);
		if (sl_cidr_parse(&cidr, blocks[i].cidr) < 0)
			assert_int_equal(blocks[i].want, -1);
		else if (sl_cidr_has(&cidr, &address) != blocks[i].want)
			fail_msg("%s has %s", blocks[i].cidr, blocks[i].address);
	}
}

static void sha256_is_sha256(void **state)
{
	// FIPS 180-4, the example of "abc".
	static const uint8_t want[4] = {0xba, 0x78, 0x16, 0xbf};
	uint8_t digest[32];

	(void)state;
	sl_hash_sha256(SL_LITERAL("abc"), digest);
	assert_memory_equal(digest, want, sizeof(want));
	assert_true(sl_hash_equal(digest, digest, 32));
}

// The first is told at once, what goes on once a minute with its number, and a new spell at once.
static void test_log_spell(void **state)
{
	struct sl_log_spell spell = {0};

	(void)state;
	assert_int_equal(sl_log_spell_more(&spell, 5 * SL_S), 1);
	for (unsigned i = 0; i < 59; i++)
		assert_int_equal(sl_log_spell_more(&spell, (6 + i) * SL_S), 0);
	assert_int_equal(sl_log_spell_more(&spell, 65 * SL_S), 60);
	assert_int_equal(sl_log_spell_more(&spell, 66 * SL_S), 0);
	spell = (struct sl_log_spell){0};
	assert_int_equal(sl_log_spell_more(&spell, 67 * SL_S), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_spell),     cmocka_unit_test(varints_decode),
		cmocka_unit_test(varints_round_trip), cmocka_unit_test(globs_match),
		cmocka_unit_test(addresses_parse),    cmocka_unit_test(blocks_match),
		cmocka_unit_test(sha256_is_sha256),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
