#pragma once

#include "dataplane/base/random.h"
#include "dataplane/io/dpdk/stack.h"

// Two stacks with the same keys and clock get the same frames: one a turn's segments merged, the
// other each by itself. What they read, and every frame they send of a flow, must be the same to
// the byte; among flows the frames' order may differ, and so IPv4's identification, which counts
// them all. Where they talk, bytes may wait for the peer's window: they leave with the first
// segment that opens it, and acknowledge that one, or the whole run; so there acknowledgements may
// differ.
#define FLOWS      20 // more than are held at once
#define BURST      64
#define STREAM_MAX (256 * SL_KIB)
#define MADE_BYTES 1522

struct twin {
	const struct sl_stack_ops *ops;
	struct sl_stack *stack;
	uint64_t drawn;
	uint8_t *sent[FLOWS + 1]; // by flow; what is of none
	size_t sent_bytes[FLOWS + 1];
	long alive;
	struct sl_stream *streams[FLOWS];
	uint8_t *read[FLOWS];
	size_t read_bytes[FLOWS]; // STREAM_MAX at most
};

// What the peer knows of a flow.
struct peer {
	uint32_t seq, ack; // its next; what it has of the stack
	uint32_t taken;    // what the stack has said that it has
	bool v6, ended;
};

struct made {
	uint8_t data[MADE_BYTES];
	size_t bytes;
};

struct words { // of a segment that the drawing may bend
	uint32_t seq, ack;
	uint16_t window;
	uint8_t flags, tos, hops, options;
	size_t size;
	bool padded, damaged, damaged_ip, fragment;
};

// What can be special about the second of three segments.
struct bend {
	const char *why;
	void (*bend)(struct words *words);
	unsigned want[2]; // merged ones: IPv4, IPv6
};
#define BENDS_ALIVE 18 // the first ones: the connection outlives them
#define BENDS       21

// Threading: one. Time: now_ns, in ns, moved by the tests and twins_end_turn.
extern struct twin twins[2]; // [0] merges
extern struct peer peers[FLOWS];
extern const struct bend bends[BENDS];
extern struct sl_random chance;
extern uint64_t now_ns;

// cmocka's; every flow is a connection, the odd ones over IPv6. At the end every packet must have
// come back.
int twins_set_up(void **state);
int twins_tear_down(void **state);
uint32_t twins_below(uint32_t limit);

// The bytes of a stream are their numbers': so any segment of it can be made at any time.
uint8_t twins_byte(uint32_t seq);
// The segment that the peer sends next, with `size` bytes.
struct words twins_plain(unsigned flow, size_t size);
void twins_make(struct made *made, unsigned flow, const struct words *words);
// Makes the next one; of 100 about `trouble` are bent in one way each, and the peer goes on.
void twins_add(struct made *frames, unsigned *count, unsigned flow, unsigned trouble);
// `how`: SL_INPUT_*.
void twins_give(struct twin *twin, const struct made *made, unsigned how);
// To both, and lets in what is held.
void twins_burst(const struct made *frames, unsigned count, unsigned how);

void twins_take_events(struct twin *twin);
void twins_read_on(struct twin *twin, unsigned flow);
void twins_say(struct twin *twin, unsigned flow, size_t size);
// The peers take note of what [0] sent; both forget it.
void twins_take_note(void);
// A turn's end: both read and answer alike, are compared, and the peers take note; 10 ms pass.
void twins_end_turn(bool reads, bool talks);
// Segments that went in with one before them: of [0], as [1] may have none.
uint64_t twins_merged(void);
