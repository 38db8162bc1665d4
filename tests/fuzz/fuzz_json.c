// What is read from any JSON is wire that the writer takes, and from there on stable: writing and
// reading again gives the same text and the same wire. The first byte chooses signal and leniency.

#include <stdlib.h>

#include "dataplane/otlp/json.h"
#include "dataplane/otlp/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static enum sl_json_result read_json(enum sl_signal signal, struct sl_bytes json, bool names,
				     struct sl_arena *arena, struct sl_bytes *wire)
{
	const struct sl_json_limits limits = {64, 1 << 20, names};
	char error[160] = "";
	const enum sl_json_result result = sl_json_to_wire(signal, json, &limits, arena, wire,
							   error, sizeof(error));

	check((result == SL_JSON_OK) == (error[0] == '\0')); // every refusal says why
	check(memchr(error, '\0', sizeof(error)) != NULL);
	return result;
}

static void check_stable(enum sl_signal signal, struct sl_bytes wire, struct sl_arena *arena)
{
	struct sl_json_text first = {0}, second = {0};
	struct sl_bytes again;

	check(sl_json_from_wire(signal, wire, &first) == 0);
	check(read_json(signal, sl_bytes(first.text, first.size), false, arena, &again) ==
	      SL_JSON_OK);
	check(again.size <= wire.size); // it only loses what was replaced
	check(sl_json_from_wire(signal, again, &second) == 0);
	check(sl_bytes_equal(sl_bytes(first.text, first.size), sl_bytes(second.text, second.size)));
	sl_json_text_fini(&first);
	sl_json_text_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sl_memory memory;
	struct sl_json_text text = {0};
	struct sl_bytes wire, again;
	struct sl_arena arena;

	if (!memory.budget_bytes)
		check(sl_memory_init(&memory, 64 * SL_MIB) == 0);
	if (size == 0)
		return 0;

	const enum sl_signal signal = data[0] % SL_SIGNALS;
	const struct sl_bytes in = sl_bytes(data + 1, size - 1);

	sl_arena_init(&arena, &memory);
	if (read_json(signal, in, data[0] & 0x80, &arena, &wire) == SL_JSON_OK)
		check_stable(signal, wire, &arena);
	// The same bytes as wire: refused, or JSON that is ours to read.
	if (sl_json_from_wire(signal, in, &text) == 0 &&
	    read_json(signal, sl_bytes(text.text, text.size), false, &arena, &again) == SL_JSON_OK)
		check_stable(signal, again, &arena);
	sl_json_text_fini(&text);
	sl_arena_fini(&arena);
	check(memory.used_bytes == 0);
	return 0;
}
