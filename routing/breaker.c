#include "routing/breaker.h"

#define WINDOW_NS (10 * SL_S)

void sl_breaker_init(struct sl_breaker *breaker, const struct sl_breaker_config *config)
{
	*breaker = (struct sl_breaker){.config = config, .wait_ns = config->wait_ns};
}

enum sl_breaker_state sl_breaker_now(struct sl_breaker *breaker, uint64_t now_ns)
{
	if (SL_UNLIKELY(breaker->state == SL_BREAKER_OPEN) && now_ns >= breaker->until_ns) {
		breaker->state = SL_BREAKER_HALF_OPEN;
		breaker->probes = 0;
	}
	return breaker->state;
}

uint64_t sl_breaker_due_ns(const struct sl_breaker *breaker)
{
	return breaker->state == SL_BREAKER_OPEN ? breaker->until_ns : UINT64_MAX;
}

bool sl_breaker_lets(struct sl_breaker *breaker, uint64_t now_ns)
{
	const enum sl_breaker_state state = sl_breaker_now(breaker, now_ns);

	return SL_LIKELY(state == SL_BREAKER_CLOSED) ||
	       (state == SL_BREAKER_HALF_OPEN && breaker->probes < breaker->config->probes);
}

void sl_breaker_sent(struct sl_breaker *breaker)
{
	breaker->probes += breaker->state == SL_BREAKER_HALF_OPEN;
}

void sl_breaker_unsent(struct sl_breaker *breaker)
{
	breaker->probes -= breaker->state == SL_BREAKER_HALF_OPEN && breaker->probes;
}

static void open_it(struct sl_breaker *breaker, uint64_t now_ns)
{
	breaker->state = SL_BREAKER_OPEN;
	breaker->until_ns = now_ns + breaker->wait_ns;
	breaker->wait_ns = SL_MIN(breaker->wait_ns * 2, breaker->config->wait_max_ns);
}

static bool is_failing(const struct sl_breaker *breaker)
{
	const struct sl_breaker_config *config = breaker->config;

	return breaker->in_row >= config->failures ||
	       (breaker->ended >= config->calls_min &&
		(double)breaker->failed >= config->error_rate * (double)breaker->ended);
}

bool sl_breaker_heard(struct sl_breaker *breaker, bool failed, uint64_t now_ns)
{
	if (!breaker->config->failures || breaker->state == SL_BREAKER_OPEN)
		return false; // of what was sent before: the probes decide
	if (breaker->state == SL_BREAKER_HALF_OPEN) {
		if (!breaker->probes)
			return false;
		if (failed)
			open_it(breaker, now_ns);
		else
			sl_breaker_init(breaker, breaker->config);
		return true;
	}
	if (now_ns - breaker->window_ns >= WINDOW_NS) {
		breaker->window_ns = now_ns;
		breaker->ended = breaker->failed = 0;
	}
	breaker->ended++;
	breaker->failed += failed;
	breaker->in_row = failed ? breaker->in_row + 1 : 0;
	if (!failed || !is_failing(breaker))
		return false;
	open_it(breaker, now_ns);
	return true;
}

void sl_retry_budget_init(struct sl_retry_budget *budget, uint64_t now_ns)
{
	*budget = (struct sl_retry_budget){SL_RETRY_TOKENS_MAX * SL_RETRY_TOKEN, now_ns};
}

void sl_retry_budget_add(struct sl_retry_budget *budget, uint64_t milli)
{
	budget->milli = SL_MIN(budget->milli + milli, SL_RETRY_TOKENS_MAX * SL_RETRY_TOKEN);
}

bool sl_retry_budget_spend(struct sl_retry_budget *budget, uint64_t now_ns)
{
	const uint64_t passed_ms = (now_ns - budget->at_ns) / SL_MS;

	budget->at_ns += passed_ms * SL_MS;
	sl_retry_budget_add(budget, passed_ms * SL_RETRY_TOKENS_PER_S);
	if (budget->milli < SL_RETRY_TOKEN)
		return false;
	budget->milli -= SL_RETRY_TOKEN;
	return true;
}
