#include "routing/endpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "dataplane/base/random.h"
#include "routing/counters.h"
#include "routing/hash_ring.h"

static const char *const handshakes[] = {"whole", "resumed"};
const struct sl_label sl_label_handshake = {"kind", handshakes, SL_LABEL_COUNT_handshake};

#define SL_COUNTER_STRUCT_ struct sl_endpoint_counters
SL_COUNTER_ROWS(endpoint, SL_ENDPOINT_COUNTERS)

#define LOOK_EVERY_NS  (8 * SL_MS)
#define NAMES_FRESH_NS (30 * SL_S)
#define AGAIN_LEAST_NS (100 * SL_MS) // a name that was not found, an endpoint that was not reached
#define AGAIN_MOST_NS  (5 * SL_S)
#define NOBODY         0xffu // no endpoint is up: a member's number in an owner

struct sl_endpoints_target {
	struct sl_lookup *lookup;  // on its way
	uint64_t due_ns, again_ns; // UINT64_MAX: an address needs no resolver
	bool failed;
};

// --- endpoints come and go -----------------------------------------------------------------------

static void free_endpoint(struct sl_endpoint *endpoint)
{
	assert(!endpoint->in_flight);
	sl_breaker_tell(endpoint->set->env.counters, &endpoint->told, SL_BREAKER_UNTOLD);
	sl_metrics_remove(endpoint->set->env.metrics, &endpoint->counters);
	sl_health_destroy(endpoint->health);
	// Connections may take a little longer to go: they know nothing of it any more.
	sl_client_pool_destroy(endpoint->pool, NULL, NULL);
	free(endpoint);
}

static bool make_pool(struct sl_endpoint *endpoint)
{
	const struct sl_endpoints_config *config = endpoint->set->config;
	const struct sl_driver_env *env = &endpoint->set->env;
	const struct sl_client_options options = {
		.host = endpoint->target->host,
		.port = endpoint->target->port,
		.address = &endpoint->address,
		.tls = endpoint->target->tls,
		.http2 = config->http2,
		.connections = config->connections,
		.streams = config->concurrency,
		.connect_timeout_ns = config->connect_ns,
		.idle_timeout_ns = config->idle_ns,
		.ping_after_ns = config->ping_ns,
	};

	endpoint->pool = sl_client_pool_create(&options, env->io, env->memory, env->timers);
	return endpoint->pool != NULL;
}

static bool make_health(struct sl_endpoint *endpoint, uint64_t now_ns)
{
	const struct sl_endpoints_config *config = endpoint->set->config;
	const struct sl_driver_env *env = &endpoint->set->env;
	struct sl_health_env health = {
		.config = &config->health,
		.authority = endpoint->target->authority,
		.address = endpoint->address,
		.tls = endpoint->target->tls,
		.io = env->io,
		.memory = env->memory,
		.timers = env->timers,
		.random = env->random,
	};

	if (!config->checked)
		return true;
	if (config->health.port) {
		health.tls = NULL;
		if (health.address.u.any.sa_family == AF_INET)
			health.address.u.v4.sin_port = htons((uint16_t)config->health.port);
		else
			health.address.u.v6.sin6_port = htons((uint16_t)config->health.port);
	}
	endpoint->health = sl_health_create(&health, now_ns);
	return endpoint->health != NULL;
}

static struct sl_endpoint *make_endpoint(struct sl_endpoints *set,
					 const struct sl_endpoint_target *target,
					 const struct sl_address *address, uint64_t now_ns)
{
	struct sl_endpoint *endpoint = calloc(1, sizeof(*endpoint));
	char labels[160];

	if (!endpoint)
		return NULL;
	endpoint->set = set;
	endpoint->target = target;
	endpoint->address = *address;
	sl_address_text(address, endpoint->name);
	sl_breaker_init(&endpoint->breaker, &set->config->breaker);
	endpoint->told = SL_BREAKER_UNTOLD;
	endpoint->counters.healthy[0] = 1;
	snprintf(labels, sizeof(labels), "destination=\"%s\",endpoint=\"%s\"",
		 set->config->destination, endpoint->name);
	if (sl_metrics_add(set->env.metrics, sl_endpoint_counter_rows,
			   sl_endpoint_counter_row_count, &endpoint->counters, (int)set->env.shard,
			   labels) == 0) {
		if (make_pool(endpoint) && make_health(endpoint, now_ns)) {
			endpoint->next = set->first;
			set->first = endpoint;
			set->count++;
			return endpoint;
		}
		sl_metrics_remove(set->env.metrics, &endpoint->counters);
	}
	sl_client_pool_destroy(endpoint->pool, NULL, NULL);
	free(endpoint);
	return NULL;
}

static struct sl_endpoint *find(const struct sl_endpoints *set, const struct sl_address *address)
{
	char name[SL_ADDRESS_TEXT_MAX];
	struct sl_endpoint *endpoint = set->first;

	sl_address_text(address, name);
	while (endpoint && (endpoint->gone || strcmp(endpoint->name, name) != 0))
		endpoint = endpoint->next;
	return endpoint;
}

static bool has(const struct sl_address *addresses, uint32_t count,
		const struct sl_endpoint *endpoint)
{
	char name[SL_ADDRESS_TEXT_MAX];

	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(sl_address_text(&addresses[i], name), endpoint->name) == 0)
			return true;
	}
	return false;
}

// --- who owns what -------------------------------------------------------------------------------

// By its configured name where that means it alone, so that its keys stay when its address changes.
static const char *ring_name(const struct sl_endpoint *endpoint)
{
	const struct sl_endpoint *other = endpoint->set->first;

	while (other && (other == endpoint || other->gone || other->target != endpoint->target))
		other = other->next;
	return endpoint->set->config->listed && !other ? endpoint->target->authority
						       : endpoint->name;
}

static bool is_healthy(const struct sl_endpoint *endpoint, uint64_t now_ns)
{
	const struct sl_breaker *breaker = &endpoint->breaker;

	return !endpoint->gone && !sl_health_is_down(endpoint->health) &&
	       !sl_outlier_is_out(&endpoint->outlier, now_ns) &&
	       (breaker->state != SL_BREAKER_OPEN || now_ns >= breaker->until_ns);
}

// Members that came up and went down, by name.
static void say_ring(const struct sl_endpoints *set, uint64_t before)
{
	char joined[400] = "", left[400] = "";

	for (uint32_t i = 0; i < set->member_count; i++) {
		const bool is = set->up >> i & 1, was = before >> i & 1;
		char *text = is ? joined : left;
		const size_t used = strlen(text);

		if (is != was && set->members[i])
			snprintf(text + used, sizeof(joined) - used, "%s%s", used ? "," : "",
				 set->members[i]->name);
	}
	sl_log(SL_LOG_WARN, "ring_changed",
	       "destination=%s shard=%u members=%u up=%d joined=\"%s\" left=\"%s\"",
	       set->config->destination, set->env.shard, set->member_count,
	       __builtin_popcountl(set->up), joined, left);
}

static void note_shares(struct sl_endpoints *set)
{
	set->generation++;
	for (uint32_t i = 0; i < set->member_count; i++) {
		if (set->members[i])
			sl_gauge(&set->members[i]->counters.share[0], sl_ring_share(set->ring, i));
	}
}

// The members are others. Without memory the ring stays empty until the next change.
static void make_ring(struct sl_endpoints *set)
{
	const char *names[SL_ENDPOINTS_MAX];

	if (set->config->spread == SL_SPREAD_LEAST)
		return;
	sl_ring_destroy(set->ring);
	set->ring = NULL;
	set->member_count = 0;
	set->generation++;
	for (struct sl_endpoint *endpoint = set->first; endpoint; endpoint = endpoint->next) {
		if (endpoint->gone)
			continue;
		names[set->member_count] = ring_name(endpoint);
		set->members[set->member_count++] = endpoint;
	}
	if (!set->member_count)
		return;
	set->ring = sl_ring_create(names, set->member_count, set->config->bound);
	if (!set->ring)
		return;
	set->up = UINT64_MAX >> (64 - set->member_count);
	note_shares(set);
	say_ring(set, 0);
}

static void turn_ring(struct sl_endpoints *set, uint64_t now_ns)
{
	const uint64_t before = set->up;
	uint64_t up = 0;

	if (!set->ring)
		return;
	for (uint32_t i = 0; i < set->member_count; i++)
		up |= (uint64_t)is_healthy(set->members[i], now_ns) << i;
	if (SL_LIKELY(up == set->up))
		return;
	set->up = up;
	sl_ring_set_up(set->ring, up);
	note_shares(set);
	say_ring(set, before);
}

uint32_t sl_endpoints_owner(const struct sl_endpoints *set, struct sl_bytes key)
{
	const uint32_t member = set->ring ? sl_ring_owner(set->ring, key) : SL_RING_NONE;

	return set->generation << 8 | (member == SL_RING_NONE ? NOBODY : member);
}

bool sl_endpoints_owns(const struct sl_endpoints *set, uint32_t owner)
{
	return owner >> 8 == (set->generation & 0xffffff);
}

// --- names ---------------------------------------------------------------------------------------

// What a name means now: endpoints that are new are made, others go.
static void take_addresses(struct sl_endpoints *set, uint32_t index,
			   const struct sl_address *addresses, uint32_t count, uint64_t now_ns)
{
	const struct sl_endpoint_target *target = &set->config->targets[index];
	bool changed = false;

	for (struct sl_endpoint *endpoint = set->first; endpoint; endpoint = endpoint->next) {
		if (endpoint->gone || endpoint->target != target || has(addresses, count, endpoint))
			continue;
		endpoint->gone = changed = true;
		set->count--;
		sl_log(SL_LOG_INFO, "endpoint_left", "destination=%s endpoint=%s",
		       set->config->destination, endpoint->name);
	}
	for (uint32_t i = 0; i < count; i++) {
		if (set->count == SL_ENDPOINTS_MAX || find(set, &addresses[i]))
			continue;
		changed |= make_endpoint(set, target, &addresses[i], now_ns) != NULL;
	}
	if (changed)
		make_ring(set);
}

static void look(struct sl_endpoints *set, uint32_t index, uint64_t now_ns)
{
	struct sl_endpoints_target *target = &set->targets[index];
	struct sl_address found[SL_LOOKUP_ADDRESSES_MAX];
	const char *error = NULL;
	const int count = sl_lookup_look(target->lookup, found, &error);

	target->due_ns = now_ns + LOOK_EVERY_NS;
	if (!count)
		return;
	sl_lookup_drop(target->lookup);
	target->lookup = NULL;
	if (count > 0) {
		target->due_ns = now_ns + NAMES_FRESH_NS;
		target->again_ns = 0;
		take_addresses(set, index, found, (uint32_t)count, now_ns);
	} else {
		// What it meant before still serves.
		target->again_ns = SL_MIN(SL_MAX(target->again_ns * 2, AGAIN_LEAST_NS),
					  AGAIN_MOST_NS);
		target->due_ns = now_ns + target->again_ns / 2 +
				 sl_random_below(set->env.random, target->again_ns);
	}
	if (target->failed != (count < 0))
		sl_log(SL_LOG_WARN, count < 0 ? "name_not_resolved" : "name_resolved",
		       "destination=%s name=%s%s%s", set->config->destination,
		       set->config->targets[index].host, error ? " error=" : "",
		       error ? error : "");
	target->failed = count < 0;
}

static void resolve(struct sl_endpoints *set, uint32_t index, uint64_t now_ns)
{
	struct sl_endpoints_target *target = &set->targets[index];
	const struct sl_endpoint_target *config = &set->config->targets[index];
	struct sl_address address;

	if (target->lookup) {
		look(set, index, now_ns);
	} else if (sl_address_parse(&address, config->authority) == 0) {
		take_addresses(set, index, &address, 1, now_ns);
		// Without memory for it: again.
		target->due_ns = find(set, &address) ? UINT64_MAX : now_ns + AGAIN_MOST_NS;
	} else {
		target->lookup = sl_lookup_start(config->host, config->port);
		target->due_ns = now_ns + LOOK_EVERY_NS;
	}
}

// --- a set's life --------------------------------------------------------------------------------

int sl_endpoints_init(struct sl_endpoints *set, const struct sl_endpoints_config *config,
		      const struct sl_driver_env *env, uint64_t now_ns)
{
	*set = (struct sl_endpoints){
		.config = config,
		.env = *env,
		.generation = 1,
		.judge_ns = now_ns + config->outlier.interval_ns,
		.targets = calloc(config->target_count, sizeof(*set->targets)),
	};
	if (!set->targets)
		return -ENOMEM;
	for (uint32_t i = 0; i < config->target_count; i++)
		resolve(set, i, now_ns);
	return 0;
}

void sl_endpoints_fini(struct sl_endpoints *set)
{
	while (set->first) {
		struct sl_endpoint *endpoint = set->first;

		set->first = endpoint->next;
		free_endpoint(endpoint);
	}
	for (uint32_t i = 0; i < set->config->target_count; i++)
		sl_lookup_drop(set->targets[i].lookup);
	sl_timer_cancel(set->env.timers, &set->timer);
	sl_ring_destroy(set->ring);
	free(set->targets);
}

// --- choice --------------------------------------------------------------------------------------

static struct sl_endpoint *pick_owner(struct sl_endpoints *set, uint32_t owner, uint64_t now_ns)
{
	const uint32_t member = owner & 0xff;
	struct sl_endpoint *endpoint;
	double most;

	if (member >= set->member_count || !sl_endpoints_owns(set, owner))
		return NULL;
	endpoint = set->members[member];
	// One that hangs must not use up what the others' calls need.
	most = set->config->bound * set->config->concurrency / set->member_count;
	if (endpoint->in_flight >= SL_MAX(most, 1) || !is_healthy(endpoint, now_ns) ||
	    !sl_breaker_lets(&endpoint->breaker, now_ns))
		return NULL;
	return endpoint;
}

struct sl_endpoint *sl_endpoints_pick(struct sl_endpoints *set, uint32_t owner, uint64_t now_ns)
{
	struct sl_endpoint *best = NULL, *start = set->first;
	bool best_avoided = true;

	if (owner)
		return pick_owner(set, owner, now_ns);
	// Each search begins behind where the one before did: equals take turns.
	for (uint32_t i = set->count ? set->at++ % set->count : 0; i && start->next; i--)
		start = start->next;
	for (struct sl_endpoint *endpoint = start; endpoint;) {
		const bool avoided = now_ns < endpoint->avoided_until_ns;
		const bool better = !best || (best_avoided && !avoided) ||
				    (best_avoided == avoided &&
				     endpoint->in_flight < best->in_flight);

		if (better && is_healthy(endpoint, now_ns) &&
		    sl_breaker_lets(&endpoint->breaker, now_ns)) {
			best = endpoint;
			best_avoided = avoided;
		}
		endpoint = endpoint->next ? endpoint->next : set->first;
		if (endpoint == start)
			break;
	}
	return best;
}

uint64_t sl_endpoints_until(struct sl_endpoints *set, uint64_t now_ns)
{
	uint64_t until_ns = UINT64_MAX;

	for (struct sl_endpoint *endpoint = set->first; endpoint; endpoint = endpoint->next) {
		uint64_t at_ns = endpoint->outlier.until_ns;

		if (is_healthy(endpoint, now_ns))
			return 0;
		if (endpoint->gone)
			continue;
		if (sl_health_is_down(endpoint->health))
			at_ns = SL_MAX(at_ns, sl_health_next_ns(endpoint->health));
		if (endpoint->breaker.state == SL_BREAKER_OPEN)
			at_ns = SL_MAX(at_ns, endpoint->breaker.until_ns);
		until_ns = SL_MIN(until_ns, at_ns);
	}
	for (uint32_t i = 0; !set->count && i < set->config->target_count; i++)
		until_ns = SL_MIN(until_ns, set->targets[i].due_ns);
	return SL_MAX(until_ns, now_ns + LOOK_EVERY_NS);
}

// --- what calls say ------------------------------------------------------------------------------

void sl_endpoint_sent(struct sl_endpoint *endpoint)
{
	sl_breaker_sent(&endpoint->breaker);
	endpoint->in_flight++;
	sl_gauge(&endpoint->counters.in_flight[0], endpoint->in_flight);
}

void sl_endpoint_unsent(struct sl_endpoint *endpoint)
{
	sl_breaker_unsent(&endpoint->breaker);
	endpoint->in_flight--;
	sl_gauge(&endpoint->counters.in_flight[0], endpoint->in_flight);
}

static void hear_breaker(struct sl_endpoint *endpoint, bool failed, uint64_t now_ns)
{
	const struct sl_endpoints *set = endpoint->set;
	struct sl_destination_counters *counters = set->env.counters;

	if (SL_LIKELY(!sl_breaker_heard(&endpoint->breaker, failed, now_ns)))
		return;
	sl_count(&counters->breaker_opened[0], failed);
	sl_breaker_tell(counters, &endpoint->told, (int)endpoint->breaker.state);
	sl_log(SL_LOG_WARN, failed ? "breaker_open" : "breaker_closed",
	       "destination=%s endpoint=%s shard=%u", set->config->destination, endpoint->name,
	       set->env.shard);
}

// Where there are others they get its calls; its name may mean another address by now.
static void not_reached(struct sl_endpoint *endpoint, uint64_t now_ns)
{
	struct sl_endpoints *set = endpoint->set;
	const size_t index = (size_t)(endpoint->target - set->config->targets);
	struct sl_endpoints_target *target = &set->targets[index];

	if (!target->lookup && target->due_ns != UINT64_MAX)
		target->due_ns = SL_MIN(target->due_ns, now_ns + AGAIN_LEAST_NS);
	endpoint->avoid_ns = SL_MIN(SL_MAX(endpoint->avoid_ns * 2, AGAIN_LEAST_NS), AGAIN_MOST_NS);
	endpoint->avoided_until_ns = now_ns + endpoint->avoid_ns;
	if (endpoint->health && set->count > 1)
		sl_health_fail(endpoint->health, sl_client_pool_error(endpoint->pool), now_ns);
}

void sl_endpoint_heard(struct sl_endpoint *endpoint, struct sl_endpoint_verdict verdict,
		       uint64_t now_ns)
{
	assert(endpoint->in_flight);
	endpoint->in_flight--;
	sl_gauge(&endpoint->counters.in_flight[0], endpoint->in_flight);
	sl_count(&endpoint->counters.calls[0], 1);
	sl_count(&endpoint->counters.failed[0], !verdict.delivered);
	if (verdict.passed_on) {
		sl_breaker_unsent(&endpoint->breaker);
		return;
	}
	endpoint->outlier.ended++;
	endpoint->outlier.failed += !verdict.delivered;
	hear_breaker(endpoint, verdict.failing, now_ns);
	if (verdict.unreachable)
		not_reached(endpoint, now_ns);
	else
		endpoint->avoided_until_ns = endpoint->avoid_ns = 0;
}

// --- the turn ------------------------------------------------------------------------------------

static void judge(struct sl_endpoints *set, uint64_t now_ns)
{
	struct sl_outlier *outliers[SL_ENDPOINTS_MAX];
	uint32_t count = 0;

	set->judge_ns = now_ns + set->config->outlier.interval_ns;
	for (struct sl_endpoint *endpoint = set->first; endpoint; endpoint = endpoint->next) {
		if (!endpoint->gone)
			outliers[count++] = &endpoint->outlier;
	}
	sl_outliers_judge(outliers, count, &set->config->outlier, now_ns);
}

// What has changed about an endpoint is said once.
static void look_at(struct sl_endpoint *endpoint, uint64_t now_ns)
{
	const struct sl_endpoints *set = endpoint->set;
	const bool out = sl_outlier_is_out(&endpoint->outlier, now_ns);
	const bool healthy = is_healthy(endpoint, now_ns);
	const char *why;

	if (endpoint->health && sl_health_changed(endpoint->health, &why)) {
		const bool down = sl_health_is_down(endpoint->health);

		sl_log(SL_LOG_WARN, down ? "endpoint_unhealthy" : "endpoint_healthy",
		       "destination=%s endpoint=%s shard=%u%s%s%s", set->config->destination,
		       endpoint->name, set->env.shard, down ? " why=\"" : "", down ? why : "",
		       down ? "\"" : "");
	}
	for (unsigned i = 0; endpoint->target->tls && i < SL_LABEL_COUNT_handshake; i++)
		sl_gauge(&endpoint->counters.handshakes[i],
			 sl_client_pool_handshakes(endpoint->pool, i));
	if (set->config->breaker.failures)
		sl_breaker_tell(set->env.counters, &endpoint->told,
				(int)sl_breaker_now(&endpoint->breaker, now_ns));
	if (SL_UNLIKELY(out != endpoint->out)) {
		endpoint->out = out;
		sl_count(&endpoint->counters.ejected[0], out);
		sl_log(SL_LOG_WARN, out ? "endpoint_ejected" : "endpoint_returned",
		       "destination=%s endpoint=%s shard=%u", set->config->destination,
		       endpoint->name, set->env.shard);
	}
	if (SL_UNLIKELY(endpoint->counters.healthy[0] != healthy))
		sl_gauge(&endpoint->counters.healthy[0], healthy);
}

static void nothing(struct sl_timer *timer, uint64_t now_ns)
{
	(void)timer, (void)now_ns;
}

// When an endpoint is usable again without anything happening, at the earliest.
static uint64_t back_ns(const struct sl_endpoint *endpoint, uint64_t now_ns)
{
	uint64_t at_ns = UINT64_MAX;

	if (endpoint->outlier.until_ns > now_ns)
		at_ns = endpoint->outlier.until_ns;
	return SL_MIN(at_ns, sl_breaker_due_ns(&endpoint->breaker));
}

void sl_endpoints_poll(struct sl_endpoints *set, uint64_t now_ns)
{
	uint64_t due_ns = UINT64_MAX;

	for (uint32_t i = 0; i < set->config->target_count; i++) {
		if (SL_UNLIKELY(now_ns >= set->targets[i].due_ns))
			resolve(set, i, now_ns);
		due_ns = SL_MIN(due_ns, set->targets[i].due_ns);
	}
	if (set->config->outlier.interval_ns) {
		if (now_ns >= set->judge_ns)
			judge(set, now_ns);
		due_ns = SL_MIN(due_ns, set->judge_ns);
	}
	for (struct sl_endpoint **link = &set->first, *endpoint; (endpoint = *link);) {
		if (SL_UNLIKELY(endpoint->gone && !endpoint->in_flight)) {
			*link = endpoint->next;
			free_endpoint(endpoint);
			continue;
		}
		if (endpoint->health && !endpoint->gone)
			due_ns = SL_MIN(due_ns, sl_health_run(endpoint->health, now_ns));
		look_at(endpoint, now_ns);
		due_ns = SL_MIN(due_ns, back_ns(endpoint, now_ns));
		link = &endpoint->next;
	}
	turn_ring(set, now_ns);
	for (struct sl_endpoint *endpoint = set->first; endpoint; endpoint = endpoint->next)
		sl_client_pool_flush(endpoint->pool, now_ns);
	if (due_ns == UINT64_MAX)
		return;
	set->timer.fire = nothing;
	if (!sl_timer_armed(&set->timer) || set->timer.at_ns != due_ns)
		sl_timer_set(set->env.timers, &set->timer, due_ns);
}
