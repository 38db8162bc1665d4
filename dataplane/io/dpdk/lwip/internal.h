#pragma once

#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/priv/tcp_priv.h>

#include "dataplane/io/dpdk/lwip/hooks.h"
#include "dataplane/io/dpdk/stack.h"

// What the files of this private copy share. Threading: the shard's thread.
#ifdef SL_LWIP_MALLOC
#define BUCKETS 8 // the fuzz target sees them collide, and its timers cost less
#else
#define BUCKETS 16384 // the most connections there can be are 20,000
#endif
#define LINKS_MAX       SL_STACK_INTERFACES_MAX
#define VIPS_MAX        (LINKS_MAX * SL_STACK_ADDRESSES_MAX)
#define NOWHERE         LINKS_MAX // no interface
#define STREAMS_A_BLOCK 256
#define RUNS_MAX        16 // flows that are held in one turn
#define ACKS_MAX        1024
#define PATHS           256 // by the peer's hash; a collision forgets the older

static_assert((BUCKETS & (BUCKETS - 1)) == 0, "a mask");

// What a path to a peer takes, as a router said.
struct path {
	uint8_t peer[16];
	uint16_t mtu; // 0: nothing is known
	uint64_t since_ns;
};

struct lists { // of a bucket
	struct tcp_pcb *active, *waiting;
};

struct stream_block {
	struct stream_block *next;
	struct sl_stream streams[STREAMS_A_BLOCK];
};

// The four words of a connection, as the machine that holds it sees them.
struct flow {
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port;
};

// What a segment says of itself.
struct numbers {
	uint32_t seq, ack;
	uint8_t flags; // TCP_*
};

// A frame of TCP on its way in, from Ethernet up.
struct arrival {
	void *packet, *room;
	uint8_t *data;
	uint16_t bytes;
	unsigned how;
	struct flow flow;
	struct numbers numbers;
};

// What a packet's room holds.
struct room {
	struct pbuf_custom custom;
	void *packet;
	uint16_t size; // of the segment's bytes, while it is held
};
static_assert(sizeof(struct room) <= SL_STACK_ROOM_BYTES, "fits the packet's room");

// Segments of one flow that follow each other, held until the turn's end.
struct run {
	struct flow flow;
	struct numbers numbers;    // the first one's
	struct room *first, *last; // in a list by their pbufs' `next`
	uint32_t next;             // the number behind the last byte
	uint32_t bytes;            // without headers
	unsigned how;
	uint16_t head; // bytes of each one's headers, Ethernet's too
	uint16_t count;
	bool summed; // their checksums were found right
};

struct sl_stack {
	struct sl_stack_host host;
	struct sl_stack_config config;
	struct netif links[LINKS_MAX]; // of the interfaces
	struct netif *vips;            // further addresses of IPv4, each once
	uint32_t link_count, vip_count;
	uint32_t links_up;     // bits
	uint32_t arrived;      // interface of the frame that is being taken in, or NOWHERE
	u16_t sums[LINKS_MAX]; // what lwIP checks and computes, of all frames
	u16_t copy_sums;       // of any interface
	struct lists lists[BUCKETS];
	uint32_t bucket; // whose lists lwIP has now
	uint64_t tick_ns;
	uint32_t ticks;
	uint32_t errors;  // of ICMP sent since the last tick
	uint64_t granted; // bytes of windows
	struct sl_stream *ready, **ready_last, *free;
	struct sl_stream *starved, *starved_last; // wait for memory to write
	bool relieved;                            // some was freed since
	struct sl_stream *acks[ACKS_MAX]; // to be acknowledged at the turn's end; NULL: gone
	uint32_t ack_count;
	struct pbuf *tail; // pieces of the frame to come
	struct run runs[RUNS_MAX];
	uint32_t run_count;
	struct stream_block *blocks;
	struct path paths[PATHS];
	struct sl_stack_stats stats;
};

// Where a packet's upper layer lies, from its header on.
struct upper {
	size_t at, end;
	uint8_t protocol;
};

extern struct sl_stack *sl_lwip_stack; // the one of this copy

SL_INLINE void map_v4(uint8_t to[16], const void *v4)
{
	memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	memcpy(to + 12, v4, 4);
}

SL_INLINE uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

SL_INLINE uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

SL_INLINE void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

SL_INLINE struct numbers numbers_of(const uint8_t *tcp)
{
	return (struct numbers){get32(tcp + 4), get32(tcp + 8), tcp[13]};
}

SL_INLINE void from_lwip(uint8_t to[16], const ip_addr_t *address)
{
	if (IP_IS_V4(address))
		map_v4(to, &ip_2_ip4(address)->addr);
	else
		memcpy(to, ip_2_ip6(address)->addr, 16);
}

uint32_t sl_lwip_bucket(const struct sl_stack *stack, const struct flow *flow);
void sl_lwip_select(struct sl_stack *stack, uint32_t bucket);
// The stream of a connection goes on without it.
void sl_lwip_part(struct tcp_pcb *pcb);

void sl_lwip_note(struct sl_stream *stream, uint8_t event);

struct tcp_pcb *sl_lwip_with(struct sl_stream *stream);

// acks.c
void sl_lwip_delay_ack(struct sl_stream *stream, struct tcp_pcb *pcb);
void sl_lwip_forget_ack(struct sl_stream *stream);
void sl_lwip_acknowledge(struct sl_stack *stack);

// starved.c
void sl_lwip_starve(struct sl_stream *stream);
void sl_lwip_leave_starved(struct sl_stream *stream);
void sl_lwip_feed_starved(struct sl_stack *stack);

// held.c
uint32_t sl_lwip_held(void);

// The flow's connection, in a list from `pcb` on; NULL: not there.
struct tcp_pcb *sl_lwip_find(struct tcp_pcb *pcb, const struct flow *flow);
bool sl_lwip_is_flow(const struct tcp_pcb *pcb, const struct flow *flow);

// merge.c. Whether the checksums of a frame of TCP without options of IP are right, those that the
// device has not looked at (SL_INPUT_*); `bytes` end where the IP packet does.
bool sl_lwip_sums_fit(const uint8_t *frame, size_t bytes, unsigned how);

// admit6.c. False: lwIP must not see the packet. `ip` has `left` bytes here, and
// `whole` in all: more only of TCP right behind the header; options may change places.
bool sl_lwip_admit6(struct sl_stack *stack, uint8_t *ip, size_t left, size_t whole,
		    struct upper *upper);

// path.c. A frame that says "too big" is taken; lwIP must not see it, as it would believe it.
bool sl_lwip_take_too_big(struct sl_stack *stack, const uint8_t *frame, size_t bytes);
// What a connection sends in one segment now that it goes by another interface.
void sl_lwip_bound_moved(struct sl_stack *stack, struct tcp_pcb *pcb);
// What a connection sends in one segment, from what its peer has said.
void sl_lwip_bound_segments(struct sl_stream *stream, struct tcp_pcb *pcb);
// An IPv4 packet of TCP gets its DF.
void sl_lwip_forbid_fragments(uint8_t *ip);

// links.c: interfaces, and which of them something leaves by.
bool sl_lwip_set_links(struct sl_stack *stack);
void sl_lwip_remove_links(struct sl_stack *stack);
void sl_lwip_link(struct sl_stack *stack, unsigned interface, bool up);
// Where what nothing has come for leaves: NOWHERE when no interface has the address `from`.
unsigned sl_lwip_way(const struct sl_stack *stack, const uint8_t from[16], const uint8_t to[16]);
// The connection's interface: of its last segment. With one interface that is the one.
unsigned sl_lwip_link_of(const struct sl_stack *stack, const struct tcp_pcb *pcb);
void sl_lwip_put_on(struct sl_stack *stack, struct tcp_pcb *pcb, unsigned interface);
// Before a segment is taken in, with several interfaces: its connection is put where it came in,
// as lwIP would not find it elsewhere. Returns the interface that the connection goes back to
// (sl_lwip_settle) after a segment that is not believed, or NOWHERE: it stays.
unsigned sl_lwip_follow(struct sl_stack *stack, const struct flow *flow,
			const struct numbers *numbers);
void sl_lwip_settle(struct sl_stack *stack, const struct flow *flow, unsigned interface);
// Whether only others than the interface have an address, or a link that it belongs to.
bool sl_lwip_is_elsewhere(const struct sl_stack *stack, unsigned interface,
			  const uint8_t address[16]);
bool sl_lwip_is_others_link(const struct sl_stack *stack, unsigned interface,
			    const uint8_t address[16]);

// errors.c. Whether a frame on its way out is an ICMP error too many.
bool sl_lwip_withholds(struct sl_stack *stack, const uint8_t *frame, size_t bytes);

// merge.c. Of a segment that may be part of a run: true, and it is held. Otherwise what is held of
// its flow has gone in.
bool sl_lwip_hold(struct sl_stack *stack, const struct arrival *arrival);
void sl_lwip_flush(struct sl_stack *stack);

// ahead.c
unsigned sl_lwip_look_ahead(struct sl_stack *stack, const struct sl_bytes *frames, unsigned count,
			    void **owners);

// frame.c
void sl_lwip_add(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes);
void sl_lwip_input(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes,
		   unsigned how);
// A packet buffer of lwIP's over the frame, in the packet's room.
struct pbuf *sl_lwip_wrap(const struct arrival *arrival);
// To lwIP. A flow and numbers: of TCP, else NULL.
void sl_lwip_deliver(struct sl_stack *stack, struct pbuf *p, const struct flow *flow,
		     const struct numbers *numbers, unsigned how);
err_t sl_lwip_output(struct netif *netif, struct pbuf *p);
#define SL_LWIP_GATHER_BYTES 1024
bool sl_lwip_gather(uint8_t to[SL_LWIP_GATHER_BYTES], struct iovec *whole,
		    const struct iovec *pieces, size_t count);
