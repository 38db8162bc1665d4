#include "tenants/fleet/account.h"

#include <math.h>

// An instance holds granted tokens for about so long: more is smoother, and is what it may be wrong
// by when load moves.
#define LAMBDA_S 0.1
#define TICK_S   0.01
// Calls for one account are at least so far apart: when it is busy, when load has just changed, and
// when each request is paid afterwards.
#define BUSY_S     0.05
#define HOT_S      0.02
#define POSTPAID_S 0.02
#define CALM_S     5.0
// How long a change of load counts as new.
#define HOT_FOR_NS (400 * SL_MS)
// Demand that is not renewed is forgotten; the script has the same constant.
#define DEMAND_TAU_S 2.0
// Whoever wakes does not know yet what the others do.
#define SHY_NS (30 * SL_MS)
// Nor do those who are back before the others: longer than the links' longest backoff.
#define RETURN_NS (600 * SL_MS)
// What waking up allows, as time of the N-th part of R.
#define WAKE_S 0.025
// Without an authority: how much of the rate may be saved up.
#define CUT_BURST_S    0.25
#define QUIET_NS       (2 * SL_S)
#define LARGEST_FOR_NS (10 * SL_S)
#define FEW            12
// The share that is lived on without an authority, for long perhaps, is an average: a snapshot of
// noisy rates is wrong by a quarter for as long as nobody answers.
#define SLOW_S 1.0

static double seconds(uint64_t later_ns, uint64_t earlier_ns)
{
	return later_ns > earlier_ns ? (double)(later_ns - earlier_ns) / (double)SL_S : 0;
}

static double clamp(double value, double least, double most)
{
	return value < least ? least : value > most ? most : value;
}

static struct sl_quota_lease *lease_of(const struct sl_fleet_account *account)
{
	return &account->pool->leases[account->dimension];
}

// Tokens that the control thread adds are no change of what shards draw.
static void add(struct sl_fleet_account *account, int64_t tokens)
{
	if (tokens == 0)
		return;
	account->base += tokens;
	sl_quota_pool_return(account->pool, account->dimension, tokens);
}

static void set_credit(struct sl_fleet_account *account, double tokens)
{
	account->credit = (int64_t)clamp(tokens, 0, (double)SL_UNLIMITED);
	__atomic_store_n(&lease_of(account)->credit, account->credit, __ATOMIC_RELAXED);
}

void sl_fleet_account_init(struct sl_fleet_account *account, struct sl_quota_pool *pool,
			   enum sl_dimension dimension, const struct sl_limit *limit,
			   const struct sl_fleet_terms *terms)
{
	struct sl_quota_lease *lease = &pool->leases[dimension];

	*account = (struct sl_fleet_account){
		.pool = pool,
		.dimension = dimension,
		.limit = *limit,
		.born_ns = terms->now_ns,
		.ticked_ns = terms->now_ns,
		.active_ns = terms->now_ns,
		// What woke it is not told yet.
		.base = SL_MAX(sl_quota_pool_level(pool, dimension), 0),
		.woken = true,
		.woke_ns = terms->now_ns,
		.refused = __atomic_load_n(&lease->refused, __ATOMIC_RELAXED),
		.told_ns = terms->now_ns,
		.asked_ns = terms->now_ns,
		.counted_ns = terms->now_ns,
		.largest_ns = terms->now_ns,
		.share = 1 / terms->instances,
	};
	if (lease->seen_ns) { // known before it fell asleep
		account->known = true;
		account->room = (double)lease->room;
		account->answered_ns = lease->seen_ns;
	}
}

// The rate over the last few requests: it tells at once when load moves. Fewer would tell so all
// the time.
static void count(struct sl_fleet_account *account, uint64_t now_ns)
{
	const double since_s = seconds(now_ns, account->counted_ns);

	if (account->counted < FEW * SL_MAX(account->largest, 1) &&
	    since_s * SL_MAX(account->rate, account->fast) < 2.5 * FEW * account->largest)
		return;
	account->fast = SL_MAX(account->counted, 0) / SL_MAX(since_s, TICK_S);
	account->counted = 0;
	account->counted_ns = now_ns;
	if (account->fast > 2 * account->rate || account->fast < 0.4 * account->rate)
		account->hot_until_ns = now_ns + HOT_FOR_NS;
}

// How much is offered, and how large the largest request is.
static void look(struct sl_fleet_account *account, uint64_t now_ns)
{
	struct sl_quota_lease *lease = lease_of(account);
	const int64_t level = sl_quota_pool_level(account->pool, account->dimension);
	const int64_t refused = __atomic_load_n(&lease->refused, __ATOMIC_RELAXED);
	const int64_t largest = __atomic_exchange_n(&lease->largest, 0, __ATOMIC_RELAXED);
	const double offered = (double)(account->base - level + refused - account->refused);
	const double tick_s = seconds(now_ns, account->ticked_ns);
	double tau_s;

	account->base = level;
	account->refused = refused;
	account->ticked_ns = now_ns;
	if (offered != 0)
		account->active_ns = now_ns;
	// The largest of this span and of the one before.
	account->largest = SL_MAX((double)largest, account->largest);
	account->next_largest = SL_MAX((double)largest, account->next_largest);
	if (now_ns > account->largest_ns + LARGEST_FOR_NS) {
		account->largest = account->next_largest;
		account->next_largest = 0;
		account->largest_ns = now_ns;
	}
	if (tick_s <= 0)
		return;
	account->counted += offered;
	count(account, now_ns);
	tau_s = clamp(8 * account->largest / SL_MAX(SL_MAX(account->rate, account->fast), 1e-9),
		      0.05, 1);
	// At first the average is of what there has been: one that climbs from nothing is a share
	// that others take.
	tau_s = SL_MIN(tau_s, seconds(now_ns, account->born_ns));
	account->rate += (1 - exp(-tick_s / tau_s)) * (offered / tick_s - account->rate);
	account->rate = SL_MAX(account->rate, 0);
	account->slow_rate += (1 - exp(-tick_s / SLOW_S)) * (account->rate - account->slow_rate);
	account->slow_demand += (1 - exp(-tick_s / SLOW_S)) *
				(account->demand - account->slow_demand);
}

// What is held here unspent and what is wanted beside it; whether to ask.
static bool plan(struct sl_fleet_account *account, const struct sl_fleet_terms *terms)
{
	const double per_s = account->limit.per_s, largest = SL_MAX(account->largest, 1);
	const double demand = SL_MAX(SL_MAX(account->demand, account->rate), 1e-9);
	const double equal = 1 / terms->instances;
	const double level = (double)sl_quota_pool_level(account->pool, account->dimension);
	const double unspent = SL_MAX(level, 0), rtt_s = terms->rtt_s;
	const double since_s = seconds(terms->now_ns, account->asked_ns);
	const double credit = (double)__atomic_load_n(&lease_of(account)->credit, __ATOMIC_RELAXED);
	const double used = (double)account->credit - credit;
	double pause_s = SL_MAX(BUSY_S, terms->pause_s), wait_s, wanted, hold_s;

	account->share = account->rate / demand;
	if (account->woke_ns && terms->now_ns < account->woke_ns + SHY_NS)
		account->share = SL_MIN(account->share, equal);
	if (account->returned_ns && terms->now_ns < account->returned_ns + RETURN_NS)
		account->share = SL_MIN(account->share, account->own_share);
	wait_s = clamp(0.8 * LAMBDA_S * per_s / demand, pause_s, CALM_S);
	if (terms->now_ns < account->hot_until_ns)
		wait_s = pause_s = SL_MIN(wait_s, SL_MAX(HOT_S, terms->pause_s));
	account->postpaid = account->share * per_s * wait_s < largest;
	if (account->postpaid) {
		const double full = 2 * largest + (demand > per_s ? per_s * POSTPAID_S : 0);

		account->want = account->target = 0;
		if (account->room < full)
			wait_s = SL_MAX(POSTPAID_S, terms->pause_s);
		return since_s >= wait_s || used > 0;
	}
	wanted = account->rate * (wait_s + TICK_S + rtt_s);
	hold_s = SL_MAX(wait_s + TICK_S + rtt_s, SL_MIN(since_s, 0.2) + TICK_S / 2);
	account->target = SL_MIN(1.1 * wanted + sqrt(wanted * largest),
				 account->share * SL_MAX(1.1 * per_s * hold_s, account->room));
	account->target = SL_MIN(account->target, LAMBDA_S * per_s * SL_MAX(account->share, equal));
	if (account->rate > 0)
		account->target = SL_MAX(account->target, largest);
	account->want = SL_MAX(account->target - unspent, 0);
	if (since_s >= wait_s)
		return true;
	if (used * 4 > (double)account->credit && since_s >= TICK_S)
		return true; // only while the bucket has much: there is no other credit here
	return since_s >= pause_s && unspent < 0.3 * account->target;
}

// A bucket of our own, filled by time, whose tokens are credit: all that is spent is owed.
static void fill_alone(struct sl_fleet_account *account, const struct sl_fleet_terms *terms)
{
	int64_t *credit = &lease_of(account)->credit;
	const double share = terms->without == SL_FLEET_LIMIT_N ? 1 / terms->instances
								: account->own_share;
	const double per_s = account->limit.per_s * share;
	const double most = SL_MAX(per_s * CUT_BURST_S, SL_MAX(account->largest, 1));
	const double has = (double)__atomic_load_n(credit, __ATOMIC_RELAXED);
	const double earned = per_s * seconds(terms->now_ns, account->filled_ns) +
			      account->fraction;
	const double whole = floor(clamp(earned, 0, SL_MAX(most - has, 0)));

	account->filled_ns = terms->now_ns;
	if (terms->without == SL_FLEET_CLOSED)
		return;
	if (terms->without == SL_FLEET_OPEN) {
		set_credit(account, (double)SL_UNLIMITED / 2);
		return;
	}
	account->fraction = SL_MIN(earned - whole, 1);
	__atomic_fetch_add(credit, (int64_t)whole, __ATOMIC_RELAXED);
}

bool sl_fleet_account_tick(struct sl_fleet_account *account, const struct sl_fleet_terms *terms)
{
	struct sl_quota_lease *lease = lease_of(account);
	bool due;

	look(account, terms->now_ns);
	__atomic_store_n(&lease->sliding, account->sliding, __ATOMIC_RELAXED);
	__atomic_store_n(&lease->wake_credit,
			 (int64_t)(WAKE_S * account->limit.per_s / terms->instances),
			 __ATOMIC_RELAXED);
	if (!account->cut && !account->woken && __atomic_load_n(&lease->woken, __ATOMIC_ACQUIRE)) {
		account->woken = true;
		account->woke_ns = terms->now_ns;
		account->asked_ns = SL_MIN(account->asked_ns, terms->now_ns - TICK_S * SL_S);
	}
	due = plan(account, terms);
	if (account->asking) {
		if (account->cut)
			fill_alone(account, terms);
		return false;
	}
	if (account->cut) {
		fill_alone(account, terms);
		return true;
	}
	account->quiet = terms->now_ns > account->active_ns + QUIET_NS;
	if (account->quiet)
		return !account->asleep && (due || account->told_rate > 0);
	account->asleep = false;
	return due || account->woken;
}

// Takes up to `most` from what is there. Shards may be drawing.
static int64_t take_back(struct sl_fleet_account *account, double most)
{
	int64_t *tokens = &account->pool->tokens[account->dimension];
	int64_t level = __atomic_load_n(tokens, __ATOMIC_RELAXED), take;

	do {
		take = SL_MIN(level, (int64_t)most);
		if (take <= 0)
			return 0;
	} while (!__atomic_compare_exchange_n(tokens, &level, level - take, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	account->base -= take;
	return take;
}

// The level that was last seen, so that a Redis that has lost it does not begin with a full bucket.
static double floor_of(const struct sl_fleet_account *account, uint64_t now_ns)
{
	const double per_s = account->limit.per_s;
	double level_s;

	if (!account->unsettled || !account->known)
		return -1;
	level_s = ((double)account->limit.burst - account->room) / per_s;
	if (account->sliding) // when what is in the window slides out is not known here
		return now_ns < account->answered_ns + 2 * sl_limit_fill_ns(&account->limit)
			       ? SL_MAX(level_s, 0)
			       : 0;
	if (account->demand < per_s)
		level_s -= seconds(now_ns, account->answered_ns);
	return SL_MAX(level_s, 0);
}

void sl_fleet_account_ask(struct sl_fleet_account *account, const struct sl_fleet_terms *terms,
			  struct sl_fleet_ask *ask)
{
	const double decay = exp(-seconds(terms->now_ns, account->told_ns) / DEMAND_TAU_S);
	int64_t level;

	assert(!account->asking);
	if (account->quiet) {
		account->rate = account->target = account->want = 0;
		account->postpaid = true;
	}
	account->gave = 0;
	if (account->postpaid)
		account->gave = take_back(account, (double)SL_UNLIMITED);
	else if (account->want <= 0)
		account->gave = take_back(
			account,
			(double)sl_quota_pool_level(account->pool, account->dimension) >
					1.5 * account->target + account->largest
				? (double)sl_quota_pool_level(account->pool, account->dimension) -
					  account->target
				: 0);
	level = sl_quota_pool_level(account->pool, account->dimension);
	account->owed = level < 0 ? -level : 0;
	account->wanted = account->postpaid ? 0 : (int64_t)ceil(account->want);
	*ask = (struct sl_fleet_ask){
		.owed = (double)account->owed,
		.give = (double)account->gave,
		.want = (double)account->wanted,
		.rate = account->rate,
		.more = account->rate - account->told_rate * decay,
		.floor_s = floor_of(account, terms->now_ns),
		.per_s = account->limit.per_s,
		.burst = (double)account->limit.burst,
		.sliding = account->sliding,
	};
	account->told_rate = account->rate;
	account->told_ns = terms->now_ns;
	account->asked_ns = terms->now_ns;
	account->asking = true;
}

// What may be spent before the next answer. `room` is what is left when all that is owed here and
// not told yet will have been paid.
static double credit_for(const struct sl_fleet_account *account, const struct sl_fleet_terms *terms,
			 double room)
{
	const double per_s = account->limit.per_s, largest = SL_MAX(account->largest, 1);
	// A request larger than the bucket goes into debt: half of it is enough to begin.
	const double need = SL_MIN(largest, (double)((account->limit.burst + 1) / 2));
	const double half = account->share * room / 2;
	double credit = 0;

	if (account->postpaid)
		return room >= need ? SL_MAX(largest, half) : 0;
	if (room > 2 * per_s * BUSY_S)
		credit = SL_MIN(half,
				LAMBDA_S * per_s * SL_MAX(account->share, 1 / terms->instances));
	if (credit < largest)
		credit = room > 2 * terms->instances * largest ? largest : 0;
	return credit;
}

void sl_fleet_account_answer(struct sl_fleet_account *account, const struct sl_fleet_terms *terms,
			     const struct sl_fleet_answer *answer)
{
	struct sl_quota_lease *lease = lease_of(account);
	const double demand = answer->demand;
	int64_t level;
	double thin = 1;

	assert(account->asking);
	account->asking = false;
	if (account->cut && terms->without == SL_FLEET_OPEN) {
		// Nobody pays for what went through open doors.
		level = sl_quota_pool_level(account->pool, account->dimension) + account->owed;
		if (level < 0)
			add(account, -level);
	}
	if (account->cut)
		account->returned_ns = terms->now_ns;
	account->cut = account->unsettled = false;
	add(account, account->owed + (int64_t)answer->granted);
	account->owed = account->gave = 0;
	if (demand > 1.35 * account->usual || demand < 0.7 * account->usual) {
		if (account->known && fabs(demand - account->usual) > 0.02 * account->limit.per_s)
			account->hot_until_ns = terms->now_ns + HOT_FOR_NS;
		account->usual = demand;
	}
	account->usual += 0.1 * (demand - account->usual);
	account->room = answer->room;
	account->demand = demand;
	account->known = true;
	account->answered_ns = terms->now_ns;
	account->asleep = account->quiet;

	level = sl_quota_pool_level(account->pool, account->dimension);
	set_credit(account,
		   credit_for(account, terms, answer->room + (level < 0 ? (double)level : 0)));
	if (account->postpaid && demand > account->limit.per_s)
		thin = clamp(answer->room / (demand * (POSTPAID_S + TICK_S / 2 + terms->rtt_s)), 0,
			     1);
	__atomic_store_n(&lease->deaf, ~(uint32_t)(thin * UINT32_MAX), __ATOMIC_RELAXED);
	__atomic_store_n(&lease->room, (int64_t)answer->room, __ATOMIC_RELAXED);
	__atomic_store_n(&lease->seen_ns, terms->now_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&lease->woken, 0, __ATOMIC_RELEASE);
	account->woken = false;
}

void sl_fleet_account_lose(struct sl_fleet_account *account)
{
	account->asking = false;
	account->owed = account->gave = 0;
	// Whether D knows what was told is unknown too: what is told next counts in full.
	account->told_rate = 0;
}

void sl_fleet_account_undo(struct sl_fleet_account *account)
{
	add(account, account->gave);
	sl_fleet_account_lose(account);
}

void sl_fleet_account_cut(struct sl_fleet_account *account, const struct sl_fleet_terms *terms)
{
	account->unsettled = true;
	if (account->cut)
		return;
	account->cut = true;
	account->filled_ns = terms->now_ns;
	account->fraction = 0;
	account->own_share = 0.1 / terms->instances +
			     0.9 * (account->known && account->slow_rate > 0
					    ? account->slow_rate / SL_MAX(account->slow_rate,
									  account->slow_demand)
					    : 1 / terms->instances);
	__atomic_store_n(&lease_of(account)->woken, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&lease_of(account)->deaf, 0, __ATOMIC_RELAXED);
	set_credit(account, 0);
}
