#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/metrics.h"

static const char *const color_names[] = {"red", "blue"};
static const struct sl_label sl_label_color = {.name = "color", .values = color_names, .count = 2};
#define SL_LABEL_COUNT_color 2

#define SL_PROBE_COUNTERS(X)                                                                       \
	X(seen, COUNTER, "probe_seen", color, "Things seen.")                                      \
	X(level, GAUGE, "probe_level", none, "How high.")
SL_COUNTERS(probe, SL_PROBE_COUNTERS)
#define SL_COUNTER_STRUCT_ struct sl_probe_counters
SL_COUNTER_ROWS(probe, SL_PROBE_COUNTERS)

static void shards_are_summed_or_told_apart(void **state)
{
	struct sl_probe_counters counters[2] = {0};
	struct sl_metrics *metrics = sl_metrics_create();
	size_t size;
	char *text;

	(void)state;
	for (int shard = 0; shard < 2; shard++)
		assert_int_equal(sl_metrics_add(metrics, sl_probe_counter_rows,
						sl_probe_counter_row_count, &counters[shard], shard,
						"where=\"here\""),
				 0);
	sl_count(&counters[0].seen[1], 3);
	sl_count(&counters[1].seen[1], 4);
	sl_gauge(&counters[1].level[0], 9);
	text = sl_metrics_render(metrics, false, &size);
	assert_non_null(strstr(text, "# TYPE probe_seen_total counter\n"));
	assert_non_null(strstr(text, "probe_seen_total{where=\"here\",color=\"blue\"} 7\n"));
	assert_non_null(strstr(text, "probe_level{where=\"here\"} 9\n"));
	assert_null(strstr(strstr(text, "# TYPE probe_seen_total") + 1, "# TYPE probe_seen_total"));
	free(text);
	text = sl_metrics_render(metrics, true, &size);
	assert_non_null(strstr(text, "color=\"blue\",shard=\"0\"} 3\n"));
	assert_non_null(strstr(text, "color=\"blue\",shard=\"1\"} 4\n"));
	free(text);
	assert_int_equal(sl_metrics_sum(metrics, "probe_seen", "blue"), 7);
	assert_int_equal(sl_metrics_sum(metrics, "probe_seen", "red"), 0);
	sl_metrics_remove(metrics, &counters[1]);
	assert_int_equal(sl_metrics_sum(metrics, "probe_seen", NULL), 3);
	sl_metrics_destroy(metrics);
}

static void histograms_are_cumulative(void **state)
{
	static const struct sl_metric_row row = {.name = "probe_seconds",
						 .help = "Time.",
						 .kind = SL_METRIC_HISTOGRAM,
						 .count = 1,
						 .labels = {&sl_label_none}};
	struct sl_histogram histogram = {0};
	struct sl_metrics *metrics = sl_metrics_create();
	size_t size;
	char *text;

	(void)state;
	assert_int_equal(sl_metrics_add(metrics, &row, 1, &histogram, -1, NULL), 0);
	sl_histogram_add(&histogram, 100 * SL_US); // a bound belongs to its bucket
	sl_histogram_add(&histogram, 3 * SL_MS);
	sl_histogram_add(&histogram, 60 * SL_S);
	text = sl_metrics_render(metrics, false, &size);
	assert_non_null(strstr(text, "probe_seconds_bucket{le=\"0.0001\"} 1\n"));
	assert_non_null(strstr(text, "probe_seconds_bucket{le=\"0.005\"} 2\n"));
	assert_non_null(strstr(text, "probe_seconds_bucket{le=\"10\"} 2\n"));
	assert_non_null(strstr(text, "probe_seconds_bucket{le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(text, "probe_seconds_count 3\n"));
	assert_non_null(strstr(text, "probe_seconds_sum 60.003100000\n"));
	free(text);
	sl_metrics_destroy(metrics);
}

// Shards times destinations make many blocks; an exposition reads each of them once.
static void many_blocks_cost_what_one_costs_each(void **state)
{
	enum { BLOCKS = 40000, SHARDS = 100 };
	struct sl_probe_counters *counters = calloc(BLOCKS, sizeof(*counters));
	struct sl_metrics *metrics = sl_metrics_create();
	const uint64_t began_ns = sl_clock_now_ns();
	char labels[32], line[96];
	size_t size;
	char *text;

	(void)state;
	for (unsigned i = 0; i < BLOCKS; i++) {
		snprintf(labels, sizeof(labels), "destination=\"d%u\"", i / SHARDS);
		assert_int_equal(sl_metrics_add(metrics, sl_probe_counter_rows,
						sl_probe_counter_row_count, &counters[i],
						(int)(i % SHARDS), labels),
				 0);
		sl_count(&counters[i].seen[0], i % SHARDS + 1);
	}
	text = sl_metrics_render(metrics, false, &size);
	assert_int_equal(strlen(text), size);
	for (unsigned i = 0; i < BLOCKS / SHARDS; i++) {
		snprintf(line, sizeof(line),
			 "probe_seen_total{destination=\"d%u\",color=\"red\"} %u\n", i,
			 SHARDS * (SHARDS + 1) / 2);
		assert_non_null(strstr(text, line));
	}
	free(text);
	text = sl_metrics_render(metrics, true, &size);
	assert_non_null(strstr(text, "{destination=\"d399\",color=\"red\",shard=\"99\"} 100\n"));
	free(text);
	sl_metrics_destroy(metrics);
	free(counters);
	// In squares of blocks it took 19 s, now less than 0.1.
	assert_true(sl_clock_now_ns() - began_ns < 5 * SL_S);
}

static void open_metrics_name_families_by_themselves(void **state)
{
	static const char plain[] = "# HELP a_total Some a_total there are.\n"
				    "# TYPE a_total counter\n"
				    "a_total{x=\"b_total\"} 1\n"
				    "# HELP b_totals Not one.\n"
				    "# TYPE b_totals gauge\n"
				    "b_totals 2\n"
				    "# TYPE _total gauge\n";
	size_t size = sizeof(plain) - 1;
	char *text = sl_metrics_to_open(strdup(plain), &size);

	(void)state;
	assert_string_equal(text, "# HELP a Some a_total there are.\n"
				  "# TYPE a counter\n"
				  "a_total{x=\"b_total\"} 1\n"
				  "# HELP b_totals Not one.\n"
				  "# TYPE b_totals gauge\n"
				  "b_totals 2\n"
				  "# TYPE _total gauge\n"
				  "# EOF\n");
	assert_int_equal(size, strlen(text));
	free(text);
}

static void open_metrics_are_for_who_asks(void **state)
{
	static const struct {
		const char *why, *accept;
		bool want;
	} rows[] = {
		{"no header", NULL, false},
		{"anything", "*/*", false},
		{"a browser", "text/html,application/xhtml+xml,*/*;q=0.8", false},
		{"it alone", "application/openmetrics-text", true},
		{"in other letters, with a version", "Application/OpenMetrics-Text; version=1.0.0",
		 true},
		{"as Prometheus asks",
		 "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
		 "application/openmetrics-text;version=0.0.1;q=0.4,"
		 "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
		 "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
		 true},
		{"rather the other", "application/openmetrics-text;q=0.3, text/plain;q=0.5", false},
		{"not at all", "application/openmetrics-text;q=0", false},
		{"another type that begins so", "application/openmetrics-textual", false},
		{"nothing", "", false},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		if (sl_metrics_wants_open(rows[i].accept) != rows[i].want)
			fail_msg("%s", rows[i].why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shards_are_summed_or_told_apart),
		cmocka_unit_test(histograms_are_cumulative),
		cmocka_unit_test(many_blocks_cost_what_one_costs_each),
		cmocka_unit_test(open_metrics_name_families_by_themselves),
		cmocka_unit_test(open_metrics_are_for_who_asks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
