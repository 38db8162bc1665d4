// Any keep and any edits of a valid request: the splice is what protobuf-c makes of the same change
// to the decoded request. The input's head chooses the mix; the request comes from a seed, or is
// the rest of the input.
//
//   u8 signal and source | u8 odd | u8 edits | u8 keep percent | u64 seed | body

#include <stdio.h>
#include <stdlib.h>

#include "tests/oracle/model.h"
#include "tests/oracle/random.h"

#define HEAD_BYTES  12
#define REQUEST_MAX (32 * SL_KIB)
#define GIVEN       0x80

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sl_memory memory;
	static uint8_t scratch[REQUEST_MAX];
	struct sl_model_counts counts = {0};
	struct sl_random random;
	size_t bytes = size - HEAD_BYTES;
	const char *problem;
	uint64_t seed;
	uint8_t *body;

	if (!memory.budget_bytes && sl_memory_init(&memory, 256 * SL_MIB) != 0)
		abort();
	if (size < HEAD_BYTES)
		return 0;
	memcpy(&seed, data + 4, sizeof(seed));

	const enum sl_signal signal = (data[0] & ~GIVEN) % SL_SIGNALS;

	if (data[0] & GIVEN)
		memcpy(scratch, data + HEAD_BYTES, bytes = SL_MIN(bytes, sizeof(scratch)));
	else
		bytes = sl_random_request(scratch, sizeof(scratch), signal, data[1] % 101, seed);
	body = malloc(bytes + SL_BODY_SLACK);
	if (!body)
		abort();
	memcpy(body, scratch, bytes);
	memset(body + bytes, 0xff, SL_BODY_SLACK);
	sl_random_init(&random, seed ^ size);
	problem = sl_model_round(signal, sl_bytes(body, bytes), data[2] % 32, data[3] % 101,
				 &random, &memory, &counts);
	if (problem || (counts.refused && !(data[0] & GIVEN))) {
		fprintf(stderr, "%s\n", problem ? problem : "a valid request is refused");
		abort();
	}
	free(body);
	return 0;
}
