#include "dataplane/io/dpdk/lwip/internal.h"

#include <lwip/prot/icmp6.h>
#include <lwip/prot/ip6.h>

// What lwIP may see of IPv6. It reads options and link-layer addresses where it expects them,
// without a look at the packet's end, and believes whoever is on the link. So a packet is checked
// as a whole before: its extension headers (RFC 8200, section 4), multicast listener discovery
// (RFC 2710, section 3) and neighbour discovery (RFC 4861, sections 7.1.1 and 7.1.2).
//
// Router advertisements and redirects are not believed: addresses, gateways and the MTU are set,
// and one frame from anyone on the link would change the way of all flows.
#define HEADER      40
#define HEADERS_MAX 8  // of extension; a packet that is meant well has one of a kind
#define ND_HEAD     24 // of a solicitation or advertisement, before its options
#define ND_TARGET   8
#define ND_HOPS     255
#define MLD_HEAD    24
#define MLD_HOPS    1
#define SOURCE      8 // in the header
#define DESTINATION 24

enum { SOURCE_ADDRESS = 1, TARGET_ADDRESS = 2 }; // options of neighbour discovery
#define NA_SOLICITED 0x40

static bool has_source(const uint8_t *ip)
{
	static const uint8_t unspecified[16];

	return memcmp(ip + SOURCE, unspecified, sizeof(unspecified)) != 0;
}

static bool options_are_whole(const uint8_t *header, size_t size)
{
	size_t at = 2;

	while (at < size) {
		if (header[at] == IP6_PAD1_OPTION)
			at++;
		else
			at += at + 1 < size ? 2 + (size_t)header[at + 1] : size;
	}
	return at == size;
}

static bool skip_headers(const uint8_t *ip, struct upper *upper)
{
	for (unsigned i = 0; i <= HEADERS_MAX; i++) {
		const uint8_t *header = ip + upper->at;
		const size_t left = upper->end - upper->at;
		const uint8_t kind = upper->protocol;
		size_t size;

		if (kind != IP6_NEXTH_HOPBYHOP && kind != IP6_NEXTH_DESTOPTS &&
		    kind != IP6_NEXTH_ROUTING)
			return kind != IP6_NEXTH_FRAGMENT;
		if (left < 8 || (kind == IP6_NEXTH_HOPBYHOP && i > 0))
			return false;
		size = 8 + (size_t)header[1] * 8;
		// A routing header that has an address left is for routers (RFC 5095).
		if (size > left ||
		    (kind == IP6_NEXTH_ROUTING ? header[3] != 0 : !options_are_whole(header, size)))
			return false;
		upper->protocol = header[0];
		upper->at += size;
	}
	return false;
}

static bool is_link_local(const uint8_t address[16])
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static bool is_solicited_node(const uint8_t address[16])
{
	static const uint8_t prefix[13] = {0xff, 2, [11] = 1, 0xff};

	return memcmp(address, prefix, sizeof(prefix)) == 0;
}

// Options have a length, and the last one ends where the message does.
static bool nd_is_whole(const uint8_t *ip, const uint8_t *nd, size_t size)
{
	size_t at = ND_HEAD;

	if (size < ND_HEAD || ip[7] != ND_HOPS || nd[1] != 0 || nd[8] == 0xff)
		return false; // the last: a target that is many
	while (at + 2 <= size && nd[at + 1])
		at += (size_t)nd[at + 1] * 8;
	return at == size;
}

static size_t find_option(const uint8_t *nd, size_t size, uint8_t kind)
{
	size_t at = ND_HEAD;

	while (at < size && nd[at] != kind)
		at += (size_t)nd[at + 1] * 8;
	return at;
}

// lwIP takes the first option for the link-layer address, whatever it is: that one goes first. Only
// whole words change places, so the checksum stays what it is. False: there is none.
static bool put_address_first(uint8_t *nd, size_t size, uint8_t kind)
{
	const size_t at = find_option(nd, size, kind);
	uint8_t address[8];

	if (at == size || nd[at + 1] != 1)
		return false;
	memcpy(address, nd + at, sizeof(address));
	memmove(nd + ND_HEAD + sizeof(address), nd + ND_HEAD, at - ND_HEAD);
	memcpy(nd + ND_HEAD, address, sizeof(address));
	return true;
}

static bool admit_solicitation(const uint8_t *ip, uint8_t *nd, size_t size)
{
	if (!nd_is_whole(ip, nd, size))
		return false;
	// Who asks whether an address is free has none to be answered at.
	if (!has_source(ip))
		return is_solicited_node(ip + DESTINATION) &&
		       find_option(nd, size, SOURCE_ADDRESS) == size;
	return put_address_first(nd, size, SOURCE_ADDRESS);
}

static bool admit_advertisement(const uint8_t *ip, uint8_t *nd, size_t size)
{
	if (!nd_is_whole(ip, nd, size) || (ip[DESTINATION] == 0xff && (nd[4] & NA_SOLICITED)))
		return false;
	return size == ND_HEAD || put_address_first(nd, size, TARGET_ADDRESS);
}

static bool admit_icmp(struct sl_stack *stack, uint8_t *ip, const struct upper *upper)
{
	uint8_t *icmp = ip + upper->at;
	const size_t size = upper->end - upper->at;

	if (size < 8)
		return false;
	switch (icmp[0]) {
	case ICMP6_TYPE_PTB:
		return has_source(ip) && upper->at == HEADER; // where path.c looks for it
	case ICMP6_TYPE_MLQ:
	case ICMP6_TYPE_MLR:
	case ICMP6_TYPE_MLD:
		return size >= MLD_HEAD && ip[7] == MLD_HOPS && is_link_local(ip + SOURCE);
	case ICMP6_TYPE_NS:
		return admit_solicitation(ip, icmp, size) &&
		       !sl_lwip_is_others_link(stack, stack->arrived, ip + SOURCE);
	case ICMP6_TYPE_NA: // lwIP knows a neighbour by its address alone, wherever it speaks
		return admit_advertisement(ip, icmp, size) &&
		       !sl_lwip_is_others_link(stack, stack->arrived, icmp + ND_TARGET);
	case ICMP6_TYPE_RA:
	case ICMP6_TYPE_RD:
		sl_count(&stack->stats.unbelieved, 1);
		return false;
	default:
		return has_source(ip);
	}
}

bool sl_lwip_admit6(struct sl_stack *stack, uint8_t *ip, size_t left, size_t whole,
		    struct upper *upper)
{
	if (left < HEADER || ip[0] >> 4 != 6)
		return false;
	*upper = (struct upper){
		.at = HEADER,
		.end = HEADER + (size_t)(ip[4] << 8 | ip[5]),
		.protocol = ip[6],
	};
	if (upper->end > whole || (whole > left && upper->protocol != IP6_NEXTH_TCP))
		return false;
	upper->end = SL_MIN(upper->end, left);
	if (!skip_headers(ip, upper))
		return false;
	if (upper->protocol == IP6_NEXTH_ICMP6)
		return admit_icmp(stack, ip, upper);
	return has_source(ip);
}
