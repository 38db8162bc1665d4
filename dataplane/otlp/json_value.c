#include "dataplane/otlp/json_value.h"

#include <math.h>
#include <stdlib.h>

#define EXPONENT_MAX 1000000000 // saturates; far beyond every text's digits

// The parts of a decimal: -?digits(.digits)?([eE][+-]?digits)?
struct decimal {
	bool negative;
	struct sl_bytes whole, fraction;
	int64_t exponent;
};

static struct sl_bytes take_digits(struct sl_bytes text, size_t *at)
{
	const size_t start = *at;

	while (*at < text.size && text.data[*at] >= '0' && text.data[*at] <= '9')
		++*at;
	return sl_bytes(text.data + start, *at - start);
}

static bool split(struct sl_bytes text, struct decimal *decimal)
{
	size_t at = 0;

	*decimal = (struct decimal){0};
	if (at < text.size && text.data[at] == '-') {
		decimal->negative = true;
		at++;
	}
	decimal->whole = take_digits(text, &at);
	if (decimal->whole.size == 0)
		return false;
	if (at < text.size && text.data[at] == '.') {
		at++;
		decimal->fraction = take_digits(text, &at);
		if (decimal->fraction.size == 0)
			return false;
	}
	if (at < text.size && (text.data[at] | 0x20) == 'e') {
		bool down = false;
		struct sl_bytes digits;

		at++;
		if (at < text.size && (text.data[at] == '-' || text.data[at] == '+'))
			down = text.data[at++] == '-';
		digits = take_digits(text, &at);
		if (digits.size == 0)
			return false;
		for (size_t i = 0; i < digits.size && decimal->exponent < EXPONENT_MAX; i++)
			decimal->exponent = decimal->exponent * 10 + (digits.data[i] - '0');
		if (down)
			decimal->exponent = -decimal->exponent;
	}
	return at == text.size;
}

bool sl_json_integer(struct sl_bytes text, bool *negative, uint64_t *magnitude)
{
	struct decimal decimal;
	uint64_t value = 0;
	int64_t place; // how many digits, from the first on, stand before the point

	if (!split(text, &decimal))
		return false;
	place = (int64_t)decimal.whole.size + decimal.exponent;
	for (size_t i = 0; i < decimal.whole.size + decimal.fraction.size; i++) {
		const uint8_t digit = i < decimal.whole.size
					      ? decimal.whole.data[i]
					      : decimal.fraction.data[i - decimal.whole.size];

		if ((int64_t)i >= place) {
			if (digit != '0')
				return false;
			continue;
		}
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(digit - '0'), &value))
			return false;
	}
	place -= (int64_t)(decimal.whole.size + decimal.fraction.size);
	for (; value && place > 0; place--)
		if (__builtin_mul_overflow(value, 10, &value))
			return false;
	*negative = decimal.negative && value;
	*magnitude = value;
	return true;
}

bool sl_json_integer_of(enum sl_field_type type, struct sl_bytes text, uint64_t *value)
{
	bool negative;
	uint64_t magnitude, positive_max;

	if (!sl_json_integer(text, &negative, &magnitude))
		return false;
	switch (type) {
	case SL_FIELD_UINT32:
	case SL_FIELD_FIXED32:
		positive_max = UINT32_MAX;
		break;
	case SL_FIELD_UINT64:
	case SL_FIELD_FIXED64:
		positive_max = UINT64_MAX;
		break;
	case SL_FIELD_INT32:
	case SL_FIELD_ENUM:
	case SL_FIELD_SINT32:
		positive_max = INT32_MAX;
		break;
	default:
		positive_max = INT64_MAX;
	}

	const bool is_signed = positive_max == INT32_MAX || positive_max == INT64_MAX;

	if (magnitude > positive_max + (negative && is_signed) || (negative && !is_signed))
		return false;
	*value = negative ? -magnitude : magnitude;
	if (type == SL_FIELD_SINT32) // zigzag
		*value = (uint32_t)(*value << 1) ^ (negative ? UINT32_MAX : 0);
	return true;
}

bool sl_json_double(struct sl_bytes text, bool quoted, uint64_t *value)
{
	struct decimal decimal;
	double number;
	char *end;

	if (quoted && sl_bytes_equal(text, SL_LITERAL("NaN"))) {
		number = NAN;
	} else if (quoted && sl_bytes_equal(text, SL_LITERAL("Infinity"))) {
		number = INFINITY;
	} else if (quoted && sl_bytes_equal(text, SL_LITERAL("-Infinity"))) {
		number = -INFINITY;
	} else {
		if (!split(text, &decimal))
			return false;
		number = strtod((const char *)text.data, &end);
		if (end != (const char *)text.data + text.size || isinf(number))
			return false;
	}
	memcpy(value, &number, sizeof(*value));
	return true;
}

static int hex_digit(uint8_t digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	digit |= 0x20;
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

bool sl_json_hex(struct sl_bytes text, uint8_t *out)
{
	if (text.size % 2)
		return false;
	for (size_t i = 0; i < text.size; i += 2) {
		const int high = hex_digit(text.data[i]), low = hex_digit(text.data[i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i / 2] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static int base64_digit(uint8_t digit)
{
	if (digit >= 'A' && digit <= 'Z')
		return digit - 'A';
	if (digit >= 'a' && digit <= 'z')
		return digit - 'a' + 26;
	if (digit >= '0' && digit <= '9')
		return digit - '0' + 52;
	if (digit == '+' || digit == '-')
		return 62;
	return digit == '/' || digit == '_' ? 63 : -1;
}

bool sl_json_base64(struct sl_bytes text, uint8_t *out, size_t *size)
{
	size_t digits = text.size, made = 0;
	uint32_t bits = 0;

	while (digits && text.size - digits < 2 && text.data[digits - 1] == '=')
		digits--;
	// Padding, where there is some, fills the last four.
	if (digits % 4 == 1 || (digits != text.size && text.size % 4 != 0))
		return false;
	for (size_t i = 0; i < digits; i++) {
		const int digit = base64_digit(text.data[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4)
			out[made++] = (uint8_t)(bits >> (6 - i % 4 * 2));
	}
	*size = made;
	return true;
}
