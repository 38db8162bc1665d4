#include "dataplane/base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define HOST_BYTES 256

int sl_address_split(const char *text, char *host, uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	const char *from = text;
	const char *to = colon;
	unsigned long value;
	char *end;

	if (!colon || !colon[1])
		return -EINVAL;
	if (text[0] == '[') {
		if (colon == text || colon[-1] != ']')
			return -EINVAL;
		from++;
		to--;
	} else if (memchr(text, ':', (size_t)(colon - text))) {
		return -EINVAL; // an IPv6 address without its brackets
	}
	if (to - from >= HOST_BYTES || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	value = strtoul(colon + 1, &end, 10);
	if (*end || value > UINT16_MAX)
		return -EINVAL;
	memcpy(host, from, (size_t)(to - from));
	host[to - from] = 0;
	*port = (uint16_t)value;
	return 0;
}

int sl_address_parse(struct sl_address *address, const char *text)
{
	char host[HOST_BYTES];
	uint16_t port;

	*address = (struct sl_address){0};
	if (sl_address_split(text, host, &port) < 0)
		return -EINVAL;
	if (host[0] == 0 || inet_pton(AF_INET6, host, &address->u.v6.sin6_addr) == 1) {
		address->u.v6.sin6_family = AF_INET6;
		address->u.v6.sin6_port = htons(port);
		address->size = sizeof(address->u.v6);
		return 0;
	}
	if (inet_pton(AF_INET, host, &address->u.v4.sin_addr) == 1) {
		address->u.v4.sin_family = AF_INET;
		address->u.v4.sin_port = htons(port);
		address->size = sizeof(address->u.v4);
		return 0;
	}
	return -EINVAL;
}

static bool is_any(const struct sl_address *address)
{
	return address->u.any.sa_family == AF_INET6
		       ? IN6_IS_ADDR_UNSPECIFIED(&address->u.v6.sin6_addr)
		       : address->u.v4.sin_addr.s_addr == INADDR_ANY;
}

bool sl_address_clashes(const struct sl_address *a, const struct sl_address *b)
{
	if (!a->size || !b->size || !sl_address_port(a) || sl_address_port(a) != sl_address_port(b))
		return false;
	if (a->u.any.sa_family != b->u.any.sa_family)
		return is_any(a->u.any.sa_family == AF_INET6 ? a : b);
	if (is_any(a) || is_any(b))
		return true;
	return a->u.any.sa_family == AF_INET6 ? memcmp(&a->u.v6.sin6_addr, &b->u.v6.sin6_addr,
						       sizeof(a->u.v6.sin6_addr)) == 0
					      : a->u.v4.sin_addr.s_addr == b->u.v4.sin_addr.s_addr;
}

uint16_t sl_address_port(const struct sl_address *address)
{
	if (address->u.any.sa_family == AF_INET)
		return ntohs(address->u.v4.sin_port);
	return address->u.any.sa_family == AF_INET6 ? ntohs(address->u.v6.sin6_port) : 0;
}

const char *sl_address_text(const struct sl_address *address, char text[SL_ADDRESS_TEXT_MAX])
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->u.any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &address->u.v4.sin_addr, host, sizeof(host));
		snprintf(text, SL_ADDRESS_TEXT_MAX, "%s:%u", host, sl_address_port(address));
	} else if (address->u.any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &address->u.v6.sin6_addr, host, sizeof(host));
		snprintf(text, SL_ADDRESS_TEXT_MAX, "[%s]:%u", host, sl_address_port(address));
	} else {
		snprintf(text, SL_ADDRESS_TEXT_MAX, "?");
	}
	return text;
}

static void mapped(uint8_t out[16], const struct in_addr *v4)
{
	memset(out, 0, 10);
	out[10] = out[11] = 0xff;
	memcpy(out + 12, v4, 4);
}

static bool address_bytes(const struct sl_address *address, uint8_t out[16])
{
	if (address->u.any.sa_family == AF_INET)
		mapped(out, &address->u.v4.sin_addr);
	else if (address->u.any.sa_family == AF_INET6)
		memcpy(out, &address->u.v6.sin6_addr, 16);
	else
		return false;
	return true;
}

int sl_cidr_parse(struct sl_cidr *cidr, const char *text)
{
	const char *slash = strchr(text, '/');
	const size_t length = slash ? (size_t)(slash - text) : strlen(text);
	char host[INET6_ADDRSTRLEN];
	struct in_addr v4;
	unsigned long prefix, widest = 128;
	char *end;

	if (length >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, length);
	host[length] = 0;
	if (inet_pton(AF_INET, host, &v4) == 1) {
		mapped(cidr->bytes, &v4);
		widest = 32;
	} else if (inet_pton(AF_INET6, host, cidr->bytes) != 1) {
		return -EINVAL;
	}
	prefix = widest;
	if (slash) {
		prefix = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end || prefix > widest)
			return -EINVAL;
	}
	cidr->prefix = (uint8_t)(prefix + 128 - widest);
	return 0;
}

bool sl_cidr_has(const struct sl_cidr *cidr, const struct sl_address *address)
{
	const unsigned whole = cidr->prefix / 8, rest = cidr->prefix % 8;
	uint8_t bytes[16];

	if (!address_bytes(address, bytes) || memcmp(cidr->bytes, bytes, whole) != 0)
		return false;
	return !rest || ((cidr->bytes[whole] ^ bytes[whole]) & (0xff00 >> rest) & 0xff) == 0;
}

bool sl_address_is_loopback(const struct sl_address *address)
{
	static const struct sl_cidr v4 = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 0},
					  104};
	static const struct sl_cidr v6 = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128};

	return sl_cidr_has(&v4, address) || sl_cidr_has(&v6, address);
}
