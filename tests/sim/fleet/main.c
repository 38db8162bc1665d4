// Runs scenarios, prints a table, and fails when one is outside its bars.
//
//   sim_fleet          the short form, for every test run
//   sim_fleet --full   all of them, longer
//   sim_fleet NAME     one
//
// A second argument is the seed.
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "tests/sim/fleet/world.h"

struct row {
	struct scenario scenario;
	bool brief;
	// Bars, in percent of R over any 10 s; 0: not asked for.
	double ten_s, fault_over, fault_under;
	double refused; // percent of what is offered
	double updates; // a second
	double excess;  // s of R, beyond R W + B
};

#define ROW(name_, ...) AS(name_, SL_ALGORITHM_TOKEN_BUCKET, 0.2, __VA_ARGS__)
#define AS(name_, algorithm_, burst_, n_, m_, r_, q_, load_, rtt_, skew_, fault_, brief_, ...)     \
	{{.name = name_,                                                                           \
	  .algorithm = algorithm_,                                                                 \
	  .instances = n_,                                                                         \
	  .shards = m_,                                                                            \
	  .per_s = r_,                                                                             \
	  .burst_s = burst_,                                                                       \
	  .request = q_,                                                                           \
	  .load = load_,                                                                           \
	  .rtt_ms = rtt_,                                                                          \
	  .skew = skew_,                                                                           \
	  .fault = fault_,                                                                         \
	  .seconds = 32},                                                                          \
	 brief_,                                                                                   \
	 __VA_ARGS__},
static const struct row rows[] = {
#include "tests/sim/fleet/rows.def"
};

// The volume of a day: how far beyond it all are that admit, in s of R.
struct volume_row {
	struct scenario scenario;
	double under, over; // bars, in s of R
	double updates;     // a second and tenant
};

#define VOLUME(name_, n_, m_, load_, rtt_, skew_, fault_, volume_, midnight_, ...)                 \
	{{.name = name_,                                                                           \
	  .instances = n_,                                                                         \
	  .shards = m_,                                                                            \
	  .per_s = 20000,                                                                          \
	  .burst_s = 0.2,                                                                          \
	  .request = 96,                                                                           \
	  .load = load_,                                                                           \
	  .rtt_ms = rtt_,                                                                          \
	  .skew = skew_,                                                                           \
	  .fault = fault_,                                                                         \
	  .seconds = 32,                                                                           \
	  .volume_s = volume_,                                                                     \
	  .midnight_s = midnight_},                                                                \
	 __VA_ARGS__},
static const struct volume_row volume_rows[] = {
#include "tests/sim/fleet/volumes.def"
};

static int run_volumes(const char *only, uint64_t seed, int *ran)
{
	int bad = 0;

	printf("\n%-26s %2s %1s %5s %5s %7s | %8s %8s %7s\n", "volume of a day", "N", "M", "load",
	       "rtt", "s of R", "over s*R", "bar", "upd/s");
	for (size_t i = 0; i < SL_COUNT_OF(volume_rows); i++) {
		const struct volume_row *row = &volume_rows[i];
		struct outcome outcome;
		bool good;

		if (only && strcmp(only, row->scenario.name))
			continue;
		simulate(&row->scenario, seed, &outcome);
		good = outcome.volume_over >= -row->under && outcome.volume_over <= row->over &&
		       outcome.volume_updates_per_s <= row->updates;
		printf("%-26s %2u %1u %5.2f %5.1f %7.1f | %8.3f %8.3f %7.1f%s\n",
		       row->scenario.name, row->scenario.instances, row->scenario.shards,
		       row->scenario.load, row->scenario.rtt_ms, row->scenario.volume_s,
		       outcome.volume_over, row->over, outcome.volume_updates_per_s,
		       good ? "" : "  <- outside");
		bad += !good;
		++*ran;
	}
	return bad;
}

static bool within(const struct row *row, const struct outcome *outcome)
{
	const double over = outcome->over_10s * 100, under = -outcome->under_10s * 100;

	if (row->ten_s > 0 && (over > row->ten_s || under > row->ten_s))
		return false;
	if (row->fault_over > 0 && outcome->over_fault * 100 > row->fault_over)
		return false;
	if (row->fault_under > 0 && -outcome->under_fault * 100 > row->fault_under)
		return false;
	if (row->refused > 0 && outcome->refused * 100 > row->refused)
		return false;
	if (row->updates > 0 && outcome->updates_per_s > row->updates)
		return false;
	return row->excess <= 0 || outcome->excess <= row->excess;
}

int main(int argc, char **argv)
{
	const bool full = argc > 1 && strcmp(argv[1], "--full") == 0;
	const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	const char *only = argc > 1 && !full ? argv[1] : NULL;
	int bad = 0, ran = 0;

	sl_hash_seed();
	sl_log_set_level(SL_LOG_ERROR);
	printf("%-26s %2s %1s %9s %5s %6s %5s | %6s %6s %6s %6s %6s %6s %7s %6s %6s %7s\n", "case",
	       "N", "M", "R", "q", "load", "rtt", "10s+%", "10s-%", "1s+%", "1s-%", "flt+%",
	       "flt-%", "L ms*R", "ref%", "ideal%", "upd/s");
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct scenario scenario = rows[i].scenario;
		struct outcome outcome;
		bool good;

		if (only ? strcmp(only, scenario.name) : !full && !rows[i].brief)
			continue;
		if (full)
			scenario.seconds *= 2;
		simulate(&scenario, seed, &outcome);
		good = within(&rows[i], &outcome);
		printf("%-26s %2u %1u %9.0f %5u %6.2f %5.1f | %6.2f %6.2f %6.2f %6.2f %6.2f %6.2f "
		       "%7.1f %6.2f %6.2f %7.1f%s\n",
		       scenario.name, scenario.instances, scenario.shards, scenario.per_s,
		       scenario.request, scenario.load, scenario.rtt_ms, outcome.over_10s * 100,
		       outcome.under_10s * 100, outcome.over_1s * 100, outcome.under_1s * 100,
		       outcome.over_fault * 100, outcome.under_fault * 100, outcome.excess * 1000,
		       outcome.refused * 100, outcome.ideal_refused * 100, outcome.updates_per_s,
		       good ? "" : "  <- outside");
		fflush(stdout);
		bad += !good;
		ran++;
	}
	bad += run_volumes(only, seed, &ran);
	return bad || !ran;
}
