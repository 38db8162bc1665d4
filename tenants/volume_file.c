#include "tenants/volume_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/disk.h"
#include "tenants/table.h"

#define HEAD "sluice-volumes 1\n"
// Longer than any line: a name and seven numbers.
#define LINE_MAX (SL_TENANT_NAME_MAX + 8 * 24)

static bool take_line(const char *line, const struct sl_tenants *tenants)
{
	char name[SL_TENANT_NAME_MAX + 1], per[8];
	unsigned long long number;
	long long used[SL_DIMENSION_RATES];
	struct sl_volume *volume;
	sl_tenant_id tenant;
	bool month;

	if (sscanf(line, "%150s %7s %llu %lld %lld %lld %lld %lld", name, per, &number, &used[0],
		   &used[1], &used[2], &used[3], &used[4]) != 3 + SL_DIMENSION_RATES)
		return false;
	month = strcmp(per, "month") == 0;
	if ((!month && strcmp(per, "day") != 0) || number > UINT32_MAX - 1)
		return false;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (used[i] < 0 || used[i] > SL_UNLIMITED)
			return false;
	// A tenant that is gone, or has no volume any more.
	if (!sl_tenants_find(tenants, sl_bytes_of(name), &tenant))
		return true;
	volume = tenants->entries[tenant].pool->volume;
	if (!volume)
		return true;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		volume->others[i] = used[i];
	volume->period = ((uint64_t)month << 32) + 1 + number;
	return true;
}

int sl_volume_file_read(const char *path, const struct sl_tenants *tenants)
{
	FILE *file = fopen(path, "re");
	char line[LINE_MAX];
	int taken = 0, said = -1;
	bool good;

	if (!file)
		return -errno;
	good = fgets(line, sizeof(line), file) && strcmp(line, HEAD) == 0;
	while (good && said < 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "end %d", &said) == 1)
			break;
		good = take_line(line, tenants);
		taken += good;
	}
	fclose(file);
	return good && said == taken ? taken : -EBADMSG;
}

uint64_t sl_volume_file_stamp(const struct sl_tenants *tenants)
{
	const struct sl_volume *volume = __atomic_load_n(&tenants->registry->volumes.first,
							 __ATOMIC_ACQUIRE);
	uint64_t stamp = 0;

	for (; volume; volume = volume->next) {
		int64_t used[SL_DIMENSION_RATES];

		stamp = stamp * 31 + sl_volume_used(volume, used);
		for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
			stamp = stamp * 31 + (uint64_t)used[i];
	}
	return stamp;
}

static void print(FILE *file, const struct sl_tenants *tenants)
{
	const struct sl_volume *volume = __atomic_load_n(&tenants->registry->volumes.first,
							 __ATOMIC_ACQUIRE);
	int count = 0;

	fputs(HEAD, file);
	for (; volume; volume = volume->next) {
		const struct sl_bytes name = volume->tenant < tenants->entry_count
						     ? sl_tenants_entry_name(
							       &tenants->entries[volume->tenant])
						     : SL_BYTES_NONE;
		int64_t used[SL_DIMENSION_RATES];
		const uint64_t period = sl_volume_used(volume, used);

		if (!period || !name.size)
			continue;
		fprintf(file, "%.*s %s %llu", (int)name.size, (const char *)name.data,
			period >> 32 ? "month" : "day", (unsigned long long)(uint32_t)period - 1);
		for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
			fprintf(file, " %lld", (long long)SL_MAX(used[i], 0));
		fputc('\n', file);
		count++;
	}
	fprintf(file, "end %d\n", count);
}

int sl_volume_file_write(const char *path, const struct sl_tenants *tenants)
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);
	int error = -ENOMEM;

	if (!file)
		return error;
	print(file, tenants);
	if (fclose(file) == 0)
		error = sl_disk_replace(path, sl_bytes(text, size));
	free(text);
	return error;
}
