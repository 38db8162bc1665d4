#include <errno.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "perf/payload.h"
#include "perf/pktgen/pktgen.h"

// Datagrams: each flow has one frame, made beforehand; sending is a reference to it and no more.
#define BURST       32
#define PORT_FIRST  10000
#define SETTLE_NS   (300 * SL_MS) // until what is on its way has been counted
#define QUIET_LOOKS 10

// Flows differ in their source port, and in their address among `sources`.
void sl_pktgen_frame(struct sl_pktgen_frame *frame, const struct sl_pktgen_options *options,
		     const uint8_t source_mac[6], uint32_t flow)
{
	uint8_t *at = frame->data;
	struct rte_ipv4_hdr *ip = (void *)(at + 14);
	struct rte_udp_hdr *udp = (void *)(at + 34);
	uint32_t source;
	size_t size;

	memcpy(&source, options->source, 4);
	source = rte_cpu_to_be_32(rte_be_to_cpu_32(source) + flow % options->sources);
	size = sl_payload_build(at + 42, sizeof(frame->data) - 42, options->signal, options->items,
				flow % SL_PKTGEN_BODIES + 1);
	if (!size || size + 28 > options->mtu) {
		fprintf(stderr, "sluice-pktgen: %u items do not fit a datagram of the MTU\n",
			options->items);
		exit(64);
	}
	memcpy(at, options->mac, 6);
	memcpy(at + 6, source_mac, 6);
	at[12] = 0x08;
	at[13] = 0x00;
	*ip = (struct rte_ipv4_hdr){
		.version_ihl = 0x45,
		.total_length = rte_cpu_to_be_16((uint16_t)(size + 28)),
		.time_to_live = 64,
		.next_proto_id = IPPROTO_UDP,
		.src_addr = source,
	};
	memcpy(&ip->dst_addr, options->to, 4);
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	*udp = (struct rte_udp_hdr){
		.src_port = rte_cpu_to_be_16((uint16_t)(PORT_FIRST + flow / options->sources)),
		.dst_port = rte_cpu_to_be_16(options->port),
		.dgram_len = rte_cpu_to_be_16((uint16_t)(size + 8)),
	};
	udp->dgram_cksum = rte_ipv4_udptcp_cksum(ip, udp);
	frame->bytes = (uint16_t)(size + 42);
}

// The classic format (libpcap, savefile), microseconds, at the set rate.
int sl_pktgen_write_pcap(const struct sl_pktgen_options *options)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
	const uint32_t head[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, 65535, 1};
	FILE *file = fopen(options->pcap, "wb");
	struct sl_pktgen_frame frame;
	bool fine = file && fwrite(head, sizeof(head), 1, file) == 1;

	for (uint32_t i = 0; fine && i < options->packets; i++) {
		const uint64_t at_us = options->rate > 0 ? (uint64_t)(i / options->rate * 1e6) : i;
		uint32_t record[4] = {(uint32_t)(at_us / 1000000), (uint32_t)(at_us % 1000000)};

		sl_pktgen_frame(&frame, options, mac, i % options->flows);
		record[2] = record[3] = frame.bytes;
		fine = fwrite(record, sizeof(record), 1, file) == 1 &&
		       fwrite(frame.data, frame.bytes, 1, file) == 1;
	}
	if (file && fclose(file) != 0)
		fine = false;
	if (!fine)
		fprintf(stderr, "sluice-pktgen: %s: %s\n", options->pcap, strerror(errno));
	return fine ? 0 : -1;
}

// Asks who has the target's address, ten times a second (RFC 826).
static int resolve(struct sl_pktgen_options *options, struct sl_dpdk *dpdk)
{
	static const uint8_t head[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1};
	struct rte_mbuf *packets[BURST];

	for (unsigned tries = 0; tries < 100; tries++) {
		struct rte_mbuf *ask = rte_pktmbuf_alloc(dpdk->pools[0].packets);
		uint8_t *at = ask ? (uint8_t *)rte_pktmbuf_append(ask, 60) : NULL;
		const uint64_t until_ns = sl_clock_now_ns() + 100 * SL_MS;

		if (!at)
			return -ENOMEM;
		memset(at, 0, 60);
		memset(at, 0xff, 6);
		memcpy(at + 6, dpdk->plan.stack.interfaces[0].mac, 6);
		memcpy(at + 12, head, sizeof(head));
		memcpy(at + 22, dpdk->plan.stack.interfaces[0].mac, 6);
		memcpy(at + 28, options->source, 4);
		memcpy(at + 38, options->to, 4);
		if (!rte_eth_tx_burst(dpdk->ports[0].id, 0, &ask, 1))
			rte_pktmbuf_free(ask);
		while (sl_clock_now_ns() < until_ns) {
			const uint16_t got = rte_eth_rx_burst(dpdk->ports[0].id, 0, packets, BURST);

			for (uint16_t i = 0; i < got; i++) {
				const uint8_t *from = rte_pktmbuf_mtod(packets[i], uint8_t *);

				if (rte_pktmbuf_data_len(packets[i]) >= 42 && from[12] == 8 &&
				    from[13] == 6 && from[21] == 2 &&
				    memcmp(from + 28, options->to, 4) == 0)
					memcpy(options->mac, from + 22, 6);
				rte_pktmbuf_free(packets[i]);
			}
			if (memcmp(options->mac, "\0\0\0\0\0\0", 6) != 0)
				return 0;
		}
	}
	fprintf(stderr, "sluice-pktgen: nobody has %s\n", options->target);
	return -EHOSTUNREACH;
}

static struct rte_mbuf **make_frames(const struct sl_pktgen_options *options, struct sl_dpdk *dpdk,
				     uint64_t *frame_bytes)
{
	struct rte_mbuf **frames = calloc(options->flows, sizeof(struct rte_mbuf *));
	struct sl_pktgen_frame frame;

	for (uint32_t i = 0; frames && i < options->flows; i++) {
		char *to;

		sl_pktgen_frame(&frame, options, dpdk->plan.stack.interfaces[0].mac, i);
		frames[i] = rte_pktmbuf_alloc(dpdk->pools[0].packets);
		to = frames[i] ? rte_pktmbuf_append(frames[i], frame.bytes) : NULL;
		if (!to) {
			fprintf(stderr, "sluice-pktgen: no buffers for %u flows\n", options->flows);
			return NULL;
		}
		memcpy(to, frame.data, frame.bytes);
		*frame_bytes += frame.bytes;
	}
	*frame_bytes /= options->flows;
	return frames;
}

static int64_t received(const struct sl_pktgen_options *options)
{
	return options->admin ? sl_pktgen_metric(options->admin, "sluice_datagram_received_total")
			      : -1;
}

// Sends what is due at each moment; what the port does not take is lost.
static void send_for(const struct sl_pktgen_options *options, struct sl_dpdk *dpdk,
		     struct rte_mbuf **frames, double seconds, uint64_t *offered, uint64_t *sent)
{
	const uint64_t begin_ns = sl_clock_now_ns();
	struct rte_mbuf *burst[BURST];
	uint32_t flow = 0;

	*offered = *sent = 0;
	for (;;) {
		const double passed = (double)(sl_clock_now_ns() - begin_ns) / 1e9;
		const uint64_t due = (uint64_t)(SL_MIN(passed, seconds) * options->rate) - *offered;
		const uint16_t count = (uint16_t)SL_MIN(due, (uint64_t)BURST);
		uint16_t taken;

		if (passed >= seconds && !due)
			return;
		for (uint16_t i = 0; i < count; i++) {
			burst[i] = frames[flow];
			rte_mbuf_refcnt_update(burst[i], 1);
			if (++flow == options->flows)
				flow = 0;
		}
		taken = rte_eth_tx_burst(dpdk->ports[0].id, 0, burst, count);
		for (uint16_t i = taken; i < count; i++)
			rte_pktmbuf_free(burst[i]);
		*offered += count;
		*sent += taken;
	}
}

// What the gateway has received once all is there, or nothing more has come for a while: it may
// have to wait for its core.
static int64_t settled(const struct sl_pktgen_options *options, int64_t before, uint64_t sent)
{
	int64_t now = received(options);
	unsigned quiet = 0;

	while (now >= 0 && now - before < (int64_t)sent && quiet < QUIET_LOOKS) {
		const int64_t last = now;

		usleep(SETTLE_NS / SL_US);
		now = received(options);
		quiet = now == last ? quiet + 1 : 0;
	}
	return now;
}

int sl_pktgen_send(const struct sl_pktgen_options *given, struct sl_dpdk *dpdk,
		   struct sl_pktgen_results *results)
{
	struct sl_pktgen_options options = *given;
	static const uint8_t none[6];
	struct rte_mbuf **frames;
	uint64_t offered, sent;
	int64_t before, after;
	int failed = 0;

	if (memcmp(options.mac, none, 6) == 0)
		failed = resolve(&options, dpdk);
	if (failed)
		return failed;
	frames = make_frames(&options, dpdk, &results->frame_bytes);
	if (!frames)
		return -ENOMEM;
	before = received(&options);
	send_for(&options, dpdk, frames, options.warm_up, &offered, &sent);
	before = settled(&options, before, sent);
	results->seconds = options.seconds;
	results->cpu_seconds = sl_load_cpu_of(options.pid);
	send_for(&options, dpdk, frames, options.seconds, &results->offered, &results->sent);
	results->cpu_seconds = sl_load_cpu_of(options.pid) - results->cpu_seconds;
	after = settled(&options, before, results->sent);
	results->counted = before >= 0 && after >= 0;
	results->received = results->counted ? (uint64_t)(after - before) : 0;
	return 0;
}
