#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "dataplane/base/base.h"

// Socket addresses and address ranges. Threading: any; plain values.
struct sl_address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} u;
	socklen_t size; // 0: none
};

#define SL_ADDRESS_TEXT_MAX 64

// "127.0.0.1:4317", "[::1]:4317", ":4317" (any IPv6 and IPv4 address), port 0 allowed.
// Returns 0 or -EINVAL. Names are not resolved.
int sl_address_parse(struct sl_address *address, const char *text);

// "host:port" with the host kept as text: for names. `host` holds at least 256 bytes.
int sl_address_split(const char *text, char *host, uint16_t *port);

// Writes "127.0.0.1:4317"; returns `text`.
const char *sl_address_text(const struct sl_address *address, char text[SL_ADDRESS_TEXT_MAX]);

// Whether one socket cannot listen on `a` while another does on `b`: the same port, and the same
// host or any host of its family (":4317" takes IPv4 too). Port 0 is always another.
bool sl_address_clashes(const struct sl_address *a, const struct sl_address *b);

uint16_t sl_address_port(const struct sl_address *address);

// A CIDR block: "10.0.0.0/8", "fd00::/8", or one address. IPv4 peers on an IPv6 socket
// (::ffff:a.b.c.d) match IPv4 blocks.
struct sl_cidr {
	uint8_t bytes[16]; // IPv4 as ::ffff:a.b.c.d
	uint8_t prefix;    // 0..128
};
int sl_cidr_parse(struct sl_cidr *cidr, const char *text);
bool sl_cidr_has(const struct sl_cidr *cidr, const struct sl_address *address);
bool sl_address_is_loopback(const struct sl_address *address);
