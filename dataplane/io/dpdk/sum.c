#include "dataplane/io/dpdk/sum.h"

// The sum does not mind how wide its words are: 32-bit ones into 64-bit lanes hold 4 G words before
// a carry is lost, so carries are folded in once, at the end (RFC 1071, 2(A) to (C)).
#define VECTOR_LEAST 96 // below it headers and short acknowledgements: the scalar loop is faster

static uint16_t fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff); // at most 34 bits before, 19 after
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)sum;
}

static uint64_t add_words(uint64_t sum, const uint8_t *from, size_t size)
{
	uint64_t eight;
	uint32_t four;
	uint16_t two;

	for (; size >= sizeof(eight); from += sizeof(eight), size -= sizeof(eight)) {
		memcpy(&eight, from, sizeof(eight));
		sum += (eight >> 32) + (eight & 0xffffffff);
	}
	if (size & 4) {
		memcpy(&four, from, sizeof(four));
		sum += four;
		from += sizeof(four);
	}
	if (size & 2) {
		memcpy(&two, from, sizeof(two));
		sum += two;
		from += sizeof(two);
	}
	if (size & 1) {
		two = 0;
		memcpy(&two, from, 1);
		sum += two;
	}
	return sum;
}

uint16_t sl_sum_scalar(const void *data, size_t size)
{
	return fold(add_words(0, data, size));
}

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx2"))) static uint16_t sum_avx2(const uint8_t *from, size_t size)
{
	const __m256i low = _mm256_set1_epi64x(0xffffffff);
	__m256i even[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
	__m256i odd[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
	uint64_t lanes[4];

	for (; size >= 64; from += 64, size -= 64) {
		const __m256i a = _mm256_loadu_si256((const void *)from);
		const __m256i b = _mm256_loadu_si256((const void *)(from + 32));

		even[0] = _mm256_add_epi64(even[0], _mm256_and_si256(a, low));
		odd[0] = _mm256_add_epi64(odd[0], _mm256_srli_epi64(a, 32));
		even[1] = _mm256_add_epi64(even[1], _mm256_and_si256(b, low));
		odd[1] = _mm256_add_epi64(odd[1], _mm256_srli_epi64(b, 32));
	}
	even[0] = _mm256_add_epi64(_mm256_add_epi64(even[0], even[1]),
				   _mm256_add_epi64(odd[0], odd[1]));
	_mm256_storeu_si256((void *)lanes, even[0]);
	return fold(add_words(lanes[0] + lanes[1] + lanes[2] + lanes[3], from, size));
}
#endif

uint16_t sl_sum(const void *data, size_t size)
{
#ifdef __x86_64__
	if (size >= VECTOR_LEAST && __builtin_cpu_supports("avx2"))
		return sum_avx2(data, size);
#endif
	return sl_sum_scalar(data, size);
}
