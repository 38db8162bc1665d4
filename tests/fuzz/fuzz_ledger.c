// A ledger's text, with the checksum made right: what is taken is written so that it reads the same
// and is stable from then on; what is refused leaves nothing behind.

#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "tenants/ledger/ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static struct sl_ledger *make(void)
{
	const struct sl_ledger_options options = {
		.shards = 1, .rows_max = 64, .tenants_max = 64, .export_max = 3, .usage = true};
	struct sl_ledger *ledger = sl_ledger_create(&options);

	check(ledger != NULL);
	return ledger;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char first[] = "sluice-ledger 1\n";
	struct sl_ledger *ledger = make(), *again = make();
	char *text = malloc(sizeof(first) + size + 32), *written, *rewritten, error[200] = "";
	struct sl_ledger_stats stats;
	size_t at = sizeof(first) - 1;

	memcpy(text, first, at);
	memcpy(text + at, data, size);
	at += size;
	at += (size_t)sprintf(text + at, "crc32 %08x\n", libdeflate_crc32(0, text, at));
	if (sl_ledger_read(ledger, sl_bytes(text, at), error, sizeof(error)) == 0) {
		written = sl_ledger_write(ledger, &size);
		check(sl_ledger_read(again, sl_bytes(written, size), error, sizeof(error)) == 0);
		rewritten = sl_ledger_write(again, &size);
		check(strcmp(written, rewritten) == 0);
		free(rewritten);
		free(written);
		free(sl_ledger_metrics(ledger, &size));
		free(sl_ledger_list(ledger, 0, 10));
	} else {
		sl_ledger_stats(ledger, &stats);
		check(*error && !stats.accounts && !stats.pending);
	}
	free(text);
	sl_ledger_destroy(ledger);
	sl_ledger_destroy(again);
	return 0;
}
