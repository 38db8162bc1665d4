#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "config/control/process.h"
#include "dataplane/shard/settings.h"
#include "routing/routing.h"
#include "sampling/sampling.h"
#include "tenants/tenants.h"

// What holds for every table of settings that the product has.
#define DEPTH_MAX 16 // OTTL's conditions and the like may hold themselves

static bool comes_and_goes(const struct sl_setting *row)
{
	return row->type == SL_TYPE_OPTIONAL || row->type == SL_TYPE_LIST ||
	       row->type == SL_TYPE_MAP;
}

static bool has_restart(const struct sl_settings *settings, unsigned depth)
{
	for (uint32_t i = 0; depth < DEPTH_MAX && i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];

		if (row->apply == SL_APPLY_RESTART ||
		    (row->object && has_restart(row->object, depth + 1)))
			return true;
	}
	return false;
}

// Members with rows that need a restart cannot come and go by a reload: their list says so itself,
// or an object around it that is embedded does. Returns how many such members were looked at.
static unsigned look(const struct sl_settings *settings, const char *around, bool restart,
		     unsigned depth)
{
	unsigned count = 0;

	for (uint32_t i = 0; depth < DEPTH_MAX && i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		const bool member = comes_and_goes(row);
		const bool covered = restart || row->apply == SL_APPLY_RESTART;
		char path[256];

		if (!row->object)
			continue;
		snprintf(path, sizeof(path), "%s%s%s", around, *around ? "." : "", row->name);
		if (member && has_restart(row->object, 0)) {
			count++;
			if (!covered)
				fail_msg("%s: its members need a restart, it does not", path);
		}
		count += look(row->object, path, covered && !member, depth + 1);
	}
	return count;
}

static void test_members_that_need_a_restart(void **state)
{
	const struct sl_settings *const tables[] = {
		sl_process_module.settings,  sl_server_module.settings,  sl_tenants_module.settings,
		sl_sampling_module.settings, sl_routing_module.settings,
	};
	unsigned count = 0;

	(void)state;
	static_assert(SL_COUNT_OF(tables) == SL_MODULES, "of all modules");
	for (size_t i = 0; i < SL_COUNT_OF(tables); i++)
		count += look(tables[i], "", false, 0);
	assert_true(count >= 3); // listen, datagrams, dpdk.interfaces
}

static void load(const struct sl_settings *settings, const char *text, struct sl_loaded *loaded,
		 struct sl_errors *errors)
{
	if (sl_settings_load_text(settings, "c", text, strlen(text), loaded, errors) < 0)
		fail_msg("%s%s", text, sl_errors_line(errors, 0));
}

#define ONE   "io: dpdk\ndpdk: {interfaces: [{device: a, addresses: [10.1.0.2/24]}]}\n"
#define TWO   "io: dpdk\ndpdk: {interfaces: [{device: a, addresses: [10.1.0.2/24]}, {vlan: 5}]}\n"
#define OTHER "io: dpdk\ndpdk: {interfaces: [{device: b, addresses: [10.1.0.2/24]}]}\n"

#define LISTEN    "listen: [\"127.0.0.1:4318\"]\n"
#define DATAGRAMS "datagrams: {listen: [\"127.0.0.1:4319\"]}\n"

static void test_what_a_reload_cannot_do(void **state)
{
	static const struct {
		const struct sl_module *module;
		const char *before, *after, *says; // NULL: taken
	} rows[] = {
		{&sl_process_module, ONE, ONE, NULL},
		{&sl_process_module, ONE, TWO, "dpdk.interfaces: needs a restart: it is 1 of them"},
		{&sl_process_module, TWO, ONE, "dpdk.interfaces: needs a restart: it is 2 of them"},
		{&sl_process_module, "io: dpdk\n", ONE, "dpdk.interfaces: needs a restart"},
		{&sl_process_module, ONE, OTHER, "dpdk.interfaces.device: needs a restart"},
		{&sl_server_module, LISTEN, LISTEN DATAGRAMS,
		 "datagrams: needs a restart: it is unset now, and would be set"},
		{&sl_server_module, LISTEN DATAGRAMS, LISTEN,
		 "datagrams: needs a restart: it is set now, and would be unset"},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_settings *settings = rows[i].module->settings;
		struct sl_errors *errors = sl_errors_create();
		struct sl_loaded before, after;
		uint32_t count;

		load(settings, rows[i].before, &before, errors);
		load(settings, rows[i].after, &after, errors);
		count = sl_settings_restart_needed(settings, before.object, &after, "c", errors);
		if (count != (rows[i].says ? 1 : 0) || sl_errors_count(errors) != count ||
		    (count && !strstr(sl_errors_line(errors, 0), rows[i].says)))
			fail_msg("row %zu: %s", i, count ? sl_errors_line(errors, 0) : "taken");
		sl_loaded_fini(&before);
		sl_loaded_fini(&after);
		sl_errors_destroy(errors);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members_that_need_a_restart),
		cmocka_unit_test(test_what_a_reload_cannot_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
