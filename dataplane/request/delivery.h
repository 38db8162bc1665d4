#pragma once

#include "dataplane/request/request.h"

// A part on its way to one destination (delivery), and what a driver carries (record). A delivery
// becomes one or more records; a record carries one delivery, or a piece of one, or is merged of
// several such.
//
// Threading: the shard's. Memory: the request's arena.
typedef uint32_t sl_destination_id;

struct sl_delivery {
	struct sl_part *part;
	sl_destination_id destination;
	bool required;
	enum sl_outcome worst;
	uint32_t open_records;
	uint32_t items;          // items it carries, for the books
	uint32_t rejected_items; // of records refused for good, or by a partial success
	// The most that any required delivery of the same items was refused: deliveries to several
	// destinations share it, those of other items of the part have their own. NULL: its own.
	uint32_t *share_rejected;
	uint64_t ended_retry_after_ns;
};

struct sl_dead_letter; // routing/: what is known of a record refused for good

struct sl_record {
	struct sl_record *next;              // in the driver's or the retry list
	void *destination;                   // routing/: the shard's side of it
	struct sl_delivery *delivery;        // NULL: merged of `members`
	struct sl_record *members;           // by `next`
	struct sl_arena *arena;              // lives as long as the record, for its driver
	bool paid;                           // its retry, from the budget
	bool alone;                          // not to be merged: refused once together with others
	const struct sl_dead_letter *letter; // goes as a dead letter; NULL: as itself
	bool denied;          // its driver: refused for who sends it, as any other would be
	const char *refusal;  // its driver: why it was refused for good; NULL: nobody said
	struct sl_bytes key;  // data NULL: none; size 0 with data: an empty key
	uint32_t owner;       // of its key among the destination's endpoints; 0: any of them
	const uint64_t *keep; // the items it was made of: these (NULL: the request's),
	const uint32_t *list; // or, when not NULL, those in this list of `items`
	struct iovec *pieces;
	uint32_t piece_count;
	uint32_t items;
	uint64_t bytes;  // sum of pieces
	uint64_t due_ns; // retry: not before
	uint32_t attempts;
	enum sl_signal signal;
	struct sl_bytes tenant_name;
	void *driver_data; // the driver's while it is submitted
};

// Ends a record that is not merged exactly once. When it was the delivery's last, the delivery ends
// with the worst outcome of its records: the request learns of it and its hold goes.
void sl_record_end(struct sl_record *record, enum sl_outcome outcome, uint64_t retry_after_ns);
