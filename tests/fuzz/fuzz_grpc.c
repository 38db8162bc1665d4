// The deframer makes the same of any cut of its input, and of a timeout what it prints.

#include <stdlib.h>

#include "dataplane/http/grpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
	uint64_t hash;
	uint32_t begun, whole;
	bool bad, is_whole;
};

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void feed(struct sl_grpc_deframer *deframer, struct sum *sum, struct sl_bytes in)
{
	enum sl_grpc_event event = SL_GRPC_BEGIN;
	struct sl_bytes data;

	while (!sum->bad && event != SL_GRPC_NEED_MORE) {
		event = sl_grpc_next(deframer, &in, &data);
		sum->begun += event == SL_GRPC_BEGIN;
		sum->whole += event == SL_GRPC_MESSAGE;
		sum->bad |= event == SL_GRPC_BAD;
		for (size_t i = 0; i < data.size; i++)
			sum->hash = (sum->hash ^ data.data[i]) * UINT64_C(0x100000001b3);
	}
	check(sum->bad || in.size == 0);
	sum->is_whole = sl_grpc_is_whole(deframer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sl_grpc_deframer one = {0}, two = {0};
	struct sum whole = {0}, split = {0};
	uint64_t ns;

	if (size == 0)
		return 0;

	const size_t cut = data[0] * (size - 1) / 256;

	feed(&one, &whole, sl_bytes(data + 1, size - 1));
	feed(&two, &split, sl_bytes(data + 1, cut));
	feed(&two, &split, sl_bytes(data + 1 + cut, size - 1 - cut));
	check(whole.hash == split.hash && whole.begun == split.begun);
	check(whole.whole == split.whole && whole.bad == split.bad);
	check(whole.bad || whole.is_whole == split.is_whole);
	check(whole.whole <= whole.begun && whole.begun <= whole.whole + 1);
	if (sl_grpc_timeout_parse(sl_bytes(data + 1, size - 1), &ns))
		check(size >= 3 && size <= 10);
	return 0;
}
