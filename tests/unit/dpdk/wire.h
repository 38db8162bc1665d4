#pragma once

#include "dataplane/base/random.h"
#include "dataplane/io/dpdk/stack.h"

// Two stacks and a wire between them in memory. The wire can lose, repeat and reorder frames; time
// is the test's own, so a retransmission takes no waiting.
#define FRAMES_MAX  65536
#define FRAME_BYTES 2048
#define PORT        4317

struct frame {
	uint8_t room[SL_STACK_ROOM_BYTES];
	uint16_t bytes;
	uint8_t data[FRAME_BYTES];
};

struct end {
	const struct sl_stack_ops *ops;
	struct sl_stack *stack;
	struct end *peer;
	struct frame *in[FRAMES_MAX]; // a queue of frames to this end
	uint32_t head, tail;
};

// Threading: one. Memory: frames are counted. Time: wire.now_ns, in ns, moved by wire_step.
struct wire {
	struct sl_random chance;
	unsigned lose, repeat, reorder, damage; // percent; damage: one bit flips
	size_t narrow;                          // the MTU in the middle; 0: as the ends'
	bool (*swallows)(const uint8_t *frame); // a place that nothing leaves; or NULL
	uint8_t device_sums;                    // the devices at both ends: SL_SUM_*
	unsigned told;                          // of the narrow link
	unsigned refused;                       // frames that a device found damaged
	uint64_t frames;                        // that were sent
	int frames_alive;
	uint32_t pieces; // frames that could come in several buffers
	uint64_t now_ns;
};
extern struct wire wire;
extern struct end ends[2]; // server, client
extern const struct sl_endpoint server_at, client_at;

// cmocka's; the server listens. At the end every frame must have come back.
int wire_set_up(void **state);
int wire_tear_down(void **state);
bool wire_happens(unsigned percent);
uint32_t wire_draw(void);
void wire_release(void *packet);
void wire_push(struct end *to, const uint8_t *data, size_t bytes);
// What has come to an end, and its timers.
void wire_deliver(struct end *end);
// Lets `ns` pass, and delivers at both ends.
void wire_step(uint64_t ns);
