// Our JSON mapping behind a pipe, for test_json_oracle.py: requests {u8 read, u8 signal, u32 size,
// bytes} are answered by {i32 result, u32 size, bytes}, until the input ends.

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/otlp/json.h"

static int answer(int32_t result, const void *data, uint32_t size)
{
	return fwrite(&result, sizeof(result), 1, stdout) == 1 &&
	       fwrite(&size, sizeof(size), 1, stdout) == 1 &&
	       fwrite(data, 1, size, stdout) == size && fflush(stdout) == 0;
}

static int convert(struct sl_memory *memory, bool read, enum sl_signal signal, struct sl_bytes in)
{
	const struct sl_json_limits limits = {200, 64 * SL_MIB, false};
	struct sl_json_text text = {0};
	struct sl_arena arena;
	struct sl_bytes wire = SL_BYTES_NONE;
	char error[160] = "";
	int result, done;

	if (!read) {
		result = sl_json_from_wire(signal, in, &text);
		done = answer(result, text.text, (uint32_t)text.size);
		sl_json_text_fini(&text);
		return done;
	}
	sl_arena_init(&arena, memory);
	result = sl_json_to_wire(signal, in, &limits, &arena, &wire, error, sizeof(error));
	if (result == SL_JSON_OK)
		done = answer(result, wire.data, (uint32_t)wire.size);
	else
		done = answer(result, error, (uint32_t)strlen(error));
	sl_arena_fini(&arena);
	return done;
}

int main(void)
{
	struct sl_memory memory;
	uint8_t head[6];
	int alive = 1;

	if (sl_memory_init(&memory, SL_GIB) < 0)
		return 1;
	while (alive && fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
		uint32_t size;
		uint8_t *data;

		memcpy(&size, head + 2, sizeof(size));
		data = malloc((size_t)size + 1);
		alive = data && head[1] < SL_SIGNALS && fread(data, 1, size, stdin) == size &&
			convert(&memory, head[0], head[1], sl_bytes(data, size));
		free(data);
	}
	sl_memory_fini(&memory);
	return alive ? 0 : 1;
}
