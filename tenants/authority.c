#include "tenants/authority.h"

#include "dataplane/base/hash.h"

#define IN_FLIGHT SL_DIMENSION_IN_FLIGHT_BYTES

void sl_authority_begin(struct sl_authority *authority, uint64_t now_ns)
{
	struct sl_quota_pool *pool = __atomic_exchange_n(&authority->woken.first, NULL,
							 __ATOMIC_ACQUIRE);
	const uint64_t since_ns = authority->tick_ns ? authority->tick_ns : now_ns;

	while (pool) {
		struct sl_quota_pool *next = pool->next;

		// It was full at the last tick, else it would have been awake then.
		pool->filled_ns = since_ns;
		pool->next = authority->awake;
		authority->awake = pool;
		pool = next;
	}
	authority->tick_ns = now_ns;
}

bool sl_authority_sleep(struct sl_quota_pool *pool, const struct sl_limits *limits)
{
	uint32_t asleep = 0;
	bool full = true;

	__atomic_store_n(&pool->awake, 0, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (sl_limit_is_set(&limits->dimensions[i]))
			full &= __atomic_load_n(&pool->tokens[i], __ATOMIC_SEQ_CST) >=
				limits->dimensions[i].burst;
	if (full)
		return true;
	// Drawn from since: stays, unless its shard has put it on the list of the woken already.
	return !__atomic_compare_exchange_n(&pool->awake, &asleep, 1, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
}

void sl_authority_introduce(struct sl_quota_pool *pool, const struct sl_limits *limits)
{
	for (unsigned i = 0; i < SL_DIMENSIONS; i++) {
		const bool in_flight = i >= IN_FLIGHT;

		if (pool->filled_once & 1u << i)
			continue;
		if (!in_flight && !sl_limit_is_set(&limits->dimensions[i]))
			continue; // no shard touches the tokens of a rate without a limit
		if (!in_flight && pool->leases)
			continue; // the fleet grants
		pool->filled_once |= 1u << i;
		__atomic_store_n(&pool->tokens[i], limits->dimensions[i].burst, __ATOMIC_RELAXED);
		if (in_flight)
			pool->in_flight_limits[i - IN_FLIGHT] = limits->dimensions[i].burst;
	}
}

// Who sleeps has been idle: its bucket is as full under the new limits as it was under the old, at
// once. Else a reload that changes a class would keep all of its tenants awake until they are.
// Returns whether it is full.
static bool fit(struct sl_quota_pool *pool, unsigned dimension, const struct sl_limits *limits)
{
	const int64_t burst = limits->dimensions[dimension].burst;
	const int64_t level = sl_quota_pool_level(pool, dimension);

	if (level == burst)
		return true;
	if (limits->algorithm != SL_ALGORITHM_TOKEN_BUCKET || !sl_quota_pool_rests(pool))
		return false;
	// Added, not stored: a shard may draw meanwhile, and wakes it then.
	sl_quota_pool_return(pool, dimension, burst - level);
	return true;
}

// A leaky bucket's debt is its queue, and goes with it when a reload changes the bucket: what is
// more than the new limits let wait is forgiven, else it would be paid at a rate that may be far
// smaller, or as a token bucket's.
static void forgive(struct sl_quota_pool *pool, unsigned dimension, const struct sl_limits *limits)
{
	const struct sl_limit *limit = &limits->dimensions[dimension];
	const int64_t level = sl_quota_pool_level(pool, dimension);
	int64_t least = 0;

	if (limits->algorithm == SL_ALGORITHM_LEAKY)
		least = -(int64_t)(limit->per_s * ((double)limits->delay_max_ns / (double)SL_S));
	if (level < least)
		sl_quota_pool_return(pool, dimension, least - level);
}

static uint32_t leaky_of(const struct sl_limits *limits)
{
	double terms[SL_DIMENSION_RATES + 1] = {
		[SL_DIMENSION_RATES] = (double)limits->delay_max_ns};

	if (limits->algorithm != SL_ALGORITHM_LEAKY)
		return 0;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		terms[i] = limits->dimensions[i].per_s;
	return (uint32_t)sl_hash(sl_bytes(terms, sizeof(terms))) | 1;
}

void sl_authority_adopt(struct sl_authority *authority, struct sl_quota_pool *pool,
			const struct sl_limits *limits)
{
	const uint32_t leaky = leaky_of(limits);
	const bool other = pool->leaky && pool->leaky != leaky;
	bool full = true;

	for (unsigned i = IN_FLIGHT; i < SL_DIMENSIONS; i++) {
		int64_t *applied = &pool->in_flight_limits[i - IN_FLIGHT];

		if (limits->dimensions[i].burst != *applied)
			sl_quota_pool_return(pool, i, limits->dimensions[i].burst - *applied);
		*applied = limits->dimensions[i].burst;
	}
	for (unsigned i = 0; i < SL_DIMENSION_RATES && !pool->leases; i++) {
		if (!sl_limit_is_set(&limits->dimensions[i]))
			continue;
		if (other)
			forgive(pool, i, limits);
		full &= fit(pool, i, limits);
	}
	pool->leaky = leaky;
	if (!full)
		sl_quota_pool_wake(pool, &authority->woken);
}
