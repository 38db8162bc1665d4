#include "routing/dead_letter.h"

#include <stdio.h>
#include <time.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"
#include "dataplane/base/varint.h"
#include "dataplane/otlp/text.h"
#include "routing/internal.h"

#define REASON_MAX 200
#define TAG_BYTES  2 // of fields 101 to 104

// One list, as bytes for HTTP and as texts for librdkafka.
#define NAMES(X)       X("sluice-reason") X("sluice-tenant") X("sluice-time") X("sluice-destination")
#define AS_BYTES(name) SL_LITERAL(name),
#define AS_TEXT(name)  name,
const struct sl_bytes sl_dead_letter_names[] = {NAMES(AS_BYTES)};
const char *const sl_dead_letter_texts[] = {NAMES(AS_TEXT)};

static const uint8_t none[] = {0xaa, 6, 0, 0xb2, 6, 0, 0xba, 6, 0, 0xc2, 6, 0};
const struct sl_bytes sl_dead_letter_none = {none, sizeof(none)};

void sl_dead_letter_set(struct sl_egress *egress, struct sl_egress *to)
{
	if (to)
		to->dead_letter_of++;
	if (egress->dead_letter)
		egress->dead_letter->dead_letter_of--;
	egress->dead_letter = to;
}

void sl_dead_letter_link(struct sl_routing_shard *shard)
{
	const struct sl_routing *routing = shard->routing;

	for (uint32_t i = 0; i < routing->destination_count; i++) {
		const uint32_t to = routing->dead_letters[i];

		if (shard->by_index[i]) // not of groups
			sl_dead_letter_set(shard->by_index[i],
					   to == UINT32_MAX ? NULL : shard->by_index[to]);
	}
}

static struct sl_bytes put_wire(struct sl_arena *arena, const struct sl_bytes *values)
{
	size_t bytes = 0;
	uint8_t *wire, *at;

	for (uint32_t i = 0; i < SL_DEAD_LETTER_HEADERS; i++)
		bytes += TAG_BYTES + sl_varint_bytes(values[i].size) + values[i].size;
	at = wire = sl_arena_alloc(arena, bytes);
	for (uint32_t i = 0; wire && i < SL_DEAD_LETTER_HEADERS; i++) {
		at += sl_varint_put(at, (SL_DEAD_LETTER_FIELD + i) << 3 | 2);
		at += sl_varint_put(at, values[i].size);
		memcpy(at, values[i].data, values[i].size);
		at += values[i].size;
	}
	return wire ? sl_bytes(wire, bytes) : SL_BYTES_NONE;
}

// This turn's.
static const char *time_of(struct sl_routing_shard *shard)
{
	const uint64_t wall_ns = shard->letter_time[0] && shard->letter_ns == shard->now_ns
					 ? 0
					 : sl_clock_wall_ns();
	const time_t seconds = (time_t)(wall_ns / SL_S);
	struct tm utc;
	size_t size;

	if (!wall_ns)
		return shard->letter_time;
	gmtime_r(&seconds, &utc);
	size = strftime(shard->letter_time, sizeof(shard->letter_time), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(shard->letter_time + size, sizeof(shard->letter_time) - size, ".%03uZ",
		 (unsigned)(wall_ns % SL_S / SL_MS));
	shard->letter_ns = shard->now_ns;
	return shard->letter_time;
}

static struct sl_dead_letter *make_letter(const struct sl_record *record)
{
	const struct sl_egress *from = record->destination;
	struct sl_arena *arena = &record->delivery->part->request->arena;
	struct sl_dead_letter *letter = sl_arena_zalloc(arena, sizeof(*letter));
	struct sl_bytes reason = sl_bytes_of(record->refusal ? record->refusal : "refused");
	struct sl_bytes name;

	if (!letter)
		return NULL;
	strcpy(letter->time, time_of(from->shard)); // of the same size
	reason.size = SL_MIN(reason.size, (size_t)REASON_MAX);
	// The destination may go before a driver has done with the letter.
	name = sl_arena_copy(arena, sl_bytes_of(from->destination->name));
	letter->values[0] = reason;
	letter->values[1] = record->tenant_name;
	letter->values[2] = sl_bytes_of(letter->time);
	letter->values[3] = name;
	letter->wire = put_wire(arena, letter->values);
	return name.data && letter->wire.data ? letter : NULL;
}

bool sl_dead_letter_take(struct sl_record *record)
{
	struct sl_egress *from = record->destination, *to = from->dead_letter;
	const bool replay = ((const struct sl_flow *)record->delivery)->replay;
	const struct sl_dead_letter *letter;

	if (!to || !to->side || record->letter)
		return false;
	letter = make_letter(record);
	if (!letter)
		return false;
	sl_log(SL_LOG_WARN, "dead_letter", "destination=%s to=%s items=%u reason=\"%s\"",
	       from->destination->name, to->destination->name, record->items,
	       record->refusal ? record->refusal : "refused");
	record->letter = letter;
	record->alone = true; // headers are a record's own
	record->attempts = 0;
	record->paid = false;
	// The side of the spool that a replay came from stays open as long.
	from->dead_letter_of += replay;
	if (sl_egress_move(record, to))
		return true;
	from->dead_letter_of -= replay;
	record->letter = NULL;
	return false;
}

enum sl_outcome sl_dead_letter_end(struct sl_record *record, enum sl_outcome outcome)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	struct sl_egress *egress = record->destination;
	struct sl_request *request = record->delivery->part->request;

	if (flow->replay && flow->egress != egress)
		flow->egress->dead_letter_of--;
	if (flow->replay && outcome != SL_OUTCOME_DELIVERED && outcome != SL_OUTCOME_REJECTED) {
		if (flow->egress == egress) // kept as a letter, and kept on
			return outcome;
		// Back to whose spool it came from: nobody could be told that it is lost.
		record->letter = NULL;
		sl_egress_rebook(record, egress, flow->egress, 1);
		record->destination = flow->egress;
		return outcome;
	}
	if (outcome == SL_OUTCOME_DELIVERED) {
		if (!request->message.size)
			request->message = SL_LITERAL(
				"A destination refused some items for good: they were kept as dead "
				"letters.");
		return outcome;
	}
	sl_count(&egress->meter->counters.lost_letters[record->signal], record->items);
	sl_log(SL_LOG_ERROR, "dead_letter_not_kept", "destination=%s items=%u",
	       egress->destination->name, record->items);
	return SL_OUTCOME_REJECTED;
}

size_t sl_dead_letter_json(const struct sl_dead_letter *letter, char *out)
{
	static const char *const keys[] = {"{\"sluiceDeadLetter\":{\"reason\":\"",
					   "\",\"tenant\":\"", "\",\"time\":\"",
					   "\",\"destination\":\""};
	uint8_t escaped[SL_JSON_ESCAPE_MAX];
	char *at = out;

	for (uint32_t i = 0; i < SL_DEAD_LETTER_HEADERS; i++) {
		const struct sl_bytes value = letter->values[i];

		at = stpcpy(at, keys[i]);
		for (size_t from = 0; from < value.size;) {
			const unsigned count = sl_json_escape(escaped, value, &from);

			memcpy(at, escaped, count);
			at += count;
		}
	}
	at = stpcpy(at, "\"}");
	assert(at < out + SL_DEAD_LETTER_JSON_BYTES);
	return (size_t)(at - out);
}

size_t sl_dead_letter_read(struct sl_bytes body, struct sl_bytes values[SL_DEAD_LETTER_HEADERS])
{
	size_t at = 0;

	for (uint32_t i = 0; i < SL_DEAD_LETTER_HEADERS; i++) {
		uint64_t tag, size;
		int used = sl_varint_get(body.data + at, body.size - at, &tag);

		if (used <= 0 || tag != ((SL_DEAD_LETTER_FIELD + i) << 3 | 2))
			return 0;
		at += (size_t)used;
		used = sl_varint_get(body.data + at, body.size - at, &size);
		if (used <= 0 || size > body.size - at - (size_t)used)
			return 0;
		at += (size_t)used;
		values[i] = sl_bytes(body.data + at, size);
		at += size;
	}
	return at;
}
