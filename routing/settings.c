#include "routing/settings.h"

#include <stdio.h>

#include "routing/failover.h"

#include "config/rows.h"
#include "routing/spool_settings.h"

static const struct sl_setting blackhole_rows[] = {WHERE(sl_blackhole_config)};
static const struct sl_settings blackhole_settings = SETTINGS(
	"destination.blackhole", sl_blackhole_config, blackhole_rows,
	.help = "Takes everything and keeps nothing: for measurements.");

static const char *const file_formats[] = {"protobuf", "json", NULL};
static const struct sl_setting file_rows[] = {
	WHERE(sl_file_config),
	ROW(sl_file_config, path, "path", PATH, .required = true,
	    .help = "Folder; made when it is not there. Files are named "
		    "<signal>-<UTC time>-<number>.binpb or .jsonl."),
	ROW(sl_file_config, format, "format", ENUM, .choices = file_formats, .preset = "protobuf",
	    .help = "protobuf: Export requests, each behind its length as a varint. json: one "
		    "request a line."),
	ROW(sl_file_config, rotate_bytes, "rotate", BYTES, .min = 1024, .max = 1e15,
	    .preset = "256MiB", .help = "A new file begins when this one has reached it."),
	ROW(sl_file_config, rotate_age_ns, "rotate_age", DURATION, .preset = "1h",
	    .help = "A new file begins when this one is as old; 0: never."),
	ROW(sl_file_config, fsync, "fsync", BOOL, .preset = "false",
	    .help = "Confirm only what fsync has brought to the disk."),
};
static const struct sl_settings file_settings = SETTINGS("destination.file", sl_file_config,
							 file_rows, .help = "Files in a folder.");

static const struct sl_setting header_rows[] = {
	ROW(sl_name_value_config, name, NULL, KEY, .help = "The header's name."),
	ROW(sl_name_value_config, value, "value", STRING, .required = true, .secret = true,
	    .help = "What it says."),
};
const struct sl_settings sl_header_settings = SETTINGS("destination.header", sl_name_value_config,
						       header_rows, .help = "One header.");

static const struct sl_setting property_rows[] = {
	ROW(sl_name_value_config, name, NULL, KEY,
	    .help = "A property of librdkafka's CONFIGURATION.md."),
	ROW(sl_name_value_config, value, "value", STRING, .required = true, .secret = true,
	    .help = "Its value."),
};
static const struct sl_settings property_settings = SETTINGS(
	"destination.kafka.property", sl_name_value_config, property_rows, .help = "One property.");

static const struct sl_setting kafka_tls_rows[] = {
	ROW(sl_kafka_tls_config, ca_file, "ca_file", PATH, .watched = true,
	    .help = "PEM file of the authorities; without it the system's."),
	ROW(sl_kafka_tls_config, certificate_file, "certificate_file", PATH, .watched = true,
	    .help = "PEM file: the client's certificate."),
	ROW(sl_kafka_tls_config, key_file, "key_file", PATH, .watched = true,
	    .help = "PEM file: its key."),
	ROW(sl_kafka_tls_config, key_password, "key_password", STRING, .secret = true,
	    .help = "The key's password."),
	ROW(sl_kafka_tls_config, verify, "verify", BOOL, .preset = "true",
	    .help = "Check the broker's certificate and name."),
};
static const struct sl_settings kafka_tls_settings = SETTINGS("destination.kafka.tls",
							      sl_kafka_tls_config, kafka_tls_rows,
							      .help = "TLS to the brokers.");

const char *const sl_kafka_sasl[] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", NULL};
static const struct sl_setting kafka_sasl_rows[] = {
	ROW(sl_kafka_sasl_config, mechanism, "mechanism", ENUM, .choices = sl_kafka_sasl,
	    .preset = "PLAIN",
	    .help = "SCRAM does not work with Kafka 4 and this librdkafka (2.0.2)."),
	ROW(sl_kafka_sasl_config, username, "username", STRING, .required = true,
	    .help = "User name."),
	ROW(sl_kafka_sasl_config, password, "password", STRING, .required = true, .secret = true,
	    .help = "Password."),
};
static const struct sl_settings kafka_sasl_settings = SETTINGS(
	"destination.kafka.sasl", sl_kafka_sasl_config, kafka_sasl_rows,
	.help = "Login at the brokers.");

const char *const sl_kafka_acks[] = {"all", "1", "0", NULL};
const char *const sl_kafka_compressions[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
static const char *const partition_choices[] = {"none", "trace", NULL};
static const struct sl_setting kafka_rows[] = {
	WHERE(sl_kafka_config),
	ROW(sl_kafka_config, brokers, "brokers", LIST, .element = SL_TYPE_STRING, .required = true,
	    .help = "host:port of some brokers."),
	ROW(sl_kafka_config, topic, "topic", STRING, .preset = "\"otlp_{signal}\"",
	    .help = "Topic; {signal} is spans, metrics or logs, {tenant} the tenant's name. What "
		    "goes to a topic that is not there 2 s after its first use is refused for "
		    "good."),
	ROW(sl_kafka_config, partition_by, "partition_by", ENUM, .choices = partition_choices,
	    .preset = "none",
	    .help = "trace: one record a trace, its key the trace id in hex (spans and logs; "
		    "metrics go whole)."),
	ROW(sl_kafka_config, partitioner, "partitioner", STRING, .preset = "fnv1a_random",
	    .help = "librdkafka's partitioner; the preset agrees with the Collector's."),
	ROW(sl_kafka_config, acks, "acks", ENUM, .choices = sl_kafka_acks, .preset = "all",
	    .help = "Which replicas confirm a record."),
	ROW(sl_kafka_config, idempotence, "idempotence", BOOL, .preset = "false",
	    .help = "No duplicates by the producer's own retries; needs acks: all. Senders that "
		    "get no answer send again either way. Costs CPU: this librdkafka (2.0.2) polls "
		    "without rest while five requests are out."),
	ROW(sl_kafka_config, compression, "compression", ENUM, .choices = sl_kafka_compressions,
	    .preset = "none", .help = "Compression of batches."),
	ROW(sl_kafka_config, linger_ns, "linger", DURATION, .max = 9e11, .preset = "5ms",
	    .help = "How long a batch waits for more."),
	ROW(sl_kafka_config, message_timeout_ns, "message_timeout", DURATION, .min = 1e9,
	    .max = 3.6e12, .preset = "5m",
	    .help = "The producer gives a record up after it; the caller's answer does not wait "
		    "so long."),
	ROW(sl_kafka_config, message_bytes_max, "max_message_bytes", BYTES, .min = 1000, .max = 1e9,
	    .preset = "1MB", .help = "Longer records are split between items."),
	ROW(sl_kafka_config, queue_bytes_max, "queue_bytes", BYTES, .min = 1 << 20, .max = 2e9,
	    .preset = "256MiB", .help = "Bytes one producer holds."),
	ROW(sl_kafka_config, queue_records_max, "queue_records", COUNT, .min = 1, .max = 1e7,
	    .preset = "100k", .help = "Records one producer holds."),
	ROW(sl_kafka_config, producers, "producers", COUNT, .max = 64, .preset = "0",
	    .help = "Producers, each serving some shards; 0: one a core, at most 4."),
	ROW(sl_kafka_config, tenant_header, "tenant_header", STRING,
	    .help = "Header that carries the tenant's name, such as X-Scope-OrgID."),
	ROW(sl_kafka_config, client_id, "client_id", STRING, .preset = "sluice",
	    .help = "client.id."),
	ROW(sl_kafka_config, headers, "headers", MAP, .object = &sl_header_settings,
	    .shorthand = "value", .help = "More headers, the same on every record."),
	ROW(sl_kafka_config, tls, "tls", OPTIONAL, .object = &kafka_tls_settings,
	    .help = "Speak TLS."),
	ROW(sl_kafka_config, sasl, "sasl", OPTIONAL, .object = &kafka_sasl_settings,
	    .help = "Log in."),
	ROW(sl_kafka_config, properties, "properties", MAP, .object = &property_settings,
	    .shorthand = "value",
	    .help = "Further properties for librdkafka, by name; they win over the settings "
		    "above."),
};
static void check_topic(const struct sl_kafka_config *kafka, struct sl_errors *errors)
{
	static const char legal[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "._-";
	const char *at = kafka->topic;

	do {
		at += strspn(at, legal);
		if (strncmp(at, "{signal}", 8) && strncmp(at, "{tenant}", 8))
			break;
		at += 8;
	} while (*at);
	if (*at || !kafka->topic[0])
		sl_errors_add(errors, &kafka->where,
			      "kafka: topic \"%s\": expected letters, digits, . _ - and the "
			      "placeholders {signal} and {tenant}, got \"%s\"",
			      kafka->topic, at);
}

static void check_kafka(const void *object, struct sl_errors *errors)
{
	const struct sl_kafka_config *kafka = object;

	if (!kafka->brokers.count)
		sl_errors_add(errors, &kafka->where, "kafka: brokers must name at least one");
	check_topic(kafka, errors);
	if (kafka->idempotence && kafka->acks != 0)
		sl_errors_add(errors, &kafka->where, "kafka: idempotence needs acks: all");
}
const struct sl_settings sl_kafka_settings = SETTINGS("destination.kafka", sl_kafka_config,
						      kafka_rows, .check = check_kafka,
						      .help = "Topics of a Kafka cluster.");

static const struct sl_setting retry_rows[] = {
	ROW(sl_retry_config, initial_ns, "initial", DURATION, .min = 1e6, .max = 3.6e12,
	    .preset = "100ms", .help = "The first wait, jittered."),
	ROW(sl_retry_config, max_ns, "max", DURATION, .min = 1e6, .max = 3.6e12, .preset = "5s",
	    .help = "The longest wait."),
	ROW(sl_retry_config, multiplier, "multiplier", NUMBER, .min = 1, .max = 100, .preset = "2",
	    .help = "Each wait is so many times the one before."),
	ROW(sl_retry_config, max_elapsed_ns, "max_elapsed", DURATION, .preset = "1m",
	    .help = "When what nobody waits for any more (best-effort, or acknowledged early) is "
		    "given up. Others end with their request's answer: the client sends again."),
	ROW(sl_retry_config, budget, "budget", RATIO, .max = 1, .preset = "20%",
	    .help = "Retries that fail on, as a share of records (and 10/s a shard); those that "
		    "succeed cost nothing. The rest wait."),
};
static const struct sl_settings retry_settings = SETTINGS(
	"destination.retry", sl_retry_config, retry_rows, .help = "Trying again, backing off.");

static const struct sl_setting breaker_rows[] = {
	ROW(sl_breaker_config, failures, "failures", COUNT, .min = 1, .max = 1e6, .preset = "5",
	    .help = "Opens after so many failed records or calls in a row."),
	ROW(sl_breaker_config, error_rate, "error_rate", RATIO, .min = 0.01, .max = 1,
	    .preset = "50%", .help = "Or when so many of those that ended within 10 s failed."),
	ROW(sl_breaker_config, calls_min, "min_calls", COUNT, .min = 1, .max = 1e6, .preset = "20",
	    .help = "The rate counts from so many on."),
	ROW(sl_breaker_config, wait_ns, "wait", DURATION, .min = 1e6, .max = 3.6e12, .preset = "1s",
	    .help = "Open for so long, then probes go; twice as long each time they fail."),
	ROW(sl_breaker_config, wait_max_ns, "wait_max", DURATION, .min = 1e6, .max = 3.6e12,
	    .preset = "30s", .help = "The longest of these waits."),
	ROW(sl_breaker_config, probes, "probes", COUNT, .min = 1, .max = 1000, .preset = "1",
	    .help = "Probes at a time; the first that succeeds closes."),
};
static const struct sl_settings breaker_settings = SETTINGS(
	"destination.breaker", sl_breaker_config, breaker_rows,
	.help = "Each shard's: while open, records wait, and those whose sender would wait "
		"in vain are given back at once.");

static const struct sl_setting merge_rows[] = {
	ROW(sl_merge_config, bytes, "bytes", BYTES, .min = 1024, .max = 1e9, .preset = "1MiB",
	    .help = "A record or call is sent when it has so many, inflated; never more than the "
		    "destination takes (OTLP: 3.5 MiB, Kafka: max_message_bytes)."),
	ROW(sl_merge_config, requests, "requests", COUNT, .min = 2, .max = 100000, .preset = "1000",
	    .help = "Or when it has so many requests."),
	ROW(sl_merge_config, delay_ns, "delay", DURATION, .max = 1e10, .preset = "5ms",
	    .help = "Or when the first of them has waited so long; 0: what one turn brings."),
};
static const struct sl_settings merge_settings = SETTINGS(
	"destination.merge", sl_merge_config, merge_rows,
	.help = "Small requests of one tenant and signal (and record key) go together.");

static const struct sl_setting failover_to_rows[] = {
	WHERE(sl_failover_to_config),
	ROW(sl_failover_to_config, destination, "destination", STRING, .required = true,
	    .help = "A destination's name."),
};
static const struct sl_settings failover_to_settings = SETTINGS(
	"destination.failover.to", sl_failover_to_config, failover_to_rows,
	.help = "One destination of a group.");
static const struct sl_setting failover_rows[] = {
	WHERE(sl_failover_config),
	ROW(sl_failover_config, to, "to", LIST, .element = SL_TYPE_CHOICE, .required = true,
	    .object = &failover_to_settings, .shorthand = "destination",
	    .help = "Two to eight destinations, the preferred first."),
	ROW(sl_failover_config, after_ns, "after", DURATION, .min = 1e6, .max = 3.6e12,
	    .preset = "2s",
	    .help = "The next takes over when the one in use has only failed, or given no answer, "
		    "for so long; at once when its breaker is open or its endpoints are "
		    "unhealthy."),
	ROW(sl_failover_config, return_after_ns, "return_after", DURATION, .min = 1e6,
	    .max = 8.64e13, .preset = "30s",
	    .help = "A preferred one is used again when it could be for so long; each time that it "
		    "fails again within this it is twice as long, at most 32 times."),
};
static const struct sl_settings failover_settings = SETTINGS(
	"destination.failover", sl_failover_config, failover_rows,
	.help = "Each shard decides by itself. What waits goes along, what is with a destination "
		"ends there; the books are the destinations' own.");

static const struct sl_setting destination_rows[] = {
	ROW(sl_destination_config, name, NULL, KEY, .help = "Its name, for routes and metrics."),
	WHERE(sl_destination_config),
	ROW(sl_destination_config, kafka, "kafka", OPTIONAL, .object = &sl_kafka_settings,
	    .help = "A Kafka cluster."),
	ROW(sl_destination_config, otlp, "otlp", OPTIONAL, .object = &sl_otlp_settings,
	    .help = "An OTLP upstream."),
	ROW(sl_destination_config, file, "file", OPTIONAL, .object = &file_settings,
	    .help = "Files."),
	ROW(sl_destination_config, blackhole, "blackhole", OPTIONAL, .object = &blackhole_settings,
	    .help = "Nowhere."),
	ROW(sl_destination_config, failover, "failover", OPTIONAL, .object = &failover_settings,
	    .shorthand = "to",
	    .help = "The first of these other destinations that works. All else is theirs to "
		    "say."),
	ROW(sl_destination_config, retry, "retry", OBJECT, .only = "!blackhole",
	    .object = &retry_settings,
	    .where_offset = offsetof(struct sl_destination_config, retry_where),
	    .unless_offset = offsetof(struct sl_destination_config, failover),
	    .help = "Trying again."),
	ROW(sl_destination_config, breaker, "breaker", OPTIONAL, .only = "!blackhole",
	    .object = &breaker_settings,
	    .help = "Spares a destination that fails; without it all is tried."),
	ROW(sl_destination_config, spool, "spool", OPTIONAL, .object = &sl_spool_settings,
	    .help = "Keeps on disk what cannot be delivered now."),
	ROW(sl_destination_config, merge, "merge", OPTIONAL, .object = &merge_settings,
	    .help = "Kafka and OTLP: small requests go together. Without it each goes by itself."),
	ROW(sl_destination_config, pinned_bytes_max, "pinned_bytes", BYTES, .max = 1e12,
	    .preset = "0",
	    .help = "Memory it may pin until delivery, over all shards; 0: half of the budget."),
	ROW(sl_destination_config, tenant_share, "tenant_share", RATIO, .only = "!failover",
	    .min = 0.001, .max = 1, .preset = "50%", .help = "What one tenant may pin of that."),
	ROW(sl_destination_config, dead_letter, "dead_letter", STRING, .only = "!blackhole",
	    .help = "Another destination, of any kind but a group, that keeps what this one "
		    "refuses for good, with sluice-reason, -tenant, -time and -destination as "
		    "Kafka headers or OTLP metadata (in files, fields 101 to 104 in front of the "
		    "request, or the member sluiceDeadLetter). The sender then has success with a "
		    "warning; when it cannot be kept either, nor in that one's spool, it is "
		    "refused as "
		    "without."),
};
static void check_destination(const void *object, struct sl_errors *errors)
{
	const struct sl_destination_config *config = object;
	const int kinds = !!config->kafka + !!config->otlp + !!config->file + !!config->blackhole +
			  !!config->failover;
	static const char legal[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "_-.";

	if (kinds != 1)
		sl_errors_add(errors, &config->where,
			      "destination %s: say exactly one of kafka, otlp, file, blackhole, "
			      "failover",
			      config->name);
	if (config->spool && config->failover)
		sl_errors_add(errors, &config->spool->where,
			      "destination %s: a failover group has no spool, its members may",
			      config->name);
	if (config->breaker && config->failover)
		sl_errors_add(errors, &config->where,
			      "destination %s: a failover group has no breaker, its members may",
			      config->name);
	if (config->pinned_bytes_max && config->failover)
		sl_errors_add(errors, &config->where,
			      "destination %s: a failover group pins nothing, its members may",
			      config->name);
	if (config->retry_where.line && config->failover)
		sl_errors_add(errors, &config->retry_where,
			      "destination %s: a failover group has no retry, expected it at its "
			      "members",
			      config->name);
	if (config->otlp && config->otlp->merge_compressed && !config->merge)
		sl_errors_warn(errors, &config->otlp->where,
			       "destinations.%s.otlp.merge_compressed has no effect here: only "
			       "with the destination's `merge`",
			       config->name);
	if (config->merge && !config->kafka && !config->otlp)
		sl_errors_add(errors, &config->where, "destination %s: only kafka and otlp merge",
			      config->name);
	if (!config->name[0] || strlen(config->name) > 64 ||
	    config->name[strspn(config->name, legal)])
		sl_errors_add(errors, &config->where,
			      "destination \"%s\": names are 1 to 64 of letters, digits, _ - .",
			      config->name);
}
const struct sl_settings sl_destination_settings = SETTINGS(
	"destination", sl_destination_config, destination_rows, .check = check_destination,
	.help = "Where records go.");

static const struct sl_setting attribute_rows[] = {
	ROW(sl_route_attribute_config, name, "name", STRING, .required = true,
	    .help = "The attribute's key."),
	ROW(sl_route_attribute_config, value, "value", STRING,
	    .help = "Pattern of its value (*, ?); without one it only must be there."),
};
static const struct sl_settings attribute_settings = SETTINGS(
	"route.match.resource", sl_route_attribute_config, attribute_rows,
	.help = "A resource attribute.");

static const char *const signal_choices[] = {"any", "traces", "metrics", "logs", NULL};
static const struct sl_setting match_rows[] = {
	ROW(sl_route_match_config, tenant, "tenant", STRING,
	    .help = "Pattern of the tenant's name: * any run, ? one byte, \\ takes the next as "
		    "it is."),
	ROW(sl_route_match_config, class_name, "class", STRING,
	    .where_offset = offsetof(struct sl_route_match_config, class_where),
	    .help = "Pattern of its class' name, of which there must be one if it has no wildcard; "
		    "a tenant without a class has the empty one."),
	ROW(sl_route_match_config, signal, "signal", ENUM, .choices = signal_choices,
	    .preset = "any", .help = "One signal only."),
	ROW(sl_route_match_config, service, "service", STRING,
	    .help = "Pattern of the resource's service.name."),
	ROW(sl_route_match_config, resource, "resource", LIST, .element = SL_TYPE_CHOICE,
	    .object = &attribute_settings, .shorthand = "name",
	    .help = "Resource attributes, all of which must match. Each resource of a request "
		    "finds its own route."),
};
static const struct sl_settings match_settings = SETTINGS(
	"route.match", sl_route_match_config, match_rows, .help = "All that is said must hold.");

static const struct sl_setting target_rows[] = {
	WHERE(sl_route_target_config),
	ROW(sl_route_target_config, destination, "destination", STRING, .required = true,
	    .help = "A destination's name."),
	ROW(sl_route_target_config, required, "required", BOOL, .preset = "true",
	    .help = "The sender's answer waits for it; false: best effort."),
};
static const struct sl_settings target_settings = SETTINGS(
	"route.to", sl_route_target_config, target_rows, .help = "One destination of a route.");

static const struct sl_setting route_rows[] = {
	WHERE(sl_route_config),
	ROW(sl_route_config, match, "match", OPTIONAL, .object = &match_settings,
	    .help = "What it takes; without it everything."),
	ROW(sl_route_config, to, "to", LIST, .element = SL_TYPE_CHOICE, .object = &target_settings,
	    .shorthand = "destination", .help = "Where it goes."),
	ROW(sl_route_config, drop, "drop", BOOL, .preset = "false",
	    .help = "Accept and drop, counted."),
};
static const struct sl_settings route_settings = SETTINGS("route", sl_route_config, route_rows,
							  .help = "One rule.");

const struct sl_destination_config *sl_destination_find(const struct sl_routing_config *config,
							const char *name)
{
	const struct sl_destination_config *destinations = config->destinations.items;

	for (size_t i = 0; i < config->destinations.count; i++) {
		if (strcmp(destinations[i].name, name) == 0)
			return &destinations[i];
	}
	return NULL;
}

static const char *destination_name(const void *self, uint32_t index)
{
	return ((const struct sl_destination_config *)self)[index].name;
}

static void check_name(const struct sl_routing_config *config, const char *name, const char *who,
		       const struct sl_where *where, struct sl_errors *errors)
{
	const char *near;

	if (sl_destination_find(config, name))
		return;
	near = sl_nearest(name, destination_name, config->destinations.items,
			  (uint32_t)config->destinations.count);
	sl_errors_add(errors, where, "%s: no destination is named \"%s\"%s%s%s", who, name,
		      near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

// Groups of groups could be circles, and say nothing that one list does not.
static void check_failover(const struct sl_routing_config *config,
			   const struct sl_destination_config *group, struct sl_errors *errors)
{
	const struct sl_failover_to_config *to = group->failover->to.items;
	const size_t count = group->failover->to.count;

	if (count < 2 || count > SL_FAILOVER_MAX)
		sl_errors_add(errors, &group->failover->where,
			      "failover: %s names %zu destinations, not 2 to %u", group->name,
			      count, SL_FAILOVER_MAX);
	for (size_t i = 0; i < count; i++) {
		const struct sl_destination_config *named = sl_destination_find(config,
										to[i].destination);

		check_name(config, to[i].destination, "failover", &to[i].where, errors);
		if (named == group)
			sl_errors_add(errors, &to[i].where, "failover: %s names itself",
				      group->name);
		else if (named && named->failover)
			sl_errors_add(errors, &to[i].where,
				      "failover: \"%s\" is a group itself; name its destinations",
				      named->name);
		for (size_t j = 0; j < i; j++) {
			if (strcmp(to[i].destination, to[j].destination) == 0)
				sl_errors_add(errors, &to[i].where,
					      "failover: \"%s\" is named twice", to[i].destination);
		}
	}
}

// From dead letter to dead letter there must be an end.
static void check_dead_letter(const struct sl_routing_config *config,
			      const struct sl_destination_config *from, struct sl_errors *errors)
{
	const struct sl_destination_config *to = sl_destination_find(config, from->dead_letter);

	check_name(config, from->dead_letter, "dead_letter", &from->where, errors);
	if (from->failover)
		sl_errors_add(errors, &from->where,
			      "dead_letter: %s is a failover group; its destinations name theirs",
			      from->name);
	else if (to && to->failover)
		sl_errors_add(errors, &from->where,
			      "dead_letter: \"%s\" is a failover group; name a destination",
			      to->name);
	for (size_t i = 0; to && i < config->destinations.count; i++) {
		if (to == from) {
			sl_errors_add(errors, &from->where,
				      "dead_letter: %s would come back to itself", from->name);
			return;
		}
		to = to->dead_letter ? sl_destination_find(config, to->dead_letter) : NULL;
	}
}

// Whether what goes to both could come to one of them twice.
static bool overlap(const struct sl_routing_config *config, const char *a, const char *b)
{
	const struct sl_destination_config *group = sl_destination_find(config, a);
	const struct sl_failover_to_config *to = group && group->failover
							 ? group->failover->to.items
							 : NULL;

	for (size_t i = 0; to && i < group->failover->to.count; i++) {
		if (strcmp(to[i].destination, b) == 0)
			return true;
	}
	return false;
}

static void check_targets(const struct sl_routing_config *config,
			  const struct sl_route_config *route, struct sl_errors *errors)
{
	const struct sl_route_target_config *to = route->to.items;

	for (size_t i = 0; i < route->to.count; i++) {
		const char *name = to[i].destination;

		check_name(config, name, "routes", &to[i].where, errors);
		for (size_t j = 0; j < i; j++) {
			const char *other = to[j].destination;

			if (strcmp(name, other) == 0)
				sl_errors_add(errors, &to[i].where, "routes: \"%s\" is named twice",
					      name);
			else if (overlap(config, name, other) || overlap(config, other, name))
				sl_errors_add(errors, &to[i].where,
					      "routes: \"%s\" and \"%s\": one is a failover "
					      "group of the other",
					      name, other);
		}
	}
}

static bool matches_all(const struct sl_route_match_config *match)
{
	return !match || (!match->tenant && !match->class_name && !match->service &&
			  !match->signal && !match->resource.count);
}

static void check_routing(const void *object, struct sl_errors *errors)
{
	const struct sl_routing_config *config = object;
	const struct sl_destination_config *destinations = config->destinations.items;
	const struct sl_route_config *routes = config->routes.items;

	if (!config->routes.count) {
		sl_errors_add(errors, NULL, "routes: at least one is needed, such as [{to: [%s]}]",
			      config->destinations.count ? destinations[0].name : "main");
		return;
	}
	sl_spool_check(config, errors);
	for (size_t i = 0; i < config->destinations.count; i++) {
		if (destinations[i].failover)
			check_failover(config, &destinations[i], errors);
		if (destinations[i].dead_letter)
			check_dead_letter(config, &destinations[i], errors);
	}
	for (size_t i = 0; i < config->routes.count; i++) {
		const struct sl_route_config *route = &routes[i];

		if (route->drop == (route->to.count > 0))
			sl_errors_add(errors, &route->where, "routes: say either to or drop: true");
		check_targets(config, route, errors);
		if (i + 1 < config->routes.count && matches_all(route->match))
			sl_errors_add(errors, &routes[i + 1].where,
				      "routes: never reached, the rule before takes everything");
	}
	if (!matches_all(routes[config->routes.count - 1].match))
		sl_errors_add(errors, &routes[config->routes.count - 1].where,
			      "routes: the last rule must take everything (no match): {to: [...]} "
			      "or {drop: true}");
}

static const char *const acknowledge_choices[] = {"delivered", "queued", "spooled", NULL};
static const struct sl_setting routing_rows[] = {
	ROW(sl_routing_config, acknowledge, "acknowledge", ENUM, .choices = acknowledge_choices,
	    .preset = "delivered",
	    .help = "When a sender is told success: once all required destinations have confirmed, "
		    "or once their queues have taken it (what is in memory is then lost in a "
		    "crash), or once it is on the disks of their spools, by which all of it "
		    "then goes."),
	ROW(sl_routing_config, destinations, "destinations", MAP,
	    .object = &sl_destination_settings, .help = "Where records can go, by name."),
	ROW(sl_routing_config, routes, "routes", LIST, .element = SL_TYPE_OBJECT,
	    .object = &route_settings,
	    .help = "Rules; the first that matches decides. The last must take everything."),
};
const struct sl_settings sl_routing_settings = SETTINGS("routing", sl_routing_config, routing_rows,
							.check = check_routing,
							.help = "Destinations and routes.");
