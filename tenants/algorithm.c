#include "tenants/algorithm.h"

#include <math.h>

// Of a leaky bucket: what one tick grants, and the next.
#define LEAKY_BURST_NS (20 * SL_MS)

struct sl_limit sl_algorithm_limit(enum sl_algorithm algorithm, double per_s, uint64_t burst_ns,
				   uint64_t window_ns)
{
	switch (algorithm) {
	case SL_ALGORITHM_LEAKY:
		return sl_limit_rate(per_s, LEAKY_BURST_NS);
	case SL_ALGORITHM_SLIDING_WINDOW:
		return sl_limit_rate(per_s, window_ns);
	case SL_ALGORITHM_TOKEN_BUCKET:
		break;
	}
	return sl_limit_rate(per_s, burst_ns);
}

// One dimension; returns whether it is full now.
static bool refill(struct sl_quota_pool *pool, unsigned dimension, const struct sl_limit *limit,
		   double elapsed_s)
{
	int64_t *tokens = &pool->tokens[dimension];
	const int64_t level = __atomic_load_n(tokens, __ATOMIC_RELAXED);
	const double earned = limit->per_s * elapsed_s + pool->fractions[dimension];

	// The difference may be negative: a burst became smaller, or fragments came back to a full
	// pool. Shards draw meanwhile, so the change is added, never stored.
	if (earned >= (double)(limit->burst - level)) {
		pool->fractions[dimension] = 0;
		if (level != limit->burst)
			__atomic_fetch_add(tokens, limit->burst - level, __ATOMIC_RELAXED);
		return true;
	}

	const int64_t whole = (int64_t)earned;

	pool->fractions[dimension] = earned - (double)whole;
	if (whole)
		__atomic_fetch_add(tokens, whole, __ATOMIC_RELAXED);
	return false;
}

// --- sliding window ------------------------------------------------------------------------------

// Shards read these for their hints.
static void put(double *to, double value)
{
	__atomic_store(to, &value, __ATOMIC_RELAXED);
}

static double get(const double *from)
{
	double value;

	__atomic_load(from, &value, __ATOMIC_RELAXED);
	return value;
}

static void roll(double *present, double *before, uint64_t windows)
{
	if (!windows)
		return;
	*before = windows == 1 ? *present : 0;
	*present = 0;
}

// How many windows ended: while the pool slept, and since, while what is new was spent.
struct passed {
	uint64_t asleep, since;
	double over; // the part of the present window that is
};

// One dimension. Returns whether it is full now.
static bool slide(struct sl_quota_pool *pool, unsigned dimension, const struct sl_limit *limit,
		  const struct passed *passed)
{
	struct sl_quota_window *window = pool->window;
	const int64_t level = sl_quota_pool_level(pool, dimension);
	double present = window->present[dimension], before = window->before[dimension];
	int64_t target;

	roll(&present, &before, passed->asleep);
	if (window->known & 1u << dimension)
		present += (double)(window->level[dimension] - level);
	else
		present = (double)SL_MAX(limit->burst - level, 0);
	if (present < 0) { // given back, of the window before
		before = SL_MAX(before + present, 0);
		present = 0;
	}
	roll(&present, &before, passed->since);
	target = (int64_t)floor((double)limit->burst - present - before * (1 - passed->over));
	// Shards draw meanwhile, so the change is added, never stored.
	if (target != level)
		sl_quota_pool_return(pool, dimension, target - level);
	put(&window->present[dimension], present);
	put(&window->before[dimension], before);
	__atomic_store_n(&window->level[dimension], target, __ATOMIC_RELAXED);
	window->known |= 1u << dimension;
	return present <= 0 && before <= 0;
}

// Up to `before_ns` nothing was spent that is not known.
static bool slide_all(struct sl_quota_pool *pool, const struct sl_limits *limits,
		      uint64_t before_ns, uint64_t now_ns)
{
	struct sl_quota_window *window = pool->window;
	const uint64_t length_ns = limits->window_ns, number = now_ns / length_ns;
	const bool same = window->window_ns == length_ns;
	const uint64_t at = same ? SL_MAX(before_ns / length_ns, window->number) : number;
	const struct passed passed = {
		.asleep = same ? at - window->number : 0,
		.since = number - at,
		.over = (double)(now_ns - number * length_ns) / (double)length_ns,
	};
	bool full = true;

	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		if (sl_limit_is_set(&limits->dimensions[i]))
			full &= slide(pool, i, &limits->dimensions[i], &passed);
		else
			window->known &= ~(1u << i);
	}
	__atomic_store_n(&window->number, number, __ATOMIC_RELAXED);
	window->window_ns = length_ns;
	return full;
}

// Until the window ends the bucket refills at the rate of the one before, then at that of this one.
static double slide_wait_ns(const struct sl_limits *limits, const struct sl_quota_pool *pool,
			    unsigned dimension, double missing, uint64_t now_ns)
{
	const struct sl_quota_window *window = pool->window;
	const double length = (double)limits->window_ns;
	const uint64_t number = __atomic_load_n(&window->number, __ATOMIC_RELAXED);
	const double left = (double)((number + 1) * limits->window_ns) - (double)now_ns;
	const double before = get(&window->before[dimension]);
	const int64_t spent = __atomic_load_n(&window->level[dimension], __ATOMIC_RELAXED) -
			      sl_quota_pool_level(pool, dimension);
	const double present = get(&window->present[dimension]) + (double)spent;
	const double gain = before * SL_MAX(left, 0) / length;

	if (gain >= missing)
		return missing / before * length;
	if (present <= missing - gain)
		return SL_MAX(left, 0) + length;
	return SL_MAX(left, 0) + (missing - gain) / present * length;
}

double sl_algorithm_wait_ns(const struct sl_limits *limits, const struct sl_quota_pool *pool,
			    unsigned dimension, int64_t missing, uint64_t now_ns)
{
	// Of a fleet's window Redis has the counts.
	if (limits->algorithm == SL_ALGORITHM_SLIDING_WINDOW && !pool->leases)
		return slide_wait_ns(limits, pool, dimension, (double)missing, now_ns);
	return (double)missing / limits->dimensions[dimension].per_s * (double)SL_S;
}

bool sl_algorithm_fill(struct sl_quota_pool *pool, const struct sl_limits *limits, uint64_t now_ns)
{
	const uint64_t before_ns = pool->filled_ns;
	const double elapsed_s = now_ns > pool->filled_ns
					 ? (double)(now_ns - pool->filled_ns) / (double)SL_S
					 : 0;
	bool full = true;

	pool->filled_ns = SL_MAX(now_ns, pool->filled_ns);
	if (limits->algorithm == SL_ALGORITHM_SLIDING_WINDOW)
		return slide_all(pool, limits, before_ns, pool->filled_ns);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (sl_limit_is_set(&limits->dimensions[i]))
			full &= refill(pool, i, &limits->dimensions[i], elapsed_s);
	return full;
}
