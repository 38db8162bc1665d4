#include "tenants/quota_pool.h"

int64_t sl_quota_pool_draw(struct sl_quota_pool *pool, enum sl_dimension dimension, int64_t need,
			   int64_t own, int64_t cost, int64_t extra, uint32_t share_shift,
			   int64_t *level)
{
	int64_t *tokens = &pool->tokens[dimension];
	int64_t take;

	assert(own >= 0 && cost > own);
	*level = __atomic_load_n(tokens, __ATOMIC_RELAXED);
	do {
		if (*level < need)
			return -1;
		take = SL_MAX(cost - own, SL_MIN(*level >> share_shift, extra));
		// Sequentially consistent: the authority that lets a pool sleep looks at the level
		// after it has said so, and the shard at `awake` after it has drawn; one of them
		// sees the other.
	} while (!__atomic_compare_exchange_n(tokens, level, *level - take, true, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	return take;
}

void sl_quota_pool_wake(struct sl_quota_pool *pool, struct sl_quota_woken *woken)
{
	if (__atomic_load_n(&pool->awake, __ATOMIC_SEQ_CST))
		return;
	if (__atomic_exchange_n(&pool->awake, 1, __ATOMIC_SEQ_CST))
		return;
	pool->next = __atomic_load_n(&woken->first, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&woken->first, &pool->next, pool, true,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}
