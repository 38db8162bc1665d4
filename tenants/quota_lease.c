#include "tenants/quota_lease.h"

// Nothing heard for a while, nothing lent since or still owed: the bucket has what was left then
// with what time has earned. Without the last two, credit would be renewed while the bucket is in
// debt, and spending had no bound (tests/sim/fleet/fleet.pml finds it). Never more than the burst,
// and negative when the tenant may not wake.
static double wake_room(const struct sl_quota_pool *pool, enum sl_dimension dimension,
			const struct sl_limit *limit, uint64_t now_ns)
{
	const struct sl_quota_lease *lease = &pool->leases[dimension];
	const uint64_t seen_ns = __atomic_load_n(&lease->seen_ns, __ATOMIC_RELAXED);
	double room;

	if (__atomic_load_n(&lease->woken, __ATOMIC_ACQUIRE) ||
	    sl_quota_pool_level(pool, dimension) < 0)
		return -1;
	if (seen_ns == 0)
		return (double)limit->burst;
	if (now_ns < seen_ns + SL_QUOTA_LEASE_FRESH_NS)
		return -1;
	room = (double)__atomic_load_n(&lease->room, __ATOMIC_RELAXED);
	if (!__atomic_load_n(&lease->sliding, __ATOMIC_RELAXED))
		room += limit->per_s * (double)(now_ns - seen_ns) / (double)SL_S;
	else if (now_ns >= seen_ns + 2 * sl_limit_fill_ns(limit))
		return (double)limit->burst; // what was in it then has slid out
	return SL_MIN(room, (double)limit->burst);
}

static bool may_wake(const struct sl_quota_pool *pool, enum sl_dimension dimension,
		     const struct sl_limit *limit, int64_t amount, uint64_t now_ns)
{
	return wake_room(pool, dimension, limit, now_ns) >= (double)SL_MIN(amount, limit->burst);
}

int64_t sl_quota_lease_room(const struct sl_quota_pool *pool, enum sl_dimension dimension,
			    const struct sl_limit *limit, uint64_t now_ns)
{
	const int64_t credit = __atomic_load_n(&pool->leases[dimension].credit, __ATOMIC_RELAXED);
	const double room = wake_room(pool, dimension, limit, now_ns);

	return SL_MAX(SL_MAX(credit, (int64_t)room), 0);
}

bool sl_quota_lease_open(const struct sl_quota_pool *pool, enum sl_dimension dimension,
			 const struct sl_limit *limit, int64_t amount, uint64_t now_ns)
{
	return __atomic_load_n(&pool->leases[dimension].credit, __ATOMIC_RELAXED) >= amount ||
	       may_wake(pool, dimension, limit, amount, now_ns);
}

bool sl_quota_lease_borrow(struct sl_quota_pool *pool, enum sl_dimension dimension,
			   const struct sl_limit *limit, int64_t amount, uint64_t now_ns,
			   uint32_t chance)
{
	struct sl_quota_lease *lease = &pool->leases[dimension];
	int64_t credit = __atomic_load_n(&lease->credit, __ATOMIC_RELAXED);
	bool lent = false;

	while (!lent && credit >= amount) {
		if (chance > ~__atomic_load_n(&lease->deaf, __ATOMIC_RELAXED))
			return false;
		lent = __atomic_compare_exchange_n(&lease->credit, &credit, credit - amount, true,
						   __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	}
	if (!lent) {
		if (!may_wake(pool, dimension, limit, amount, now_ns) ||
		    __atomic_exchange_n(&lease->woken, 1, __ATOMIC_ACQ_REL))
			return false;
		credit = __atomic_load_n(&lease->wake_credit, __ATOMIC_RELAXED);
		__atomic_store_n(&lease->credit, SL_MAX(credit - amount, 0), __ATOMIC_RELAXED);
	}
	sl_quota_pool_return(pool, dimension, -amount);
	return true;
}
