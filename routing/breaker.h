#pragma once

#include "dataplane/base/base.h"
#include "routing/settings.h"

// A destination's breaker on one shard: opens when it fails so many times in a row, or too often,
// and lets a few probes through after a wait, which doubles until one succeeds.
//
//   closed --failures--> open --wait--> half open --success--> closed
//                          ^-----------failure--------'
//
// Threading: one owner. Memory: plain value. Time: passed in.
enum sl_breaker_state { SL_BREAKER_CLOSED, SL_BREAKER_HALF_OPEN, SL_BREAKER_OPEN };

struct sl_breaker {
	const struct sl_breaker_config *config; // failures 0: always closed
	enum sl_breaker_state state;
	uint64_t wait_ns, until_ns; // open: until then
	uint64_t window_ns;         // when the window of the two below began
	uint32_t ended, failed;
	uint32_t in_row, probes; // half open: probes that have not ended
};

void sl_breaker_init(struct sl_breaker *breaker, const struct sl_breaker_config *config);
// What it is now: an open one becomes half open when its time has come.
enum sl_breaker_state sl_breaker_now(struct sl_breaker *breaker, uint64_t now_ns);
// When it becomes so by itself; UINT64_MAX: it does not.
uint64_t sl_breaker_due_ns(const struct sl_breaker *breaker);
// Whether something may be sent now: if so, sl_breaker_sent() counts it before it can end.
bool sl_breaker_lets(struct sl_breaker *breaker, uint64_t now_ns);
void sl_breaker_sent(struct sl_breaker *breaker);
void sl_breaker_unsent(struct sl_breaker *breaker); // it was not taken after all
// What was sent has ended. Returns whether it opened or closed. Half open, an end of what was sent
// before counts as a probe's once there is one.
bool sl_breaker_heard(struct sl_breaker *breaker, bool failed, uint64_t now_ns);

// Retries cost a token each, first attempts bring a share of one, and a retry that succeeds brings
// its own back: what fails on is at most that share of what is sent (and a few a second), and an
// outage that is over is worked off at full speed.
struct sl_retry_budget {
	uint64_t milli, at_ns;
};
#define SL_RETRY_TOKEN        1000u
#define SL_RETRY_TOKENS_MAX   100
#define SL_RETRY_TOKENS_PER_S 10

void sl_retry_budget_init(struct sl_retry_budget *budget, uint64_t now_ns);
void sl_retry_budget_add(struct sl_retry_budget *budget, uint64_t milli);
bool sl_retry_budget_spend(struct sl_retry_budget *budget, uint64_t now_ns);
