#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/io/dpdk/vlan.h"

#define FRAME 64
#define MACS  12

static const struct {
	const char *why;
	uint8_t behind[6]; // the addresses
	size_t bytes;
	uint16_t vlan;
	int want;
} rows[] = {
	{"no tag, no VLAN", {8, 0, 0x45}, FRAME, 0, 0},
	{"a tag of ours", {0x81, 0, 0, 100, 8, 0}, FRAME, 100, 4},
	{"whatever its priority", {0x81, 0, 0xf0, 100, 8, 0}, FRAME, 100, 4},
	{"the last VLAN there is", {0x81, 0, 0x0f, 0xfe, 8, 0}, FRAME, SL_VLAN_MAX, 4},
	{"all bits of its id count", {0x81, 0, 1, 100, 8, 0}, FRAME, 100, -1},
	{"another VLAN's", {0x81, 0, 0, 101, 8, 0}, FRAME, 100, -1},
	{"one where there is none", {0x81, 0, 0, 100, 8, 0}, FRAME, 0, -1},
	{"none where there is one", {8, 0, 0x45}, FRAME, 100, -1},
	{"a priority is no VLAN", {0x81, 0, 0xa0, 0, 8, 0}, FRAME, 0, 4},
	{"of another it is none, too", {0x81, 0, 0xa0, 0, 8, 0}, FRAME, 100, -1},
	{"only the outer tag goes", {0x81, 0, 0, 100, 0x81, 0}, FRAME, 100, 4},
	{"a provider's", {0x88, 0xa8, 0, 100, 0x81, 0}, FRAME, 100, -1},
	{"a provider's, of no VLAN", {0x88, 0xa8, 0, 0, 8, 0}, FRAME, 0, -1},
	{"the shortest", {0x81, 0, 0, 100, 8, 0}, 18, 100, 4},
	{"cut behind the tag", {0x81, 0, 0, 100, 8, 0}, 17, 100, -1},
	{"cut in the tag, of none", {0x81, 0, 0, 0, 8, 0}, 15, 0, -1},
	{"no type at all", {8, 0}, 13, 0, 0},
	{"nothing", {0}, 0, 0, 0},
	{"nothing is not ours", {0}, 0, 100, -1},
};

static void test_untag(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		uint8_t *frame = malloc(rows[i].bytes ? rows[i].bytes : 1); // to the byte
		uint8_t whole[FRAME], want[FRAME];
		int cut;

		assert_non_null(frame);
		for (size_t k = 0; k < FRAME; k++)
			whole[k] = (uint8_t)(k + 1);
		memcpy(whole + MACS, rows[i].behind, sizeof(rows[i].behind));
		memcpy(frame, whole, rows[i].bytes);
		cut = sl_vlan_untag(frame, rows[i].bytes, rows[i].vlan);
		if (cut != rows[i].want)
			fail_msg("%s: %d", rows[i].why, cut);
		memcpy(want, whole, FRAME);
		if (cut > 0) // the same addresses, and what was behind the tag
			memcpy(want + cut, whole, MACS);
		if (cut >= 0)
			assert_memory_equal(frame + cut, want + cut, rows[i].bytes - (size_t)cut);
		free(frame);
	}
}

static void test_a_tag_comes_off_as_it_went_on(void **state)
{
	static const uint16_t vlans[] = {1, 100, 255, 256, SL_VLAN_MAX};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(vlans); i++) {
		uint8_t frame[SL_VLAN_TAG_BYTES + FRAME], before[FRAME];

		for (size_t k = 0; k < FRAME; k++)
			before[k] = (uint8_t)(k + 1);
		memcpy(frame + SL_VLAN_TAG_BYTES, before, FRAME);
		sl_vlan_tag(frame, vlans[i]);
		assert_memory_equal(frame, before, MACS);
		assert_int_equal(frame[12] << 8 | frame[13], 0x8100);
		assert_int_equal(frame[14] << 8 | frame[15], vlans[i]); // no priority
		assert_int_equal(sl_vlan_untag(frame, sizeof(frame), vlans[i]), SL_VLAN_TAG_BYTES);
		assert_memory_equal(frame + SL_VLAN_TAG_BYTES, before, FRAME);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_untag),
		cmocka_unit_test(test_a_tag_comes_off_as_it_went_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
