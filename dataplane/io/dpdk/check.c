#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/io/dpdk/config.h"

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

static int set_gateway(uint8_t *to, size_t size, const char *text, char *error, size_t error_size)
{
	uint8_t address[16];
	const int bits = text ? parse_ip(address, text) : 0;

	if (!text)
		return 0;
	if (bits != (int)size * 8) {
		snprintf(error, error_size, "dpdk: gateway%d \"%s\" is not an IPv%d address",
			 size == 4 ? 4 : 6, text, size == 4 ? 4 : 6);
		return -EINVAL;
	}
	memcpy(to, address + 16 - size, size);
	return 0;
}

int sl_dpdk_stack_config(const struct sl_dpdk_config *config, struct sl_stack_config *stack,
			 char *error, size_t error_size)
{
	unsigned sixes = 0;
	int failed;

	memset(stack, 0, sizeof(*stack));
	stack->mtu = (uint16_t)config->mtu;
	if (!config->address_count) {
		snprintf(error, error_size,
			 "dpdk: addresses must name at least one, like \"10.0.0.2/24\"");
		return -EINVAL;
	}
	for (size_t i = 0; i < config->address_count; i++) {
		uint8_t *to = stack->addresses[stack->address_count].address;

		if (stack->address_count == SL_STACK_ADDRESSES_MAX) {
			snprintf(error, error_size, "dpdk: at most %d addresses",
				 SL_STACK_ADDRESSES_MAX);
			return -EINVAL;
		}
		if (parse_cidr(to, &stack->addresses[stack->address_count].prefix,
			       config->addresses[i]) < 0) {
			snprintf(error, error_size,
				 "dpdk: \"%s\" is not an address with a prefix, like "
				 "\"10.0.0.2/24\"",
				 config->addresses[i]);
			return -EINVAL;
		}
		stack->address_count++;
		sixes += !sl_endpoint_is_v4(to);
	}
	if (sixes > 3) {
		snprintf(error, error_size, "dpdk: at most 3 IPv6 addresses");
		return -EINVAL;
	}
	failed = set_gateway(stack->gateway4, 4, config->gateway4, error, error_size);
	if (!failed)
		failed = set_gateway(stack->gateway6, 16, config->gateway6, error, error_size);
	return failed;
}

int sl_dpdk_check(const struct sl_dpdk_config *config, char *error, size_t error_size)
{
	struct sl_stack_config stack;

	if (!sl_dpdk_is_built_in()) {
		snprintf(error, error_size,
			 "io: dpdk: this build has no DPDK; install the packages of kind dpdk "
			 "(docker/install.sh dpdk) and build again");
		return -EINVAL;
	}
	return sl_dpdk_stack_config(config, &stack, error, error_size);
}
