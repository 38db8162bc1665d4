#include "routing/routing.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "dataplane/base/thread.h"
#include "routing/internal.h"

// The snapshot's part: destinations, shared with the snapshot before where their settings are the
// same, and compiled routes.

#define CLOSE_LOOK_US 20000

static uint32_t closing; // atomic: destinations that a thread is about to free
static uint32_t ended;   // atomic: no shard runs any more

static const struct sl_driver *driver_of(const struct sl_destination_config *config)
{
	return config->failover ? NULL
	       : config->kafka  ? &sl_driver_kafka
	       : config->otlp   ? &sl_driver_otlp
	       : config->file   ? &sl_driver_file
				: &sl_driver_blackhole;
}

static void free_destination(struct sl_destination *destination)
{
	if (destination->self)
		destination->driver->destroy(destination->self);
	sl_spool_put(destination->spool);
	free(destination);
}

// Waits until the shards have finished what is in flight; shards only count themselves out.
static void *close_later(void *argument)
{
	struct sl_destination *destination = argument;

	while (__atomic_load_n(&destination->sides, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&ended, __ATOMIC_ACQUIRE))
		usleep(CLOSE_LOOK_US);
	// A drain that was given up leaves sides open, which nobody will close.
	if (!__atomic_load_n(&destination->sides, __ATOMIC_ACQUIRE)) {
		sl_log(SL_LOG_INFO, "destination_closed", "destination=%s", destination->name);
		free_destination(destination);
	}
	__atomic_sub_fetch(&closing, 1, __ATOMIC_ACQ_REL);
	return NULL;
}

uint32_t sl_routing_closing(void)
{
	return __atomic_load_n(&closing, __ATOMIC_ACQUIRE);
}

void sl_routing_wait_closed(void)
{
	__atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
	while (sl_routing_closing())
		usleep(CLOSE_LOOK_US);
}

static void put_destination(struct sl_destination *destination)
{
	if (!destination || --destination->references > 0)
		return;
	if (!destination->lingers && !__atomic_load_n(&destination->sides, __ATOMIC_ACQUIRE)) {
		free_destination(destination);
		return;
	}
	__atomic_add_fetch(&closing, 1, __ATOMIC_ACQ_REL);
	if (sl_thread_start(NULL, "closer", close_later, destination) < 0) {
		__atomic_sub_fetch(&closing, 1, __ATOMIC_ACQ_REL);
		sl_log(SL_LOG_ERROR, "destination_not_closed", "destination=%s", destination->name);
		if (!__atomic_load_n(&destination->sides, __ATOMIC_ACQUIRE))
			free_destination(destination);
	}
}

static void stamp_file(void *self, const char *path)
{
	uint64_t *stamp = self;
	struct stat stat_ = {0};

	if (stat(path, &stat_) < 0)
		stat_ = (struct stat){0};
	*stamp = *stamp * UINT64_C(0x9e3779b97f4a7c15) +
		 (uint64_t)(stat_.st_mtim.tv_sec * 1000000000 + stat_.st_mtim.tv_nsec);
	*stamp = *stamp * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)stat_.st_ino +
		 ((uint64_t)stat_.st_size << 32);
}

// Changes with the files that a destination's settings name: certificates and keys.
static uint64_t files_of(const struct sl_destination_config *config)
{
	uint64_t stamp = 0;

	sl_settings_watched(&sl_destination_settings, config, stamp_file, &stamp);
	return stamp;
}

struct opened {
	const struct sl_where *where;
	struct sl_errors *errors;
	bool failed;
};

// What a driver opens later, or only when it connects, can be missing now already.
static void open_file(void *self, const char *path)
{
	struct opened *opened = self;
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		sl_errors_add(opened->errors, opened->where, "%s: %s", path, strerror(errno));
		opened->failed = true;
		return;
	}
	close(fd);
}

// Its spool, or under --check whether it could be there.
static bool open_spool(struct sl_destination *destination,
		       const struct sl_destination_config *config, const struct sl_build *build)
{
	int failed;

	if (!config->spool)
		return true;
	destination->spooling = *config->spool;
	snprintf(destination->spooling.destination, sizeof(destination->spooling.destination), "%s",
		 destination->name);
	if (!build->check_only) {
		destination->spool = sl_spool_get(&destination->spooling, build->errors);
		return destination->spool != NULL;
	}
	failed = sl_disk_look(config->spool->path);
	if (failed)
		sl_errors_add(build->errors, &config->spool->where, "spool: %s: %s",
			      config->spool->path, strerror(-failed));
	return !failed;
}

static struct sl_destination *make_destination(const struct sl_destination_config *config,
					       const struct sl_build *build)
{
	struct opened opened = {.where = &config->where, .errors = build->errors};
	struct sl_destination *destination;

	sl_settings_watched(&sl_destination_settings, config, open_file, &opened);
	if (opened.failed)
		return NULL;
	destination = calloc(1, sizeof(*destination));
	if (!destination)
		return NULL;
	snprintf(destination->name, sizeof(destination->name), "%s", config->name);
	destination->driver = driver_of(config);
	destination->lingers = destination->driver && destination->driver->lingers &&
			       !build->check_only;
	destination->retry = config->retry;
	destination->pinned_bytes_max = config->pinned_bytes_max;
	destination->tenant_share = config->tenant_share;
	if (config->merge)
		destination->merge = *config->merge;
	if (config->breaker && destination->driver && !destination->driver->until)
		destination->breaker = *config->breaker;
	destination->references = 1;
	destination->files = files_of(config);
	if (!destination->driver)
		return destination;
	destination->self = destination->driver->create(config, build->check_only, build->errors);
	if (!destination->self || !open_spool(destination, config, build)) {
		free_destination(destination);
		return NULL;
	}
	if (destination->driver->record_bytes_max)
		destination->record_bytes_max = destination->driver->record_bytes_max(
			destination->self);
	if (destination->driver->by_trace)
		destination->by_trace = destination->driver->by_trace(destination->self);
	if (destination->driver->spread)
		destination->spread = destination->driver->spread(destination->self,
								  &destination->spread_attribute);
	return destination;
}

struct sl_routing_memory sl_routing_memory_max(const struct sl_routing *routing,
					       uint64_t body_bytes)
{
	struct sl_routing_memory memory = {0};

	for (uint32_t i = 0; i < routing->destination_count; i++) {
		const struct sl_destination *destination = routing->destinations[i];
		const struct sl_spool_config *spool = routing->configs[i].spool;

		if (destination->driver && destination->driver->memory_max)
			memory.driver_bytes += destination->driver->memory_max(destination->self);
		// One more is read while there is a byte of room.
		if (spool)
			memory.spool_bytes += SL_SPOOL_OUT_BYTES +
					      SL_MIN(spool->segment_bytes, body_bytes);
	}
	return memory;
}

static struct sl_destination *share_destination(const struct sl_routing *before,
						const struct sl_destination_config *config)
{
	for (uint32_t i = 0; before && i < before->destination_count; i++) {
		if (!sl_settings_same(&sl_destination_settings, &before->configs[i], config) ||
		    before->destinations[i]->files != files_of(config))
			continue;
		before->destinations[i]->references++;
		return before->destinations[i];
	}
	return NULL;
}

// Each that still ends what a configuration before had in flight has threads of its own, for as
// long as a cluster that is away makes it wait: reloads must not add to them without end.
static bool may_begin(const struct sl_destination_config *config, const struct sl_build *build)
{
	const struct sl_routing *before = build->before ? build->before->parts[SL_MODULE_ROUTING]
							: NULL;
	const uint32_t count = sl_routing_closing();

	if (!before || count < SL_ROUTING_CLOSING_MAX + before->destination_count)
		return true;
	sl_errors_add(build->errors, &config->where,
		      "destination %s: %u of configurations before still wait for what they have "
		      "in flight: reload again when fewer do (destination_closed in the log)",
		      config->name, count);
	return false;
}

// All that is new is looked at as --check does before anything of it is made: a reload that is
// refused has made no folder, started no thread and read no spool.
static bool make_destinations(struct sl_routing *routing, const struct sl_build *build)
{
	struct sl_build check = *build;
	const bool only = build->check_only || sl_errors_count(build->errors);
	bool good = true;

	check.check_only = true;
	for (uint32_t i = 0; i < routing->destination_count; i++) {
		const struct sl_destination_config *config = &routing->configs[i];
		struct sl_destination *looked;

		if (routing->destinations[i])
			continue;
		looked = may_begin(config, build) ? make_destination(config, &check) : NULL;
		good &= looked != NULL;
		if (only)
			routing->destinations[i] = looked;
		else if (looked)
			free_destination(looked);
	}
	for (uint32_t i = 0; i < routing->destination_count && good; i++) {
		if (!routing->destinations[i])
			routing->destinations[i] = make_destination(&routing->configs[i], build);
		good = routing->destinations[i] != NULL;
	}
	return good;
}

static int make_attributes(struct sl_route *route, const struct sl_route_match_config *match)
{
	const struct sl_route_attribute_config *from = match->resource.items;
	const size_t count = match->resource.count + !!match->service;

	if (!count)
		return 0;
	route->attributes = calloc(count, sizeof(*route->attributes));
	if (!route->attributes)
		return -1;
	for (size_t i = 0; i < match->resource.count; i++)
		route->attributes[route->attribute_count++] = (struct sl_route_attribute){
			sl_bytes_of(from[i].name), sl_pattern_of(from[i].value)};
	if (match->service)
		route->attributes[route->attribute_count++] = (struct sl_route_attribute){
			SL_LITERAL("service.name"), sl_pattern_of(match->service)};
	return 0;
}

static uint32_t index_of(const struct sl_routing *routing, const char *name)
{
	uint32_t index = 0;

	while (strcmp(routing->configs[index].name, name) != 0)
		index++;
	return index;
}

static void make_failover(struct sl_routing *routing, uint32_t index)
{
	const struct sl_failover_config *config = routing->configs[index].failover;
	const struct sl_failover_to_config *to = config ? config->to.items : NULL;

	if (!config)
		return;
	routing->failover_count++;
	for (size_t i = 0; i < config->to.count; i++)
		routing->failovers[index].members[i] = index_of(routing, to[i].destination);
}

static uint32_t dead_letter_of(const struct sl_routing *routing, uint32_t index)
{
	const char *name = routing->configs[index].dead_letter;

	return name ? index_of(routing, name) : UINT32_MAX;
}

static int make_route(struct sl_routing *routing, struct sl_route *route,
		      const struct sl_route_config *config)
{
	const struct sl_route_target_config *to = config->to.items;

	if (config->match) {
		route->tenant = sl_pattern_of(config->match->tenant);
		route->class_name = sl_pattern_of(config->match->class_name);
		route->signal = config->match->signal;
		if (make_attributes(route, config->match) < 0)
			return -1;
	}
	route->targets = calloc(config->to.count + 1, sizeof(*route->targets));
	if (!route->targets)
		return -1;
	for (size_t i = 0; i < config->to.count; i++) {
		route->targets[route->target_count++] = (struct sl_route_target){
			.destination = index_of(routing, to[i].destination),
			.required = to[i].required};
	}
	return 0;
}

static void destroy(void *object)
{
	struct sl_routing *routing = object;

	if (!routing)
		return;
	for (uint32_t i = 0; routing->destinations && i < routing->destination_count; i++)
		put_destination(routing->destinations[i]);
	for (uint32_t i = 0; routing->routes && i < routing->route_count; i++) {
		free(routing->routes[i].attributes);
		free(routing->routes[i].targets);
	}
	free(routing->destinations);
	free(routing->failovers);
	free(routing->dead_letters);
	free(routing->routes);
	free(routing);
}

static void *build(const void *object, const struct sl_build *build)
{
	const struct sl_routing_config *config = object;
	const struct sl_route_config *routes = config->routes.items;
	const struct sl_routing *before = build->before ? build->before->parts[SL_MODULE_ROUTING]
							: NULL;
	struct sl_routing *routing = calloc(1, sizeof(*routing));

	if (!routing)
		return NULL;
	routing->generation = before ? before->generation + 1 : 1;
	routing->acknowledge = config->acknowledge;
	routing->configs = config->destinations.items;
	routing->destination_count = (uint32_t)config->destinations.count;
	routing->route_count = (uint32_t)config->routes.count;
	routing->destinations = calloc(config->destinations.count + 1, sizeof(void *));
	routing->failovers = calloc(config->destinations.count + 1, sizeof(*routing->failovers));
	routing->dead_letters = calloc(config->destinations.count + 1, sizeof(uint32_t));
	routing->routes = calloc(config->routes.count + 1, sizeof(*routing->routes));
	if (!routing->destinations || !routing->failovers || !routing->dead_letters ||
	    !routing->routes)
		goto fail;
	for (uint32_t i = 0; i < routing->destination_count; i++) {
		make_failover(routing, i);
		routing->dead_letters[i] = dead_letter_of(routing, i);
	}
	for (uint32_t i = 0; i < routing->route_count; i++) {
		if (make_route(routing, &routing->routes[i], &routes[i]) < 0)
			goto fail;
	}
	for (uint32_t i = 0; i < routing->destination_count; i++)
		routing->destinations[i] = share_destination(before, &routing->configs[i]);
	if (!make_destinations(routing, build))
		goto fail;
	return routing;
fail:
	destroy(routing);
	return NULL;
}

const struct sl_module sl_routing_module = {
	.id = SL_MODULE_ROUTING,
	.name = "routing",
	.settings = &sl_routing_settings,
	.build = build,
	.destroy = destroy,
};
