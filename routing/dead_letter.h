#pragma once

#include "dataplane/request/delivery.h"

// Dead letters: a record that its destination refuses for good goes to another one, which keeps it
// with what is known of it, instead of back to its sender.
//
//   refused ──▶ sl_dead_letter_take() ──▶ records of the other destination, each with `letter`
//                                           delivered: its sender has success, with a warning
//                                           in that one's spool, where it has one: as delivered
//                                           anything else: refused for good, as without
//
// A dead letter that is refused in turn goes nowhere else. Its memory stays pinned where it was.
//
// Threading: the shard's; drivers' threads may read a letter while they have its record.
// Memory: the request's arena. Time: the wall's, read once a turn in which there are any.
#define SL_DEAD_LETTER_HEADERS 4
#define SL_DEAD_LETTER_BYTES   640 // more than they take in a Kafka record or a file
#define SL_DEAD_LETTER_FIELD   101 // of the first header in a file; the others follow

struct sl_dead_letter {
	// Reason, tenant, time, destination; the values are printable ASCII but for the tenant's.
	struct sl_bytes values[SL_DEAD_LETTER_HEADERS];
	char time[32]; // RFC 3339, UTC
	// As a file has them: strings in front of an Export request, which readers of OTLP skip.
	struct sl_bytes wire;
};

// The headers' names, in Kafka and as OTLP's metadata.
extern const struct sl_bytes sl_dead_letter_names[SL_DEAD_LETTER_HEADERS];
extern const char *const sl_dead_letter_texts[SL_DEAD_LETTER_HEADERS];

// Headers that say nothing: in front of a request whose own fields could be taken for headers.
extern const struct sl_bytes sl_dead_letter_none;

struct sl_egress;
struct sl_routing_shard;

// Where an egress' dead letters go; NULL: nowhere. That one stays open as long.
void sl_dead_letter_set(struct sl_egress *egress, struct sl_egress *to);
// As the shard's snapshot has it, once all of its egresses are there. Retired ones keep theirs for
// what they still have.
void sl_dead_letter_link(struct sl_routing_shard *shard);
// Takes a record that its destination has refused for good, alone. False: no destination is there
// for it, or no memory.
bool sl_dead_letter_take(struct sl_record *record);
// What the end of a dead letter means for its sender; counts and logs one that could not be kept.
// One that came out of a spool and cannot be kept now goes back into it.
enum sl_outcome sl_dead_letter_end(struct sl_record *record, enum sl_outcome outcome);

// {"sluiceDeadLetter":{...} without the closing brace, at most so many bytes. Returns them.
#define SL_DEAD_LETTER_JSON_BYTES 4096
size_t sl_dead_letter_json(const struct sl_dead_letter *letter, char *out);

// Reads the headers off the front of an Export request. Returns their bytes; 0: it has none, or
// they are not sound.
size_t sl_dead_letter_read(struct sl_bytes body, struct sl_bytes values[SL_DEAD_LETTER_HEADERS]);
