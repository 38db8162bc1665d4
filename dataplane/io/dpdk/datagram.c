
#include <errno.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>

#include "dataplane/io/datagram.h"
#include "dataplane/io/dpdk/internal.h"
#include "dataplane/io/dpdk/sum.h"

// OTLP datagrams from the port, straight from the frame: the stack would add nothing, and per
// packet it is what costs. Checked as the stack would: header, length, checksums (RFC 791, 768,
// 8200). Fragments are not put together.

struct found {
	const struct rte_udp_hdr *udp;
	const void *ip;
	uint8_t local[16];
	struct sl_address peer;
	size_t ip_bytes; // header and payload, as the IP header says
	size_t udp_bytes;
	bool fragment;
};

static bool find_v4(struct found *found, const uint8_t *frame, size_t bytes)
{
	const struct rte_ipv4_hdr *ip = (const void *)(frame + RTE_ETHER_HDR_LEN);
	size_t header;

	if (bytes < RTE_ETHER_HDR_LEN + sizeof(*ip) + sizeof(struct rte_udp_hdr) ||
	    ip->next_proto_id != IPPROTO_UDP || ip->version_ihl >> 4 != 4)
		return false;
	header = (size_t)(ip->version_ihl & 15) * 4;
	if (header < sizeof(*ip) || bytes < RTE_ETHER_HDR_LEN + header + sizeof(struct rte_udp_hdr))
		return false;
	found->ip = ip;
	found->udp = (const void *)(frame + RTE_ETHER_HDR_LEN + header);
	found->ip_bytes = rte_be_to_cpu_16(ip->total_length);
	found->udp_bytes = found->ip_bytes - SL_MIN(header, found->ip_bytes);
	found->fragment = ip->fragment_offset & rte_cpu_to_be_16(0x3fff);
	memset(found->local, 0, 10);
	found->local[10] = found->local[11] = 0xff;
	memcpy(found->local + 12, &ip->dst_addr, 4);
	found->peer.size = sizeof(found->peer.u.v4);
	found->peer.u.v4 = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = found->udp->src_port,
		.sin_addr.s_addr = ip->src_addr,
	};
	return true;
}

static bool find_v6(struct found *found, const uint8_t *frame, size_t bytes)
{
	const struct rte_ipv6_hdr *ip = (const void *)(frame + RTE_ETHER_HDR_LEN);

	// With extension headers it is the stack's, which knows of no such port.
	if (bytes < RTE_ETHER_HDR_LEN + sizeof(*ip) + sizeof(struct rte_udp_hdr) ||
	    ip->proto != IPPROTO_UDP)
		return false;
	found->ip = ip;
	found->udp = (const void *)(ip + 1);
	found->udp_bytes = rte_be_to_cpu_16(ip->payload_len);
	found->ip_bytes = sizeof(*ip) + found->udp_bytes;
	found->fragment = false;
	memcpy(found->local, ip->dst_addr, 16);
	found->peer.size = sizeof(found->peer.u.v6);
	found->peer.u.v6 = (struct sockaddr_in6){
		.sin6_family = AF_INET6,
		.sin6_port = found->udp->src_port,
	};
	memcpy(&found->peer.u.v6.sin6_addr, ip->src_addr, 16);
	return true;
}

// Whether a source on `address` takes what was sent to `local`. ":4319" takes IPv4 too, "0.0.0.0"
// nothing else.
static bool takes(const struct sl_address *address, const uint8_t local[16])
{
	if (address->u.any.sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&address->u.v6.sin6_addr) ||
		       memcmp(&address->u.v6.sin6_addr, local, 16) == 0;
	return sl_endpoint_is_v4(local) && (!address->u.v4.sin_addr.s_addr ||
					    memcmp(&address->u.v4.sin_addr, local + 12, 4) == 0);
}

static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
	      "one place for the port");

static struct sl_datagram_source *source_of(const struct sl_lane *lane,
					    const struct sl_stack_interface *interface,
					    const struct found *found)
{
	for (uint32_t i = 0; i < lane->datagram_count; i++) {
		struct sl_datagram_source *source = lane->datagrams[i];

		if (source->address.u.v4.sin_port == found->udp->dst_port &&
		    takes(&source->address, found->local))
			return sl_stack_owns(interface, found->local) ? source : NULL;
	}
	return NULL;
}

// What the port has verified (GOOD), or what never left the machine (NONE) is not summed up again.
static bool checksums_fit(const struct found *found, uint64_t flags)
{
	const uint64_t layer4 = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
	const uint64_t layer3 = flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
	const bool v4 = sl_endpoint_is_v4(found->local);
	uint32_t sum;

	if (v4 && layer3 != RTE_MBUF_F_RX_IP_CKSUM_GOOD && layer3 != RTE_MBUF_F_RX_IP_CKSUM_NONE) {
		const struct rte_ipv4_hdr *ip = found->ip;

		if (sl_sum(ip, (size_t)(ip->version_ihl & 15) * 4) != 0xffff)
			return false;
	}
	if (layer4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || layer4 == RTE_MBUF_F_RX_L4_CKSUM_NONE)
		return true;
	if (!found->udp->dgram_cksum)
		return v4; // RFC 8200, section 8.1: IPv6 must have one
	// Over what carries its own complement the sum is nought (RFC 1071).
	sum = sl_sum(found->udp, found->udp_bytes) +
	      (v4 ? rte_ipv4_phdr_cksum(found->ip, 0) : rte_ipv6_phdr_cksum(found->ip, 0));
	return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

bool sl_lane_take_datagram(struct sl_lane *lane, unsigned interface, const uint8_t *frame,
			   size_t bytes, uint64_t flags)
{
	struct sl_datagram_source *source;
	struct found found;
	size_t size, whole;

	if (bytes < RTE_ETHER_HDR_LEN)
		return false;
	if (frame[12] == 0x08 && frame[13] == 0x00   ? !find_v4(&found, frame, bytes)
	    : frame[12] == 0x86 && frame[13] == 0xdd ? !find_v6(&found, frame, bytes)
						     : true)
		return false;
	source = source_of(lane, &lane->dpdk->plan.stack.interfaces[interface], &found);
	if (!source)
		return false;
	whole = rte_be_to_cpu_16(found.udp->dgram_len);
	if (found.fragment || RTE_ETHER_HDR_LEN + found.ip_bytes > bytes ||
	    whole != found.udp_bytes || whole < sizeof(*found.udp) ||
	    !checksums_fit(&found, flags)) {
		sl_count(&lane->counters.broken[0], 1);
	} else {
		size = whole - sizeof(*found.udp);
		source->received(source, &found.peer,
				 sl_bytes(found.udp + 1, SL_MIN(size, source->bytes_max)),
				 size > source->bytes_max, lane->now_ns);
	}
	return true;
}

int sl_lane_take_datagrams(struct sl_io_backend *backend, struct sl_datagram_source *source)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);

	if (lane->datagram_count == SL_LANE_DATAGRAMS_MAX)
		return -ENOSPC;
	lane->datagrams[lane->datagram_count++] = source;
	return 0;
}

void sl_lane_leave_datagrams(struct sl_io_backend *backend, struct sl_datagram_source *source)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);

	for (uint32_t i = 0; i < lane->datagram_count; i++) {
		if (lane->datagrams[i] == source)
			lane->datagrams[i--] = lane->datagrams[--lane->datagram_count];
	}
}
