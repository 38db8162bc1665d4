#include "tenants/grace.h"

void sl_grace_init(struct sl_grace *grace)
{
	memset(grace, 0, sizeof(*grace));
	grace->epoch = 1;
}

uint64_t sl_grace_ask(struct sl_grace *grace)
{
	return __atomic_add_fetch(&grace->epoch, 1, __ATOMIC_SEQ_CST);
}

bool sl_grace_over(const struct sl_grace *grace, uint64_t epoch)
{
	const uint32_t count = __atomic_load_n(&grace->shard_count, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < count; i++)
		if (__atomic_load_n(&grace->shards[i].over, __ATOMIC_ACQUIRE) < epoch)
			return false;
	return true;
}

bool sl_grace_turn(struct sl_grace_side *side, const struct sl_grace *grace)
{
	const uint64_t epoch = __atomic_load_n(&grace->epoch, __ATOMIC_SEQ_CST);

	if (SL_LIKELY(side->told == epoch) || side->open[!side->phase])
		return false;
	if (side->told == side->began) {
		side->phase = !side->phase;
		side->began = epoch;
	}
	return !side->open[!side->phase];
}

void sl_grace_tell(struct sl_grace_side *side, struct sl_grace *grace, uint32_t shard,
		   uint32_t shards)
{
	assert(shard < shards && shards <= SL_GRACE_SHARDS_MAX);
	side->told = side->began;
	__atomic_store_n(&grace->shards[shard].over, side->began, __ATOMIC_RELEASE);
	__atomic_store_n(&grace->shard_count, shards, __ATOMIC_RELEASE);
}
