#include "dataplane/io/dpdk/lwip/internal.h"

#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip.h>

#include "dataplane/io/dpdk/sum.h"

// Segments of one flow that follow each other in one turn go through lwIP as one. What can go along
// is held by flow until the turn's end; only then, with the connection at hand, it is decided: a
// run that is just what the connection waits for, and fits its window, goes in whole. Any other
// goes in as it came, frame by frame: lwIP answers each that is out of order, and its peer counts
// the answers. So neither end can tell a merged run from its segments.
#define WHOLE_MAX 65535 // lwIP counts a packet's bytes in 16 bits, from Ethernet up
#define MACS      12

// What lwIP makes of PSH is nothing.
static bool is_plain(const uint8_t *tcp)
{
	return (tcp[13] & ~TCP_PSH) == TCP_ACK && !(tcp[12] & 15);
}

// Whether a frame can be part of a run at all; finds where its bytes begin, and how many they are:
// behind them Ethernet may have filled it up, but not one of IPv6, which is never so short.
static bool can_run(const uint8_t *frame, size_t bytes, size_t *head, size_t *size)
{
	const uint8_t *ip = frame + SIZEOF_ETH_HDR, *tcp;
	const bool v4 = frame[12] == 0x08;
	const size_t header = v4 ? IP_HLEN : IP6_HLEN;
	const size_t end = v4 ? get16(ip + 2) : IP6_HLEN + (size_t)get16(ip + 4);

	if (v4 ? ip[0] != 0x45 : ip[6] != IP_PROTO_TCP || SIZEOF_ETH_HDR + end != bytes)
		return false;
	tcp = ip + header;
	*head = SIZEOF_ETH_HDR + header + (size_t)(tcp[12] >> 4) * 4;
	if (!is_plain(tcp) || SIZEOF_ETH_HDR + end > bytes || SIZEOF_ETH_HDR + end <= *head)
		return false;
	*size = SIZEOF_ETH_HDR + end - *head;
	return true;
}

bool sl_lwip_sums_fit(const uint8_t *frame, size_t bytes, unsigned how)
{
	const uint8_t *ip = frame + SIZEOF_ETH_HDR;
	const bool v4 = frame[12] == 0x08;
	const size_t header = v4 ? IP_HLEN : IP6_HLEN;
	const size_t size = bytes - SIZEOF_ETH_HDR - header;
	uint32_t sum;

	if (v4 && !(how & SL_INPUT_IP_FINE) && sl_sum(ip, header) != 0xffff)
		return false;
	if (how & SL_INPUT_TCP_FINE)
		return true;
	// The pseudo-header (RFC 9293, 3.1): source and destination lie side by side.
	sum = (v4 ? sl_sum(ip + 12, 8) : sl_sum(ip + 8, 32)) + lwip_htons(IP_PROTO_TCP) +
	      lwip_htons((u16_t)size) + sl_sum(ip + header, size);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

// All that lwIP or the connection's peer could see a difference in: who, what it asks of the
// network (DF, TOS with ECN, hops; IPv6's flow label), what it acknowledges, its window and
// options. The stack agrees to no timestamps; who sends some regardless is not merged, unless they
// are the same.
static bool is_alike(const uint8_t *one, const uint8_t *other, size_t head)
{
	const bool v4 = one[12] == 0x08;
	const uint8_t *a = one + SIZEOF_ETH_HDR, *b = other + SIZEOF_ETH_HDR;
	const size_t tcp = v4 ? IP_HLEN : IP6_HLEN;

	if (memcmp(one, other, MACS) != 0)
		return false;
	if (v4 ? a[1] != b[1] || memcmp(a + 6, b + 6, 3) != 0
	       : memcmp(a, b, 4) != 0 || a[7] != b[7])
		return false;
	a += tcp;
	b += tcp;
	return memcmp(a + 8, b + 8, 4) == 0 && a[12] == b[12] && memcmp(a + 14, b + 14, 2) == 0 &&
	       memcmp(a + TCP_HLEN, b + TCP_HLEN, head - SIZEOF_ETH_HDR - tcp - TCP_HLEN) == 0;
}

static bool goes_along(struct run *run, const struct arrival *arrival, size_t head, size_t size)
{
	const struct pbuf *first = &run->first->custom.pbuf;

	if (arrival->numbers.seq != run->next || arrival->how != run->how || head != run->head ||
	    head + run->bytes + size > WHOLE_MAX || !is_alike(first->payload, arrival->data, head))
		return false;
	// One that stays alone is looked at when it goes in.
	if (!run->summed && !sl_lwip_sums_fit(first->payload, head + run->first->size, run->how))
		return false;
	run->summed = true;
	return sl_lwip_sums_fit(arrival->data, head + size, run->how);
}

static bool is_next(const struct tcp_pcb *pcb, const struct run *run)
{
	return pcb && pcb->state == ESTABLISHED && pcb->rcv_nxt == run->numbers.seq &&
	       !pcb->ooseq && !pcb->refused_data && run->bytes <= pcb->rcv_wnd &&
	       !TCP_SEQ_GT(run->numbers.ack, pcb->snd_nxt);
}

static struct pbuf *chain(const struct run *run)
{
	struct pbuf *first = &run->first->custom.pbuf;
	uint8_t *frame = first->payload, *ip = frame + SIZEOF_ETH_HDR;
	uint32_t left = run->bytes;

	for (struct pbuf *p = first; p; p = p->next) {
		const struct room *room = (const struct room *)p;

		if (p == first) {
			p->len = (u16_t)(run->head + room->size);
			p->tot_len = (u16_t)(run->head + left);
		} else {
			p->payload = (uint8_t *)p->payload + run->head;
			p->len = room->size;
			p->tot_len = (u16_t)left;
		}
		left -= room->size;
	}
	if (frame[12] == 0x08)
		put16(ip + 2, (uint16_t)(first->tot_len - SIZEOF_ETH_HDR));
	else
		put16(ip + 4, (uint16_t)(first->tot_len - SIZEOF_ETH_HDR - IP6_HLEN));
	return first;
}

static void let_in_whole(struct sl_stack *stack, const struct run *run, struct tcp_pcb *pcb)
{
	const uint32_t last = run->next - run->last->size;

	// The second segment asks for an acknowledgement, the first for a late one: here they are
	// the same. And what the last says of its window is the newest.
	tcp_set_flags(pcb, TF_ACK_DELAY);
	sl_count(&stack->stats.merged, run->count - 1u);
	sl_lwip_deliver(stack, chain(run), &run->flow, &run->numbers,
			run->how | SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE);
	pcb = sl_lwip_find(tcp_active_pcbs, &run->flow);
	if (pcb && pcb->snd_wl1 == run->numbers.seq)
		pcb->snd_wl1 = last;
}

static void let_in(struct sl_stack *stack, const struct run *run)
{
	struct pbuf *p = &run->first->custom.pbuf;
	const size_t tcp = SIZEOF_ETH_HDR +
			   (((uint8_t *)p->payload)[12] == 0x08 ? IP_HLEN : IP6_HLEN);
	const unsigned how = run->summed ? run->how | SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE
					 : run->how;

	if (run->count > 1) {
		struct tcp_pcb *pcb;

		sl_lwip_select(stack, sl_lwip_bucket(stack, &run->flow));
		pcb = sl_lwip_find(tcp_active_pcbs, &run->flow);
		if (is_next(pcb, run)) {
			let_in_whole(stack, run, pcb);
			return;
		}
	}
	while (p) {
		const struct numbers numbers = numbers_of((uint8_t *)p->payload + tcp);
		struct pbuf *next = p->next;

		p->next = NULL;
		sl_lwip_deliver(stack, p, &run->flow, &numbers, how);
		p = next;
	}
}

void sl_lwip_flush(struct sl_stack *stack)
{
	for (uint32_t i = 0; i < stack->run_count; i++)
		let_in(stack, &stack->runs[i]);
	stack->run_count = 0;
}

// The others keep their order.
static void end_run(struct sl_stack *stack, struct run *run)
{
	struct run *behind = run + 1;

	let_in(stack, run);
	stack->run_count--;
	memmove(run, behind, (size_t)(&stack->runs[stack->run_count] - run) * sizeof(*run));
}

bool sl_lwip_hold(struct sl_stack *stack, const struct arrival *arrival)
{
	struct run *run = stack->runs, *const end = run + stack->run_count;
	struct room *room = arrival->room;
	size_t head, size;
	bool can;

	while (run < end && (run->flow.remote_port != arrival->flow.remote_port ||
			     memcmp(&run->flow, &arrival->flow, sizeof(run->flow)) != 0))
		run++;
	can = (arrival->how & (SL_INPUT_MORE | SL_INPUT_COPY)) == SL_INPUT_MORE &&
	      can_run(arrival->data, arrival->bytes, &head, &size);
	if (run < end) {
		if (can && goes_along(run, arrival, head, size)) {
			run->last->custom.pbuf.next = sl_lwip_wrap(arrival);
			run->last = room;
			room->size = (uint16_t)size;
			run->next += (uint32_t)size;
			run->bytes += (uint32_t)size;
			run->count++;
			return true;
		}
		end_run(stack, run);
	}
	if (!can)
		return false;
	if (stack->run_count == RUNS_MAX)
		end_run(stack, stack->runs);
	(void)sl_lwip_wrap(arrival);
	room->size = (uint16_t)size;
	stack->runs[stack->run_count++] = (struct run){
		.flow = arrival->flow,
		.numbers = arrival->numbers,
		.first = room,
		.last = room,
		.next = arrival->numbers.seq + (uint32_t)size,
		.bytes = (uint32_t)size,
		.how = arrival->how,
		.head = (uint16_t)head,
		.count = 1,
	};
	return true;
}
