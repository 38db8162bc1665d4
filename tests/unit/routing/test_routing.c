#include <glob.h>

#include "dataplane/base/varint.h"
#include "tests/unit/routing/rig.h"

#include <sched.h>
#include <semaphore.h>

// Routes, mistakes, files, caps, Kafka's mock and reloads, with real drivers.

static const char routes[] =
	"destinations:\n"
	"  a: {blackhole: {}}\n"
	"  b: {blackhole: {}}\n"
	"routes:\n"
	"  - {match: {signal: logs}, drop: true}\n"
	"  - {match: {tenant: exact}, to: [a]}\n"
	"  - {match: {tenant: 'pre*'}, to: [a, {destination: b, required: false}]}\n"
	"  - {match: {tenant: 'g?ob*x'}, to: [a]}\n"
	"  - {match: {service: 'check*'}, to: [a]}\n"
	"  - {match: {resource: [service.name]}, to: [b]}\n"
	"  - {drop: true}\n";

static void test_routes(void **state)
{
	static const struct {
		const char *why, *tenant, *json;
		enum sl_signal signal;
		uint64_t a, b;
	} rows[] = {
		{"a signal's rule drops it", "exact",
		 "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{}]}]}]}", SL_LOGS, 0, 0},
		{"an exact name", "exact", TRACES(RESOURCE("x", SPAN(ID1))), SL_TRACES, 1, 0},
		{"an exact name is no prefix", "exactly", TRACES(RESOURCE("x", SPAN(ID1))),
		 SL_TRACES, 0, 1},
		{"a prefix, to two", "prefix", TRACES(RESOURCE("x", SPAN(ID1))), SL_TRACES, 1, 1},
		{"a glob", "globbyx", TRACES(RESOURCE("x", SPAN(ID1))), SL_TRACES, 1, 0},
		{"an attribute", "t", TRACES(RESOURCE("checkout", SPAN(ID1))), SL_TRACES, 1, 0},
		{"resources of one request go apart", "t",
		 TRACES(RESOURCE("checkout", SPAN(ID1) "," SPAN(ID2)) "," RESOURCE("x", SPAN(ID1))),
		 SL_TRACES, 2, 1},
		{"no attribute: the last rule", "t",
		 "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[" SPAN(ID1) "]}]}]}", SL_TRACES,
		 0, 0},
		{"nothing in it, nothing sent", "exact", "{}", SL_TRACES, 0, 0},
	};
	struct rig rig = {0};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct call call;

		set_up(&rig, routes);
		offer(&rig, &call, rows[i].tenant, rows[i].signal, rows[i].json);
		pump(&rig, &call);
		if (count(&rig, "sluice_delivered_items", "a") != rows[i].a ||
		    count(&rig, "sluice_delivered_items", "b") != rows[i].b)
			fail_msg("%s: a %llu b %llu", rows[i].why,
				 (unsigned long long)count(&rig, "sluice_delivered_items", "a"),
				 (unsigned long long)count(&rig, "sluice_delivered_items", "b"));
		tear_down(&rig);
	}
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *why, *yaml, *want;
	} rows[] = {
		{"an unknown destination, and what was meant",
		 "destinations: {main: {blackhole: {}}}\nroutes: [{to: [mian]}]\n", "\"main\"?"},
		{"the last rule must take everything",
		 "destinations: {a: {blackhole: {}}}\nroutes: [{match: {tenant: x}, to: [a]}]\n",
		 "must take everything"},
		{"a rule behind a catch-all",
		 "destinations: {a: {blackhole: {}}}\nroutes: [{to: [a]}, {drop: true}]\n",
		 "never reached"},
		{"two kinds",
		 "destinations: {a: {blackhole: {}, file: {path: x}}}\nroutes: [{to: [a]}]\n",
		 "exactly one"},
		{"only calls and records merge",
		 "destinations: {a: {blackhole: {}, merge: {}}}\nroutes: [{to: [a]}]\n",
		 "only kafka and otlp merge"},
		{"to and drop",
		 "destinations: {a: {blackhole: {}}}\nroutes: [{to: [a], drop: true}]\n", "either"},
		{"what is missing has a place, too", "destinations: {a: {blackhole: {}}}\n",
		 "test.yaml:1:1: routes: at least one is needed, such as [{to: [a]}]"},
		{"librdkafka's own check",
		 "destinations: {a: {kafka: {brokers: [x], partitioner: nonsense}}}\nroutes: [{to: "
		 "[a]}]\n",
		 "partitioner"},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct rig rig = {.errors = sl_errors_create()};

		assert_null(build(&rig, 0, rows[i].yaml));
		if (!strstr(sl_errors_line(rig.errors, 0), rows[i].want))
			fail_msg("%s: %s", rows[i].why, sl_errors_line(rig.errors, 0));
		sl_loaded_fini(&rig.loaded[0]);
		sl_errors_destroy(rig.errors);
	}
}

// Bytes of all files like `pattern` in `folder`; removes them.
static size_t slurp(const char *folder, const char *pattern, char *out, size_t size)
{
	char path[256];
	size_t got = 0;
	glob_t found;

	snprintf(path, sizeof(path), "%s/%s", folder, pattern);
	assert_int_equal(glob(path, 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		FILE *in = fopen(found.gl_pathv[i], "r");

		got += fread(out + got, 1, size - 1 - got, in);
		fclose(in);
		unlink(found.gl_pathv[i]);
	}
	globfree(&found);
	out[got] = 0;
	return got;
}

static void test_file(void **state)
{
	char folder[] = "/tmp/sluice-routing-XXXXXX", yaml[512], text[4096];
	struct rig rig = {0};
	struct call call;
	uint64_t bytes = 0;
	size_t size;

	(void)state;
	assert_non_null(mkdtemp(folder));
	for (int json = 0; json < 2; json++) {
		snprintf(yaml, sizeof(yaml),
			 "destinations: {f: {file: {path: %s/x/y, format: %s}}}\nroutes: [{to: "
			 "[f]}]\n",
			 folder, json ? "json" : "protobuf");
		set_up(&rig, yaml);
		for (int i = 0; i < 2; i++) {
			offer(&rig, &call, "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
			assert_int_equal(call.settled, 0); // not before the disk has it
			pump(&rig, &call);
			assert_int_equal(call.request.reason, SL_REASON_NONE);
		}
		assert_int_equal(count(&rig, "sluice_delivered_items", "f"), 2);
		assert_int_equal(count(&rig, "sluice_pinned_bytes", NULL), 0);
		tear_down(&rig);
		size = slurp(folder, json ? "x/y/traces-*.jsonl" : "x/y/traces-*.binpb", text,
			     sizeof(text));
		if (json) {
			assert_non_null(strstr(text, ID1));
			assert_ptr_equal(strrchr(text, '\n'), text + size - 1);
		} else {
			const int head = sl_varint_get((uint8_t *)text, size, &bytes);

			assert_int_equal(size, 2 * ((size_t)head + bytes));
			assert_memory_equal(text, text + head + bytes, (size_t)head + bytes);
		}
	}
	snprintf(yaml, sizeof(yaml), "%s/x/y", folder);
	rmdir(yaml);
	snprintf(yaml, sizeof(yaml), "%s/x", folder);
	rmdir(yaml);
	rmdir(folder);
}

#define MOCK "properties: {test.mock.num.brokers: 1, reconnect.backoff.max.ms: 200}"

static void test_caps(void **state)
{
	struct rig rig = {0};
	struct call first, second, third;

	(void)state;
	// The file's end comes by poll only: what was sent first is still pinned.
	set_up(&rig, "destinations:\n"
		     "  f: {file: {path: /tmp/sluice-routing-caps}, pinned_bytes: 150kB}\n"
		     "  h: {blackhole: {}}\n"
		     "routes:\n"
		     "  - {match: {tenant: 'best*'}, to: [{destination: f, required: false}]}\n"
		     "  - {to: [h, f]}\n");
	offer(&rig, &first, "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
	assert_int_equal(first.refused, SL_REASON_NONE);
	offer(&rig, &second, "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
	assert_int_equal(second.refused, SL_REASON_EGRESS_FULL);
	assert_int_equal(second.released, 1);
	assert_int_equal(count(&rig, "sluice_taken_items", "h"), 1); // nothing of the second
	offer(&rig, &third, "best", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
	assert_int_equal(third.refused, SL_REASON_NONE);
	assert_int_equal(third.settled, 1);
	assert_int_equal(count(&rig, "sluice_dropped_items", "f"), 1);
	pump(&rig, &first);
	assert_int_equal(count(&rig, "sluice_taken_items", "f"), 2);
	assert_int_equal(count(&rig, "sluice_delivered_items", "f"), 1);
	tear_down(&rig);
	assert_int_equal(system("rm -rf /tmp/sluice-routing-caps"), 0);
}

// A request counts once for a destination, whatever of it goes there: it would never pass else.
static void test_a_request_is_pinned_once(void **state)
{
	struct rig rig = {0};
	struct call first, second;

	(void)state;
	set_up(&rig, "destinations:\n"
		     "  f: {file: {path: /tmp/sluice-routing-once}, pinned_bytes: 50kB}\n"
		     "routes:\n"
		     "  - {match: {service: a}, to: [f]}\n"
		     "  - {match: {service: b}, to: [f]}\n"
		     "  - {to: [f]}\n");
	offer(&rig, &first, "t", SL_TRACES,
	      TRACES(RESOURCE("a", SPAN(ID1)) "," RESOURCE("b", SPAN(ID1)) "," RESOURCE(
		      "c", SPAN(ID1))));
	assert_int_equal(first.refused, SL_REASON_NONE);
	assert_true(count(&rig, "sluice_pinned_bytes", NULL) < 150000);
	assert_true(count(&rig, "sluice_pinned_bytes", NULL) > 100000);
	offer(&rig, &second, "t", SL_TRACES, TRACES(RESOURCE("a", SPAN(ID1))));
	assert_int_equal(second.refused, SL_REASON_EGRESS_FULL);
	pump(&rig, &first);
	assert_int_equal(count(&rig, "sluice_pinned_bytes", NULL), 0);
	offer(&rig, &second, "t", SL_TRACES, TRACES(RESOURCE("a", SPAN(ID1))));
	assert_int_equal(second.refused, SL_REASON_NONE);
	pump(&rig, &second);
	assert_int_equal(count(&rig, "sluice_delivered_items", "f"), 4);
	tear_down(&rig);
	assert_int_equal(system("rm -rf /tmp/sluice-routing-once"), 0);
}

static void test_kafka(void **state)
{
	struct rig rig = {0};
	struct call call;

	(void)state;
	set_up(&rig, "destinations:\n  k: {kafka: {brokers: [x], partition_by: trace, linger: 0s, "
		     "compression: gzip, tenant_header: X-Scope-OrgID, headers: {a: b}, " MOCK
		     "}}\nroutes: [{to: [k]}]\n");
	offer(&rig, &call, "t", SL_TRACES,
	      TRACES(RESOURCE("x", SPAN(ID1) "," SPAN(ID2) "," SPAN(ID1)) "," RESOURCE("y",
										       SPAN(ID2))));
	assert_int_equal(count(&rig, "sluice_queue_records", NULL), 2);
	assert_int_equal(call.settled, 0);
	pump(&rig, &call);
	assert_int_equal(call.request.reason, SL_REASON_NONE);
	assert_int_equal(count(&rig, "sluice_delivered_items", "k"), 4);
	tear_down(&rig);
}

static void test_kafka_splits_what_is_too_long(void **state)
{
	static const char *const configs[] = {
		"destinations:\n  k: {kafka: {brokers: [x], max_message_bytes: 2000, " MOCK
		"}}\nroutes: [{to: [k]}]\n",
		"destinations:\n  k: {kafka: {brokers: [x], max_message_bytes: 2000, "
		"partition_by: trace, " MOCK "}}\nroutes: [{to: [k]}]\n",
	};
	char *json = NULL;
	size_t size;
	FILE *out = open_memstream(&json, &size);

	(void)state;
	fprintf(out, "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[");
	for (int i = 0; i < 200; i++)
		fprintf(out, "%s%s", i ? "," : "", SPAN(ID1));
	fprintf(out, "]}]}]}");
	fclose(out);
	for (unsigned i = 0; i < SL_COUNT_OF(configs); i++) {
		struct rig rig = {0};
		struct call call;

		set_up(&rig, configs[i]);
		offer(&rig, &call, "t", SL_TRACES, json);
		assert_true(count(&rig, "sluice_queue_records", NULL) > 3);
		pump(&rig, &call);
		assert_int_equal(count(&rig, "sluice_delivered_items", "k"), 200);
		tear_down(&rig);
	}
	free(json);
}

static void test_reload_keeps_what_is_the_same(void **state)
{
	struct rig rig = {0};

	(void)state;
	set_up(&rig,
	       "destinations: {a: {blackhole: {}}, b: {blackhole: {}}}\nroutes: [{to: [a]}]\n");
	assert_non_null(build(&rig, 1,
			      "# another line\ndestinations: {b: {blackhole: {}, retry: "
			      "{max: 9s}}, a: {blackhole: {}}}\nroutes: [{drop: true}]\n"));
	assert_ptr_equal(rig.routing[1]->destinations[1], rig.routing[0]->destinations[0]);
	assert_ptr_not_equal(rig.routing[1]->destinations[0], rig.routing[0]->destinations[1]);
	sl_routing_shard_turn(rig.shard, rig.routing[1], sl_clock_now_ns());
	sl_routing_poll(rig.shard, sl_clock_now_ns());
	assert_int_equal(rig.routing[0]->destinations[0]->sides, 1);
	assert_int_equal(rig.routing[0]->destinations[1]->sides, 0); // retired and closed
	tear_down(&rig);
}

static unsigned destroyed;

static void slow_destroy(void *self)
{
	(void)self; // a blackhole's, of which there is one
	usleep(50000);
	destroyed++;
}

static sem_t let_go;

static void waiting_destroy(void *self)
{
	(void)self;
	while (sem_wait(&let_go) < 0)
		;
	__atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED);
}

// One whose end may block (a producer's last flush, a writer's file) blocks nobody: here it cannot
// end before who took it away has come back.
static void test_who_takes_away_does_not_wait(void **state)
{
	struct sl_driver driver = sl_driver_blackhole;
	struct rig rig = {.driver = &driver};

	(void)state;
	assert_true(sl_driver_kafka.lingers && sl_driver_file.lingers);
	assert_int_equal(sem_init(&let_go, 0, 0), 0);
	destroyed = 0;
	driver.destroy = waiting_destroy;
	set_up(&rig, "destinations: {a: {blackhole: {}}}\nroutes: [{to: [a]}]\n");
	rig.routing[0]->destinations[0]->lingers = true;
	assert_non_null(build(&rig, 1, "destinations: {}\nroutes: [{drop: true}]\n"));
	sl_routing_shard_turn(rig.shard, rig.routing[1], sl_clock_now_ns());
	sl_routing_poll(rig.shard, sl_clock_now_ns());
	assert_int_equal(rig.routing[0]->destinations[0]->sides, 0);
	sl_routing_module.destroy(rig.routing[0]);
	rig.routing[0] = NULL;
	assert_int_equal(sl_routing_closing(), 1);
	sem_post(&let_go);
	tear_down(&rig);
	assert_int_equal(destroyed, 1);
	sem_destroy(&let_go);
}

// A reload that would change the one destination, whose end blocks, for another.
static bool change(struct rig *rig, const struct sl_driver *driver, unsigned number)
{
	char yaml[128];

	snprintf(
		yaml, sizeof(yaml),
		"destinations: {a: {blackhole: {}, retry: {initial: %ums}}}\nroutes: [{to: [a]}]\n",
		number + 1);
	if (!build(rig, 1, yaml)) {
		sl_loaded_fini(&rig->loaded[1]);
		memset(&rig->loaded[1], 0, sizeof(rig->loaded[1]));
		return false;
	}
	sl_routing_shard_turn(rig->shard, rig->routing[1], rig_now_ns(rig));
	sl_routing_poll(rig->shard, rig_now_ns(rig));
	sl_routing_module.destroy(rig->routing[0]);
	sl_loaded_fini(&rig->loaded[0]);
	rig->loaded[0] = rig->loaded[1];
	rig->routing[0] = rig->routing[1];
	memset(&rig->loaded[1], 0, sizeof(rig->loaded[1]));
	rig->routing[1] = NULL;
	rig->routing[0]->destinations[0]->driver = driver;
	rig->routing[0]->destinations[0]->lingers = true;
	return true;
}

// Reloads that change what does not end are refused, with a reason, until some of it has ended.
static void test_reloads_do_not_pile_up(void **state)
{
	struct sl_driver driver = sl_driver_blackhole;
	struct rig rig = {.driver = &driver};
	unsigned changed = 0;

	(void)state;
	driver.destroy = waiting_destroy;
	destroyed = 0;
	sem_init(&let_go, 0, 0);
	set_up(&rig, "destinations: {a: {blackhole: {}}}\nroutes: [{to: [a]}]\n");
	rig.routing[0]->destinations[0]->lingers = true;
	while (changed < 100 && change(&rig, &driver, changed))
		changed++;
	assert_int_equal(changed, SL_ROUTING_CLOSING_MAX + 1);
	assert_non_null(strstr(sl_errors_line(rig.errors, 0), "9 of configurations before"));
	assert_int_equal(sl_routing_closing(), changed);
	sl_errors_destroy(rig.errors);
	rig.errors = sl_errors_create();
	sem_post(&let_go);
	while (sl_routing_closing() == changed)
		sched_yield();
	assert_true(change(&rig, &driver, 100));
	for (unsigned i = 0; i <= changed; i++)
		sem_post(&let_go);
	tear_down(&rig);
	while (sl_routing_closing())
		sched_yield();
	assert_int_equal(destroyed, changed + 2);
	sem_destroy(&let_go);
}

// What is refused has changed nothing: no folder is there that was not before.
static void test_a_refused_reload_makes_nothing(void **state)
{
	struct rig rig = {0};
	char folder[] = "/tmp/sluice-refused-XXXXXX", path[64], yaml[512];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/spool", folder);
	snprintf(yaml, sizeof(yaml),
		 "destinations:\n"
		 "  a: {otlp: {endpoint: \"http://127.0.0.1:1\"}, spool: {path: %s}}\n"
		 "  b: {otlp: {endpoint: \"https://127.0.0.1:1\", tls: {ca_file: %s/none}}}\n"
		 "routes: [{to: [a, b]}]\n",
		 path, folder);
	set_up(&rig, "destinations: {a: {blackhole: {}}}\nroutes: [{to: [a]}]\n");
	assert_null(build(&rig, 1, yaml));
	assert_int_equal(sl_errors_count(rig.errors), 1);
	assert_non_null(strstr(sl_errors_line(rig.errors, 0), "/none"));
	assert_int_equal(access(path, F_OK), -1);
	tear_down(&rig);
	assert_int_equal(rmdir(folder), 0);
}

// A process that ends waits for what a reload took away.
static void test_closed_before_the_end(void **state)
{
	struct sl_driver driver = sl_driver_blackhole;
	struct rig rig = {.driver = &driver};

	(void)state;
	driver.destroy = slow_destroy;
	destroyed = 0;
	set_up(&rig, "destinations: {a: {blackhole: {}}}\nroutes: [{to: [a]}]\n");
	assert_non_null(build(&rig, 1, "destinations: {}\nroutes: [{drop: true}]\n"));
	sl_routing_module.destroy(rig.routing[0]); // a shard has it open still
	rig.routing[0] = NULL;
	assert_int_equal(destroyed, 0);
	sl_routing_shard_turn(rig.shard, rig.routing[1], sl_clock_now_ns());
	sl_routing_poll(rig.shard, sl_clock_now_ns());
	sl_routing_wait_closed();
	assert_int_equal(destroyed, 1);
	tear_down(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_a_request_is_pinned_once),
		cmocka_unit_test(test_kafka),
		cmocka_unit_test(test_kafka_splits_what_is_too_long),
		cmocka_unit_test(test_reload_keeps_what_is_the_same),
		cmocka_unit_test(test_who_takes_away_does_not_wait),
		cmocka_unit_test(test_reloads_do_not_pile_up),
		cmocka_unit_test(test_a_refused_reload_makes_nothing),
		cmocka_unit_test(test_closed_before_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
