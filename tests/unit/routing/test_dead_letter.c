#include "routing/dead_letter.h"

#include "dataplane/base/log.h"
#include "tests/unit/routing/rig.h"

// Dead letters: what the configuration may say, and their headers in front of a request.

static void test_mistakes(void **state)
{
	static const struct {
		const char *why, *destinations, *error;
	} rows[] = {
		{"one that is there",
		 "  a: {blackhole: {}, dead_letter: b}\n  b: {blackhole: {}}\n", NULL},
		{"dead letters of dead letters' own traffic",
		 "  a: {blackhole: {}, dead_letter: b}\n  b: {blackhole: {}, dead_letter: c}\n"
		 "  c: {blackhole: {}}\n",
		 NULL},
		{"nobody of that name",
		 "  a: {blackhole: {}, dead_letter: bb}\n  b: {blackhole: {}}\n",
		 "test.yaml:2:3: dead_letter: no destination is named \"bb\"; did you mean \"b\"?"},
		{"itself", "  a: {blackhole: {}, dead_letter: a}\n",
		 "test.yaml:2:3: dead_letter: a would come back to itself"},
		{"a circle of two",
		 "  a: {blackhole: {}, dead_letter: b}\n  b: {blackhole: {}, dead_letter: a}\n",
		 "test.yaml:2:3: dead_letter: a would come back to itself"},
		{"a group",
		 "  a: {blackhole: {}, dead_letter: g}\n  b: {blackhole: {}}\n"
		 "  g: {failover: [a, b]}\n",
		 "test.yaml:2:3: dead_letter: \"g\" is a failover group; name a destination"},
		{"of a group",
		 "  a: {blackhole: {}}\n  b: {blackhole: {}}\n"
		 "  g: {failover: [a, b], dead_letter: a}\n",
		 "test.yaml:4:3: dead_letter: g is a failover group; its destinations name theirs"},
		{"a group's breaker",
		 "  a: {blackhole: {}}\n  b: {blackhole: {}}\n"
		 "  g: {failover: [a, b], breaker: {}}\n",
		 "test.yaml:4:3: destination g: a failover group has no breaker, its members may"},
		{"a group that retries, even as it would be",
		 "  a: {blackhole: {}}\n  b: {blackhole: {}}\n"
		 "  g: {failover: [a, b],\n      retry: {initial: 100ms}}\n",
		 "test.yaml:5:7: destination g: a failover group has no retry, expected it at its "
		 "members"},
		{"a group that pins",
		 "  a: {blackhole: {}}\n"
		 "  b: {blackhole: {}}\n"
		 "  g: {failover: [a, b], pinned_bytes: 1MiB}\n",
		 "test.yaml:4:3: destination g: a failover group pins nothing, its members may"},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct rig rig = {.check_only = true};
		char yaml[512];

		print_message("%s\n", rows[i].why);
		snprintf(yaml, sizeof(yaml), "destinations:\n%sroutes:\n  - {to: [a]}\n",
			 rows[i].destinations);
		rig.errors = sl_errors_create();
		build(&rig, 0, yaml);
		assert_int_equal(sl_errors_count(rig.errors) > 0, rows[i].error != NULL);
		if (rows[i].error)
			assert_string_equal(sl_errors_line(rig.errors, 0), rows[i].error);
		sl_routing_module.destroy(rig.routing[0]);
		sl_loaded_fini(&rig.loaded[0]);
		sl_errors_destroy(rig.errors);
	}
}

static const uint8_t front[] = {0xaa, 6,   1,   'r',  0xb2, 6, 0,   0xba, 6,
				2,    't', 'u', 0xc2, 6,    1, 'd', 0x0a, 0};

static void test_read(void **state)
{
	struct sl_bytes values[SL_DEAD_LETTER_HEADERS];
	const size_t headers = sizeof(front) - 2;

	(void)state;
	// Cut anywhere it is no letter, or the whole of its headers.
	for (size_t size = 0; size <= sizeof(front); size++) {
		uint8_t *copy = malloc(size + 1); // of that size: ASan sees what is read beyond it

		memcpy(copy, front, size);
		assert_int_equal(sl_dead_letter_read(sl_bytes(copy, size), values),
				 size < headers ? 0 : headers);
		free(copy);
	}
	assert_int_equal(sl_dead_letter_read(sl_bytes(front, sizeof(front)), values), headers);
	assert_memory_equal(values[0].data, "r", 1);
	assert_int_equal(values[1].size, 0);
	assert_memory_equal(values[2].data, "tu", 2);
	assert_memory_equal(values[3].data, "d", 1);
	// A request of its own has none in front.
	assert_int_equal(sl_dead_letter_read(sl_bytes(front + headers, 2), values), 0);
}

static void test_json(void **state)
{
	const struct sl_dead_letter letter = {
		.values = {SL_LITERAL("grpc 3"), SL_LITERAL("a\"b\\\n"), SL_LITERAL("now"),
			   SL_LITERAL("up")},
	};
	char worst[200], text[SL_DEAD_LETTER_JSON_BYTES];
	struct sl_dead_letter longest = letter;

	(void)state;
	text[sl_dead_letter_json(&letter, text)] = 0;
	assert_string_equal(text, "{\"sluiceDeadLetter\":{\"reason\":\"grpc 3\","
				  "\"tenant\":\"a\\\"b\\\\\\n\",\"time\":\"now\","
				  "\"destination\":\"up\"}");
	// The longest there can be fits: each byte is escaped to six.
	memset(worst, 1, sizeof(worst));
	longest.values[0] = sl_bytes(worst, 200);
	longest.values[1] = sl_bytes(worst, SL_TENANT_NAME_MAX);
	assert_true(sl_dead_letter_json(&longest, text) < sizeof(text));
}

// --- as a shard makes them -----------------------------------------------------------------------

// A wall clock that moves with every look at it.
static unsigned looks;
uint64_t __wrap_sl_clock_wall_ns(void);

uint64_t __wrap_sl_clock_wall_ns(void)
{
	return (UINT64_C(1700000000) + looks++) * SL_S;
}

static char times[8][32];
static unsigned letters;

static enum sl_reason refuse(void *side, struct sl_record *record)
{
	(void)side;
	sl_egress_end(record, SL_OUTCOME_REJECTED, 0);
	return SL_REASON_NONE;
}

static enum sl_reason keep(void *side, struct sl_record *record)
{
	const struct sl_bytes time = record->letter->values[2];

	(void)side;
	snprintf(times[letters++], sizeof(times[0]), "%.*s", (int)time.size,
		 (const char *)time.data);
	sl_egress_end(record, SL_OUTCOME_DELIVERED, 0);
	return SL_REASON_NONE;
}

static void refuse_and_keep(struct sl_routing *routing)
{
	static struct sl_driver refusing, keeping;

	refusing = keeping = sl_driver_blackhole;
	refusing.submit = refuse;
	keeping.submit = keep;
	routing->destinations[0]->driver = &refusing;
	routing->destinations[1]->driver = &keeping;
}

// However many there are in a turn, the clock is asked once; in a turn without any, never.
static void test_one_look_at_the_clock_a_turn(void **state)
{
	static const char *const want[] = {"2023-11-14T22:13:20.000Z", "2023-11-14T22:13:20.000Z",
					   "2023-11-14T22:13:20.000Z", "2023-11-14T22:13:21.000Z"};
	struct rig rig = {.now_ns = SL_S, .adjust = refuse_and_keep};
	struct call calls[SL_COUNT_OF(want)];

	(void)state;
	sl_log_set_level(SL_LOG_ERROR + 1); // each line looks, too
	set_up(&rig, "destinations:\n  a: {blackhole: {}, dead_letter: b}\n  b: {blackhole: {}}\n"
		     "routes:\n  - {to: [a]}\n");
	for (unsigned i = 0; i < SL_COUNT_OF(want); i++) {
		if (i == 3)
			sl_routing_poll(rig.shard, rig.now_ns += SL_MS);
		assert_int_equal(looks, i ? 1 : 0);
		offer(&rig, &calls[i], "tenant", SL_TRACES,
		      "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"name\":\"x\"}]}]}]}");
		pump(&rig, &calls[i]);
	}
	assert_int_equal(letters, SL_COUNT_OF(want));
	for (unsigned i = 0; i < letters; i++)
		assert_string_equal(times[i], want[i]);
	tear_down(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_one_look_at_the_clock_a_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
