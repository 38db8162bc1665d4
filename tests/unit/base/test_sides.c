// A helper thread and its shards' sides: everything comes back once, whoever goes when, and no wake
// is lost.

#include "tests/unit/test.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/random.h"
#include "dataplane/base/sides.h"

#define LONG_MS 30000 // a wake that is not lost comes before

// --- one thread plays both -----------------------------------------------------------------------

#define DOWN 3 // rings hold 4
#define UP   2

static unsigned gone_items;

static void count_gone(struct sl_sides *sides, struct sl_side *side)
{
	(void)sides;
	while (sl_helper_settle(side))
		gone_items++;
}

static const struct sl_sides_kind small = {
	.name = "small",
	.side_bytes = sizeof(struct sl_side),
	.down = DOWN,
	.up = UP,
	.gone = count_gone,
};

static bool is_awake(const struct sl_waker *waker)
{
	struct pollfd ready = {.fd = waker->fd, .events = POLLIN};

	return poll(&ready, 1, 0) == 1;
}

static void test_bounds(void **state)
{
	struct sl_sides sides;
	struct sl_waker waker;
	struct sl_side *side;
	int items[4];

	(void)state;
	assert_int_equal(sl_waker_init(&waker), 0);
	assert_int_equal(sl_sides_init(&sides, &small), 0);
	side = sl_side_open(&sides, &waker);
	sl_sides_turn(&sides);
	assert_int_equal(sides.count, 1);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < DOWN; i++)
			assert_true(sl_side_give(side, &items[i]));
		assert_false(sl_side_give(side, &items[3])); // all are on the way
		for (unsigned i = 0; i < DOWN; i++)
			assert_ptr_equal(sl_helper_take(side), &items[i]);
		assert_null(sl_helper_take(side));
		assert_false(sl_side_give(side, &items[3])); // with the thread
		for (unsigned i = DOWN; i-- > 0;)
			sl_helper_return(side, &items[i]);
		assert_false(sl_side_give(side, &items[3])); // back, not yet seen
		for (unsigned i = DOWN; i-- > 0;)
			assert_ptr_equal(sl_side_settle(side), &items[i]);
		assert_null(sl_side_settle(side));
		for (unsigned i = 0; i < UP; i++)
			assert_true(sl_helper_give(side, &items[i]));
		assert_false(sl_helper_give(side, &items[3]));
		assert_ptr_equal(sl_side_take(side), &items[0]);
		assert_false(sl_helper_give(side, &items[3]));
		sl_side_return(side, &items[0]);
		assert_false(sl_helper_give(side, &items[3]));
		assert_ptr_equal(sl_helper_settle(side), &items[0]);
		assert_true(sl_helper_give(side, &items[3]));
		assert_ptr_equal(sl_side_take(side), &items[1]);
		assert_ptr_equal(sl_side_take(side), &items[3]);
		sl_side_return(side, &items[3]);
		sl_side_return(side, &items[1]);
		assert_ptr_equal(sl_helper_settle(side), &items[3]);
		assert_ptr_equal(sl_helper_settle(side), &items[1]);
	}
	sl_side_close(side);
	sl_sides_turn(&sides);
	assert_int_equal(sides.count, 0);
	sl_sides_end(&sides);
	sl_waker_fini(&waker);
}

// Whoever has said something wakes the other, once.
static void test_who_is_woken(void **state)
{
	struct sl_side *side, *other;
	struct sl_sides sides;
	struct sl_waker waker, others;
	int item;

	(void)state;
	assert_int_equal(sl_waker_init(&waker), 0);
	assert_int_equal(sl_waker_init(&others), 0);
	assert_int_equal(sl_sides_init(&sides, &small), 0);
	side = sl_side_open(&sides, &waker);
	assert_true(is_awake(&sides.waker)); // there is a side more
	other = sl_side_open(&sides, &others);
	sl_sides_turn(&sides);
	assert_false(is_awake(&sides.waker));
	assert_ptr_equal(sides.first, side);
	sl_sides_rotate(&sides);
	assert_ptr_equal(sides.first, other);
	assert_ptr_equal(other->next, side);
	assert_null(side->next);

	sl_side_flush(side);
	assert_false(is_awake(&sides.waker)); // nothing was said
	assert_true(sl_side_give(side, &item));
	assert_false(is_awake(&sides.waker)); // it is told once a turn
	sl_side_flush(side);
	assert_true(is_awake(&sides.waker));
	sl_sides_turn(&sides);
	sl_side_flush(side);
	assert_false(is_awake(&sides.waker));

	sl_helper_return(side, sl_helper_take(side));
	assert_false(is_awake(&waker));
	sl_sides_wake(&sides);
	assert_true(is_awake(&waker));
	assert_false(is_awake(&others));
	sl_waker_clear(&waker);
	sl_sides_wake(&sides);
	assert_false(is_awake(&waker));
	assert_ptr_equal(sl_side_settle(side), &item);
	sl_helper_tell(other);
	sl_sides_wake(&sides);
	assert_false(is_awake(&waker));
	assert_true(is_awake(&others));

	sl_waker_clear(&others);
	sl_helper_tell(other);
	sl_side_close(other);
	assert_true(sl_helper_is_leaving(other));
	assert_true(is_awake(&sides.waker)); // there is a side to free
	sl_sides_wake(&sides);
	assert_false(is_awake(&others)); // it may be gone
	assert_false(sl_helper_is_leaving(side));
	sl_side_close(side);
	sl_sides_turn(&sides);
	assert_null(sides.first);
	sl_sides_end(&sides);
	sl_waker_fini(&waker);
	sl_waker_fini(&others);
}

// A shard that goes leaves what it never took, and what it has returned: both come back.
static void test_close_while_full(void **state)
{
	struct sl_sides sides;
	struct sl_waker waker;
	struct sl_side *side;
	int items[UP];

	(void)state;
	assert_int_equal(sl_waker_init(&waker), 0);
	assert_int_equal(sl_sides_init(&sides, &small), 0);
	for (unsigned taken = 0; taken <= UP; taken++) {
		gone_items = 0;
		side = sl_side_open(&sides, &waker);
		sl_sides_turn(&sides);
		while (sl_helper_give(side, &items[0]))
			;
		for (unsigned i = 0; i < taken; i++)
			sl_side_return(side, sl_side_take(side));
		sl_side_close(side);
		sl_sides_turn(&sides);
		assert_int_equal(gone_items, UP);
		assert_null(sides.first);
	}
	// Opened and closed between two turns.
	sl_side_close(sl_side_open(&sides, &waker));
	sl_sides_turn(&sides);
	assert_null(sides.first);
	sl_sides_end(&sides);
	sl_waker_fini(&waker);
}

static void test_elsewhere(void **state)
{
	static const struct sl_sides_kind elsewhere = {
		.name = "elsewhere",
		.side_bytes = sizeof(struct sl_side),
		.down = DOWN,
		.elsewhere = true,
	};
	struct sl_sides sides;
	struct sl_waker waker;
	struct sl_side *side;
	int items[DOWN];

	(void)state;
	assert_int_equal(sl_waker_init(&waker), 0);
	assert_int_equal(sl_sides_init(&sides, &elsewhere), 0);
	assert_int_equal(sides.waker.fd, -1); // it does not wait for us
	side = sl_side_open(&sides, &waker);
	sl_sides_turn(&sides);
	for (unsigned i = 0; i < DOWN; i++) {
		assert_false(sl_side_is_full(side));
		sl_side_gave(side);
	}
	assert_true(sl_side_is_full(side));
	for (unsigned i = 0; i < DOWN; i++)
		sl_helper_return(side, &items[i]);
	assert_true(sl_side_is_full(side));
	for (unsigned i = 0; i < DOWN; i++)
		assert_ptr_equal(sl_side_settle(side), &items[i]);
	assert_false(sl_side_is_full(side));
	sl_sides_wake(&sides);
	assert_true(is_awake(&waker));
	sl_side_close(side);
	sl_sides_turn(&sides);
	sl_sides_end(&sides);
	sl_waker_fini(&waker);
}

// --- shards that come and go ---------------------------------------------------------------------

#define SHARDS 4
#define ROUNDS 60  // sides that each opens
#define EACH   200 // items that a side hands over
#define WIDE   16  // out at once, of either
#define LOANS  64  // the thread's own items

struct item {
	uint32_t value; // plain: handed over with the item
	uint32_t trips;
	bool out;
};

struct helper {
	struct sl_sides sides;
	struct sl_random random;
	struct item loans[LOANS];
	uint64_t lent, settled;
};

struct shard {
	struct helper *helper;
	pthread_t thread;
	uint64_t seed, taken;
};

static void settle_loan(struct helper *helper, struct item *item)
{
	assert_true(item->out);
	item->out = false;
	item->value++;
	helper->settled++;
}

static void settle_gone(struct sl_sides *sides, struct sl_side *side)
{
	struct helper *helper = SL_CONTAINER_OF(sides, struct helper, sides);
	struct item *item;

	while ((item = sl_helper_settle(side)))
		settle_loan(helper, item);
}

static const struct sl_sides_kind wide = {
	.name = "wide",
	.side_bytes = sizeof(struct sl_side),
	.down = WIDE,
	.up = WIDE,
	.gone = settle_gone,
};

// Takes some of what there is, returns it in any order, lends and settles.
static bool serve(struct helper *helper, struct sl_side *side)
{
	struct item *taken[WIDE], *item;
	uint32_t count = 0;
	bool worked = false;

	while (count < WIDE && (item = sl_helper_take(side))) {
		item->value += 2;
		taken[count++] = item;
	}
	worked = count > 0;
	while (count > 0) {
		const uint32_t at = (uint32_t)sl_random_next(&helper->random) % count;

		sl_helper_return(side, taken[at]);
		taken[at] = taken[--count];
	}
	while ((item = sl_helper_settle(side))) {
		settle_loan(helper, item);
		worked = true;
	}
	item = &helper->loans[sl_random_next(&helper->random) % LOANS];
	if (worked && !item->out && !sl_helper_is_leaving(side) && sl_helper_give(side, item)) {
		item->out = true;
		helper->lent++;
	}
	return worked;
}

static void *help(void *argument)
{
	struct helper *helper = argument;

	for (;;) {
		bool worked = false;

		sl_sides_turn(&helper->sides);
		for (struct sl_side *side = helper->sides.first; side; side = side->next)
			worked |= serve(helper, side);
		sl_sides_rotate(&helper->sides);
		sl_sides_wake(&helper->sides);
		if (worked)
			continue;
		if (sl_sides_are_over(&helper->sides))
			return NULL;
		sl_sides_wait(&helper->sides, LONG_MS);
	}
}

struct use {
	struct sl_side *side;
	struct item items[WIDE], *held[WIDE];
	uint32_t held_count, given, settled;
};

static void settle_all(struct use *use)
{
	struct item *item;

	while ((item = sl_side_settle(use->side))) {
		assert_true(item->out);
		assert_int_equal(item->value, 3);
		item->out = false;
		use->settled++;
	}
}

static void give_some(struct use *use, struct sl_random *random)
{
	for (unsigned i = 0; i < WIDE && use->given < EACH; i++) {
		struct item *item = &use->items[i];

		if (item->out || sl_random_next(random) % 4 == 0)
			continue;
		*item = (struct item){.value = 1, .out = true};
		assert_true(sl_side_give(use->side, item));
		use->given++;
	}
}

// Holds what it takes for a while; `all`: gives it back.
static void lend(struct use *use, struct shard *shard, struct sl_random *random, bool all)
{
	struct item *item;

	while (!all && use->held_count < WIDE / 2 && (item = sl_side_take(use->side))) {
		item->trips++;
		shard->taken++;
		use->held[use->held_count++] = item;
	}
	while (use->held_count > 0 && (all || sl_random_next(random) % 2)) {
		const uint32_t at = (uint32_t)sl_random_next(random) % use->held_count;

		sl_side_return(use->side, use->held[at]);
		use->held[at] = use->held[--use->held_count];
	}
}

// A side, from its opening to its end: its waker is made for it and goes at once after it.
static void use_side(struct shard *shard, struct sl_random *random)
{
	struct sl_waker *waker = malloc(sizeof(*waker));
	struct use use = {0};

	assert_non_null(waker);
	assert_int_equal(sl_waker_init(waker), 0);
	use.side = sl_side_open(&shard->helper->sides, waker);
	assert_non_null(use.side);
	while (use.settled < EACH) {
		struct pollfd wait = {.fd = waker->fd, .events = POLLIN};
		const uint32_t before = use.given;

		sl_waker_clear(waker);
		settle_all(&use);
		give_some(&use, random);
		lend(&use, shard, random, false);
		sl_side_flush(use.side);
		if (use.given == before && use.settled < EACH && use.given > use.settled)
			assert_int_equal(poll(&wait, 1, LONG_MS), 1);
	}
	lend(&use, shard, random, true);
	sl_side_close(use.side); // what it has not taken is in its ring
	sl_waker_fini(waker);
	memset(waker, 0x5a, sizeof(*waker));
	free(waker);
}

static void *come_and_go(void *argument)
{
	struct shard *shard = argument;
	struct sl_random random = {shard->seed};

	for (unsigned round = 0; round < ROUNDS; round++)
		use_side(shard, &random);
	return NULL;
}

static void test_everything_comes_back_once(void **state)
{
	struct helper helper = {.random = {1}};
	struct shard shards[SHARDS];
	uint64_t taken = 0;

	(void)state;
	assert_int_equal(sl_sides_init(&helper.sides, &wide), 0);
	assert_int_equal(sl_sides_start(&helper.sides, help, &helper), 0);
	for (unsigned i = 0; i < SHARDS; i++) {
		shards[i] = (struct shard){.helper = &helper, .seed = i + 2};
		assert_int_equal(pthread_create(&shards[i].thread, NULL, come_and_go, &shards[i]),
				 0);
	}
	for (unsigned i = 0; i < SHARDS; i++) {
		pthread_join(shards[i].thread, NULL);
		taken += shards[i].taken;
	}
	sl_sides_end(&helper.sides);
	assert_int_equal(helper.lent, helper.settled);
	assert_true(taken > 0 && taken <= helper.lent);
	for (unsigned i = 0; i < LOANS; i++)
		assert_false(helper.loans[i].out);
}

// --- a waker that goes with its side -------------------------------------------------------------

#define MEETINGS 30000

static const struct sl_sides_kind brief = {
	.name = "brief",
	.side_bytes = sizeof(struct sl_side),
	.down = 1,
	.elsewhere = true, // so that nothing but the close is between its look and the waker's end
};

struct meeting {
	struct sl_sides sides;
	uint32_t at[2]; // steps that each has reached
};

// Both go on within some ten ns of each other, if they have a core each.
static void meet(struct meeting *meeting, unsigned self)
{
	const uint32_t step = __atomic_add_fetch(&meeting->at[self], 1, __ATOMIC_SEQ_CST);

	for (unsigned i = 0; __atomic_load_n(&meeting->at[!self], __ATOMIC_SEQ_CST) < step; i++) {
		if (i > 1000)
			sched_yield();
	}
}

static void *wake_at_the_close(void *argument)
{
	struct meeting *meeting = argument;

	for (unsigned i = 0; i < MEETINGS; i++) {
		meet(meeting, 0);
		sl_sides_turn(&meeting->sides);
		sl_helper_tell(meeting->sides.first);
		meet(meeting, 0);
		for (volatile unsigned wait = i % 16; wait > 0; wait--)
			;
		sl_sides_wake(&meeting->sides);
		meet(meeting, 0);
		sl_sides_turn(&meeting->sides);
	}
	return NULL;
}

// A wake and a close at the same moment: the shard's waker is used before the close has returned,
// or not at all. Each stores and then loads; were one to load first, both would go on (x86 does
// that to a store that is not sequentially consistent).
static void test_no_wake_after_the_close(void **state)
{
	static const struct sl_waker untouched = {.fd = -1}; // a wake writes to nothing
	struct meeting meeting = {0};
	struct sl_waker waker = untouched;
	pthread_t thread;
	unsigned late = 0;

	(void)state;
	assert_int_equal(sl_sides_init(&meeting.sides, &brief), 0);
	assert_int_equal(pthread_create(&thread, NULL, wake_at_the_close, &meeting), 0);
	for (unsigned i = 0; i < MEETINGS; i++) {
		struct sl_side *side = sl_side_open(&meeting.sides, &waker);

		meet(&meeting, 1);
		meet(&meeting, 1);
		for (volatile unsigned wait = i / 16 % 16; wait > 0; wait--)
			;
		sl_side_close(side);
		waker = untouched;
		meet(&meeting, 1);
		late += waker.pending;
		waker = untouched;
	}
	pthread_join(thread, NULL);
	assert_int_equal(late, 0);
	sl_sides_end(&meeting.sides);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_who_is_woken),
		cmocka_unit_test(test_close_while_full),
		cmocka_unit_test(test_elsewhere),
		cmocka_unit_test(test_everything_comes_back_once),
		cmocka_unit_test(test_no_wake_after_the_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
