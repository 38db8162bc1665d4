#pragma once

#include "dataplane/io/dpdk/internal.h"
#include "dataplane/otlp/signal.h"
#include "perf/load/client.h"

// sluice-pktgen: OTLP from a port of DPDK (or into a pcap file): datagrams of many flows at a set
// rate, or gRPC calls over TCP by the same stack that the gateway has.
//
// Threading: one thread. Memory: until the program ends. Time: ns of the monotonic clock.
#define SL_PKTGEN_FRAME_BYTES_MAX 9216
#define SL_PKTGEN_BODIES          32

struct sl_pktgen_options {
	const char *eal[SL_EAL_ARGUMENTS_MAX];
	size_t eal_count;
	const char *address, *target, *pcap, *gateway;
	uint8_t source[4], to[4]; // of `address` and `target`
	uint16_t port;
	uint8_t mac[6]; // of the target; all zero: asked for by ARP
	enum sl_signal signal;
	uint32_t items, flows, sources, connections, streams, mtu, packets;
	double rate, seconds, warm_up;
	uint16_t admin; // of the gateway, on loopback; 0: none
	int pid;        // the gateway's; 0: none
	bool tcp, json;
	bool no_offloads; // checksums are not the device's
};

struct sl_pktgen_results {
	double seconds;
	uint64_t offered;   // due in the measured time
	uint64_t sent;      // of them taken by the port, or started
	uint64_t received;  // of them, as the gateway counts; or answered
	bool counted;       // `received` is known
	double cpu_seconds; // the gateway's in that time
	uint64_t answered;  // calls in that time
	uint64_t frame_bytes;
	uint32_t lost_connections;
	struct sl_load_totals totals; // of calls
};

// frames.c
// Ethernet frames with one Export request each, flow by flow. Returns their number.
struct sl_pktgen_frame {
	uint16_t bytes;
	uint8_t data[SL_PKTGEN_FRAME_BYTES_MAX];
};
void sl_pktgen_frame(struct sl_pktgen_frame *frame, const struct sl_pktgen_options *options,
		     const uint8_t source_mac[6], uint32_t flow);
int sl_pktgen_write_pcap(const struct sl_pktgen_options *options);
int sl_pktgen_send(const struct sl_pktgen_options *options, struct sl_dpdk *dpdk,
		   struct sl_pktgen_results *results);

// calls.c
int sl_pktgen_call(const struct sl_pktgen_options *options, struct sl_dpdk *dpdk,
		   struct sl_pktgen_results *results);

// main.c: a counter of the gateway's, summed over its series; -1: not to be had.
int64_t sl_pktgen_metric(uint16_t admin, const char *name);
