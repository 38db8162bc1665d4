#include "sampling/threshold.h"

#include <math.h>

static const char digits[] = "0123456789abcdef";

uint64_t sl_threshold_of(double probability, unsigned precision)
{
	const double whole = (double)SL_THRESHOLD_NEVER;
	int exponent, exponent_rest, wanted;
	uint64_t threshold;

	assert(precision >= 1 && precision <= SL_THRESHOLD_DIGITS);
	if (!(probability * whole >= 1))
		return SL_THRESHOLD_NEVER;
	if (probability >= 1)
		return 0;
	// A digit for each leading f (p near 0) or 0 (p near 1).
	frexp(probability, &exponent);
	frexp(1 - probability, &exponent_rest);
	wanted = (int)precision + SL_MAX(exponent / -4, exponent_rest / -4);
	threshold = SL_THRESHOLD_NEVER - (uint64_t)llround(probability * whole);
	if (wanted < SL_THRESHOLD_DIGITS) {
		const int shift = 4 * (SL_THRESHOLD_DIGITS - wanted);

		threshold += UINT64_C(1) << (shift - 1);
		threshold = threshold >> shift << shift;
	}
	return threshold;
}

double sl_threshold_probability(uint64_t threshold)
{
	assert(threshold <= SL_THRESHOLD_NEVER);
	return (double)(SL_THRESHOLD_NEVER - threshold) * 0x1p-56;
}

double sl_threshold_excess(uint64_t threshold)
{
	return threshold < SL_THRESHOLD_NEVER ? 1 / sl_threshold_probability(threshold) - 1 : 0;
}

bool sl_threshold_parse(struct sl_bytes text, uint64_t *threshold)
{
	uint64_t value = 0;

	if (text.size < 1 || text.size > SL_THRESHOLD_DIGITS)
		return false;
	for (size_t i = 0; i < text.size; i++) {
		const uint8_t c = text.data[i];

		if (c >= '0' && c <= '9')
			value = value << 4 | (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (c - 'a' + 10u);
		else
			return false;
	}
	*threshold = value << 4 * (SL_THRESHOLD_DIGITS - text.size);
	return true;
}

unsigned sl_threshold_format(uint64_t threshold, uint8_t text[SL_THRESHOLD_DIGITS])
{
	unsigned count = SL_THRESHOLD_DIGITS;

	sl_randomness_format(threshold, text);
	while (count > 1 && text[count - 1] == '0')
		count--;
	return count;
}

bool sl_randomness_parse(struct sl_bytes text, uint64_t *randomness)
{
	return text.size == SL_THRESHOLD_DIGITS && sl_threshold_parse(text, randomness);
}

void sl_randomness_format(uint64_t randomness, uint8_t text[SL_THRESHOLD_DIGITS])
{
	assert(randomness < SL_THRESHOLD_NEVER);
	for (unsigned i = 0; i < SL_THRESHOLD_DIGITS; i++)
		text[i] = (uint8_t)digits[randomness >> 4 * (SL_THRESHOLD_DIGITS - 1 - i) & 15];
}
