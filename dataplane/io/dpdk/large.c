#include <rte_ip.h>
#include <rte_tcp.h>

#include "dataplane/io/dpdk/internal.h"

// Frames larger than the wire's, where the device cuts what is sent (TSO) and joins what it has
// received (LRO). The stack knows of neither: segments that follow each other on their way out are
// joined here, and what comes joined goes in as one frame in several pieces.

#define WHOLE_MAX 65535 // bytes of a frame, as lwIP counts them
#define PARTS     40    // buffers of a frame, where the device does not say how many it takes

struct segment {
	uint8_t *frame; // from the IP header on
	size_t ip_bytes, tcp_bytes;
	bool v4;
};

static struct rte_tcp_hdr *tcp_of(const struct segment *segment)
{
	return (void *)(segment->frame + segment->ip_bytes);
}

// False: not of TCP, with its headers in one piece.
static bool find_segment(struct segment *segment, uint8_t *frame, size_t bytes)
{
	const uint8_t *ip = frame + RTE_ETHER_HDR_LEN;

	if (bytes < RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_tcp_hdr))
		return false;
	segment->v4 = frame[12] == 0x08 && frame[13] == 0x00;
	if (segment->v4 ? ip[0] != 0x45 || ip[9] != IPPROTO_TCP
			: frame[12] != 0x86 || frame[13] != 0xdd || ip[6] != IPPROTO_TCP)
		return false;
	segment->frame = frame + RTE_ETHER_HDR_LEN;
	segment->ip_bytes = segment->v4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr);
	if (bytes < RTE_ETHER_HDR_LEN + segment->ip_bytes + sizeof(struct rte_tcp_hdr))
		return false;
	segment->tcp_bytes = (size_t)(tcp_of(segment)->data_off >> 4) * 4;
	return bytes >= RTE_ETHER_HDR_LEN + segment->ip_bytes + segment->tcp_bytes;
}

// All but length, number, sums and IPv4's id: hosts, marks, ports, acknowledgement, window,
// options.
static bool is_alike(const struct segment *one, const struct segment *other)
{
	const uint8_t *a = one->frame, *b = other->frame;
	const struct rte_tcp_hdr *to = tcp_of(one), *from = tcp_of(other);

	if (one->v4 != other->v4 || one->tcp_bytes != other->tcp_bytes)
		return false;
	if (one->v4 ? a[1] != b[1] || memcmp(a + 6, b + 6, 3) != 0 || memcmp(a + 12, b + 12, 8) != 0
		    : memcmp(a, b, 4) != 0 || memcmp(a + 6, b + 6, 34) != 0)
		return false;
	return to->src_port == from->src_port && to->dst_port == from->dst_port &&
	       to->recv_ack == from->recv_ack && to->rx_win == from->rx_win &&
	       memcmp(to + 1, from + 1, one->tcp_bytes - sizeof(*to)) == 0;
}

static void grow(struct rte_mbuf *packet, const struct segment *to, size_t bytes, uint8_t flags)
{
	struct rte_tcp_hdr *tcp = tcp_of(to);
	struct rte_ipv4_hdr *ip4 = (void *)to->frame;
	struct rte_ipv6_hdr *ip6 = (void *)to->frame;

	tcp->tcp_flags |= flags;
	packet->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
	// A device that cuts wants the pseudo-header's sum without the length.
	if (to->v4) {
		ip4->total_length = rte_cpu_to_be_16(
			(uint16_t)(rte_be_to_cpu_16(ip4->total_length) + bytes));
		tcp->cksum = rte_ipv4_phdr_cksum(ip4, packet->ol_flags);
		if (!(packet->ol_flags & RTE_MBUF_F_TX_IP_CKSUM)) {
			ip4->hdr_checksum = 0;
			ip4->hdr_checksum = rte_ipv4_cksum(ip4);
		}
	} else {
		ip6->payload_len = rte_cpu_to_be_16(
			(uint16_t)(rte_be_to_cpu_16(ip6->payload_len) + bytes));
		tcp->cksum = rte_ipv6_phdr_cksum(ip6, packet->ol_flags);
	}
}

// Whether a segment of `bytes` follows what `last` holds: full segments only come before it.
static bool follows(const struct rte_mbuf *last, const struct segment *to,
		    const struct segment *from, size_t bytes)
{
	const struct rte_tcp_hdr *tcp = tcp_of(to), *next = tcp_of(from);
	const size_t head = last->l2_len + to->ip_bytes + to->tcp_bytes;
	const size_t held = last->pkt_len - head;
	const size_t size = last->ol_flags & RTE_MBUF_F_TX_TCP_SEG ? last->tso_segsz : held;

	return (tcp->tcp_flags == RTE_TCP_ACK_FLAG) && size && held % size == 0 && bytes <= size &&
	       (next->tcp_flags & ~RTE_TCP_PSH_FLAG) == RTE_TCP_ACK_FLAG &&
	       rte_be_to_cpu_32(next->sent_seq) == rte_be_to_cpu_32(tcp->sent_seq) + held &&
	       last->pkt_len + bytes <= WHOLE_MAX && is_alike(to, from);
}

bool sl_lane_join(const struct sl_port *port, struct rte_mbuf *last, const struct iovec *pieces,
		  unsigned count, size_t bytes)
{
	struct segment to, from;
	struct rte_mbuf *more;
	size_t head, size;
	char *at;

	if (!(last->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) || last->nb_segs >= port->parts_max ||
	    !find_segment(&from, pieces[0].iov_base, pieces[0].iov_len) ||
	    !find_segment(
		    &to, rte_pktmbuf_mtod_offset(last, uint8_t *, last->l2_len - RTE_ETHER_HDR_LEN),
		    last->data_len - (last->l2_len - RTE_ETHER_HDR_LEN)))
		return false;
	head = RTE_ETHER_HDR_LEN + from.ip_bytes + from.tcp_bytes;
	size = bytes - head;
	if (!size || !follows(last, &to, &from, size))
		return false;
	more = rte_pktmbuf_alloc(port->pool->packets);
	at = more ? rte_pktmbuf_append(more, (uint16_t)size) : NULL;
	if (!at) {
		rte_pktmbuf_free(more);
		return false;
	}
	for (unsigned i = 0; i < count; i++) {
		const size_t cut = i ? 0 : head;

		memcpy(at, (const char *)pieces[i].iov_base + cut, pieces[i].iov_len - cut);
		at += pieces[i].iov_len - cut;
	}
	if (!(last->ol_flags & RTE_MBUF_F_TX_TCP_SEG))
		last->tso_segsz = (uint16_t)(last->pkt_len - last->l2_len - to.ip_bytes -
					     to.tcp_bytes);
	rte_pktmbuf_chain(last, more);
	grow(last, &to, size, tcp_of(&from)->tcp_flags & RTE_TCP_PSH_FLAG);
	return true;
}

void sl_lane_take_large(struct sl_lane *lane, struct rte_mbuf *packet)
{
	struct rte_mbuf *part = packet->next;

	packet->next = NULL;
	packet->nb_segs = 1;
	packet->pkt_len = packet->data_len;
	while (part) {
		struct rte_mbuf *next = part->next;

		part->next = NULL;
		part->nb_segs = 1;
		part->pkt_len = part->data_len;
		lane->ops->add(lane->stack, part, sl_dpdk_room(part),
			       rte_pktmbuf_mtod(part, void *), part->data_len);
		part = next;
	}
}

void sl_port_ask_for_large(struct sl_port *port, const struct rte_eth_dev_info *info,
			   struct rte_eth_conf *conf)
{
	const uint64_t out = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	const uint16_t most = info->tx_desc_lim.nb_seg_max;

	if ((port->device_sums & SL_SUM_TCP) && (info->tx_offload_capa & out) == out) {
		conf->txmode.offloads |= out;
		port->cuts = true;
		port->parts_max = most ? (uint16_t)SL_MIN(most, PARTS) : PARTS;
	}
	// What it has joined it has checked, or it came whole from the same machine.
	if (port->trusted && (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_LRO)) {
		conf->rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TCP_LRO |
					 (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER);
		conf->rxmode.max_lro_pkt_size = SL_MIN(info->max_lro_pkt_size, (uint32_t)WHOLE_MAX);
		port->joins = true;
	}
}
