#pragma once

#include <lwip/err.h>
#include <lwip/ip_addr.h>

// What lwIP calls by the names of lwipopts.h. Threading: the shard's thread.
u32_t sl_lwip_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
		  u16_t remote_port);
struct netif;
// Where an answer without a connection leaves, and what of a connection has no interface yet.
struct netif *sl_lwip_route4(const ip4_addr_t *from, const ip4_addr_t *to);
struct netif *sl_lwip_route6(const ip6_addr_t *from, const ip6_addr_t *to);
struct tcp_pcb;
struct tcp_hdr;
// Of a segment for a connection; its numbers are in host order. ERR_VAL: it is dropped.
err_t sl_lwip_admit_segment(struct tcp_pcb *pcb, const struct tcp_hdr *header);
// In the place of tcp_split_unsent_seg where lwIP calls it (path.c).
err_t sl_lwip_split(struct tcp_pcb *pcb, u16_t bytes);
