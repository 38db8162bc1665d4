#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip.h>

#include "dataplane/io/dpdk/lwip/internal.h"

// Of thousands of connections each packet meets a cold one, and lwIP would wait for memory at each
// step: list, connection, stream, session. Here all packets of a burst take each step together, so
// their waits overlap. Nothing is changed or believed: input() checks.

// The same words as input() finds; false where it takes more than a look.
static bool flow_of(const uint8_t *frame, size_t bytes, struct flow *flow)
{
	const uint8_t *ip = frame + SIZEOF_ETH_HDR, *type = frame + 12;
	size_t header;

	if (bytes < SIZEOF_ETH_HDR + IP6_HLEN)
		return false;
	if (type[0] == 0x08 && type[1] == 0x00) {
		header = (size_t)(ip[0] & 15) * 4;
		if (ip[9] != IP_PROTO_TCP)
			return false;
		map_v4(flow->remote, ip + 12);
		map_v4(flow->local, ip + 16);
	} else if (type[0] == 0x86 && type[1] == 0xdd && ip[6] == IP_PROTO_TCP) {
		header = IP6_HLEN;
		memcpy(flow->remote, ip + 8, 16);
		memcpy(flow->local, ip + 24, 16);
	} else {
		return false;
	}
	if (SIZEOF_ETH_HDR + header + 4 > bytes)
		return false;
	flow->remote_port = (uint16_t)(ip[header] << 8 | ip[header + 1]);
	flow->local_port = (uint16_t)(ip[header + 2] << 8 | ip[header + 3]);
	return true;
}

// Who has the same ports is nearly always the one.
static const struct tcp_pcb *among(const struct tcp_pcb *list, const struct flow *flow)
{
	while (list &&
	       (list->remote_port != flow->remote_port || list->local_port != flow->local_port))
		list = list->next;
	return list;
}

// The flows of the frames, and their buckets. Returns how many.
static unsigned find_flows(struct sl_stack *stack, const struct sl_bytes *frames, unsigned count,
			   struct flow *flows, uint32_t *buckets)
{
	unsigned found = 0;

	for (unsigned i = 0; i < count; i++) {
		struct flow *flow = &flows[found];

		if (!flow_of(frames[i].data, frames[i].size, flow))
			continue;
		// The segments of a call come one after the other.
		if (found && !memcmp(flow, flow - 1, sizeof(*flow)))
			continue;
		buckets[found] = sl_lwip_bucket(stack, flow);
		sl_prefetch(&stack->lists[buckets[found++]]);
	}
	return found;
}

unsigned sl_lwip_look_ahead(struct sl_stack *stack, const struct sl_bytes *frames, unsigned count,
			    void **owners)
{
	struct flow flows[SL_STACK_AHEAD_MAX];
	uint32_t buckets[SL_STACK_AHEAD_MAX];
	const struct tcp_pcb *pcbs[SL_STACK_AHEAD_MAX];
	const struct sl_stream *streams[SL_STACK_AHEAD_MAX];
	unsigned flow_count, stream_count = 0, owner_count = 0;

	assert(count <= SL_STACK_AHEAD_MAX);
	flow_count = find_flows(stack, frames, count, flows, buckets);
	sl_lwip_select(stack, stack->bucket); // the lists that lwIP has now go to their place
	for (unsigned i = 0; i < flow_count; i++) {
		pcbs[i] = stack->lists[buckets[i]].active;
		if (pcbs[i])
			sl_prefetch_all(pcbs[i], sizeof(*pcbs[i]));
	}
	for (unsigned i = 0; i < flow_count; i++) {
		const struct tcp_pcb *pcb = among(pcbs[i], &flows[i]);

		// Of a half-open one it is the listener's.
		if (!pcb || pcb->state == SYN_RCVD || !pcb->callback_arg)
			continue;
		streams[stream_count++] = pcb->callback_arg;
		sl_prefetch_all(pcb->callback_arg, sizeof(struct sl_stream));
	}
	for (unsigned i = 0; i < stream_count; i++) {
		if (!streams[i]->owner)
			continue;
		owners[owner_count++] = streams[i]->owner;
		sl_prefetch(streams[i]->owner);
	}
	return owner_count;
}
