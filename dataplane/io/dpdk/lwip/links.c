#include "dataplane/io/dpdk/lwip/internal.h"

#include <lwip/etharp.h>
#include <lwip/ethip6.h>
#include <netif/ethernet.h>

// Interfaces, each a netif of lwIP's, and the way out. What is sent leaves by the interface that
// its cause came in on: of a connection its last segment that was believed, of all else the frame
// that is being answered. Only where there is no cause (a connection of our own, a link that is
// gone) addresses decide. lwIP's own choice, by destination, would send an answer of a shared VIP
// by whichever uplink comes first.
#define MAPPED_BITS 96 // before an IPv4 address in 16 bytes

static bool is_link_local(const uint8_t address[16])
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static bool same_prefix(const uint8_t one[16], const uint8_t other[16], unsigned bits)
{
	const unsigned whole = bits / 8, rest = bits % 8;

	return memcmp(one, other, whole) == 0 &&
	       (!rest || !((one[whole] ^ other[whole]) & (0xff00 >> rest)));
}

// Of IPv4 the first address says what the link is.
static bool is_on_link(const struct sl_stack_interface *interface, const uint8_t address[16])
{
	bool first4 = true;

	if (is_link_local(address))
		return true;
	for (uint32_t i = 0; i < interface->address_count; i++) {
		const struct sl_stack_address *own = &interface->addresses[i];
		const bool v4 = sl_endpoint_is_v4(own->address);

		if ((!v4 || first4) &&
		    same_prefix(own->address, address, own->prefix + (v4 ? MAPPED_BITS : 0)))
			return true;
		first4 = first4 && !v4;
	}
	return false;
}

static bool has_gateway(const struct sl_stack_interface *interface, bool v4)
{
	static const uint8_t none[16];

	return v4 ? memcmp(interface->gateway4, none, 4) != 0
		  : memcmp(interface->gateway6, none, 16) != 0;
}

bool sl_lwip_is_elsewhere(const struct sl_stack *stack, unsigned interface,
			  const uint8_t address[16])
{
	if (sl_stack_owns(&stack->config.interfaces[interface], address))
		return false;
	for (uint32_t i = 0; i < stack->link_count; i++) {
		if (sl_stack_owns(&stack->config.interfaces[i], address))
			return true;
	}
	return false;
}

bool sl_lwip_is_others_link(const struct sl_stack *stack, unsigned interface,
			    const uint8_t address[16])
{
	if (stack->link_count == 1 || is_on_link(&stack->config.interfaces[interface], address))
		return false;
	for (uint32_t i = 0; i < stack->link_count; i++) {
		if (is_on_link(&stack->config.interfaces[i], address))
			return true;
	}
	return false;
}

unsigned sl_lwip_way(const struct sl_stack *stack, const uint8_t from[16], const uint8_t to[16])
{
	const bool v4 = sl_endpoint_is_v4(to);
	unsigned best = NOWHERE, most = 0;

	for (unsigned i = 0; i < stack->link_count; i++) {
		const struct sl_stack_interface *interface = &stack->config.interfaces[i];
		const bool direct = is_on_link(interface, to);
		// A link that is down reaches nobody, nor does one without a next hop.
		const unsigned points = 1 +
					(direct || has_gateway(interface, v4)
						 ? (stack->links_up >> i & 1 ? 4u : 2u)
						 : 0) +
					direct;

		if (points > most && sl_stack_owns(interface, from)) {
			best = i;
			most = points;
		}
	}
	return best;
}

// --- connections --------------------------------------------------------------------------------

// With one interface lwIP is not told of it: then it need not compare.
unsigned sl_lwip_link_of(const struct sl_stack *stack, const struct tcp_pcb *pcb)
{
	if (pcb->netif_idx != NETIF_NO_INDEX) {
		for (unsigned i = 0; i < stack->link_count; i++) {
			if (netif_get_index(&stack->links[i]) == pcb->netif_idx)
				return i;
		}
	}
	return stack->arrived == NOWHERE ? 0 : stack->arrived;
}

void sl_lwip_put_on(struct sl_stack *stack, struct tcp_pcb *pcb, unsigned interface)
{
	pcb->netif_idx = netif_get_index(&stack->links[interface]);
}

static void move(struct sl_stack *stack, struct tcp_pcb *pcb, unsigned interface)
{
	sl_lwip_put_on(stack, pcb, interface);
	sl_count(&stack->stats.moved, 1);
	sl_lwip_bound_moved(stack, pcb);
}

// Whoever is on one link of a VIP could name a connection over another and draw its answers there:
// so a segment moves one only when both of its numbers are ones that the peer may say now, or say
// again (RFC 5961, 5).
static bool is_believed(const struct tcp_pcb *pcb, const struct numbers *numbers)
{
	if (!(numbers->flags & TCP_ACK))
		return pcb->state == SYN_RCVD && (numbers->flags & TCP_SYN) &&
		       numbers->seq + 1 == pcb->rcv_nxt;
	return numbers->seq - pcb->rcv_nxt + TCP_WND <= 2 * TCP_WND &&
	       pcb->snd_nxt - numbers->ack <= 2 * TCP_SND_BUF;
}

struct tcp_pcb *sl_lwip_find(struct tcp_pcb *pcb, const struct flow *flow)
{
	while (pcb && !(pcb->local_port == flow->local_port &&
			pcb->remote_port == flow->remote_port && sl_lwip_is_flow(pcb, flow)))
		pcb = pcb->next;
	return pcb;
}

unsigned sl_lwip_follow(struct sl_stack *stack, const struct flow *flow,
			const struct numbers *numbers)
{
	const u8_t index = netif_get_index(&stack->links[stack->arrived]);
	struct tcp_pcb *pcb = sl_lwip_find(tcp_active_pcbs, flow);
	unsigned before;

	if (!pcb) {
		// It only answers what comes.
		pcb = sl_lwip_find(tcp_tw_pcbs, flow);
		if (pcb)
			pcb->netif_idx = index;
		return NOWHERE;
	}
	if (SL_LIKELY(pcb->netif_idx == index))
		return NOWHERE;
	before = sl_lwip_link_of(stack, pcb);
	if (is_believed(pcb, numbers)) {
		move(stack, pcb, stack->arrived);
		return NOWHERE;
	}
	pcb->netif_idx = index;
	return before;
}

void sl_lwip_settle(struct sl_stack *stack, const struct flow *flow, unsigned interface)
{
	struct tcp_pcb *pcb = sl_lwip_find(tcp_active_pcbs, flow);

	if (pcb)
		sl_lwip_put_on(stack, pcb, interface);
}

// Who is being waited for by a peer that has nothing to say must not wait for its next segment.
static void leave(struct sl_stack *stack, unsigned interface)
{
	for (uint32_t i = 0; i < BUCKETS; i++) {
		sl_lwip_select(stack, i);
		for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
			uint8_t local[16], remote[16];
			unsigned way;

			if (sl_lwip_link_of(stack, pcb) != interface)
				continue;
			from_lwip(local, &pcb->local_ip);
			from_lwip(remote, &pcb->remote_ip);
			way = sl_lwip_way(stack, local, remote);
			if (way != NOWHERE && way != interface)
				move(stack, pcb, way);
		}
	}
}

void sl_lwip_link(struct sl_stack *stack, unsigned interface, bool up)
{
	if (up == (bool)(stack->links_up >> interface & 1))
		return;
	stack->links_up ^= 1u << interface;
	if (!up && stack->link_count > 1)
		leave(stack, interface);
}

// --- lwIP's questions ---------------------------------------------------------------------------

static struct netif *route(const uint8_t from[16], const uint8_t to[16])
{
	struct sl_stack *stack = sl_lwip_stack;
	unsigned way = stack->arrived;

	if (way == NOWHERE)
		way = sl_lwip_way(stack, from, to);
	return way == NOWHERE ? NULL : &stack->links[way];
}

struct netif *sl_lwip_route4(const ip4_addr_t *from, const ip4_addr_t *to)
{
	struct netif *only = &sl_lwip_stack->links[0];
	uint8_t own[16], peer[16];

	if (SL_LIKELY(sl_lwip_stack->link_count == 1))
		return ip4_addr_isany_val(*netif_ip4_addr(only)) ? NULL : only;
	if (!from)
		return NULL; // it asks once more, without, when there was no way
	map_v4(own, from);
	map_v4(peer, to);
	return route(own, peer);
}

struct netif *sl_lwip_route6(const ip6_addr_t *from, const ip6_addr_t *to)
{
	if (SL_LIKELY(sl_lwip_stack->link_count == 1))
		return &sl_lwip_stack->links[0];
	return route((const uint8_t *)from->addr, (const uint8_t *)to->addr);
}

// lwIP remembers a destination's next hop for all interfaces together, and takes each prefix for
// one of 64 bits. So it is only asked for next hops: neighbours, and the gateway.
static err_t output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to)
{
	const struct sl_stack *stack = netif->state;
	const struct sl_stack_interface *interface =
		&stack->config.interfaces[netif - stack->links];
	ip6_addr_t hop = {0};

	if (ip6_addr_ismulticast(to) || is_on_link(interface, (const uint8_t *)to->addr))
		return ethip6_output(netif, p, to);
	if (!has_gateway(interface, false))
		return ERR_RTE;
	memcpy(hop.addr, interface->gateway6, 16);
	ip6_addr_assign_zone(&hop, IP6_UNICAST, netif);
	return ethip6_output(netif, p, &hop);
}

// --- set-up -------------------------------------------------------------------------------------

static err_t set_link(struct netif *netif)
{
	const struct sl_stack *stack = netif->state;
	const unsigned index = (unsigned)(netif - stack->links);
	const struct sl_stack_interface *interface = &stack->config.interfaces[index];

	netif->name[0] = 's';
	netif->name[1] = 'l';
	netif->output = etharp_output;
	netif->output_ip6 = output6;
	netif->linkoutput = sl_lwip_output;
	netif->mtu = interface->mtu;
	netif->mtu6 = interface->mtu;
	netif->hwaddr_len = 6;
	memcpy(netif->hwaddr, interface->mac, 6);
	NETIF_SET_CHECKSUM_CTRL(netif, stack->sums[index]);
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
		       NETIF_FLAG_LINK_UP | NETIF_FLAG_MLD6;
	return ERR_OK;
}

// As on a loopback: taken in wherever it comes, and nothing ever leaves by it.
static err_t set_vip(struct netif *netif)
{
	netif->flags = NETIF_FLAG_LINK_UP;
	return ERR_OK;
}

static bool add_vip(struct sl_stack *stack, const struct sl_stack_address *address)
{
	struct netif *netif = &stack->vips[stack->vip_count];
	ip4_addr_t own, mask = {~0u}, none = {0};

	memcpy(&own.addr, address->address + 12, 4);
	for (uint32_t i = 0; i < stack->vip_count; i++) {
		if (ip4_addr_cmp(netif_ip4_addr(&stack->vips[i]), &own))
			return true; // another interface's, too
	}
	if (!netif_add(netif, &own, &mask, &none, stack, set_vip, ethernet_input))
		return false;
	stack->vip_count++;
	netif_set_up(netif);
	return true;
}

static bool add_sixes(struct netif *netif, const struct sl_stack_interface *interface)
{
	s8_t sixes = 0;

	netif_create_ip6_linklocal_address(netif, 1);
	netif_ip6_addr_set_state(netif, 0, IP6_ADDR_PREFERRED);
	for (uint32_t i = 0; i < interface->address_count; i++) {
		ip6_addr_t address = {0};

		if (sl_endpoint_is_v4(interface->addresses[i].address))
			continue;
		if (++sixes == LWIP_IPV6_NUM_ADDRESSES)
			return false;
		memcpy(address.addr, interface->addresses[i].address, 16);
		ip6_addr_assign_zone(&address, IP6_UNICAST, netif);
		netif_ip6_addr_set(netif, sixes, &address);
		netif_ip6_addr_set_state(netif, sixes, IP6_ADDR_PREFERRED);
	}
	return true;
}

static bool add_link(struct sl_stack *stack, const struct sl_stack_interface *interface)
{
	static_assert(LWIP_IPV6_NUM_ADDRESSES == SL_STACK_SIXES_MAX + 1, "and the link's own");
	static_assert(MEMP_NUM_MLD6_GROUP >= LINKS_MAX * LWIP_IPV6_NUM_ADDRESSES, "a group each");
	struct netif *netif = &stack->links[stack->link_count];
	const struct sl_stack_address *first = NULL;
	ip4_addr_t own = {0}, mask = {0}, gateway = {0};

	for (uint32_t i = 0; i < interface->address_count && !first; i++) {
		if (sl_endpoint_is_v4(interface->addresses[i].address))
			first = &interface->addresses[i];
	}
	if (first) {
		memcpy(&own.addr, first->address + 12, 4);
		mask.addr = first->prefix ? lwip_htonl(~0u << (32 - first->prefix)) : 0;
	}
	memcpy(&gateway.addr, interface->gateway4, 4);
	if (!netif_add(netif, &own, &mask, &gateway, stack, set_link, ethernet_input))
		return false;
	stack->link_count++;
	netif_set_up(netif);
	return add_sixes(netif, interface);
}

static bool add_vips(struct sl_stack *stack, const struct sl_stack_interface *interface)
{
	bool first = true;

	for (uint32_t i = 0; i < interface->address_count; i++) {
		if (!sl_endpoint_is_v4(interface->addresses[i].address))
			continue;
		if (!first && !add_vip(stack, &interface->addresses[i]))
			return false;
		first = false;
	}
	return true;
}

bool sl_lwip_set_links(struct sl_stack *stack)
{
	const struct sl_stack_config *config = &stack->config;

	stack->arrived = NOWHERE;
	stack->links_up = ~0u;
	for (uint32_t i = 0; i < config->interface_count; i++) {
		const uint8_t device = config->interfaces[i].device_sums;

		stack->sums[i] = (u16_t) ~((device & SL_SUM_IP ? NETIF_CHECKSUM_GEN_IP : 0) |
					   (device & SL_SUM_TCP ? NETIF_CHECKSUM_GEN_TCP : 0));
		stack->copy_sums |= stack->sums[i];
	}
	stack->vips = calloc(VIPS_MAX, sizeof(*stack->vips));
	if (!stack->vips)
		return false;
	for (uint32_t i = 0; i < config->interface_count; i++) {
		if (!add_vips(stack, &config->interfaces[i]))
			return false;
	}
	// lwIP searches the last first.
	for (uint32_t i = 0; i < config->interface_count; i++) {
		if (!add_link(stack, &config->interfaces[i]))
			return false;
	}
	netif_set_default(&stack->links[0]);
	return stack->link_count > 0;
}

void sl_lwip_remove_links(struct sl_stack *stack)
{
	for (uint32_t i = 0; i < stack->link_count; i++)
		netif_remove(&stack->links[i]);
	for (uint32_t i = 0; i < stack->vip_count; i++)
		netif_remove(&stack->vips[i]);
	free(stack->vips);
}
