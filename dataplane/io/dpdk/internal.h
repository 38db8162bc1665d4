#pragma once

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dataplane/base/ring.h"
#include "dataplane/io/dpdk/config.h"
#include "dataplane/io/dpdk/counters.h"
#include "dataplane/io/dpdk/dpdk.h"
#include "dataplane/io/dpdk/stack.h"

// What the files of this folder share. Threading: a lane belongs to its shard, and to main once all
// shards' threads have ended; rings are between two shards; the rest of struct sl_dpdk does not
// change once opened.
#define SL_BURST              64
#define SL_OUT_MAX            2048 // frames that wait for room in the port's queue
#define SL_EAL_ARGUMENTS_MAX  128
#define SL_LANE_DATAGRAMS_MAX 16

// A lane's part of a port.
struct sl_lane_port {
	uint16_t queue;
	bool has_queue;                   // else its frames come and go by the lane of `queue`
	bool out_full;                    // the port's queue, in this turn
	struct rte_mbuf *out[SL_OUT_MAX]; // a ring
	uint32_t out_first, out_count;
	uint64_t sent_ns; // the last time that the port took one, or none waited
};

struct sl_lane {
	struct sl_io_backend backend;
	struct sl_dpdk *dpdk;
	uint32_t index;
	bool registered;           // its thread with the EAL
	bool low;                  // a pool, when they were looked at
	uint32_t taken, pool_look; // packets; as of the last look at the pools
	uint64_t look_ns;          // at link and pool again
	uint64_t bad_sums;         // frames that a device found damaged
	uint64_t bad_sums_said, said_ns;
	uint32_t turn; // of poll
	const struct sl_stack_ops *ops;
	struct sl_stack *stack;
	struct sl_conn *open, *closing;
	struct sl_stream *accepting; // accepted() is being called for
	// sl_io_fetch() once the streams' owners are connections; NULL before.
	void (*fetch)(struct sl_conn *const *owners, unsigned count);
	struct {
		struct sl_listener *listener; // NULL: free
		void *handle;
	} listening[SL_STACK_LISTENERS_MAX];
	struct sl_datagram_source *datagrams[SL_LANE_DATAGRAMS_MAX];
	uint32_t datagram_count;
	uint64_t now_ns;
	struct sl_lane_port *ports; // of all ports
	struct sl_ring *in;         // [shards]: foreign frames, by whom they come from
	struct sl_ring *through;    // [shards]: to be sent for lanes without a queue
	struct sl_dpdk_counters counters;
};

// Packet buffers of the ports on one memory node.
struct sl_pool {
	struct rte_mempool *packets;
	int socket;            // the node; SOCKET_ID_ANY: a virtual device's
	uint32_t ports, count; // that use it; buffers
};

// A device, with one interface or with several of different VLANs.
struct sl_port {
	uint16_t id; // the EAL's
	uint16_t queues;
	bool hashed;  // it spreads flows over its queues itself
	bool tabled;  // by our key and table
	bool trusted; // what it says of a received frame's checksums
	bool started;
	bool cuts, joins;    // segments of TCP: TSO, LRO
	uint16_t parts_max;  // buffers of a frame that it cuts
	uint8_t device_sums; // SL_SUM_* that it computes
	uint16_t mtu;        // its interfaces' largest
	struct sl_pool *pool;
	uint32_t interface_count;
	uint8_t interfaces[SL_STACK_INTERFACES_MAX]; // their numbers
	uint16_t vlans[SL_STACK_INTERFACES_MAX];     // and VLANs
	char name[RTE_ETH_NAME_MAX_LEN];
	uint32_t beneath;                      // interface of the kernel's it lies on; 0: none
	int beneath_fd;                        // to ask the kernel about it; -1: none
	struct sl_dpdk_port_counters counters; // writer: the first lane's shard
};

// A packet's `port` is its interface's number from where its tag came off, and until it is on.
struct sl_dpdk {
	struct sl_dpdk_config config;
	struct sl_dpdk_plan plan;
	uint8_t port_of[SL_STACK_INTERFACES_MAX]; // of an interface: in `ports`
	struct sl_port ports[SL_STACK_INTERFACES_MAX];
	uint32_t port_count;
	bool steered; // ports bring a flow to its shard, all to the same
	struct sl_pool pools[SL_STACK_INTERFACES_MAX];
	uint32_t pool_count;
	struct sl_metrics *metrics;
	uint32_t shards, packets;
	struct sl_lane **lanes;
	char *arguments[SL_EAL_ARGUMENTS_MAX]; // the EAL keeps pointers into them
	struct sl_dpdk_pool_counters counters; // writer: the first lane's shard
};

extern const struct sl_io_backend_ops sl_dpdk_backend_ops;

// In the room of an mbuf (rte_mbuf_to_priv): the stack's words.
SL_INLINE void *sl_dpdk_room(struct rte_mbuf *packet)
{
	return (char *)packet + sizeof(struct rte_mbuf);
}

SL_INLINE struct sl_port *sl_dpdk_port_of(struct sl_dpdk *dpdk, unsigned interface)
{
	return &dpdk->ports[dpdk->port_of[interface]];
}

// Of any shard's: whether a port's link was there when the first lane last looked.
SL_INLINE bool sl_port_is_up(const struct sl_port *port)
{
	return __atomic_load_n(&port->counters.link_up[0], __ATOMIC_RELAXED);
}

// status.c: links, devices and buffers. The first look is before the shards run.
int sl_dpdk_watch(struct sl_dpdk *dpdk);
void sl_dpdk_unwatch(struct sl_dpdk *dpdk);
void sl_dpdk_look(struct sl_dpdk *dpdk);

// pools.c: needs the ports' numbers, and sets the stack's budget for windows. What it has made is
// freed also after an error.
int sl_dpdk_make_pools(struct sl_dpdk *dpdk, char *error, size_t error_size);
void sl_dpdk_free_pools(struct sl_dpdk *dpdk);
// Of all pools; `*low`: whether one is nearly used up. Walks the caches of all threads.
uint32_t sl_dpdk_free_packets(const struct sl_dpdk *dpdk, bool *low);

// lane.c: frames. Returns how many were taken.
unsigned sl_lane_receive(struct sl_lane *lane, uint64_t now_ns);
void sl_lane_send(struct sl_lane *lane);
bool sl_lane_transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		      size_t bytes);
void sl_lane_release(void *packet);

// large.c. Whether a frame of `pieces` has gone along with the last one that waits to be sent, of
// the same interface: a device that cuts gets both as one.
bool sl_lane_join(const struct sl_port *port, struct rte_mbuf *last, const struct iovec *pieces,
		  unsigned count, size_t bytes);
// Gives the stack all but the first buffer of a frame; the first one is whole then.
void sl_lane_take_large(struct sl_lane *lane, struct rte_mbuf *packet);
// Asks for TSO and LRO where the device has them.
void sl_port_ask_for_large(struct sl_port *port, const struct rte_eth_dev_info *info,
			   struct rte_eth_conf *conf);

// datagram.c: UDP for a port of ours does not pass the stack. False: not one. `flags` are the
// packet's, about its checksums.
bool sl_lane_take_datagram(struct sl_lane *lane, unsigned interface, const uint8_t *frame,
			   size_t bytes, uint64_t flags);
int sl_lane_take_datagrams(struct sl_io_backend *backend, struct sl_datagram_source *source);
void sl_lane_leave_datagrams(struct sl_io_backend *backend, struct sl_datagram_source *source);
struct sl_lane *sl_lane_create(struct sl_dpdk *dpdk, uint32_t index);
// Its stack goes, with resets for other lanes to send: of all lanes before the first is destroyed.
void sl_lane_end(struct sl_lane *lane);
void sl_lane_destroy(struct sl_lane *lane);
