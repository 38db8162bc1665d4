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
#define BUCKETS 4096
#endif
#define NETIFS_MAX      SL_STACK_ADDRESSES_MAX
#define STREAMS_A_BLOCK 256
#define ACKS_MAX        1024
#define PATHS           256 // by the peer's hash; a collision forgets the older

static_assert((BUCKETS & (BUCKETS - 1)) == 0, "a mask");

// What a path to a peer takes, as a router said.
struct path {
	uint8_t peer[16];
	uint16_t mtu; // 0: nothing is known
	uint64_t since_ns;
};

struct stream_block {
	struct stream_block *next;
	struct sl_stream streams[STREAMS_A_BLOCK];
};

struct sl_stack {
	struct sl_stack_host host;
	struct sl_stack_config config;
	struct netif netifs[NETIFS_MAX];
	uint32_t netif_count;
	u16_t sums; // what lwIP checks and computes, of all frames
	struct tcp_pcb *active[BUCKETS], *waiting[BUCKETS];
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
	struct stream_block *blocks;
	struct path paths[PATHS];
	struct sl_stack_stats stats;
};

// The four words of a connection, as the machine that holds it sees them.
struct flow {
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port;
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

bool sl_lwip_is_flow(const struct tcp_pcb *pcb, const struct flow *flow);

// admit6.c. False: lwIP must not see the packet. `ip` has `left` bytes; options may change places.
bool sl_lwip_admit6(struct sl_stack *stack, uint8_t *ip, size_t left, struct upper *upper);

// path.c. A frame that says "too big" is taken; lwIP must not see it, as it would believe it.
bool sl_lwip_take_too_big(struct sl_stack *stack, const uint8_t *frame, size_t bytes);
// The segment size towards a peer: at most `mss`, and what the port's and the path's MTU take.
// So small that sending would be all work, it is not believed.
uint16_t sl_lwip_path_mss(struct sl_stack *stack, const uint8_t peer[16], uint16_t mss);
// What a connection sends in one segment, from what its peer has said.
void sl_lwip_bound_segments(struct sl_stream *stream, struct tcp_pcb *pcb);
// An IPv4 packet of TCP gets its DF.
void sl_lwip_forbid_fragments(uint8_t *ip);

// errors.c. Whether a frame on its way out is an ICMP error too many.
bool sl_lwip_withholds(struct sl_stack *stack, const uint8_t *frame, size_t bytes);

// frame.c
void sl_lwip_input(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes,
		   unsigned how);
err_t sl_lwip_output(struct netif *netif, struct pbuf *p);
#define SL_LWIP_GATHER_BYTES 1024
bool sl_lwip_gather(uint8_t to[SL_LWIP_GATHER_BYTES], struct iovec *whole,
		    const struct iovec *pieces, size_t count);
