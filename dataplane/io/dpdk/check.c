#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/io/dpdk/config.h"

#define MTU_LEAST       1280 // RFC 8200, section 5
#define PACKETS_A_SHARD 16384
#define PACKETS_A_PORT  4096 // beyond the first, and a shard: what its queues hold
#define LEAST_A_PORT    4096 // what AF_XDP's queue holds, and as many on their way
#define LEAST_A_SHARD   512  // and a port: what the pool's cache keeps for its thread, and a burst
#define FRAME_ROOM      22   // Ethernet's header and checksum, and a tag
#define PACKET_OVERHEAD (64 + 128 + SL_STACK_ROOM_BYTES + 128) // pool's, mbuf, ours, headroom
#define STACK_BYTES     (48 * SL_MIB)                          // one of lwIP, its pools in it

static int parse_ip(uint8_t to[16], const char *text)
{
	memset(to, 0, 16);
	if (inet_pton(AF_INET, text, to + 12) == 1) {
		to[10] = to[11] = 0xff;
		return 32;
	}
	return inet_pton(AF_INET6, text, to) == 1 ? 128 : -EINVAL;
}

static int parse_cidr(uint8_t to[16], uint8_t *prefix, const char *text)
{
	char host[64];
	const char *slash = strchr(text, '/');
	const size_t size = slash ? (size_t)(slash - text) : strlen(text);
	char *rest;
	int most;
	long bits;

	if (size >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, size);
	host[size] = '\0';
	most = parse_ip(to, host);
	if (most < 0)
		return most;
	bits = slash ? strtol(slash + 1, &rest, 10) : most;
	if (slash && (*rest || rest == slash + 1))
		return -EINVAL;
	if (bits < 0 || bits > most)
		return -EINVAL;
	*prefix = (uint8_t)bits;
	return 0;
}

// What is being read, and where complaints go.
struct reader {
	struct sl_dpdk_plan *plan;
	char *error;
	size_t error_size;
	unsigned index; // of the interface
	bool listed;    // in `interfaces`
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct reader *reader,
							const char *format, ...)
{
	const struct sl_dpdk_place *place = &reader->plan->places[reader->index];
	va_list arguments;
	int size;

	if (!reader->listed)
		size = snprintf(reader->error, reader->error_size, "dpdk: ");
	else
		size = snprintf(reader->error, reader->error_size,
				"dpdk: interface %u (%s, vlan %u): ", reader->index + 1,
				place->device ? place->device : "the first port", place->vlan);
	va_start(arguments, format);
	if (size > 0 && (size_t)size < reader->error_size)
		vsnprintf(reader->error + size, reader->error_size - (size_t)size, format,
			  arguments);
	va_end(arguments);
	return -EINVAL;
}

static struct sl_stack_interface *current(const struct reader *reader)
{
	return &reader->plan->stack.interfaces[reader->index];
}

static int set_gateway(const struct reader *reader, uint8_t *to, size_t size, const char *text)
{
	const int version = size == 4 ? 4 : 6;
	uint8_t address[16];

	if (!text)
		return 0;
	if (parse_ip(address, text) != (int)size * 8)
		return refuse(reader, "gateway%d \"%s\" is not an IPv%d address", version, text,
			      version);
	memcpy(to, address + 16 - size, size);
	return 0;
}

static unsigned count_of(const struct sl_stack_interface *interface, bool v4)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < interface->address_count; i++)
		count += sl_endpoint_is_v4(interface->addresses[i].address) == v4;
	return count;
}

static bool is_host(const struct sl_stack_address *address)
{
	return address->prefix == (sl_endpoint_is_v4(address->address) ? 32 : 128);
}

static int add_address(const struct reader *reader, const char *text)
{
	struct sl_stack_interface *interface = current(reader);
	struct sl_stack_address *to = &interface->addresses[interface->address_count];
	bool further;

	if (interface->address_count == SL_STACK_ADDRESSES_MAX)
		return refuse(reader, "at most %d addresses", SL_STACK_ADDRESSES_MAX);
	if (parse_cidr(to->address, &to->prefix, text) < 0)
		return refuse(reader,
			      "\"%s\" is not an address with a prefix, like \"10.0.0.2/24\"", text);
	if (sl_stack_owns(interface, to->address))
		return refuse(reader, "\"%s\" is there twice", text);
	further = sl_endpoint_is_v4(to->address) && count_of(interface, true);
	if (further && !is_host(to))
		return refuse(reader,
			      "\"%s\" is a second IPv4 subnet; further addresses are VIPs, like "
			      "\"203.0.113.7/32\", and a subnet more is an interface more",
			      text);
	interface->address_count++;
	if (count_of(interface, false) > SL_STACK_SIXES_MAX)
		return refuse(reader, "at most %d IPv6 addresses", SL_STACK_SIXES_MAX);
	return 0;
}

static bool same_name(const char *one, const char *other)
{
	return one && other ? strcmp(one, other) == 0 : one == other;
}

static int read_interface(const struct reader *reader, const struct sl_dpdk_interface *from,
			  uint32_t mtu)
{
	struct sl_stack_interface *interface = current(reader);
	struct sl_dpdk_place *places = reader->plan->places;
	int failed = 0;

	places[reader->index] = (struct sl_dpdk_place){from->device, from->vlan};
	interface->mtu = (uint16_t)mtu;
	for (unsigned i = 0; i < reader->index; i++) {
		if (same_name(places[i].device, from->device) && places[i].vlan == from->vlan)
			return refuse(reader, "interface %u is the same device and VLAN", i + 1);
	}
	if (mtu < MTU_LEAST)
		return refuse(reader, "an mtu of %u; IPv6 needs %d", mtu, MTU_LEAST);
	if (!from->address_count)
		return refuse(reader, "addresses must name at least one, like \"10.0.0.2/24\"");
	for (size_t i = 0; i < from->address_count && !failed; i++)
		failed = add_address(reader, from->addresses[i]);
	if (!failed)
		failed = set_gateway(reader, interface->gateway4, 4, from->gateway4);
	if (!failed)
		failed = set_gateway(reader, interface->gateway6, 16, from->gateway6);
	for (unsigned version = 4; version <= 6 && !failed; version += 2) {
		const char *gateway = version == 4 ? from->gateway4 : from->gateway6;

		if (gateway && !count_of(interface, version == 4))
			failed = refuse(reader,
					"gateway%u \"%s\" serves nobody: there is no IPv%u address",
					version, gateway, version);
	}
	return failed;
}

static bool same_bits(const uint8_t one[16], const uint8_t other[16], unsigned bits)
{
	for (unsigned i = 0; i < bits; i++) {
		if ((one[i / 8] ^ other[i / 8]) >> (7 - i % 8) & 1)
			return false;
	}
	return true;
}

// An address of a host alone is no subnet: it may be everywhere.
static bool meet(const struct sl_stack_address *one, const struct sl_stack_address *other)
{
	const bool v4 = sl_endpoint_is_v4(one->address);

	return !is_host(one) && !is_host(other) && v4 == sl_endpoint_is_v4(other->address) &&
	       same_bits(one->address, other->address,
			 (v4 ? 96u : 0u) + SL_MIN(one->prefix, other->prefix));
}

// Two interfaces in one subnet: neighbours could be at either.
static int check_subnets(const struct reader *reader, unsigned other)
{
	const struct sl_stack_interface *mine = current(reader);
	const struct sl_stack_interface *theirs = &reader->plan->stack.interfaces[other];
	char text[INET6_ADDRSTRLEN];

	for (uint32_t i = 0; i < mine->address_count; i++) {
		const struct sl_stack_address *one = &mine->addresses[i];
		const bool v4 = sl_endpoint_is_v4(one->address);

		for (uint32_t k = 0; k < theirs->address_count; k++) {
			if (!meet(one, &theirs->addresses[k]))
				continue;
			inet_ntop(v4 ? AF_INET : AF_INET6, one->address + (v4 ? 12 : 0), text,
				  sizeof(text));
			return refuse(reader,
				      "\"%s/%u\" is in the subnet of interface %u; an address of "
				      "both is a VIP, with a prefix of %d",
				      text, one->prefix, other + 1, v4 ? 32 : 128);
		}
	}
	return 0;
}

// The addresses beside the list are VIPs of all interfaces that speak their version.
static int add_vip(struct reader *reader, const char *text)
{
	struct sl_stack_address vip;
	bool v4, anywhere = false;
	int failed = 0;

	if (parse_cidr(vip.address, &vip.prefix, text) < 0 || !is_host(&vip)) {
		snprintf(reader->error, reader->error_size,
			 "dpdk: \"%s\" beside interfaces is not a VIP, like \"203.0.113.7/32\"",
			 text);
		return -EINVAL;
	}
	v4 = sl_endpoint_is_v4(vip.address);
	for (reader->index = 0; reader->index < reader->plan->stack.interface_count && !failed;
	     reader->index++) {
		if (!count_of(current(reader), v4))
			continue;
		failed = add_address(reader, text);
		anywhere = true;
	}
	if (anywhere)
		return failed;
	snprintf(reader->error, reader->error_size,
		 "dpdk: the VIP \"%s\" is on no interface: none has an IPv%d address", text,
		 v4 ? 4 : 6);
	return -EINVAL;
}

static int refuse_beside(const struct reader *reader, const char *what)
{
	snprintf(reader->error, reader->error_size,
		 "dpdk: %s is each interface's own: it belongs into dpdk.interfaces", what);
	return -EINVAL;
}

static int read_list(struct reader *reader, const struct sl_dpdk_config *config)
{
	const struct sl_dpdk_interface *beside = &config->only;
	uint32_t *count = &reader->plan->stack.interface_count;
	int failed = 0;

	if (beside->device || beside->vlan || beside->gateway4 || beside->gateway6)
		return refuse_beside(reader, beside->device     ? "device"
					     : beside->vlan     ? "vlan"
					     : beside->gateway4 ? "gateway4"
								: "gateway6");
	if (config->interface_count > SL_STACK_INTERFACES_MAX) {
		snprintf(reader->error, reader->error_size, "dpdk: at most %d interfaces",
			 SL_STACK_INTERFACES_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; i < config->interface_count && !failed; i++) {
		const struct sl_dpdk_interface *from = &config->interfaces[i];

		reader->index = (*count)++;
		failed = read_interface(reader, from, from->mtu ? from->mtu : beside->mtu);
		for (unsigned other = 0; other < reader->index && !failed; other++)
			failed = check_subnets(reader, other);
	}
	for (size_t i = 0; i < beside->address_count && !failed; i++)
		failed = add_vip(reader, beside->addresses[i]);
	return failed;
}

// By name: at the start two names may turn out to be one port's, and none less.
static uint32_t port_count(const struct sl_dpdk_plan *plan)
{
	uint32_t ports = 0;

	for (uint32_t i = 0; i < plan->stack.interface_count; i++) {
		uint32_t before = 0;

		while (before < i &&
		       !same_name(plan->places[before].device, plan->places[i].device))
			before++;
		ports += before == i;
	}
	return ports;
}

int sl_dpdk_check_packets(const struct sl_dpdk_config *config, const struct sl_dpdk_plan *plan,
			  uint32_t shards, char *error, size_t error_size)
{
	const uint32_t ports = port_count(plan);
	const uint64_t least = ports * (LEAST_A_PORT + (uint64_t)shards * LEAST_A_SHARD);

	if (!config->packets || config->packets >= least)
		return 0;
	snprintf(error, error_size,
		 "dpdk: packets of %u are too few: ports %u, shards %u; at least %llu, or 0 for "
		 "the preset",
		 config->packets, ports, shards, (unsigned long long)least);
	return -EINVAL;
}

int sl_dpdk_make_plan(const struct sl_dpdk_config *config, struct sl_dpdk_plan *plan, char *error,
		      size_t error_size)
{
	struct reader reader = {plan, error, error_size, 0, config->interface_count > 0};

	memset(plan, 0, sizeof(*plan));
	if (reader.listed)
		return read_list(&reader, config);
	plan->stack.interface_count = 1;
	return read_interface(&reader, &config->only, config->only.mtu);
}

int sl_dpdk_check(const struct sl_dpdk_config *config, uint32_t shards, char *error,
		  size_t error_size)
{
	struct sl_dpdk_plan plan;
	int failed;

	if (!sl_dpdk_is_built_in()) {
		snprintf(error, error_size,
			 "io: dpdk: this build has no DPDK; install the packages of kind dpdk "
			 "(docker/install.sh dpdk) and build again");
		return -EINVAL;
	}
	failed = sl_dpdk_make_plan(config, &plan, error, error_size);
	return failed ? failed : sl_dpdk_check_packets(config, &plan, shards, error, error_size);
}

uint32_t sl_dpdk_packets(const struct sl_dpdk_config *config, uint32_t shards, uint32_t ports)
{
	return config->packets ? config->packets
			       : shards * (PACKETS_A_SHARD + (ports - 1) * PACKETS_A_PORT);
}

uint32_t sl_dpdk_frame_room(const struct sl_dpdk_plan *plan)
{
	// Devices count a buffer's room in KiB, down: one frame is to fit whole.
	uint32_t largest = 0, frame;

	for (uint32_t i = 0; i < plan->stack.interface_count; i++)
		largest = SL_MAX(largest, (uint32_t)plan->stack.interfaces[i].mtu);
	frame = (largest + FRAME_ROOM + 1023) & ~1023u;
	return SL_MAX(frame, 2048u);
}

uint64_t sl_dpdk_memory_bytes(const struct sl_dpdk_config *config, uint32_t shards)
{
	struct sl_dpdk_plan plan;
	char error[256];

	if (sl_dpdk_make_plan(config, &plan, error, sizeof(error)) < 0)
		return 0;
	return (uint64_t)sl_dpdk_packets(config, shards, port_count(&plan)) *
		       (sl_dpdk_frame_room(&plan) + PACKET_OVERHEAD) +
	       shards * (uint64_t)STACK_BYTES;
}
