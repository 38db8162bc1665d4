#pragma once

#include <lwip/err.h>
#include <lwip/ip_addr.h>

// What lwIP calls by the names of lwipopts.h. Threading: the shard's thread.
u32_t sl_lwip_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
		  u16_t remote_port);
const ip6_addr_t *sl_lwip_gateway6(void);
struct tcp_pcb;
struct tcp_hdr;
// Of a segment for a connection; its numbers are in host order. ERR_VAL: it is dropped.
err_t sl_lwip_admit_segment(struct tcp_pcb *pcb, const struct tcp_hdr *header);
// In the place of tcp_split_unsent_seg where lwIP calls it (path.c).
err_t sl_lwip_split(struct tcp_pcb *pcb, u16_t bytes);
