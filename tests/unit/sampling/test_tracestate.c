#include "sampling/tracestate.h"
#include "tests/unit/test.h"

#include <stdio.h>

static void test_write(void **unused)
{
	static const struct {
		const char *why, *in;
		const char *threshold; // "": erased, NULL: as it was
		const char *want;
	} rows[] = {
		{"ot moves to the left, others keep their order",
		 "congo=t61rcWkgMzE,ot=th:8;rv:ffffffffffffff,rojo=00f067aa0ba902b7", "e",
		 "ot=rv:ffffffffffffff;th:e,congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"},
		{"rv comes first", "ot=th:c;rv:f0000000000000", "e666",
		 "ot=rv:f0000000000000;th:e666"},
		{"other keys come last", "ot=a:1;th:8;b2:x_-.Y", "c", "ot=th:c;a:1;b2:x_-.Y"},
		{"nothing before", "", "c", "ot=th:c"},
		{"a vendor's alone", "vendor=1", "e668", "ot=th:e668,vendor=1"},
		{"an erased th leaves rv", "ot=th:8;rv:00000000000001,x=y", "",
		 "ot=rv:00000000000001,x=y"},
		{"an ot without a key left goes", "x=y,ot=th:8", "", "x=y"},
		{"nothing is left at all", "ot=th:8", "", ""},
		{"blanks and empty members are legal", " a=1 ,, b=2\t,", "c", "ot=th:c,a=1,b=2"},
		{"a tenant's key", "fw529a3039@dt=FfAAC8Tn", "c", "ot=th:c,fw529a3039@dt=FfAAC8Tn"},
		{"an empty value of another key stays", "ot=p:;th:1", NULL, "ot=th:1;p:"},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_tracestate state;
		uint8_t text[SL_TRACESTATE_WRITE_MAX];
		size_t size;

		if (!sl_tracestate_parse(sl_bytes_of(rows[i].in), &state))
			fail_msg("%s: not parsed", rows[i].why);
		if (rows[i].threshold) {
			state.has_threshold = *rows[i].threshold;
			if (state.has_threshold)
				assert_true(sl_threshold_parse(sl_bytes_of(rows[i].threshold),
							       &state.threshold));
		}
		size = sl_tracestate_write(&state, text);
		if (!sl_bytes_equal(sl_bytes(text, size), sl_bytes_of(rows[i].want)))
			fail_msg("%s: %.*s", rows[i].why, (int)size, text);
	}
}

static void test_refuse(void **unused)
{
	static const struct {
		const char *why, *in;
	} rows[] = {
		{"a member without =", "abc"},
		{"two ot", "ot=th:8,ot=th:c"},
		{"th twice", "ot=th:8;th:c"},
		{"another key twice", "ot=a:1;b:2;a:1"},
		{"a th of fifteen digits", "ot=th:123456789012345"},
		{"an empty th", "ot=th:"},
		{"th in upper case", "ot=th:C"},
		{"a short rv", "ot=rv:123"},
		{"a key that begins with a digit", "ot=1a:2"},
		{"a key in upper case", "ot=A:2"},
		{"a value with a blank", "ot=a:b c"},
		{"a pair without a colon", "ot=th"},
		{"an empty pair", "ot=th:8;;a:1"},
		{"an empty ot", "ot="},
		{"an upper-case vendor", "Vendor=1"},
		{"= in a value", "a=b=c"},
		{"a control character", "a=b\x01"},
		{"@ at the end", "a@=1"},
		{"two @", "a@b@c=1"},
	};
	struct sl_tracestate state;
	char many[4096];
	int size = 0;

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		if (sl_tracestate_parse(sl_bytes_of(rows[i].in), &state))
			fail_msg("%s", rows[i].why);
	}
	for (int i = 0; i < 33; i++)
		size += snprintf(many + size, sizeof(many) - (size_t)size, "k%d=1,", i);
	assert_false(sl_tracestate_parse(sl_bytes_of(many), &state));
	memset(many, 'a', sizeof(many));
	memcpy(many, "ot=k:", 5);
	assert_false(sl_tracestate_parse(sl_bytes(many, 3 + 257), &state));
	assert_true(sl_tracestate_parse(sl_bytes(many, 3 + 256), &state));
	assert_false(sl_tracestate_parse(sl_bytes(many, 1025), &state));
}

// What has to go when `ot` comes to a full list: long members first, then from the right.
static void test_truncate(void **unused)
{
	struct sl_tracestate state, again;
	uint8_t text[SL_TRACESTATE_WRITE_MAX];
	char in[2048];
	size_t size = 0;

	(void)unused;
	for (int i = 0; i < 32; i++)
		size += (size_t)snprintf(in + size, sizeof(in) - size, "%sk%d=%0*d", i ? "," : "",
					 i, i == 7 ? 140 : 3, 0);
	assert_true(sl_tracestate_parse(sl_bytes(in, size), &state));
	state.has_threshold = true;
	state.threshold = UINT64_C(0xc) << 52;
	size = sl_tracestate_write(&state, text);
	assert_true(sl_tracestate_parse(sl_bytes(text, size), &again));
	assert_int_equal(again.member_count, 31);
	assert_memory_equal(again.members[6].data, "k6=", 3);
	assert_memory_equal(again.members[7].data, "k8=", 3);

	size = 0;
	for (int i = 0; i < 32; i++)
		size += (size_t)snprintf(in + size, sizeof(in) - size, "%sk%d=1", i ? "," : "", i);
	assert_true(sl_tracestate_parse(sl_bytes(in, size), &state));
	state.has_threshold = true;
	size = sl_tracestate_write(&state, text);
	assert_true(sl_tracestate_parse(sl_bytes(text, size), &again));
	assert_int_equal(again.member_count, 31);
	assert_memory_equal(again.members[30].data, "k30=1", 5);

	// 508 bytes come, `ot=th:c,` does not fit into 512: the last member goes, whole.
	size = 0;
	for (int i = 0; i < 4; i++)
		size += (size_t)snprintf(in + size, sizeof(in) - size, "%sk%d=%0123d", i ? "," : "",
					 i, 0);
	assert_true(size > 500 && size <= 512);
	assert_true(sl_tracestate_parse(sl_bytes(in, size), &state));
	state.has_threshold = true;
	size = sl_tracestate_write(&state, text);
	assert_true(size <= 512);
	assert_true(sl_tracestate_parse(sl_bytes(text, size), &again));
	assert_int_equal(again.member_count, 3);
	assert_true(again.has_threshold);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_refuse),
		cmocka_unit_test(test_truncate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
