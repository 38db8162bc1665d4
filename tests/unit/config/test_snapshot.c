#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <pthread.h>
#include <sched.h>

#include <cmocka.h>

#include "config/module.h"

struct server {
	uint64_t value;
};

struct route {
	const char *to;
	bool broken;
};

#define ALIVE UINT64_C(0xa11fe)
#define DEAD  UINT64_C(0xdead)

struct part {
	uint64_t mark, value;
};

static int built, destroyed;

static const struct sl_setting server_rows[] = {
	{.name = "value", .type = SL_TYPE_COUNT, .offset = offsetof(struct server, value)},
};
static const struct sl_settings server_table = {
	.name = "server", .bytes = sizeof(struct server), .rows = server_rows, .row_count = 1};
static const struct sl_setting route_rows[] = {
	{.name = "to", .type = SL_TYPE_STRING, .offset = offsetof(struct route, to)},
	{.name = "broken", .type = SL_TYPE_BOOL, .offset = offsetof(struct route, broken)},
};

static void check_route(const void *object, struct sl_errors *errors)
{
	const struct route *route = object;

	if (route->to && strcmp(route->to, "nowhere") == 0)
		sl_errors_add(errors, NULL, "to: there is no nowhere");
}

static const struct sl_settings route_table = {.name = "route",
					       .bytes = sizeof(struct route),
					       .rows = route_rows,
					       .row_count = 2,
					       .check = check_route};

static void *build_server(const void *config, const struct sl_build *build)
{
	struct part *part = calloc(1, sizeof(*part));

	(void)build;
	part->mark = ALIVE;
	part->value = ((const struct server *)config)->value;
	built++;
	return part;
}

static void *build_route(const void *config, const struct sl_build *build)
{
	if (((const struct route *)config)->broken) {
		sl_errors_add(build->errors, NULL, "broken");
		return NULL;
	}
	return build_server(build->configs[SL_MODULE_SERVER], build);
}

static void destroy(void *object)
{
	struct part *part = object;

	if (!part)
		return;
	assert_int_equal(part->mark, ALIVE);
	part->mark = DEAD;
	destroyed++;
	free(part);
}

static const struct sl_module modules[] = {
	{SL_MODULE_SERVER, "server", &server_table, build_server, destroy},
	{SL_MODULE_ROUTING, "routing", &route_table, build_route, destroy},
};

static struct sl_snapshot *load(const char *text, const struct sl_snapshot *before,
				struct sl_errors *errors)
{
	char path[] = "/tmp/sluice-unit-XXXXXX";
	const int fd = mkstemp(path);
	struct sl_snapshot *snapshot;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	snapshot = sl_snapshot_load(modules, 2, path, before, false, errors);
	unlink(path);
	return snapshot;
}

static void test_load(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_snapshot *first, *second;

	(void)state;
	built = destroyed = 0;
	first = load("value: 3\nto: x\n", NULL, errors);
	assert_non_null(first);
	assert_int_equal(first->generation, 1);
	assert_int_equal(((struct part *)first->parts[SL_MODULE_ROUTING])->value, 3);
	assert_string_equal(((struct route *)first->configs[SL_MODULE_ROUTING])->to, "x");
	second = load("value: 4\n", first, errors);
	assert_int_equal(second->generation, 2);
	// What one module made goes when another refuses; nothing is left.
	assert_null(load("value: 4\nbroken: true\n", first, errors));
	assert_int_equal(sl_errors_count(errors), 1);
	// A module's own check runs over its part of the merged struct.
	assert_null(load("to: nowhere\n", first, errors));
	assert_non_null(strstr(sl_errors_line(errors, 1), ":1:1: to: there is no nowhere"));
	sl_snapshot_destroy(modules, 2, first);
	sl_snapshot_destroy(modules, 2, second);
	assert_int_equal(built, destroyed);
	sl_errors_destroy(errors);
}

static struct sl_snapshots *create(uint32_t readers, struct sl_errors *errors)
{
	struct sl_snapshots *all = sl_snapshots_create(readers, load("value: 1\n", NULL, errors));

	if (!all)
		abort(); // an assertion of cmocka's returns, for all the compiler knows
	return all;
}

static void test_reclaim(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_snapshots *all = create(2, errors);
	struct sl_snapshot *seen;

	(void)state;
	destroyed = 0;
	seen = sl_snapshots_enter(all, 0);
	sl_snapshots_publish(all, load("value: 2\n", seen, errors));
	assert_int_equal(sl_snapshots_reclaim(all, modules, 2), 1); // reader 0 may still look
	assert_int_equal(((struct part *)seen->parts[SL_MODULE_SERVER])->mark, ALIVE);
	assert_ptr_equal(sl_snapshots_enter(all, 0), sl_snapshots_current(all));
	assert_int_equal(sl_snapshots_reclaim(all, modules, 2), 0); // it has entered anew
	assert_int_equal(destroyed, 2);
	seen = sl_snapshots_enter(all, 1);
	sl_snapshots_publish(all, load("value: 3\n", seen, errors));
	sl_snapshots_leave(all, 0);
	assert_int_equal(sl_snapshots_reclaim(all, modules, 2), 1);
	sl_snapshots_leave(all, 1);
	assert_int_equal(sl_snapshots_reclaim(all, modules, 2), 0); // blocked readers hold nothing
	sl_snapshots_destroy(all, modules, 2);
	sl_errors_destroy(errors);
}

struct reader {
	struct sl_snapshots *all;
	uint32_t index;
	uint64_t turns, wrong;
	const bool *stop;
};

static void *read_on(void *state)
{
	struct reader *reader = state;
	uint64_t last = 0;

	while (!__atomic_load_n(reader->stop, __ATOMIC_RELAXED)) {
		const struct sl_snapshot *snapshot = sl_snapshots_enter(reader->all, reader->index);
		const struct part *part = snapshot->parts[SL_MODULE_SERVER];

		for (int i = 0; i < 20; i++)
			reader->wrong += part->mark != ALIVE;
		reader->wrong += snapshot->generation < last; // never back
		last = snapshot->generation;
		if (__atomic_add_fetch(&reader->turns, 1, __ATOMIC_RELAXED) % 7 == 0)
			sl_snapshots_leave(reader->all, reader->index);
	}
	sl_snapshots_leave(reader->all, reader->index);
	return NULL;
}

static void test_threads(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_snapshots *all = create(3, errors);
	struct reader readers[3];
	pthread_t threads[3];
	bool stop = false;

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		readers[i] = (struct reader){.all = all, .index = i, .stop = &stop};
		assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
	}
	for (uint32_t i = 0; i < 3; i++) // a busy machine may start them late
		while (__atomic_load_n(&readers[i].turns, __ATOMIC_RELAXED) == 0)
			sched_yield();
	for (int i = 0; i < 300; i++) {
		sl_snapshots_publish(all, load("value: 2\n", sl_snapshots_current(all), errors));
		sl_snapshots_reclaim(all, modules, 2);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(readers[i].wrong, 0);
		assert_true(readers[i].turns > 0);
	}
	assert_int_equal(sl_snapshots_reclaim(all, modules, 2), 0);
	sl_snapshots_destroy(all, modules, 2);
	sl_errors_destroy(errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_reclaim),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
