#include <errno.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_tcp.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "dataplane/io/dpdk/internal.h"
#include "dataplane/io/dpdk/vlan.h"

// A lane: one shard's way to the ports. With as many queues as shards, and ports that spread flows
// over them alike, each lane polls its own and the ports decide which shard a flow belongs to. Else
// a keyed hash over the flow decides, whichever port it came by: the lane that polls hands frames
// over by ring, and sends for those that have no queue.
#define RING_COUNT 4096
#define LOOK_NS    (100 * SL_MS)
#define POOL_LOOK  256 // packets between looks at the pool, which walks the caches of all threads
#define SAY_NS     (60 * SL_S)
#define STUCK_NS   (100 * SL_MS) // a port that takes nothing for so long is down

static struct sl_ring *rings(uint32_t count)
{
	struct sl_ring *made = NULL;

	if (posix_memalign((void **)&made, SL_CACHE_LINE, count * sizeof(*made)) != 0)
		return NULL;
	memset(made, 0, count * sizeof(*made));
	for (uint32_t i = 0; i < count; i++) {
		if (sl_ring_init(&made[i], RING_COUNT) < 0)
			return made; // what is missing shows as a NULL of slots
	}
	return made;
}

static void free_rings(struct sl_ring *all, uint32_t count)
{
	for (uint32_t i = 0; all && i < count; i++) {
		struct rte_mbuf *packet;

		while (all[i].slots && (packet = sl_ring_pop(&all[i])))
			rte_pktmbuf_free(packet);
		sl_ring_fini(&all[i]);
	}
	free(all);
}

static void drop_out(struct sl_lane *lane, struct sl_lane_port *way)
{
	sl_count(&lane->counters.tx_full[0], way->out_count);
	for (; way->out_count; way->out_count--)
		rte_pktmbuf_free(way->out[way->out_first++ % SL_OUT_MAX]);
}

static bool rings_whole(const struct sl_ring *all, uint32_t count)
{
	return all && all[count - 1].slots;
}

static uint64_t hash(const void *key, size_t size)
{
	return sl_hash(sl_bytes(key, size));
}

static uint32_t draw(void)
{
	static __thread uint64_t drawn;
	const uint64_t key[2] = {++drawn, (uintptr_t)&drawn};

	return (uint32_t)sl_hash(sl_bytes(key, sizeof(key)));
}

struct sl_lane *sl_lane_create(struct sl_dpdk *dpdk, uint32_t index)
{
	struct sl_lane *lane = calloc(1, sizeof(*lane));
	const struct sl_stack_host host = {
		.self = lane,
		.hash = hash,
		.random = draw,
		.transmit = sl_lane_transmit,
		.release = sl_lane_release,
	};
	char error[256];

	if (!lane)
		return NULL;
	lane->dpdk = dpdk;
	lane->index = index;
	lane->backend.ops = &sl_dpdk_backend_ops;
	lane->backend.idle_ns = dpdk->config.idle_ns;
	lane->ports = calloc(dpdk->port_count, sizeof(*lane->ports));
	for (uint32_t i = 0; lane->ports && i < dpdk->port_count; i++) {
		lane->ports[i].has_queue = index < dpdk->ports[i].queues;
		lane->ports[i].queue = (uint16_t)(index % dpdk->ports[i].queues);
	}
	lane->in = rings(dpdk->shards);
	lane->through = rings(dpdk->shards);
	lane->ops = sl_stack_load(error, sizeof(error));
	if (!lane->ops)
		sl_log(SL_LOG_ERROR, "dpdk_stack", "error=\"%s\"", error);
	if (rings_whole(lane->in, dpdk->shards) && rings_whole(lane->through, dpdk->shards) &&
	    lane->ports && lane->ops)
		lane->stack = lane->ops->create(&host, &dpdk->plan.stack);
	if (!lane->stack ||
	    sl_metrics_add(dpdk->metrics, sl_dpdk_counter_rows, sl_dpdk_counter_row_count,
			   &lane->counters, (int)index, NULL) < 0) {
		sl_lane_destroy(lane);
		errno = ENOMEM;
		return NULL;
	}
	return lane;
}

void sl_lane_end(struct sl_lane *lane)
{
	if (lane && lane->stack)
		lane->ops->destroy(lane->stack);
	if (lane)
		lane->stack = NULL;
}

// Others may still hand frames to a lane whose shard has ended: the rings stay until the port goes.
void sl_lane_destroy(struct sl_lane *lane)
{
	if (!lane)
		return;
	sl_lane_end(lane);
	sl_metrics_remove(lane->dpdk->metrics, &lane->counters);
	for (uint32_t i = 0; lane->ports && i < lane->dpdk->port_count; i++)
		drop_out(lane, &lane->ports[i]);
	free(lane->ports);
	free_rings(lane->in, lane->dpdk->shards);
	free_rings(lane->through, lane->dpdk->shards);
	free(lane);
}

void sl_lane_release(void *packet)
{
	rte_pktmbuf_free(packet);
}

// --- out ----------------------------------------------------------------------------------------

// Some devices want more than the pseudo-header's sum. What one will not have is dropped: behind it
// all others would wait.
static uint16_t give(struct sl_lane *lane, const struct sl_port *port, uint16_t queue,
		     struct rte_mbuf **packets, uint16_t count)
{
	uint16_t ready = count;

	if (port->device_sums)
		ready = rte_eth_tx_prepare(port->id, queue, packets, count);
	if (SL_UNLIKELY(!ready && count)) {
		sl_count(&lane->counters.tx_full[0], 1);
		rte_pktmbuf_free(packets[0]);
		return 1;
	}
	ready = rte_eth_tx_burst(port->id, queue, packets, ready);
	sl_count(&lane->counters.tx[0], ready);
	return ready;
}

// To the port, or to the lane that has a queue. What has no room waits for the next turn: lwIP
// takes a frame that was dropped for lost, and times out for all connections at once.
static void put_out(struct sl_lane *lane, struct sl_lane_port *way)
{
	const uint32_t at = way->out_first % SL_OUT_MAX;
	const uint16_t count = (uint16_t)SL_MIN(way->out_count, SL_OUT_MAX - at);
	struct rte_mbuf **from = &way->out[at];
	uint16_t sent = 0;

	if (way->has_queue) {
		sent = give(lane, &lane->dpdk->ports[way - lane->ports], way->queue, from, count);
	} else {
		struct sl_ring *ring = &lane->dpdk->lanes[way->queue]->through[lane->index];

		while (sent < count && sl_ring_push(ring, from[sent]))
			sent++;
	}
	way->out_first += sent;
	way->out_count -= sent;
	way->out_full = sent < count;
	if (sent)
		way->sent_ns = lane->now_ns;
}

static void queue_out(struct sl_lane *lane, struct rte_mbuf *packet)
{
	struct sl_lane_port *way = &lane->ports[lane->dpdk->port_of[packet->port]];

	if (SL_UNLIKELY(way->out_count == SL_OUT_MAX)) {
		sl_count(&lane->counters.tx_full[0], 1);
		rte_pktmbuf_free(packet);
		return;
	}
	way->out[(way->out_first + way->out_count++) % SL_OUT_MAX] = packet;
	if (way->out_count >= SL_BURST && !way->out_full)
		put_out(lane, way);
}

// One port that takes nothing holds up no other.
static void send_by(struct sl_lane *lane, struct sl_lane_port *way)
{
	if (!way->out_count) {
		way->sent_ns = lane->now_ns;
		return;
	}
	put_out(lane, way);
	if (way->out_count && !way->out_full)
		put_out(lane, way); // behind the array's end
	if (SL_UNLIKELY(way->out_count && lane->now_ns - way->sent_ns > STUCK_NS))
		drop_out(lane, way);
}

void sl_lane_send(struct sl_lane *lane)
{
	if (lane->stack)
		lane->ops->acknowledge(lane->stack);
	for (uint32_t i = 0; i < lane->dpdk->port_count; i++)
		send_by(lane, &lane->ports[i]);
}

// What the device is to sum up: it wants to know where, and TCP's field to hold the
// pseudo-header's.
static void leave_sums(uint8_t which, struct rte_mbuf *packet)
{
	uint8_t *frame = rte_pktmbuf_mtod(packet, uint8_t *);
	struct rte_ipv4_hdr *ip4 = (void *)(frame + RTE_ETHER_HDR_LEN);
	struct rte_ipv6_hdr *ip6 = (void *)ip4;
	struct rte_tcp_hdr *tcp;
	const bool v4 = frame[12] == 0x08 && frame[13] == 0x00;

	if (!v4 && (frame[12] != 0x86 || frame[13] != 0xdd))
		return;
	packet->l2_len = RTE_ETHER_HDR_LEN;
	packet->l3_len = v4 ? (uint16_t)(ip4->version_ihl & 15) * 4 : sizeof(*ip6);
	if (v4 && (which & SL_SUM_IP)) {
		packet->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
		ip4->hdr_checksum = 0;
	}
	if (!(which & SL_SUM_TCP) || (v4 ? ip4->next_proto_id : ip6->proto) != IPPROTO_TCP)
		return;
	tcp = (void *)(frame + RTE_ETHER_HDR_LEN + packet->l3_len);
	packet->l4_len = (uint64_t)(tcp->data_off >> 4) * 4 & 0xff;
	packet->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM |
			    (v4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6);
	tcp->cksum = v4 ? rte_ipv4_phdr_cksum(ip4, 0) : rte_ipv6_phdr_cksum(ip6, 0);
}

static void tag(struct rte_mbuf *packet, uint16_t vlan)
{
	static_assert(RTE_PKTMBUF_HEADROOM >= SL_VLAN_TAG_BYTES, "there is room in front");
	char *frame = rte_pktmbuf_prepend(packet, SL_VLAN_TAG_BYTES);

	assert(frame);
	sl_vlan_tag((uint8_t *)frame, vlan);
	packet->l2_len += SL_VLAN_TAG_BYTES;
}

static bool goes_along(struct sl_lane *lane, const struct sl_port *port, unsigned interface,
		       const struct iovec *pieces, unsigned count, size_t bytes)
{
	struct sl_lane_port *way = &lane->ports[lane->dpdk->port_of[interface]];
	struct rte_mbuf *last;

	if (!way->out_count)
		return false;
	last = way->out[(way->out_first + way->out_count - 1) % SL_OUT_MAX];
	if (last->port != interface || !sl_lane_join(port, last, pieces, count, bytes))
		return false;
	sl_count(&lane->counters.joined[0], 1);
	return true;
}

bool sl_lane_transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		      size_t bytes)
{
	struct sl_lane *lane = self;
	const struct sl_dpdk_plan *plan = &lane->dpdk->plan;
	const uint8_t device_sums = plan->stack.interfaces[interface].device_sums;
	const struct sl_port *port = sl_dpdk_port_of(lane->dpdk, interface);
	struct rte_mbuf *packet;
	char *to;

	if (port->cuts && goes_along(lane, port, interface, pieces, count, bytes))
		return true;
	packet = rte_pktmbuf_alloc(port->pool->packets);
	to = packet ? rte_pktmbuf_append(packet, (uint16_t)bytes) : NULL;
	if (!to) {
		rte_pktmbuf_free(packet);
		return false;
	}
	for (unsigned i = 0; i < count; i++) {
		memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
		to += pieces[i].iov_len;
	}
	if (device_sums)
		leave_sums(device_sums, packet);
	if (plan->places[interface].vlan)
		tag(packet, plan->places[interface].vlan);
	packet->port = (uint16_t)interface;
	queue_out(lane, packet);
	return true;
}

// --- in -----------------------------------------------------------------------------------------

// The shard of a frame's flow; `shards` when all need it: what resolves addresses.
static uint32_t owner_of(const struct sl_dpdk *dpdk, const uint8_t *frame, size_t bytes)
{
	struct {
		uint8_t peer[16];
		uint8_t ports[4];
	} key = {0};
	const uint8_t *ip = frame + 14;
	size_t header = 0;
	uint8_t protocol = 0;

	if (bytes < 14 + 20)
		return 0;
	if (frame[12] == 0x08 && frame[13] == 0x06)
		return dpdk->shards;
	if (frame[12] == 0x08 && frame[13] == 0x00) {
		memcpy(key.peer, ip + 12, 4);
		header = (size_t)(ip[0] & 15) * 4;
		protocol = ip[9];
		if (protocol == 1 && 14 + header < bytes && ip[header] == 3)
			return dpdk->shards;
	} else if (frame[12] == 0x86 && frame[13] == 0xdd && bytes >= 14 + 48) {
		memcpy(key.peer, ip + 8, 16);
		header = 40;
		protocol = ip[6];
		// Neighbours (RFC 4861, 4.3 and 4.4). Packet too big comes from some router, about
		// some shard's flow.
		if (protocol == 58 && (ip[40] == 135 || ip[40] == 136 || ip[40] == 2))
			return dpdk->shards;
	}
	if ((protocol == 6 || protocol == 17) && 14 + header + 4 <= bytes)
		memcpy(key.ports, ip + header, 4);
	return (uint32_t)(((sl_hash(sl_bytes(&key, sizeof(key))) >> 32) * dpdk->shards) >> 32);
}

// NONE: the sum was left open by a neighbour on this machine, and nothing has touched the frame
// since.
static unsigned how_it_came(const struct sl_lane *lane, uint64_t flags)
{
	const uint64_t ip = flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
	const uint64_t tcp = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
	unsigned how = lane->low ? SL_INPUT_COPY : 0;

	if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD || ip == RTE_MBUF_F_RX_IP_CKSUM_NONE)
		how |= SL_INPUT_IP_FINE;
	if (tcp == RTE_MBUF_F_RX_L4_CKSUM_GOOD || tcp == RTE_MBUF_F_RX_L4_CKSUM_NONE)
		how |= SL_INPUT_TCP_FINE;
	return how;
}

static bool is_bad(uint64_t flags)
{
	return (flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD ||
	       (flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_BAD;
}

static void take_in(struct sl_lane *lane, struct rte_mbuf *packet)
{
	const unsigned interface = packet->port;
	const uint64_t flags = sl_dpdk_port_of(lane->dpdk, interface)->trusted ? packet->ol_flags
									       : 0;

	if (SL_UNLIKELY(is_bad(flags))) {
		lane->bad_sums++;
		rte_pktmbuf_free(packet);
		return;
	}
	if (lane->datagram_count &&
	    sl_lane_take_datagram(lane, interface, rte_pktmbuf_mtod(packet, const uint8_t *),
				  rte_pktmbuf_data_len(packet), flags)) {
		rte_pktmbuf_free(packet);
		return;
	}
	if (SL_UNLIKELY(packet->nb_segs > 1))
		sl_lane_take_large(lane, packet);
	lane->ops->input(lane->stack, packet, sl_dpdk_room(packet),
			 rte_pktmbuf_mtod(packet, void *), rte_pktmbuf_data_len(packet),
			 how_it_came(lane, flags) | SL_INPUT_MORE | interface * SL_INPUT_INTERFACE);
}

static void hand_over(struct sl_lane *lane, uint32_t to, struct rte_mbuf *packet)
{
	struct sl_lane *other = lane->dpdk->lanes[to];

	if (sl_ring_push(&other->in[lane->index], packet)) {
		sl_count(&lane->counters.foreign[0], 1);
		return;
	}
	sl_count(&lane->counters.unhanded[0], 1);
	rte_pktmbuf_free(packet);
}

static void copy_to_others(struct sl_lane *lane, struct rte_mbuf *packet)
{
	for (uint32_t i = 0; i < lane->dpdk->shards; i++) {
		struct rte_mbuf *copy = i == lane->index ? NULL
							 : rte_pktmbuf_copy(packet, packet->pool, 0,
									    UINT32_MAX);

		if (copy)
			hand_over(lane, i, copy);
	}
}

// Some devices take the tag off themselves. Finds the interface. False: of another VLAN.
static bool untag(const struct sl_port *port, struct rte_mbuf *packet)
{
	const bool stripped = packet->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED;

	for (uint32_t i = 0; i < port->interface_count; i++) {
		const uint16_t vlan = port->vlans[i];
		const int cut = stripped ? ((packet->vlan_tci & 0xfff) == vlan) - 1
					 : sl_vlan_untag(rte_pktmbuf_mtod(packet, uint8_t *),
							 rte_pktmbuf_data_len(packet), vlan);

		if (cut < 0)
			continue;
		if (cut > 0)
			rte_pktmbuf_adj(packet, (uint16_t)cut);
		packet->port = port->interfaces[i];
		return true;
	}
	return false;
}

// Whether a frame is for this lane's stack; else it has gone where it belongs.
static bool is_own(struct sl_lane *lane, const struct sl_port *port, struct rte_mbuf *packet)
{
	const struct sl_dpdk *dpdk = lane->dpdk;
	uint32_t owner = lane->index;

	if (SL_UNLIKELY(!untag(port, packet))) {
		sl_count(&lane->counters.other_vlan[0], 1);
		rte_pktmbuf_free(packet);
		return false;
	}
	if (dpdk->shards > 1)
		owner = owner_of(dpdk, rte_pktmbuf_mtod(packet, uint8_t *),
				 rte_pktmbuf_data_len(packet));
	if (owner == dpdk->shards) {
		copy_to_others(lane, packet);
		owner = lane->index;
	} else if (dpdk->steered) {
		owner = lane->index; // the port has done it
	}
	if (owner != lane->index)
		hand_over(lane, owner, packet);
	return owner == lane->index;
}

// Said once a minute: who leaves checksums to a device that there is not is not heard.
static void tell_bad_sums(struct sl_lane *lane, uint64_t sums, uint64_t now_ns)
{
	sl_gauge(&lane->counters.bad_sum[0], sums);
	if (sums == lane->bad_sums_said || (lane->said_ns && now_ns - lane->said_ns < SAY_NS))
		return;
	sl_log(SL_LOG_WARN, "dpdk_bad_checksums",
	       "shard=%u frames=%llu hint=\"damage, or a peer on a virtual link that leaves "
	       "checksums "
	       "to its device: ethtool -K IFACE tx off\"",
	       lane->index, (unsigned long long)(sums - lane->bad_sums_said));
	lane->bad_sums_said = sums;
	lane->said_ns = now_ns;
}

// Ten times a second.
static void look(struct sl_lane *lane, uint64_t now_ns)
{
	const struct sl_stack_stats *stats = lane->ops->stats(lane->stack);
	struct sl_dpdk_counters *counters = &lane->counters;

	lane->look_ns = now_ns + LOOK_NS;
	tell_bad_sums(lane, lane->bad_sums + stats->bad_sums, now_ns);
	sl_gauge(&counters->copied[0], stats->copied_packets);
	sl_gauge(&counters->dropped[0], stats->dropped_packets);
	sl_gauge(&counters->unbelieved[0], stats->unbelieved);
	sl_gauge(&counters->withheld[0], stats->withheld);
	sl_gauge(&counters->half_open_full[0], stats->half_open_full);
	sl_gauge(&counters->merged[0], stats->merged);
	sl_gauge(&counters->large[0], stats->large);
	sl_gauge(&counters->smaller_mtu[0], stats->smaller_mtu);
	sl_gauge(&counters->elsewhere[0], stats->elsewhere);
	sl_gauge(&counters->moved[0], stats->moved);
	if (lane->index == 0) // the ports' own are counted once
		sl_dpdk_look(lane->dpdk);
	for (uint32_t i = 0; i < lane->dpdk->plan.stack.interface_count; i++)
		lane->ops->link(lane->stack, i, sl_port_is_up(sl_dpdk_port_of(lane->dpdk, i)));
}

// What these packets will touch, up to the HTTP of their connections.
static void look_ahead(struct sl_lane *lane, struct rte_mbuf **packets, unsigned count)
{
	struct sl_bytes frames[SL_BURST];
	void *owners[SL_BURST];
	unsigned owner_count;

	static_assert(SL_BURST <= SL_STACK_AHEAD_MAX, "a burst at once");
	for (unsigned i = 0; i < count; i++)
		frames[i] = sl_bytes(rte_pktmbuf_mtod(packets[i], const uint8_t *),
				     rte_pktmbuf_data_len(packets[i]));
	owner_count = lane->ops->look_ahead(lane->stack, frames, count, owners);
	if (lane->fetch)
		lane->fetch((struct sl_conn *const *)owners, owner_count);
}

static void take_all(struct sl_lane *lane, struct rte_mbuf **packets, unsigned count)
{
	if (count)
		look_ahead(lane, packets, count);
	for (unsigned i = 0; i < count; i++)
		take_in(lane, packets[i]);
}

static unsigned receive_handed(struct sl_lane *lane)
{
	struct rte_mbuf *packets[SL_BURST], *packet;
	unsigned count = 0, got;

	if (lane->dpdk->shards == 1)
		return 0;
	for (uint32_t i = 0; i < lane->dpdk->shards; i++) {
		for (got = 0; got < SL_BURST && (packet = sl_ring_pop(&lane->in[i])); got++) {
			packets[got] = packet;
			sl_prefetch(rte_pktmbuf_mtod(packet, void *));
		}
		take_all(lane, packets, got);
		count += got;
		for (got = 0; got < SL_BURST && (packet = sl_ring_pop(&lane->through[i])); got++)
			queue_out(lane, packet);
		count += got;
	}
	return count;
}

static unsigned receive_from(struct sl_lane *lane, const struct sl_port *port, uint16_t queue)
{
	struct rte_mbuf *packets[SL_BURST];
	const uint16_t got = rte_eth_rx_burst(port->id, queue, packets, SL_BURST);
	unsigned own = 0;

	sl_count(&lane->counters.rx[0], got);
	for (uint16_t i = 0; i < got; i++)
		sl_prefetch(rte_pktmbuf_mtod(packets[i], void *));
	for (uint16_t i = 0; i < got; i++) {
		// A jumbo frame fits one buffer; what a device has joined stays in its buffers.
		if (SL_UNLIKELY(packets[i]->nb_segs > 1))
			(void)rte_pktmbuf_linearize(packets[i]);
		if (is_own(lane, port, packets[i]))
			packets[own++] = packets[i];
	}
	take_all(lane, packets, own);
	return got;
}

unsigned sl_lane_receive(struct sl_lane *lane, uint64_t now_ns)
{
	const struct sl_dpdk *dpdk = lane->dpdk;
	unsigned count = 0;

	lane->now_ns = now_ns;
	if (SL_UNLIKELY(!lane->registered)) {
		// With a lcore id the thread has a cache of buffers; without one it works too.
		(void)rte_thread_register();
		lane->registered = true;
	}
	if (SL_UNLIKELY(now_ns >= lane->look_ns))
		look(lane, now_ns);
	if (SL_UNLIKELY(lane->taken - lane->pool_look >= POOL_LOOK)) {
		lane->pool_look = lane->taken;
		(void)sl_dpdk_free_packets(dpdk, &lane->low);
	}
	for (uint32_t i = 0; i < dpdk->port_count; i++) {
		if (lane->ports[i].has_queue)
			count += receive_from(lane, &dpdk->ports[i], lane->ports[i].queue);
	}
	count += receive_handed(lane);
	lane->ops->flush(lane->stack);
	lane->taken += count;
	return count;
}
