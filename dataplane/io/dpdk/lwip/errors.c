#include "dataplane/io/dpdk/lwip/internal.h"

#include <lwip/prot/ethernet.h>
#include <lwip/prot/icmp.h>
#include <lwip/prot/icmp6.h>
#include <lwip/prot/ip.h>

// ICMP's errors answer whoever a packet says it is from: bounded, so that nobody is flooded through
// us, and we are not kept busy (RFC 1122, 3.2.2; RFC 4443, 2.4 f). lwIP sends one for each.
#define ERRORS_A_TICK 100 // 1,000 a second and shard

static bool is_error(const uint8_t *frame, size_t bytes)
{
	const uint8_t *ip = frame + SIZEOF_ETH_HDR;

	if (bytes <= SIZEOF_ETH_HDR + 40)
		return false;
	if (frame[12] == 0x86 && frame[13] == 0xdd)
		return ip[6] == IP6_NEXTH_ICMP6 && ip[40] < ICMP6_TYPE_EREQ;
	// lwIP sends no options.
	return frame[12] == 0x08 && frame[13] == 0x00 && ip[9] == IP_PROTO_ICMP &&
	       ip[20] != ICMP_ER && ip[20] != ICMP_ECHO;
}

bool sl_lwip_withholds(struct sl_stack *stack, const uint8_t *frame, size_t bytes)
{
	if (SL_LIKELY(!is_error(frame, bytes)))
		return false;
	if (stack->errors < ERRORS_A_TICK) {
		stack->errors++;
		return false;
	}
	sl_count(&stack->stats.withheld, 1);
	return true;
}
