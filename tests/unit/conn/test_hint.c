#include "tests/unit/test.h"

#include "dataplane/conn/hint.h"

enum event { END, COMES, EARLY, TOLD, TOLD_EARLY, SERVED };

// Times in ms; hints of 1 s, a grace of 100 ms; one early call a second is taken.
static const struct {
	const char *why;
	struct {
		enum event event; // COMES: a call that is not early
		unsigned at_ms;
		sl_tenant_id tenant;
		enum sl_signal signal;
	} steps[8];
	uint32_t strikes;
} rows[] = {
	{"nothing was told", {{COMES, 0, 1, 0}, {COMES, 1, 1, 0}}, 0},
	{"what was on its way", {{TOLD, 0, 1, 0}, {COMES, 100, 1, 0}}, 0},
	{"before its time", {{TOLD, 0, 1, 0}, {EARLY, 101, 1, 0}, {EARLY, 999, 1, 0}}, 0},
	{"in time", {{TOLD, 0, 1, 0}, {COMES, 1000, 1, 0}}, 0},
	{"of another signal", {{TOLD, 0, 1, 0}, {COMES, 500, 1, 1}}, 0},
	{"of another tenant", {{TOLD, 0, 1, 0}, {COMES, 500, 2, 0}}, 0},
	{"told again, the first time stands",
	 {{TOLD, 0, 1, 0}, {EARLY, 500, 1, 0}, {TOLD_EARLY, 500, 1, 0}, {EARLY, 999, 1, 0}},
	 0},
	{"and is over at its end",
	 {{TOLD, 0, 1, 0}, {TOLD_EARLY, 500, 1, 0}, {COMES, 1000, 1, 0}},
	 0},
	{"more than one a second",
	 {{TOLD, 0, 1, 0},
	  {TOLD_EARLY, 500, 1, 0},
	  {TOLD_EARLY, 600, 1, 0},
	  {TOLD_EARLY, 700, 1, 0}},
	 2},
	{"whoever waits is forgiven",
	 {{TOLD, 0, 1, 0}, {TOLD_EARLY, 500, 1, 0}, {COMES, 1500, 1, 0}, {TOLD, 1501, 1, 0}},
	 0},
	{"another tenant was served: the connection is not its alone",
	 {{TOLD, 0, 1, 0}, {TOLD_EARLY, 500, 1, 0}, {SERVED, 600, 2, 0}, {COMES, 700, 1, 0}},
	 0},
	{"it was served itself, and is early again",
	 {{TOLD, 0, 1, 0},
	  {TOLD_EARLY, 500, 1, 0},
	  {TOLD_EARLY, 550, 1, 0},
	  {SERVED, 600, 1, 0},
	  {EARLY, 700, 1, 0}},
	 1},
	{"all calls at once are answered without a strike",
	 {{TOLD, 0, 1, 0}, {COMES, 1, 1, 0}, {TOLD, 1, 1, 0}, {COMES, 2, 1, 0}, {TOLD, 2, 1, 0}},
	 0},
};

static void hints(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_hint hint = {0};

		print_message("%s\n", rows[i].why);
		for (unsigned j = 0; j < 8 && rows[i].steps[j].event != END; j++) {
			const uint64_t now_ns = SL_S + rows[i].steps[j].at_ms * SL_MS;
			const sl_tenant_id tenant = rows[i].steps[j].tenant;
			const enum sl_signal signal = rows[i].steps[j].signal;

			switch (rows[i].steps[j].event) {
			case COMES:
			case EARLY:
				assert_int_equal(sl_hint_is_early(&hint, tenant, signal,
								  SL_HINT_GRACE_HTTP2_NS, now_ns),
						 rows[i].steps[j].event == EARLY);
				break;
			case TOLD:
			case TOLD_EARLY:
				sl_hint_told(&hint, tenant, signal,
					     rows[i].steps[j].event == TOLD_EARLY, 1, SL_S, now_ns);
				break;
			default:
				sl_hint_served(&hint, tenant);
			}
		}
		assert_int_equal(hint.strikes, rows[i].strikes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(hints)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
