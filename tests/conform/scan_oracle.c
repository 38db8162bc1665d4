// The scan's and protobuf-c's verdicts behind a pipe, for test_scan_oracle.py: requests {u8 signal,
// u8 odd, u16 ask protobuf-c, u32 size, bytes} are answered by {i32 scan, u32 protobuf-c takes it,
// u32 items, u32 error at, u32 size, bytes}. With `odd` 255 the bytes are a body, else they are a
// seed of 8 bytes and the answer carries the random request that was made of it. protobuf-c is
// asked where it is safe to: some bodies make it read where it must not.

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/otlp/view.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/oracle/random.h"

#define REQUEST_MAX (64 * SL_KIB)
#define GIVEN       255

static const ProtobufCMessageDescriptor *const requests[SL_SIGNALS] = {
	[SL_TRACES] = &oracle__traces__descriptor,
	[SL_METRICS] = &oracle__metrics__descriptor,
	[SL_LOGS] = &oracle__logs__descriptor,
};

struct answer {
	int32_t result;
	uint32_t taken, items, error_at, size;
};

static bool answer(struct sl_memory *memory, enum sl_signal signal, struct sl_bytes body, bool ask,
		   bool give)
{
	// Python's decoder stops at 100 messages in each other; an AnyValue's step is two of them.
	static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 40};
	uint8_t *copy = calloc(1, body.size + SL_BODY_SLACK);
	struct sl_arena arena;
	struct sl_view view;
	ProtobufCMessage *decoded;
	struct answer out = {0};

	if (!copy)
		return false;
	if (body.size)
		memcpy(copy, body.data, body.size);
	sl_arena_init(&arena, memory);
	out.result = sl_view_scan(&view, signal, sl_bytes(copy, body.size), &limits, &arena,
				  &out.error_at);
	out.items = out.result == SL_VIEW_OK ? view.item_count : 0;
	sl_arena_fini(&arena);
	decoded = ask ? protobuf_c_message_unpack(requests[signal], NULL, body.size, copy) : NULL;
	out.taken = decoded != NULL;
	if (decoded)
		protobuf_c_message_free_unpacked(decoded, NULL);
	free(copy);
	out.size = give ? (uint32_t)body.size : 0;
	return fwrite(&out, sizeof(out), 1, stdout) == 1 &&
	       fwrite(body.data, 1, out.size, stdout) == out.size && fflush(stdout) == 0;
}

static bool serve(struct sl_memory *memory, const uint8_t *head, struct sl_bytes in)
{
	static uint8_t scratch[REQUEST_MAX];
	uint64_t seed;

	if (head[1] == GIVEN)
		return answer(memory, head[0], in, head[2], false);
	if (in.size != sizeof(seed))
		return false;
	memcpy(&seed, in.data, sizeof(seed));
	return answer(memory, head[0],
		      sl_bytes(scratch,
			       sl_random_request(scratch, sizeof(scratch), head[0], head[1], seed)),
		      head[2], true);
}

int main(void)
{
	struct sl_memory memory;
	uint8_t head[8];
	bool alive = true;

	if (sl_memory_init(&memory, SL_GIB) < 0)
		return 1;
	while (alive && fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
		uint32_t size;
		uint8_t *data;

		memcpy(&size, head + 4, sizeof(size));
		data = malloc((size_t)size + 1);
		alive = data && head[0] < SL_SIGNALS && fread(data, 1, size, stdin) == size &&
			serve(&memory, head, sl_bytes(data, size));
		free(data);
	}
	sl_memory_fini(&memory);
	return alive ? 0 : 1;
}
