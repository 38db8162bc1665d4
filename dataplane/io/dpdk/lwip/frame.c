#include "dataplane/io/dpdk/lwip/internal.h"

#include <lwip/prot/etharp.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip.h>

// Frames on their way in and out.
#define PIECES_MAX 64
#define OPTION_MSS 2

static void packet_freed(struct pbuf *p)
{
	struct room *room = (struct room *)p;

	sl_lwip_stack->host.release(room->packet);
}

// lwIP reads an option's length without a look at the header's end, and a segment size in any
// segment, though only a SYN may say one (RFC 9293, 3.7.1): it would pass the MTU.
static bool options_are_whole(const uint8_t *tcp, size_t left)
{
	const size_t end = (size_t)(tcp[12] >> 4) * 4;
	size_t at = 20;

	if (end < 20 || end > left)
		return false;
	while (at < end && tcp[at] != 0) {
		const size_t size = tcp[at] == 1 ? 1 : at + 1 < end ? tcp[at + 1] : 0;

		if (!size || (size == 1 && tcp[at] != 1) || at + size > end)
			return false;
		if (tcp[at] == OPTION_MSS && !(tcp[13] & TCP_SYN))
			return false;
		at += size;
	}
	return true;
}

static bool upper4(const uint8_t *ip, size_t left, struct upper *upper)
{
	if (left < 20 || ip[0] >> 4 != 4)
		return false;
	*upper = (struct upper){
		.at = (size_t)(ip[0] & 15) * 4,
		.end = left,
		.protocol = ip[9],
	};
	// Of TCP no fragments.
	return upper->protocol != IP_PROTO_TCP || !((ip[6] & 0x3f) || ip[7]);
}

// Finds the connection that a frame belongs to. False: lwIP must not see it: it is cut short, or
// lwIP would look for it in the wrong bucket and answer with a reset. True without TCP leaves
// `*tcp` false.
static bool flow_of(struct sl_stack *stack, uint8_t *frame, size_t bytes, struct flow *flow,
		    bool *tcp, struct numbers *numbers)
{
	uint8_t *ip = frame + SIZEOF_ETH_HDR;
	const size_t left = bytes - SIZEOF_ETH_HDR;
	const size_t whole = left + (stack->tail ? stack->tail->tot_len : 0);
	const uint8_t *ports;
	struct upper upper;

	*tcp = false;
	if (frame[12] == 0x08 && frame[13] == 0x00) {
		if (!upper4(ip, left, &upper))
			return false;
		map_v4(flow->remote, ip + 12);
		map_v4(flow->local, ip + 16);
	} else if (frame[12] == 0x86 && frame[13] == 0xdd) {
		if (!sl_lwip_admit6(stack, ip, left, whole, &upper))
			return false;
		memcpy(flow->remote, ip + 8, 16);
		memcpy(flow->local, ip + 24, 16);
	} else {
		// lwIP reads an ARP packet's addresses without a look at its length.
		return frame[12] != 0x08 || frame[13] != 0x06 || left >= SIZEOF_ETHARP_HDR;
	}
	if (SL_UNLIKELY(stack->link_count > 1) &&
	    sl_lwip_is_elsewhere(stack, stack->arrived, flow->local)) {
		sl_count(&stack->stats.elsewhere, 1);
		return false;
	}
	if (upper.protocol != IP_PROTO_TCP)
		return true;
	if (upper.at < 20 || upper.at + 20 > upper.end)
		return false;
	ports = ip + upper.at;
	if (!options_are_whole(ports, upper.end - upper.at))
		return false;
	flow->remote_port = (uint16_t)(ports[0] << 8 | ports[1]);
	flow->local_port = (uint16_t)(ports[2] << 8 | ports[3]);
	*tcp = true;
	*numbers = numbers_of(ports);
	return true;
}

// A SYN for a listener whose half-open connections are as many as may be: lwIP drops it.
static bool meets_full_backlog(const struct flow *flow)
{
	const struct tcp_pcb_listen *listener = tcp_listen_pcbs.listen_pcbs;

	for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
		if (pcb->local_port == flow->local_port && pcb->remote_port == flow->remote_port)
			return false; // its own, once more
	}
	while (listener && listener->local_port != flow->local_port)
		listener = listener->next;
	return listener && listener->accepts_pending >= listener->backlog;
}

// A port that its owner uses again while its last connection lies in TIME_WAIT here: a new one
// whose numbers lie beyond the old one's may take its place (RFC 1122, 4.2.2.13). lwIP would reset
// it, or let it wait.
static void end_time_wait(const struct flow *flow, uint32_t seq)
{
	struct tcp_pcb *pcb = tcp_tw_pcbs;

	while (pcb && !sl_lwip_is_flow(pcb, flow))
		pcb = pcb->next;
	if (pcb && TCP_SEQ_GT(seq, pcb->rcv_nxt))
		tcp_abort(pcb);
}

struct pbuf *sl_lwip_wrap(const struct arrival *arrival)
{
	struct room *room = arrival->room;

	room->packet = arrival->packet;
	room->custom.custom_free_function = packet_freed;
	return pbuf_alloced_custom(PBUF_RAW, arrival->bytes, PBUF_REF, &room->custom, arrival->data,
				   arrival->bytes);
}

// Looks at a segment's checksums where lwIP would, so that damage is counted. What has options of
// IP or lies in several buffers is left to lwIP. `*how` tells what was found right.
static bool is_damaged(const struct pbuf *p, unsigned *how)
{
	const unsigned fine = SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE;
	const uint8_t *frame = p->payload, *ip = frame + SIZEOF_ETH_HDR;
	const bool v4 = frame[12] == 0x08;
	const size_t header = v4 ? IP_HLEN : IP6_HLEN;
	const size_t bytes = v4 ? get16(ip + 2) : IP6_HLEN + (size_t)get16(ip + 4);

	if ((*how & fine) == fine || p->next || (v4 ? ip[0] != 0x45 : ip[6] != IP_PROTO_TCP) ||
	    bytes < header + TCP_HLEN || SIZEOF_ETH_HDR + bytes > p->len)
		return false;
	if (!sl_lwip_sums_fit(frame, SIZEOF_ETH_HDR + bytes, *how))
		return true;
	*how |= fine;
	return false;
}

void sl_lwip_deliver(struct sl_stack *stack, struct pbuf *p, const struct flow *flow,
		     const struct numbers *numbers, unsigned how)
{
	const bool asked = flow && (numbers->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	unsigned back = NOWHERE;
	struct netif *link;

	if (flow && SL_UNLIKELY(is_damaged(p, &how))) {
		sl_count(&stack->stats.bad_sums, 1);
		pbuf_free(p);
		return;
	}
	stack->arrived = how / SL_INPUT_INTERFACE;
	link = &stack->links[stack->arrived];
	if (flow)
		sl_lwip_select(stack, sl_lwip_bucket(stack, flow));
	if (SL_UNLIKELY(flow && stack->link_count > 1))
		back = sl_lwip_follow(stack, flow, numbers);
	if (SL_UNLIKELY(asked)) {
		end_time_wait(flow, numbers->seq);
		if (meets_full_backlog(flow))
			sl_count(&stack->stats.half_open_full, 1);
	}
	// lwIP asks the interface whether to check; here that is the frame's.
	link->chksum_flags = (u16_t)(stack->sums[stack->arrived] &
				     ~((how & SL_INPUT_IP_FINE ? NETIF_CHECKSUM_CHECK_IP : 0) |
				       (how & SL_INPUT_TCP_FINE ? NETIF_CHECKSUM_CHECK_TCP : 0)));
	if (link->input(p, link) != ERR_OK)
		pbuf_free(p);
	// Who has just gone to TIME_WAIT is the first of it; lwIP will free it without a word.
	if (flow && SL_UNLIKELY(tcp_tw_pcbs && tcp_tw_pcbs->callback_arg))
		sl_lwip_part(tcp_tw_pcbs);
	if (SL_UNLIKELY(stack->link_count > 1 && (asked || back != NOWHERE)))
		sl_lwip_settle(stack, flow, back == NOWHERE ? stack->arrived : back);
	stack->arrived = NOWHERE;
}

static struct pbuf *copy(struct sl_stack *stack, const struct arrival *arrival)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, arrival->bytes, PBUF_POOL);

	if (!p || pbuf_take(p, arrival->data, arrival->bytes) != ERR_OK) {
		if (p)
			pbuf_free(p);
		return NULL;
	}
	sl_count(&stack->stats.copied_packets, 1);
	stack->host.release(arrival->packet);
	return p;
}

void sl_lwip_add(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes)
{
	const struct arrival arrival = {
		.packet = packet, .room = room, .data = data, .bytes = bytes};
	struct pbuf *p = sl_lwip_wrap(&arrival);

	if (stack->tail)
		pbuf_cat(stack->tail, p);
	else
		stack->tail = p;
}

// The frame as lwIP takes it, with the pieces that were added before. NULL: no memory.
static struct pbuf *whole_of(struct sl_stack *stack, const struct arrival *arrival)
{
	const bool copies = arrival->how & SL_INPUT_COPY;
	struct pbuf *tail = stack->tail, *p, *copied;

	stack->tail = NULL;
	if (SL_LIKELY(!tail))
		return copies ? copy(stack, arrival) : sl_lwip_wrap(arrival);
	p = sl_lwip_wrap(arrival);
	pbuf_cat(p, tail);
	sl_count(&stack->stats.large, 1);
	if (!copies)
		return p;
	copied = pbuf_clone(PBUF_RAW, PBUF_POOL, p);
	if (!copied)
		return p; // better kept than lost
	pbuf_free(p);
	sl_count(&stack->stats.copied_packets, 1);
	return copied;
}

// Several segments in one are worth an acknowledgement, as the second of two is.
static void ask_for_ack(struct sl_stack *stack, const struct flow *flow)
{
	struct tcp_pcb *pcb;

	sl_lwip_select(stack, sl_lwip_bucket(stack, flow));
	pcb = sl_lwip_find(tcp_active_pcbs, flow);
	if (pcb)
		tcp_set_flags(pcb, TF_ACK_DELAY);
}

static void drop(struct sl_stack *stack, void *packet)
{
	if (stack->tail)
		pbuf_free(stack->tail);
	stack->tail = NULL;
	sl_count(&stack->stats.dropped_packets, 1);
	stack->host.release(packet);
}

void sl_lwip_input(struct sl_stack *stack, void *packet, void *room, void *data, uint16_t bytes,
		   unsigned how)
{
	struct arrival arrival = {
		.packet = packet, .room = room, .data = data, .bytes = bytes, .how = how};
	struct pbuf *p;
	bool tcp, whole;

	stack->arrived = how / SL_INPUT_INTERFACE;
	whole = bytes >= SIZEOF_ETH_HDR &&
		flow_of(stack, data, bytes, &arrival.flow, &tcp, &arrival.numbers);
	stack->arrived = NOWHERE;
	if (!whole || (stack->tail && (!tcp || stack->tail->tot_len > UINT16_MAX - bytes))) {
		drop(stack, packet);
		return;
	}
	if (SL_UNLIKELY(stack->tail))
		arrival.how = how &= ~(unsigned)SL_INPUT_MORE; // a run of its own
	if (tcp && sl_lwip_hold(stack, &arrival))
		return;
	if (SL_UNLIKELY(!tcp)) {
		sl_lwip_flush(stack); // it may tell of any connection
		stack->arrived = how / SL_INPUT_INTERFACE;
		whole = sl_lwip_take_too_big(stack, data, bytes);
		stack->arrived = NOWHERE;
		if (whole) {
			stack->host.release(packet);
			return;
		}
	}
	if (SL_UNLIKELY(stack->tail))
		ask_for_ack(stack, &arrival.flow);
	p = whole_of(stack, &arrival);
	if (p)
		sl_lwip_deliver(stack, p, tcp ? &arrival.flow : NULL, &arrival.numbers, how);
	else
		drop(stack, packet);
}

err_t sl_lwip_output(struct netif *netif, struct pbuf *p)
{
	struct sl_stack *stack = netif->state;
	struct iovec pieces[PIECES_MAX];
	const uint8_t *frame = p->payload;
	unsigned count = 0;

	if (p->len >= SIZEOF_ETH_HDR + IP_HLEN && frame[12] == 0x08 && frame[13] == 0x00)
		sl_lwip_forbid_fragments((uint8_t *)p->payload + SIZEOF_ETH_HDR);
	if (sl_lwip_withholds(stack, frame, p->len))
		return ERR_OK;
	for (const struct pbuf *part = p; part; part = part->next) {
		if (count == PIECES_MAX)
			return ERR_BUF;
		pieces[count++] = (struct iovec){part->payload, part->len};
	}
	return stack->host.transmit(stack->host.self, (unsigned)(netif - stack->links), pieces,
				    count, p->tot_len)
		       ? ERR_OK
		       : ERR_MEM;
}

// Small pieces as one: what lwIP does for each is dear.
bool sl_lwip_gather(uint8_t to[SL_LWIP_GATHER_BYTES], struct iovec *whole,
		    const struct iovec *pieces, size_t count)
{
	size_t size = 0;

	for (size_t i = 0; i < count; i++) {
		if (pieces[i].iov_len > SL_LWIP_GATHER_BYTES - size)
			return false;
		memcpy(to + size, pieces[i].iov_base, pieces[i].iov_len);
		size += pieces[i].iov_len;
	}
	*whole = (struct iovec){to, size};
	return true;
}
