// An HTTP/1 server makes the same of any cut of its input, tells each stream's end exactly once,
// and keeps no memory.

#include "tests/fuzz/http_split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_split(false, data, size);
	return 0;
}
