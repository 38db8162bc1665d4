#include "routing/spool_settings.h"

#include "config/rows.h"

static const char *const fsync_choices[] = {"always", "interval", "never", NULL};
static const char *const full_choices[] = {"refuse", "drop_oldest", NULL};
static const struct sl_setting rows[] = {
	WHERE(sl_spool_config),
	ROW(sl_spool_config, path, "path", PATH, .required = true,
	    .help = "Folder, of this destination and one process alone; made when it is not "
		    "there."),
	ROW(sl_spool_config, bytes_max, "max_bytes", BYTES, .min = 4 << 20, .max = 1e15,
	    .preset = "1GiB", .help = "Bytes on disk."),
	ROW(sl_spool_config, age_max_ns, "max_age", DURATION, .preset = "24h",
	    .help = "What is older is dropped and counted, a file at a time, or when its turn "
		    "comes; "
		    "0: never."),
	ROW(sl_spool_config, when_full, "when_full", ENUM, .choices = full_choices,
	    .preset = "refuse",
	    .help = "refuse: senders are told to come again. drop_oldest: the oldest file goes, "
		    "though its items have been acknowledged."),
	ROW(sl_spool_config, fsync, "fsync", ENUM, .choices = fsync_choices, .preset = "always",
	    .help = "When what is written counts as kept. always: once it is on the disk, one sync "
		    "for all that came meanwhile. interval, never: once it is written; what was "
		    "not "
		    "synced is lost when the machine (not the process) fails."),
	ROW(sl_spool_config, fsync_interval_ns, "fsync_interval", DURATION,
	    .only = "fsync: interval", .min = 1e6, .max = 6e10, .preset = "1s",
	    .help = "Of fsync: interval."),
	ROW(sl_spool_config, segment_bytes, "segment_bytes", BYTES, .min = 1 << 20, .max = 1e12,
	    .preset = "64MiB", .help = "Bytes of a file; at most a quarter of max_bytes."),
	ROW(sl_spool_config, after_ns, "after", DURATION, .min = 1e6, .max = 3.6e12,
	    .preset = "500ms",
	    .help = "Delivery is tried for so long before; while something is on disk, what comes "
		    "goes behind it. What a Kafka producer has taken comes back after this, but "
		    "not before 2s, whatever kafka.message_timeout says; what an OTLP upstream "
		    "has taken and does not answer, after otlp.timeout."),
};
const struct sl_settings sl_spool_settings = SETTINGS(
	"destination.spool", sl_spool_config, rows,
	.help = "The disk as last resort: what cannot be delivered now is kept there, "
		"acknowledged, and delivered in order when it can be.");

static void check_spooled(const struct sl_routing_config *config, const char *name,
			  const struct sl_where *where, struct sl_errors *errors)
{
	const struct sl_destination_config *destination = sl_destination_find(config, name);

	if (destination && destination->failover) {
		const struct sl_failover_to_config *to = destination->failover->to.items;

		for (size_t i = 0; i < destination->failover->to.count; i++)
			check_spooled(config, to[i].destination, where, errors);
	} else if (destination && !destination->spool) {
		sl_errors_add(errors, where,
			      "routes: acknowledge: spooled needs a spool in \"%s\" (or "
			      "required: false here)",
			      name);
	}
}

void sl_spool_check(const struct sl_routing_config *config, struct sl_errors *errors)
{
	const struct sl_destination_config *destinations = config->destinations.items;
	const struct sl_route_config *routes = config->routes.items;

	for (size_t i = 0; i < config->destinations.count; i++) {
		for (size_t j = 0; j < i && destinations[i].spool; j++)
			if (destinations[j].spool &&
			    strcmp(destinations[i].spool->path, destinations[j].spool->path) == 0)
				sl_errors_add(errors, &destinations[i].spool->where,
					      "spool: destination %s has the same path",
					      destinations[j].name);
	}
	for (size_t i = 0; i < config->routes.count; i++) {
		const struct sl_route_target_config *to = routes[i].to.items;

		for (size_t j = 0; j < routes[i].to.count; j++)
			if (config->acknowledge == SL_ACKNOWLEDGE_SPOOLED && to[j].required)
				check_spooled(config, to[j].destination, &to[j].where, errors);
	}
}
