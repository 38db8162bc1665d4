#include "dataplane/shard/datagram.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "dataplane/shard/internal.h"

#include "config/rows.h"

#define SL_COUNTER_STRUCT_ struct sl_datagram_counters
SL_COUNTER_ROWS(datagram, SL_DATAGRAM_COUNTERS)

// --- settings ------------------------------------------------------------------------------------

static const char *const signals[] = {"traces", "metrics", "logs", NULL}; // as enum sl_signal

static const struct sl_setting listen_rows[] = {
	WHERE(sl_datagram_listen_config),
	ROW(sl_datagram_listen_config, address, "address", ADDRESS, .required = true,
	    .apply = SL_APPLY_RESTART, .help = "Address and UDP port."),
	ROW(sl_datagram_listen_config, signal, "signal", ENUM, .choices = signals,
	    .preset = "traces", .apply = SL_APPLY_RESTART,
	    .help = "What its datagrams are: one Export request of that signal each."),
};
static const struct sl_settings listen_settings = SETTINGS("datagrams.listen",
							   sl_datagram_listen_config, listen_rows,
							   .help = "One address for one signal.");

static const struct sl_setting tenant_rows[] = {
	WHERE(sl_datagram_tenant_config),
	ROW(sl_datagram_tenant_config, prefix, "prefix", CIDR, .required = true,
	    .help = "Source addresses."),
	ROW(sl_datagram_tenant_config, tenant, "tenant", STRING, .required = true,
	    .help = "The tenant they belong to; while it is not known they are refused."),
};
static const struct sl_settings tenant_settings = SETTINGS(
	"datagrams.tenants", sl_datagram_tenant_config, tenant_rows,
	.help = "A tenant by the address that datagrams come from. Whoever can send with another's "
		"address is taken for the other: filter at the edge (RFC 2827).");

static const struct sl_setting datagrams_rows[] = {
	WHERE(sl_datagrams_config),
	ROW(sl_datagrams_config, listen, "listen", LIST, .apply = SL_APPLY_RESTART,
	    .element = SL_TYPE_CHOICE, .object = &listen_settings, .shorthand = "address",
	    .help = "Addresses: {address, signal}, or an address alone for traces."),
	ROW(sl_datagrams_config, bytes, "bytes", BYTES, .min = 64, .max = SL_DATAGRAM_BYTES_MAX,
	    .preset = "9000", .apply = SL_APPLY_RESTART,
	    .help = "Largest datagram; what is longer is refused."),
	ROW(sl_datagrams_config, buffer, "buffer", BYTES, .min = 4096, .max = 1 << 30,
	    .preset = "8MiB", .apply = SL_APPLY_RESTART,
	    .help = "Receive buffer of each shard's socket; above net.core.rmem_max it needs "
		    "CAP_NET_ADMIN."),
	ROW(sl_datagrams_config, tenants, "tenants", LIST, .element = SL_TYPE_OBJECT,
	    .object = &tenant_settings,
	    .help = "Tenants by source address, the first that matches; others are named by "
		    "tenants.identify (resource attributes) or are the default tenant's."),
};

static void check_datagrams(const void *object, struct sl_errors *errors)
{
	const struct sl_datagrams_config *config = object;
	const struct sl_datagram_listen_config *listens = config->listen.items;

	if (!config->listen.count)
		sl_errors_add(errors, &config->where, "datagrams: listen needs an address");
	for (size_t i = 1; i < config->listen.count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (sl_address_clashes(&listens[i].address, &listens[j].address))
				sl_errors_add(errors, &listens[i].where,
					      "datagrams: listen: an earlier entry has that "
					      "address; each signal needs its own port");
		}
	}
}

const struct sl_settings sl_datagrams_settings = SETTINGS(
	"datagrams", sl_datagrams_config, datagrams_rows, .check = check_datagrams,
	.help = "OTLP in UDP datagrams, an extension: one Export request (protobuf, not "
		"compressed) in each, fire and forget.");

// --- a datagram's way in -------------------------------------------------------------------------

static void address_bytes(uint8_t to[16], const struct sl_address *peer)
{
	if (peer->u.any.sa_family == AF_INET6) {
		memcpy(to, &peer->u.v6.sin6_addr, 16);
		return;
	}
	// In one piece: it is hashed by words at once.
	const uint32_t words[4] = {0, 0, htonl(0xffff), peer->u.v4.sin_addr.s_addr};

	memcpy(to, words, sizeof(words));
}

static void look_up(const struct sl_shard *shard, const struct sl_address *peer,
		    struct sl_datagram_cached *entry)
{
	const struct sl_server_part *part = shard->snapshot->parts[SL_MODULE_SERVER];
	const struct sl_datagrams_config *config = part->datagrams;
	const struct sl_datagram_tenant_config *tenants = config ? config->tenants.items : NULL;

	entry->generation = shard->snapshot->generation;
	entry->tenant = SL_TENANT_NONE;
	entry->known = false;
	for (size_t i = 0; tenants && i < config->tenants.count; i++) {
		if (!sl_cidr_has(&tenants[i].prefix, peer))
			continue;
		entry->known = true;
		if (!sl_tenants_find(shard->snapshot->parts[SL_MODULE_TENANTS],
				     sl_bytes_of(tenants[i].tenant), &entry->tenant))
			entry->tenant = SL_TENANT_NONE;
		return;
	}
}

// By its source's prefix, else as a call without headers.
static struct sl_identity identify(struct sl_shard *shard, const struct sl_address *peer)
{
	const struct sl_identity_claim claim = {.peer = peer};
	struct sl_identity identity = {.tenant = SL_TENANT_NONE,
				       .reason = SL_REASON_UNKNOWN_TENANT};
	struct sl_datagram_cached *entry;
	struct sl_tenant_info info;
	uint8_t address[16];

	address_bytes(address, peer);
	entry = &shard->datagrams.cache[sl_hash(sl_bytes(address, 16)) % SL_DATAGRAM_CACHE];
	if (entry->generation != shard->snapshot->generation ||
	    memcmp(entry->address, address, 16) != 0) {
		memcpy(entry->address, address, 16);
		look_up(shard, peer, entry);
	}
	if (!entry->known)
		return sl_tenants_identify(shard->tenants, &claim, shard->wall_ns);
	if (entry->tenant == SL_TENANT_NONE ||
	    !sl_tenants_info(shard->snapshot->parts[SL_MODULE_TENANTS], entry->tenant, &info))
		return identity;
	identity.tenant = entry->tenant;
	identity.name = info.name;
	identity.reason = info.suspended ? SL_REASON_SUSPENDED : SL_REASON_NONE;
	return identity;
}

static enum sl_reason take(struct sl_shard *shard, struct sl_request *request,
			   const struct sl_address *peer, struct sl_bytes bytes)
{
	const struct sl_identity identity = identify(shard, peer);
	uint64_t retry_after_ns = 0;
	enum sl_reason reason = sl_shard_admit(shard, request, &identity, bytes.size, peer, false,
					       &retry_after_ns);
	uint8_t *body;

	if (reason != SL_REASON_NONE)
		return reason;
	if (bytes.size > request->body_bytes_max)
		return SL_REASON_BODY_TOO_LARGE;
	reason = sl_shard_host.reserve(shard, request, bytes.size, &retry_after_ns);
	if (reason != SL_REASON_NONE)
		return reason;
	body = sl_arena_alloc(&request->arena, bytes.size + SL_BODY_SLACK);
	if (!body)
		return SL_REASON_MEMORY_FULL;
	memcpy(body, bytes.data, bytes.size);
	memset(body + bytes.size, 0, SL_BODY_SLACK);
	request->received = sl_bytes(body, bytes.size);
	request->whole = true;
	return SL_REASON_NONE;
}

static void received(struct sl_datagram_source *source, const struct sl_address *peer,
		     struct sl_bytes bytes, bool truncated, uint64_t now_ns)
{
	const struct sl_shard_datagram_source *self = (struct sl_shard_datagram_source *)source;
	struct sl_shard *shard = self->shard;
	const struct sl_server_part *part = shard->snapshot->parts[SL_MODULE_SERVER];
	struct sl_datagram_counters *counters = &shard->datagrams.counters;
	enum sl_reason reason = SL_REASON_MEMORY_FULL;
	struct sl_request *request;

	sl_count(&counters->received[0], 1);
	sl_count(&counters->received_bytes[0], bytes.size);
	sl_count(&counters->in_flight[0], 1);
	if (truncated) {
		sl_count(&counters->truncated[0], 1);
		sl_shard_datagrams_answered(shard, SL_REASON_BODY_TOO_LARGE);
		return;
	}
	request = sl_shard_host.take(shard);
	if (request) {
		request->signal = self->signal;
		request->origin = (struct sl_origin){.protocol = SL_PROTOCOL_HTTP_PROTOBUF,
						     .coding = SL_CODING_IDENTITY,
						     .datagram = true};
		request->received_ns = now_ns;
		request->body_bytes_max = part->limits.body_bytes_max;
		request->answer_by_ns = now_ns + part->limits.answer_within_ns;
		reason = take(shard, request, peer, bytes);
	}
	if (reason == SL_REASON_NONE) {
		sl_shard_host.ready(shard, request);
		return;
	}
	if (request) {
		sl_shard_host.refused(shard, request, reason);
		sl_shard_host.give(shard, request);
	}
	sl_shard_datagrams_answered(shard, reason);
}

void sl_shard_datagrams_answered(struct sl_shard *shard, enum sl_reason reason)
{
	struct sl_datagram_counters *counters = &shard->datagrams.counters;

	sl_count(&counters->in_flight[0], -UINT64_C(1));
	if (reason == SL_REASON_NONE)
		sl_count(&counters->accepted[0], 1);
	else
		sl_count(&counters->refused[reason], 1);
}

// --- set-up --------------------------------------------------------------------------------------

int sl_shard_datagrams_start(struct sl_shard *shard, const struct sl_datagrams_config *config)
{
	struct sl_shard_datagrams *self = &shard->datagrams;
	const struct sl_datagram_listen_config *listens;
	int failed;

	if (!config)
		return 0;
	listens = config->listen.items;
	self->sources = calloc(config->listen.count, sizeof(*self->sources));
	self->cache = calloc(SL_DATAGRAM_CACHE, sizeof(*self->cache));
	if (!self->sources || !self->cache)
		return -ENOMEM;
	failed = sl_metrics_add(shard->options.metrics, sl_datagram_counter_rows,
				sl_datagram_counter_row_count, &self->counters,
				(int)shard->options.index, NULL);
	for (uint32_t i = 0; i < config->listen.count && !failed; i++) {
		struct sl_shard_datagram_source *to = &self->sources[i];

		to->shard = shard;
		to->signal = (enum sl_signal)listens[i].signal;
		to->source = (struct sl_datagram_source){
			.watch.fd = shard->options.datagram_fds[i],
			.address = listens[i].address,
			.bytes_max = (uint32_t)config->bytes,
			.received = received,
		};
		failed = sl_datagrams_join(shard->io, shard->options.backend, &to->source);
		if (!failed)
			self->count++;
	}
	return failed;
}

void sl_shard_datagrams_leave(struct sl_shard *shard)
{
	for (uint32_t i = 0; i < shard->datagrams.count; i++)
		sl_datagrams_leave(shard->options.backend, &shard->datagrams.sources[i].source);
}

void sl_shard_datagrams_fini(struct sl_shard *shard)
{
	sl_metrics_remove(shard->options.metrics, &shard->datagrams.counters);
	free(shard->datagrams.sources);
	free(shard->datagrams.cache);
}

void sl_shard_datagrams_measure(struct sl_shard *shard)
{
	struct sl_shard_datagrams *self = &shard->datagrams;
	uint64_t missed = 0;

	for (uint32_t i = 0; i < self->count; i++)
		missed += sl_datagrams_missed(&self->sources[i].source);
	// A closed socket tells no more.
	sl_gauge(&self->counters.missed[0], SL_MAX(missed, self->counters.missed[0]));
}
