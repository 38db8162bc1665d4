#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/base/hash.h"
#include "perf/pktgen/pktgen.h"

static const char usage[] =
	"usage: sluice-pktgen --target IP:PORT --address IP/PREFIX --eal ARG [--eal ARG ...] "
	"[options]\n"
	"       sluice-pktgen --target IP:PORT --address IP/PREFIX --pcap FILE --mac MAC "
	"[options]\n"
	"  --eal A           an argument of DPDK's EAL, as often as needed\n"
	"  --tcp             gRPC calls over TCP instead of datagrams\n"
	"  --rate R          datagrams or calls a second, open loop (1000); 0 with --tcp: as fast\n"
	"                    as answers come\n"
	"  --no-offloads     checksums and segments are made here, not by the port\n"
	"  --seconds T       measured time (10)    --warm-up T   before it (1)\n"
	"  --signal S        traces, metrics or logs (logs)\n"
	"  --items K         spans, points or records in each (1)\n"
	"  --flows N         (256)                 --sources N   addresses from --address on (1)\n"
	"  --connections N   (16)                  --streams M   calls at a time on each (4)\n"
	"  --mtu N           (1500)                --gateway IP\n"
	"  --mac MAC         the target's; without it ARP asks\n"
	"  --admin PORT      of the gateway on loopback: what it received is asked there\n"
	"  --pid PID         of the gateway: its CPU in the measured time is told\n"
	"  --packets N       in the pcap file (100000)\n"
	"  --json            print one JSON object\n"
	"Exit code 1 when nothing arrived.\n";

static void fail(const char *text)
{
	fprintf(stderr, "sluice-pktgen: %s\n%s", text, usage);
	exit(64);
}

int64_t sl_pktgen_metric(uint16_t admin, const char *name)
{
	static const char ask[] = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
	const struct sockaddr_in at = {.sin_family = AF_INET,
				       .sin_port = htons(admin),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *file = fd >= 0 ? fdopen(fd, "r+") : NULL;
	const struct timeval patience = {.tv_sec = 5};
	const size_t size = strlen(name);
	int64_t sum = -1;
	char line[4096];

	if (!file || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
	    write(fd, ask, sizeof(ask) - 1) < 0)
		goto end;
	while (fgets(line, sizeof(line), file)) {
		const char *value = strrchr(line, ' ');

		if (value && strncmp(line, name, size) == 0 &&
		    (line[size] == ' ' || line[size] == '{'))
			sum = (sum < 0 ? 0 : sum) + (int64_t)strtod(value, NULL);
	}
end:
	if (file)
		fclose(file);
	return sum;
}

static void parse_target(struct sl_pktgen_options *options, const char *text)
{
	char host[64];
	const char *colon = strrchr(text, ':');

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		fail("--target wants IP:PORT");
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
	options->target = text;
	options->port = (uint16_t)atoi(colon + 1);
	if (inet_pton(AF_INET, host, options->to) != 1 || !options->port)
		fail("--target wants IP:PORT");
}

static void parse_address(struct sl_pktgen_options *options, const char *text)
{
	char host[64];

	snprintf(host, sizeof(host), "%.*s", (int)strcspn(text, "/"), text);
	options->address = text;
	if (inet_pton(AF_INET, host, options->source) != 1)
		fail("--address wants IP/PREFIX");
}

static void parse_mac(struct sl_pktgen_options *options, const char *text)
{
	uint8_t *to = options->mac;

	if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &to[0], &to[1], &to[2], &to[3], &to[4],
		   &to[5]) != 6)
		fail("--mac wants aa:bb:cc:dd:ee:ff");
}

enum {
	EAL = 1,
	TARGET,
	ADDRESS,
	MAC,
	SIGNAL,
	TCP,
	JSON,
	PCAP,
	GATEWAY,
	RATE,
	SECONDS,
	WARM_UP,
	NO_OFFLOADS,
	ADMIN,
	PID,
	NUMBERS
};

static const struct option longs[] = {
	{"eal", 1, NULL, EAL},
	{"target", 1, NULL, TARGET},
	{"address", 1, NULL, ADDRESS},
	{"mac", 1, NULL, MAC},
	{"signal", 1, NULL, SIGNAL},
	{"tcp", 0, NULL, TCP},
	{"json", 0, NULL, JSON},
	{"pcap", 1, NULL, PCAP},
	{"gateway", 1, NULL, GATEWAY},
	{"rate", 1, NULL, RATE},
	{"seconds", 1, NULL, SECONDS},
	{"warm-up", 1, NULL, WARM_UP},
	{"admin", 1, NULL, ADMIN},
	{"pid", 1, NULL, PID},
	{"no-offloads", 0, NULL, NO_OFFLOADS},
	{"items", 1, NULL, NUMBERS},
	{"flows", 1, NULL, NUMBERS + 1},
	{"sources", 1, NULL, NUMBERS + 2},
	{"connections", 1, NULL, NUMBERS + 3},
	{"streams", 1, NULL, NUMBERS + 4},
	{"mtu", 1, NULL, NUMBERS + 5},
	{"packets", 1, NULL, NUMBERS + 6},
	{NULL, 0, NULL, 0},
};

static void take_signal(struct sl_pktgen_options *options, const char *value)
{
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		if (strcmp(value, sl_signal_names[i]) == 0) {
			options->signal = (enum sl_signal)i;
			return;
		}
	}
	fail("--signal wants traces, metrics or logs");
}

static void take_option(struct sl_pktgen_options *options, int letter, const char *value)
{
	uint32_t *const numbers[] = {&options->items,       &options->flows,   &options->sources,
				     &options->connections, &options->streams, &options->mtu,
				     &options->packets};

	switch (letter) {
	case EAL:
		if (options->eal_count == SL_COUNT_OF(options->eal))
			fail("too many --eal");
		options->eal[options->eal_count++] = value;
		break;
	case TARGET:
		parse_target(options, value);
		break;
	case ADDRESS:
		parse_address(options, value);
		break;
	case MAC:
		parse_mac(options, value);
		break;
	case SIGNAL:
		take_signal(options, value);
		break;
	case TCP:
		options->tcp = true;
		break;
	case JSON:
		options->json = true;
		break;
	case PCAP:
		options->pcap = value;
		break;
	case GATEWAY:
		options->gateway = value;
		break;
	case RATE:
		options->rate = atof(value);
		break;
	case SECONDS:
		options->seconds = atof(value);
		break;
	case WARM_UP:
		options->warm_up = atof(value);
		break;
	case NO_OFFLOADS:
		options->no_offloads = true;
		break;
	case PID:
		options->pid = atoi(value);
		break;
	case ADMIN:
		options->admin = (uint16_t)atoi(value);
		break;
	default:
		if (letter < NUMBERS || letter >= NUMBERS + (int)SL_COUNT_OF(numbers))
			fail("unknown option");
		*numbers[letter - NUMBERS] = (uint32_t)strtoul(value, NULL, 10);
		if (!*numbers[letter - NUMBERS])
			fail("a number above 0 is wanted");
	}
}

static void print_results(const struct sl_pktgen_options *options,
			  const struct sl_pktgen_results *results)
{
	static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
	const uint64_t lost = results->offered - SL_MIN(results->received, results->offered);
	const struct sl_latency *latency = &results->totals.latency;
	double ms[4];

	for (unsigned i = 0; i < 4; i++)
		ms[i] = (double)sl_latency_at(latency, quantiles[i]) / 1e6;
	if (options->json) {
		printf("{\"seconds\": %.3f, \"offered\": %lu, \"sent\": %lu, \"received\": %ld, "
		       "\"lost\": %ld, \"cpu_seconds\": %.3f, \"answered\": %lu, \"frame_bytes\": "
		       "%lu, \"items\": %u, "
		       "\"failed\": %lu, "
		       "\"connections_lost\": %u, \"p50_ms\": %.3f, \"p90_ms\": %.3f, "
		       "\"p99_ms\": %.3f, \"p999_ms\": %.3f}\n",
		       results->seconds, results->offered, results->sent,
		       results->counted ? (long)results->received : -1L,
		       results->counted ? (long)lost : -1L, results->cpu_seconds, results->answered,
		       results->frame_bytes, options->items, results->totals.failed,
		       results->lost_connections, ms[0], ms[1], ms[2], ms[3]);
		return;
	}
	printf("%.1f s: offered %lu, sent %lu (%.0f/s)", results->seconds, results->offered,
	       results->sent, (double)results->sent / results->seconds);
	if (results->counted)
		printf(", received %lu, lost %lu", results->received, lost);
	printf("\n");
	if (options->tcp)
		printf("latency ms: p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f; %lu failed, %u "
		       "connections lost\n",
		       ms[0], ms[1], ms[2], ms[3], results->totals.failed,
		       results->lost_connections);
}

int main(int argc, char **argv)
{
	struct sl_pktgen_options options = {.signal = SL_LOGS,
					    .items = 1,
					    .flows = 256,
					    .sources = 1,
					    .connections = 16,
					    .streams = 4,
					    .mtu = 1500,
					    .packets = 100000,
					    .rate = 1000,
					    .seconds = 10,
					    .warm_up = 1};
	struct sl_pktgen_results results = {0};
	struct sl_dpdk_config config = {0};
	struct sl_dpdk *dpdk;
	char error[512];
	int letter, failed;

	while ((letter = getopt_long(argc, argv, "", longs, NULL)) != -1)
		take_option(&options, letter, optarg);
	if (!options.target || !options.address || (!options.eal_count && !options.pcap))
		fail("--target, --address and --eal (or --pcap) are needed");
	if (options.mtu > SL_PKTGEN_FRAME_BYTES_MAX - 14)
		fail("--mtu is too large");
	if (options.pcap)
		return sl_pktgen_write_pcap(&options) < 0;
	sl_hash_seed();
	config = (struct sl_dpdk_config){.eal = options.eal,
					 .eal_count = options.eal_count,
					 .only = {.addresses = &options.address,
						  .address_count = 1,
						  .gateway4 = options.gateway,
						  .mtu = options.mtu},
					 .offloads = !options.no_offloads,
					 .segmentation = !options.no_offloads};
	dpdk = sl_dpdk_open(&config, 1, sl_metrics_create(), error, sizeof(error));
	if (!dpdk) {
		fprintf(stderr, "sluice-pktgen: %s\n", error);
		return 1;
	}
	failed = options.tcp ? sl_pktgen_call(&options, dpdk, &results)
			     : sl_pktgen_send(&options, dpdk, &results);
	if (!failed)
		print_results(&options, &results);
	else
		fprintf(stderr, "sluice-pktgen: nothing was %s by %s: %s\n",
			options.tcp ? "answered" : "taken", options.target, strerror(-failed));
	fflush(stdout);
	return failed || (results.counted && !results.received) || results.lost_connections ? 1 : 0;
}
