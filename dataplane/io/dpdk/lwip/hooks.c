#include "dataplane/io/dpdk/lwip/hooks.h"

#include <lwip/inet_chksum.h>
#include <lwip/sys.h>

#include "dataplane/io/dpdk/lwip/internal.h"
#include "dataplane/io/dpdk/sum.h"

#define FAR (1u << 30) // bytes: the largest window there can be (RFC 7323, 2.3)

uint32_t sl_lwip_random(void)
{
	return sl_lwip_stack->host.random();
}

u32_t sys_now(void)
{
	return (u32_t)(sl_lwip_stack->tick_ns / SL_MS);
}

uint16_t sl_lwip_sum(const void *data, int size)
{
	return sl_sum(data, (size_t)size);
}

// lwIP sums up while it copies, whether or not its interface then asks for the sum.
uint16_t sl_lwip_copy(void *to, const void *from, uint16_t size)
{
	memcpy(to, from, size);
	return sl_lwip_stack->copy_sums & NETIF_CHECKSUM_GEN_TCP ? sl_sum(to, size) : 0;
}

// RFC 6528: a clock of 4 us, and a keyed hash that keeps connections apart.
u32_t sl_lwip_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
		  u16_t remote_port)
{
	struct {
		struct flow flow;
		uint32_t what; // another function than that of the buckets
	} key = {.what = 0x49534e};

	from_lwip(key.flow.local, local);
	from_lwip(key.flow.remote, remote);
	key.flow.local_port = local_port;
	key.flow.remote_port = remote_port;
	return (u32_t)sl_lwip_stack->host.hash(&key, sizeof(key)) +
	       (u32_t)(sl_lwip_stack->tick_ns / (4 * SL_US));
}

// What no peer that is in its senses sends. lwIP tells before from after by a difference's sign,
// which halfway around is both: there a FIN without bytes would end the program. Nothing valid lies
// further away than a window.
static bool is_far(const struct tcp_pcb *pcb, const struct tcp_hdr *header, u8_t flags)
{
	// A SYN is only answered.
	return (!(flags & TCP_SYN) || pcb->state == SYN_RCVD) &&
	       header->seqno - pcb->rcv_nxt + FAR > 2 * FAR;
}

// lwIP would take the window that comes with it, and none from then on.
static bool acknowledges_the_unsent(const struct tcp_pcb *pcb, const struct tcp_hdr *header,
				    u8_t flags)
{
	return pcb->state >= ESTABLISHED && (flags & (TCP_ACK | TCP_RST)) == TCP_ACK &&
	       TCP_SEQ_GT(header->ackno, pcb->snd_nxt);
}

// Such a segment is answered as what is not acceptable is (RFC 9293, 3.10.7.4), with what else is
// to be acknowledged.
err_t sl_lwip_admit_segment(struct tcp_pcb *pcb, const struct tcp_hdr *header)
{
	const u8_t flags = TCPH_FLAGS(header);

	if (pcb->state <= SYN_SENT ||
	    (!is_far(pcb, header, flags) && !acknowledges_the_unsent(pcb, header, flags)))
		return ERR_OK;
	if (!(flags & TCP_RST))
		tcp_set_flags(pcb, TF_ACK_DELAY);
	sl_count(&sl_lwip_stack->stats.dropped_packets, 1);
	return ERR_VAL;
}
