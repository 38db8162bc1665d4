// Any text loads or is refused with a line that says where; what loads dumps, and the dump loads
// again to the same dump. A secret is not in a dump, and what stands for it does not load: the
// second load gets another instead.

#include <stdlib.h>

#include "tests/fuzz/config_sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

// Other texts may hold the same letters: the secret has a line of its own.
static bool give_secrets(char *dump)
{
	static const char row[] = "secret: ";
	bool given = false;

	for (char *line = dump, *at; *line; line = at + (*at == '\n')) {
		at = line + strcspn(line, "\n");
		if (strncmp(line, row, sizeof(row) - 1) == 0) {
			char *found = strstr(line, SL_SETTING_SECRET);

			if (!found || found > at)
				continue;
			memcpy(found, "unsecret", sizeof(SL_SETTING_SECRET) - 1);
			given = true;
		}
	}
	return given;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_loaded loaded, again;
	char *dump, *other;
	bool given;

	if (sl_settings_load_text(&sample_table, "/f", (const char *)data, size, &loaded, errors)) {
		check(sl_errors_count(errors) > 0);
		check(!loaded.object && !loaded.memory);
		sl_errors_destroy(errors);
		return 0;
	}
	check(sl_errors_count(errors) == 0);
	dump = sl_settings_dump(&sample_table, loaded.object);
	given = give_secrets(dump);
	check(sl_settings_load_text(&sample_table, "/f", dump, strlen(dump), &again, errors) == 0);
	other = sl_settings_dump(&sample_table, again.object);
	give_secrets(other);
	check(strcmp(dump, other) == 0);
	check(given ||
	      sl_settings_restart_needed(&sample_table, loaded.object, &again, "/f", errors) == 0);
	free(dump);
	free(other);
	sl_loaded_fini(&loaded);
	sl_loaded_fini(&again);
	sl_errors_destroy(errors);
	return 0;
}
