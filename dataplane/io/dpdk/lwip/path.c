#include "dataplane/io/dpdk/lwip/internal.h"

#include <lwip/prot/ethernet.h>
#include <lwip/prot/icmp.h>
#include <lwip/prot/icmp6.h>
#include <lwip/prot/ip.h>

// Path MTU discovery (RFC 1191, RFC 8201), of which lwIP has none for TCP. IPv4 leaves with DF; a
// router that answers "too big" quotes the packet, and only one that names a connection and a
// sequence number under way is believed (RFC 5927, 7). What the connection has in flight is cut
// anew and sent again, and others to the same peer begin with what was learned.
#define MTU4_MIN     552  // below it a sender may refuse to go: headers would be all there is
#define MTU6_MIN     1280 // RFC 8200, section 5
#define FORGET_NS    (600 * SL_S)
#define TCP_HEAD     20
#define MSS_MIN      88 // nobody's link: smaller ones are asked for to make us work
#define QUOTED_BYTES 8  // of TCP: ports and sequence number

static struct path *path_of(struct sl_stack *stack, const uint8_t peer[16])
{
	return &stack->paths[stack->host.hash(peer, 16) % PATHS];
}

static uint16_t mtu_of(const struct sl_stack *stack, const struct tcp_pcb *pcb)
{
	return stack->config.interfaces[sl_lwip_link_of(stack, pcb)].mtu;
}

// The segment size towards a peer: at most `mss`, and what the interface's and the path's MTU take.
// So small that sending would be all work, it is not believed.
static uint16_t path_mss(struct sl_stack *stack, const struct tcp_pcb *pcb, uint16_t mss)
{
	const struct path *path;
	uint8_t peer[16];
	int heads;

	from_lwip(peer, &pcb->remote_ip);
	path = path_of(stack, peer);
	heads = TCP_HEAD + (sl_endpoint_is_v4(peer) ? 20 : 40);
	// lwIP takes a repeated SYN's word for it.
	mss = SL_MAX(SL_MIN(mss, (uint16_t)(mtu_of(stack, pcb) - heads)), (uint16_t)MSS_MIN);
	if (!path->mtu || memcmp(path->peer, peer, 16) != 0 ||
	    stack->tick_ns - path->since_ns > FORGET_NS)
		return mss;
	return SL_MIN(mss, (uint16_t)(path->mtu - heads));
}

void sl_lwip_bound_segments(struct sl_stream *stream, struct tcp_pcb *pcb)
{
	pcb->mss = path_mss(stream->stack, pcb, pcb->mss);
	// lwIP sends no more in one segment than half of the largest window it has seen.
	pcb->snd_wnd_max = SL_MAX(pcb->snd_wnd_max, (tcpwnd_size_t)(2 * MSS_MIN));
}

err_t sl_lwip_split(struct tcp_pcb *pcb, u16_t bytes)
{
	struct tcp_seg *segment = pcb->unsent;
	// One that found no memory to be cut when the path got narrow is longer.
	const u16_t most = SL_MIN(bytes, pcb->mss);
	const bool whole = !segment || segment->len <= most;
	const err_t failed = tcp_split_unsent_seg(pcb, most);

	// lwIP means to move these to the second part, and leaves them on the first as well: a FIN
	// in the midst of the bytes.
	if (!whole && failed == ERR_OK)
		TCPH_UNSET_FLAG(segment->tcphdr, TCP_FIN | TCP_PSH);
	return failed;
}

static void cut(struct tcp_pcb *pcb, struct tcp_seg *segment, uint16_t mss)
{
	struct tcp_seg *first = pcb->unsent;

	pcb->unsent = segment;
	(void)sl_lwip_split(pcb, mss); // without memory: lost again, and asked for again
	pcb->unsent = first;
}

static void shrink(struct tcp_pcb *pcb, uint16_t mss)
{
	if (pcb->mss <= mss)
		return;
	pcb->mss = mss;
	if (pcb->unacked && tcp_rexmit_rto_prepare(pcb) != ERR_OK)
		return;
	for (struct tcp_seg *one = pcb->unsent; one; one = one->next) {
		if (one->len > mss)
			cut(pcb, one, mss);
	}
	tcp_output(pcb);
}

void sl_lwip_bound_moved(struct sl_stack *stack, struct tcp_pcb *pcb)
{
	shrink(pcb, path_mss(stack, pcb, pcb->mss));
}

static struct tcp_pcb *find(const struct flow *flow, uint32_t seq)
{
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
		if (pcb->local_port == flow->local_port && pcb->remote_port == flow->remote_port &&
		    sl_lwip_is_flow(pcb, flow))
			return TCP_SEQ_BETWEEN(seq, pcb->lastack, pcb->snd_nxt) ? pcb : NULL;
	}
	return NULL;
}

static void too_big(struct sl_stack *stack, const struct flow *flow, uint32_t seq, uint32_t mtu)
{
	const bool v4 = sl_endpoint_is_v4(flow->remote);
	const uint32_t least = v4 ? MTU4_MIN : MTU6_MIN;
	struct path *path = path_of(stack, flow->remote);
	struct tcp_pcb *pcb;

	// A router from before RFC 1191 says nought.
	mtu = SL_MAX(mtu, least);
	sl_lwip_select(stack, sl_lwip_bucket(stack, flow));
	pcb = find(flow, seq);
	if (!pcb || mtu >= mtu_of(stack, pcb))
		return;
	memcpy(path->peer, flow->remote, 16);
	path->mtu = (uint16_t)mtu;
	path->since_ns = stack->tick_ns;
	sl_count(&stack->stats.smaller_mtu, 1);
	shrink(pcb, path_mss(stack, pcb, pcb->mss));
}

bool sl_lwip_take_too_big(struct sl_stack *stack, const uint8_t *frame, size_t bytes)
{
	const uint8_t *ip = frame + SIZEOF_ETH_HDR, *icmp, *quoted, *tcp;
	const bool v4 = frame[12] == 0x08;
	const size_t least = v4 ? 20 : 40;
	size_t size, header = least;
	struct flow flow;

	bytes -= SIZEOF_ETH_HDR;
	if (bytes < least || ip[v4 ? 9 : 6] != (v4 ? IP_PROTO_ICMP : IP6_NEXTH_ICMP6))
		return false;
	if (v4)
		header = (size_t)(ip[0] & 15) * 4;
	icmp = ip + header;
	quoted = icmp + 8;
	if (header < least || header + 8 > bytes ||
	    (v4 ? icmp[0] != ICMP_DUR || icmp[1] != ICMP_DUR_FRAG : icmp[0] != ICMP6_TYPE_PTB))
		return false;
	if (header + 8 + least + QUOTED_BYTES > bytes || quoted[0] >> 4 != (v4 ? 4 : 6))
		return true;
	size = v4 ? (size_t)(quoted[0] & 15) * 4 : 40;
	if (size < least || header + 8 + size + QUOTED_BYTES > bytes ||
	    quoted[v4 ? 9 : 6] != IP_PROTO_TCP)
		return true;
	tcp = quoted + size;
	if (v4) {
		map_v4(flow.local, quoted + 12);
		map_v4(flow.remote, quoted + 16);
	} else {
		memcpy(flow.local, quoted + 8, 16);
		memcpy(flow.remote, quoted + 24, 16);
	}
	flow.local_port = (uint16_t)(tcp[0] << 8 | tcp[1]);
	flow.remote_port = (uint16_t)(tcp[2] << 8 | tcp[3]);
	too_big(stack, &flow, get32(tcp + 4), v4 ? get32(icmp + 4) & 0xffff : get32(icmp + 4));
	return true;
}

void sl_lwip_forbid_fragments(uint8_t *ip)
{
	uint32_t sum = (uint32_t)(ip[10] << 8 | ip[11]);

	if (ip[0] >> 4 != 4 || ip[9] != IP_PROTO_TCP || (ip[6] & 0x40))
		return;
	ip[6] |= 0x40;
	// The header's sum is one's complement (RFC 1624): 0x4000 more, 0x4000 less.
	sum = sum > 0x4000 ? sum - 0x4000 : sum + 0xffff - 0x4000;
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}
