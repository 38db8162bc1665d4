#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/random.h"
#include "tenants/ledger/ledger.h"

// Nanoseconds that the ledger adds to a request: received, answered, delivered.
#define ROUNDS 2000000

static char (*names)[16];

static void one(struct sl_ledger_book *book, struct sl_request *request, sl_tenant_id tenant)
{
	struct sl_part *part = &request->first_part;

	part->tenant = tenant;
	part->tenant_name = sl_bytes_of(names[tenant]);
	sl_ledger_received(book, request);
	sl_ledger_ended(book, &(struct sl_ending){
				      .tenant = tenant,
				      .tenant_name = part->tenant_name,
				      .signal = SL_TRACES,
				      .destination = 1,
				      .items = 8,
				      .bytes = 2750,
				      .records = 1,
			      });
	sl_ledger_answered(book, request);
}

static void measure(unsigned tenants, unsigned rows)
{
	const struct sl_ledger_options options = {
		.shards = 1, .rows_max = rows, .tenants_max = 1 << 20, .export_max = 100};
	struct sl_ledger *ledger = sl_ledger_create(&options);
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_request request = {.signal = SL_TRACES, .part_count = 1};
	struct sl_ledger_stats stats;
	uint64_t spent_ns = 0;
	unsigned count = 1000;
	struct sl_random random;

	request.parts = &request.first_part;
	request.first_part = (struct sl_part){.request = &request,
					      .offered_items = 8,
					      .kept_items = 8,
					      .routed_items = 8,
					      .offered_bytes = 2750};
	sl_random_init(&random, 1);
	// Folded as often as by the thread at 400,000 requests a second.
	for (unsigned i = 0; i < ROUNDS; i += count) {
		const uint64_t begun_ns = sl_clock_now_ns();

		for (unsigned j = 0; j < count; j++) {
			one(book, &request,
			    tenants == 1 ? 0 : (sl_tenant_id)sl_random_below(&random, tenants));
			if (j % 64 == 0)
				sl_ledger_book_turn(book);
		}
		spent_ns += sl_clock_now_ns() - begun_ns;
		count = (unsigned)(sl_ledger_fold(ledger, true) * 4 / 10000);
	}
	sl_ledger_stats(ledger, &stats);
	printf("%6u tenants, %6u rows  %6.1f ns a request, %llu of %u to _other\n", tenants, rows,
	       (double)spent_ns / ROUNDS, (unsigned long long)stats.overflows, ROUNDS * 2);
	sl_ledger_destroy(ledger);
}

int main(void)
{
	sl_hash_seed();
	names = calloc(100000, sizeof(*names));
	for (unsigned i = 0; i < 100000; i++)
		snprintf(names[i], sizeof(names[i]), "tenant%u", i);
	measure(1, 16384);
	measure(1000, 16384);
	measure(10000, 16384);
	measure(100000, 32768);
	measure(100000, 16384);
	free(names);
	return 0;
}
