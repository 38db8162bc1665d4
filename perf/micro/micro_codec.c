// What inflating costs alone, for requests of 8, 100 and 1000 spans: CPU seconds per million spans.

#include <string.h>
#include <sys/uio.h>

#include "dataplane/codec/codec.h"
#include "perf/micro/micro.h"
#include "perf/payload.h"

static double inflate_ns(struct sl_codec *codec, struct sl_memory *memory, enum sl_coding coding,
			 uint32_t items)
{
	const size_t room = 4096 + (size_t)items * 1024;
	uint8_t *plain = malloc(room);
	const size_t size = sl_payload_build(plain, room, SL_TRACES, items, 1);
	const struct iovec piece = {plain, size};
	struct sl_buffer packed, out;
	double ns;

	if (sl_codec_deflate(codec, coding, &piece, 1, &packed) != SL_CODEC_OK)
		abort();
	SL_MICRO(ns, {
		if (sl_codec_inflate(codec, coding, sl_bytes(packed.data, packed.size), 64 * SL_MIB,
				     32, &out) != SL_CODEC_OK)
			abort();
		sl_buffer_give(memory, &out);
	});
	sl_buffer_give(memory, &packed);
	free(plain);
	return ns;
}

int main(int argc, char **argv)
{
	static const uint32_t sizes[] = {8, 100, 1000};
	const bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
	struct sl_memory memory;
	struct sl_codec *codec;
	const char *comma = "";

	if (sl_memory_init(&memory, SL_GIB) < 0 || !(codec = sl_codec_create(&memory)))
		return 1;
	printf(json ? "{" : "inflating, CPU s per million spans\n");
	for (unsigned coding = SL_CODING_GZIP; coding <= SL_CODING_ZSTD; coding++) {
		for (unsigned i = 0; i < SL_COUNT_OF(sizes); i++) {
			const double ns = inflate_ns(codec, &memory, coding, sizes[i]);

			printf(json ? "%s\"%s/%u\": %.4f" : "%s%s %u: %.4f\n", comma,
			       sl_coding_names[coding], sizes[i], ns / sizes[i] / 1e3);
			comma = json ? ", " : "";
		}
	}
	printf(json ? "}\n" : "");
	sl_codec_destroy(codec);
	return 0;
}
