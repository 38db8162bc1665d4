#pragma once

#include <sys/uio.h>

#include "dataplane/base/base.h"

// The TCP/IP stack of one shard as its host sees it: frames in, frames out, streams. It neither
// knows lwIP's types nor DPDK's: their headers do not go together, and this one includes neither.
//
// lwIP keeps its state in globals, so a stack is a private copy of the shared object that lwIP is
// linked into (instance.c). Nothing is called up from inside lwIP: what happens to a stream is
// noted in `events`, and the stream is queued until the host takes it by next_ready(). So every
// call below comes from outside of lwIP, where any connection may be touched.
//
// Threading: one shard each. Memory: a packet's memory belongs to the stack from input() until
//            release(); streams until drop(). Time: passed to tick().
struct sl_stack;

// An IPv4 address is held as ::ffff:a.b.c.d.
struct sl_endpoint {
	uint8_t address[16];
	uint16_t port; // host order
};

SL_INLINE bool sl_endpoint_is_v4(const uint8_t address[16])
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(address, prefix, sizeof(prefix)) == 0;
}

enum {
	SL_STREAM_ACCEPTED = 1, // new, of `listener`
	SL_STREAM_READABLE = 2,
	SL_STREAM_WRITABLE = 4, // after a write that did not take everything
	SL_STREAM_ENDED = 8,    // FIN
	SL_STREAM_FAILED = 16,  // the stack has let go of it; `error` says why
	SL_STREAM_CONNECTED = 32,
};

struct sl_stream {
	struct sl_stack *stack;
	void *owner;    // the host's
	void *listener; // as given to listen()
	struct sl_endpoint local, peer;
	uint8_t events; // taken by the host
	bool queued, closing, want_write;
	bool starved;       // a write found no memory: in the stack's list
	uint32_t turn;      // the host's: of its poll that put it off
	int error;          // errno
	uint32_t bucket;    // of the connection lists
	uint32_t window;    // bytes granted to the peer
	uint32_t ack_slot;  // 0: none due at the turn's end
	uint32_t eaten;     // consumed, not yet told to the peer
	void *pcb;          // NULL once gone
	void *rx, *rx_last; // received, in order
	struct sl_stream *next_ready, *next_free, *next_starved, *prev_starved;
};

struct sl_stack_host {
	void *self;
	uint64_t (*hash)(const void *key, size_t size); // keyed
	uint32_t (*random)(void);
	// Sends a frame of `bytes` made of `count` pieces by an interface. False: no room, TCP
	// tries again.
	bool (*transmit)(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
			 size_t bytes);
	void (*release)(void *packet);
};

#define SL_STACK_INTERFACES_MAX 8
#define SL_STACK_ADDRESSES_MAX  16 // of an interface
#define SL_STACK_SIXES_MAX      3  // of them IPv6
#define SL_STACK_LISTENERS_MAX  64

// Checksums that a device may see to. Of TCP what is sent then holds none, not even the
// pseudo-header's.
enum { SL_SUM_IP = 1, SL_SUM_TCP = 2 };

// How a frame comes in.
enum {
	SL_INPUT_COPY = 1,       // it is copied, and released at once
	SL_INPUT_IP_FINE = 2,    // the device has found its IP checksum right
	SL_INPUT_TCP_FINE = 4,   // and that of TCP
	SL_INPUT_MORE = 8,       // others may follow that go along with it: it may wait for flush()
	SL_INPUT_INTERFACE = 16, // times the interface's number
};

#define SL_STACK_AHEAD_MAX 64

struct sl_stack_address {
	uint8_t address[16];
	uint8_t prefix; // of its own family: 0..32 or 0..128
};

// A way to the wire: a port, or one VLAN of it. Its first IPv4 address and those of IPv6 are the
// link's; further ones of IPv4 are as on a loopback: taken, but not answered for by ARP.
struct sl_stack_interface {
	uint8_t mac[6];
	uint16_t mtu;
	struct sl_stack_address addresses[SL_STACK_ADDRESSES_MAX];
	uint32_t address_count;
	uint8_t gateway4[4], gateway6[16]; // all zero: none
	uint8_t device_sums;               // SL_SUM_*: left to the device in what is sent
};

// Several interfaces may have the same address (a VIP), but no two one subnet.
struct sl_stack_config {
	struct sl_stack_interface interfaces[SL_STACK_INTERFACES_MAX];
	uint32_t interface_count;
	uint64_t window_budget; // bytes that all peers together may be granted
};

SL_INLINE bool sl_stack_owns(const struct sl_stack_interface *interface, const uint8_t address[16])
{
	for (uint32_t i = 0; i < interface->address_count; i++) {
		if (memcmp(interface->addresses[i].address, address, 16) == 0)
			return true;
	}
	return false;
}

// Bytes of a packet's headroom-like room for the stack's own words.
#define SL_STACK_ROOM_BYTES 64

struct sl_stack_stats {           // writer: the shard
	uint64_t copied_packets;  // copied out of the port's memory because that was low
	uint64_t dropped_packets; // malformed, fragments, not believed, or no memory
	uint64_t bad_sums;        // segments whose checksum the stack found wrong
	uint64_t unbelieved;      // router advertisements and redirects
	uint64_t withheld;        // ICMP errors not sent, as they were too many
	uint64_t half_open_full;  // SYNs that met a full backlog, and were dropped
	uint64_t merged;          // segments that went in along with one before
	uint64_t large;           // frames that came in pieces
	uint64_t smaller_mtu;     // connections that were told of a smaller path
	uint64_t elsewhere;       // frames for an address that only another interface has
	uint64_t moved;           // connections that go on by another interface
	uint64_t streams;         // now
	uint64_t granted_bytes;   // now: of windows, to all peers
};

struct sl_stack_ops {
	// NULL: no memory, or more IPv6 addresses than an interface has.
	struct sl_stack *(*create)(const struct sl_stack_host *host,
				   const struct sl_stack_config *config);
	void (*destroy)(struct sl_stack *stack);
	// Fetches into the cache what input() will look at, for up to SL_STACK_AHEAD_MAX frames at
	// once. `owners` gets those of the streams they belong to, as far as it is easily seen; the
	// first line of each is being fetched. Returns how many.
	unsigned (*look_ahead)(struct sl_stack *stack, const struct sl_bytes *frames,
			       unsigned count, void **owners);
	// A frame from Ethernet up, in `room` (SL_STACK_ROOM_BYTES) and `data`; `packet` goes to
	// release(). `how`: SL_INPUT_*.
	void (*input)(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes,
		      unsigned how);
	// One more piece of the frame whose first one the next input() brings, in their order: the
	// device has joined segments. All headers are in the first one; 65,535 bytes in all.
	void (*add)(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes);
	// Takes in what input() has held back. Comes before any call but look_ahead(), add() and
	// input().
	void (*flush)(struct sl_stack *stack);
	// An interface's link is there, or gone: its connections then go on by another one that has
	// their address and a way to their peer. At first all are there.
	void (*link)(struct sl_stack *stack, unsigned interface, bool up);
	void (*tick)(struct sl_stack *stack, uint64_t now_ns);
	// The turn's end: sends the acknowledgements that no answer has carried.
	void (*acknowledge)(struct sl_stack *stack);
	// An all-zero address is any, of both families. Returns NULL when out of memory or in use.
	void *(*listen)(struct sl_stack *stack, const struct sl_endpoint *at, void *listener);
	void (*unlisten)(struct sl_stack *stack, void *listening);
	// `from->port` must be set. Ends in CONNECTED or FAILED. NULL: no memory, no route, or a
	// connection between the same two ends (TIME_WAIT too).
	struct sl_stream *(*connect)(struct sl_stack *stack, const struct sl_endpoint *from,
				     const struct sl_endpoint *to);
	// Takes the next stream with events from the queue.
	struct sl_stream *(*next_ready)(struct sl_stack *stack);
	// Queues the stream again: to read on, or for events that were put back.
	void (*again)(struct sl_stream *stream);
	// The first run of received bytes; false: none.
	bool (*peek)(struct sl_stream *stream, struct sl_bytes *bytes);
	// Frees the run that peek showed.
	void (*eat)(struct sl_stream *stream);
	// Tells the peer about what was eaten, and lets its window grow.
	void (*ate)(struct sl_stream *stream);
	// Copies as much as has room. Returns the bytes, or -errno.
	ssize_t (*write)(struct sl_stream *stream, const struct iovec *pieces, size_t count);
	// FIN behind what was written. Returns 0, or -ENOMEM: try again after the next tick.
	int (*shut)(struct sl_stream *stream);
	// Lets go: an orderly end, or a reset. The stream is the stack's again.
	void (*drop)(struct sl_stream *stream, bool reset);
	// Whether a connection has bytes or a FIN that its peer has yet to acknowledge.
	bool (*owes)(struct sl_stack *stack);
	const struct sl_stack_stats *(*stats)(const struct sl_stack *stack);
	uint32_t (*buckets)(const struct sl_stack *stack, uint32_t *longest); // for tests
	uint32_t (*held)(void); // objects taken from lwIP's pools, of all kinds; for tests
};

// The one symbol that a private copy gives.
#define SL_STACK_SYMBOL "sl_stack_ops"
extern const struct sl_stack_ops sl_stack_ops;

// Loads a private copy. Returns NULL with a text for the operator. Never unloaded.
const struct sl_stack_ops *sl_stack_load(char *error, size_t error_size);
