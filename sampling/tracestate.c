#include "sampling/tracestate.h"

// The next piece of `rest` up to `separator`; `rest` moves behind it.
static struct sl_bytes cut(struct sl_bytes *rest, uint8_t separator)
{
	const uint8_t *end = rest->size ? memchr(rest->data, separator, rest->size) : NULL;
	const size_t size = end ? (size_t)(end - rest->data) : rest->size;
	const struct sl_bytes piece = {rest->data, size};

	rest->data = end ? end + 1 : NULL;
	rest->size = end ? rest->size - size - 1 : 0;
	return piece;
}

static struct sl_bytes trim(struct sl_bytes text)
{
	while (text.size && (text.data[0] == ' ' || text.data[0] == '\t')) {
		text.data++;
		text.size--;
	}
	while (text.size && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
		text.size--;
	return text;
}

static bool is_lower(uint8_t c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool is_upper(uint8_t c)
{
	return c >= 'A' && c <= 'Z';
}

// W3C: key = value; both 1 to 256 bytes long, `@` only once and not at an end.
static bool member_is_valid(struct sl_bytes key, struct sl_bytes value)
{
	uint32_t ats = 0;

	if (key.size < 1 || key.size > 256 || value.size < 1 || value.size > 256 ||
	    !(is_lower(key.data[0]) || is_digit(key.data[0])))
		return false;
	for (size_t i = 0; i < key.size; i++) {
		const uint8_t c = key.data[i];

		if (c == '@' && ++ats == 1 && i + 1 < key.size)
			continue;
		if (!is_lower(c) && !is_digit(c) && c != '_' && c != '-' && c != '*' && c != '/')
			return false;
	}
	for (size_t i = 0; i < value.size; i++) {
		if (value.data[i] < 0x20 || value.data[i] > 0x7e || value.data[i] == '=')
			return false;
	}
	return true;
}

static bool pair_is_valid(struct sl_bytes key, struct sl_bytes value)
{
	if (key.size < 1 || !is_lower(key.data[0]))
		return false;
	for (size_t i = 1; i < key.size; i++) {
		if (!is_lower(key.data[i]) && !is_digit(key.data[i]))
			return false;
	}
	for (size_t i = 0; i < value.size; i++) {
		const uint8_t c = value.data[i];

		if (!is_lower(c) && !is_upper(c) && !is_digit(c) && c != '.' && c != '_' &&
		    c != '-')
			return false;
	}
	return true;
}

static bool is_sampling_key(struct sl_bytes key)
{
	return sl_bytes_equal(key, SL_LITERAL("th")) || sl_bytes_equal(key, SL_LITERAL("rv"));
}

// Whether `key` is among the pairs of `text`; at most 256 bytes, so a plain walk does.
static bool has_key(struct sl_bytes text, struct sl_bytes key)
{
	while (text.size) {
		struct sl_bytes value = cut(&text, ';');

		if (sl_bytes_equal(cut(&value, ':'), key))
			return true;
	}
	return false;
}

static bool parse_ot(struct sl_bytes text, struct sl_tracestate *state)
{
	struct sl_bytes rest = text;

	if (text.size > SL_TRACESTATE_OT_MAX)
		return false;
	state->extras = text;
	while (rest.size) {
		struct sl_bytes value = cut(&rest, ';'), key;

		if (!value.size || !memchr(value.data, ':', value.size))
			return false;
		key = cut(&value, ':');
		if (!pair_is_valid(key, value) || has_key(rest, key))
			return false;
		if (sl_bytes_equal(key, SL_LITERAL("th"))) {
			state->has_threshold = true;
			if (!sl_threshold_parse(value, &state->threshold))
				return false;
		} else if (sl_bytes_equal(key, SL_LITERAL("rv"))) {
			state->has_randomness = true;
			if (!sl_randomness_parse(value, &state->randomness))
				return false;
		}
	}
	return true;
}

bool sl_tracestate_parse(struct sl_bytes text, struct sl_tracestate *state)
{
	bool has_ot = false;
	uint32_t members = 0;

	state->has_threshold = state->has_randomness = false;
	state->threshold = state->randomness = 0;
	state->extras = SL_BYTES_NONE;
	state->member_count = 0;
	state->text_bytes = text.size;
	if (text.size > SL_TRACESTATE_BYTES_MAX)
		return false;
	while (text.size) {
		const struct sl_bytes member = trim(cut(&text, ','));
		struct sl_bytes value = member, key;

		if (!member.size) // W3C allows empty members
			continue;
		if (++members > SL_TRACESTATE_MEMBERS_MAX || !memchr(member.data, '=', member.size))
			return false;
		key = cut(&value, '=');
		if (!member_is_valid(key, value))
			return false;
		if (!sl_bytes_equal(key, SL_LITERAL("ot"))) {
			state->members[state->member_count++] = member;
			continue;
		}
		if (has_ot || !parse_ot(value, state))
			return false;
		has_ot = true;
	}
	return true;
}

static size_t put(uint8_t *text, size_t at, struct sl_bytes bytes)
{
	if (bytes.size)
		memcpy(text + at, bytes.data, bytes.size);
	return at + bytes.size;
}

static size_t write_ot(const struct sl_tracestate *state, uint8_t *text)
{
	struct sl_bytes rest = state->extras;
	size_t size = put(text, 0, SL_LITERAL("ot="));
	const size_t empty = size;

	if (state->has_randomness) {
		size = put(text, size, SL_LITERAL("rv:"));
		sl_randomness_format(state->randomness, text + size);
		size += SL_THRESHOLD_DIGITS;
	}
	if (state->has_threshold) {
		if (size > empty)
			text[size++] = ';';
		size = put(text, size, SL_LITERAL("th:"));
		size += sl_threshold_format(state->threshold, text + size);
	}
	while (rest.size) {
		const struct sl_bytes pair = cut(&rest, ';');
		struct sl_bytes value = pair;

		// A pair for which there is no room left goes whole.
		if (is_sampling_key(cut(&value, ':')) ||
		    size - empty + 1 + pair.size > SL_TRACESTATE_OT_MAX)
			continue;
		if (size > empty)
			text[size++] = ';';
		size = put(text, size, pair);
	}
	return size > empty ? size : 0;
}

size_t sl_tracestate_write(const struct sl_tracestate *state, uint8_t text[SL_TRACESTATE_WRITE_MAX])
{
	const size_t bytes_max = SL_MAX((size_t)SL_TRACESTATE_KEPT_BYTES, state->text_bytes);
	size_t size = write_ot(state, text), total = size;
	uint32_t left = state->member_count + (size > 0), dropped = 0;

	static_assert(SL_TRACESTATE_MEMBERS_MAX <= 32, "a bit each");
	for (uint32_t i = 0; i < state->member_count; i++)
		total += state->members[i].size + (total > 0);
	for (unsigned pass = 0; pass < 2; pass++) {
		for (uint32_t i = state->member_count; i-- > 0;) {
			if (left <= SL_TRACESTATE_MEMBERS_MAX && total <= bytes_max)
				break;
			if (dropped >> i & 1 ||
			    (pass == 0 && state->members[i].size <= SL_TRACESTATE_LONG_MEMBER))
				continue;
			dropped |= 1u << i;
			total -= state->members[i].size + 1;
			left--;
		}
	}
	for (uint32_t i = 0; i < state->member_count; i++) {
		if (dropped >> i & 1)
			continue;
		if (size)
			text[size++] = ',';
		size = put(text, size, state->members[i]);
	}
	return size;
}
