#include <stdlib.h>

#include "tenants/ledger/internal.h"

// Tenants that a template makes come and go; their accounts must not stay for ever. One that has
// left, is still and owes no bill is added to the account of all of its class that left:
//
//   row of a seat's number --> account, made --left, still, billed--> _departed:CLASS
//                          \--too many--------------------------------^
//
// So no sum changes, and no usage record is made of what is moved: it has been billed by name.

#define LOOKED_AT 4096 // accounts that a call looks at

bool sl_ledger_is_departed(struct sl_bytes name)
{
	return sl_bytes_start(name, SL_LITERAL(SL_LEDGER_DEPARTED));
}

void sl_ledger_made_by(struct sl_ledger *ledger, const struct sl_ledger_maker *maker)
{
	pthread_mutex_lock(&ledger->lock);
	ledger->maker = *maker;
	pthread_mutex_unlock(&ledger->lock);
}

// The account of those of that class that left; NULL when out of memory.
static struct sl_ledger_account *departed(struct sl_ledger *ledger, const char *class_name)
{
	char name[SL_LEDGER_NAME_MAX + 1];

	snprintf(name, sizeof(name), SL_LEDGER_DEPARTED "%s", class_name);
	return sl_ledger_account(ledger, sl_bytes_of(name));
}

static uint16_t class_number(struct sl_ledger *ledger, const char *name)
{
	uint32_t at = 0;
	char *copied, **grown;

	while (at < ledger->class_count && strcmp(ledger->classes[at], name) != 0)
		at++;
	if (at < ledger->class_count)
		return (uint16_t)(at + 1);
	if (at == UINT16_MAX - 1)
		return 0;
	grown = realloc(ledger->classes, (at + 1) * sizeof(*grown));
	if (!grown)
		return 0;
	ledger->classes = grown;
	copied = strdup(name);
	if (!copied)
		return 0;
	ledger->classes[ledger->class_count++] = copied;
	return (uint16_t)(at + 1);
}

void sl_ledger_mark(struct sl_ledger *ledger, struct sl_ledger_account *account,
		    const char *class_name)
{
	if (account->rest)
		return;
	ledger->made -= account->made != 0;
	account->made = class_name ? class_number(ledger, class_name) : 0;
	ledger->made += account->made != 0;
}

static uint32_t names_max(const struct sl_ledger *ledger)
{
	const struct sl_ledger_maker *maker = &ledger->maker;

	return SL_LEDGER_DEPARTED_MAX + (maker->most ? maker->most(maker->self) : 0);
}

struct sl_ledger_account *sl_ledger_account_of(struct sl_ledger *ledger,
					       const struct sl_ledger_image *image)
{
	const struct sl_bytes name = sl_bytes(image->name, image->name_bytes);
	const struct sl_ledger_maker *maker = &ledger->maker;
	const char *class_name = maker->class_of ? maker->class_of(maker->self, image->tenant)
						 : NULL;
	struct sl_ledger_account *account;

	if (class_name && ledger->made >= names_max(ledger) && !sl_ledger_find(ledger, name))
		return departed(ledger, class_name);
	account = sl_ledger_account(ledger, name);
	if (account)
		sl_ledger_mark(ledger, account, class_name);
	return account;
}

// Nobody counts in it, nobody is to be told of it, and its tenant is gone for long enough, or there
// are many like it.
static bool may_go(const struct sl_ledger *ledger, const struct sl_ledger_account *account,
		   uint64_t keep_ns)
{
	const struct sl_ledger_maker *maker = &ledger->maker;
	const uint64_t since_ns = SL_MAX(account->changed_ns, ledger->began_ns);

	if (!account->made || account->rows || account->billing || account->unbilled.count ||
	    (ledger->made <= names_max(ledger) - SL_LEDGER_DEPARTED_MAX / 2 &&
	     ledger->now_ns < since_ns + keep_ns))
		return false;
	return !(maker->is_there && maker->is_there(maker->self, sl_ledger_name(account))) &&
	       !sl_ledger_counts_sum(&account->total, SL_LEDGER_IN_FLIGHT).requests;
}

// What it had while it was exported was in a series of its own, which ends; the rest of it is in
// that of `_other` already.
static bool let_go(struct sl_ledger *ledger, struct sl_ledger_account *account)
{
	struct sl_ledger_account *to = departed(ledger, ledger->classes[account->made - 1]);

	if (!to || sl_ledger_counts_merge(&to->total, &account->total))
		return false; // the next call will
	to->score += account->score;
	sl_ledger_remove(ledger, account);
	ledger->departed++;
	return true;
}

void sl_ledger_depart(struct sl_ledger *ledger, uint64_t keep_ns, uint64_t now_ns)
{
	uint32_t looks;

	pthread_mutex_lock(&ledger->lock);
	looks = SL_MIN(LOOKED_AT, ledger->account_count);
	ledger->now_ns = now_ns;
	if (!ledger->began_ns)
		ledger->began_ns = now_ns;
	for (; looks && ledger->made; looks--) {
		struct sl_ledger_account *account;

		ledger->hand = ledger->hand < ledger->account_count ? ledger->hand : 0;
		account = ledger->accounts[ledger->hand];
		// Where one went there is another now.
		ledger->hand += !may_go(ledger, account, keep_ns) || !let_go(ledger, account);
	}
	pthread_mutex_unlock(&ledger->lock);
}
