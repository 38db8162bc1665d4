#include "tests/sim/fleet/bucket.h"

#include <math.h>
#include <stdio.h>

static double get(const uint8_t **at)
{
	uint64_t bits;
	double value;

	memcpy(&bits, *at, 8);
	bits = __builtin_bswap64(bits);
	memcpy(&value, &bits, 8);
	*at += 8;
	return value;
}

static uint8_t *put(uint8_t *out, double value)
{
	uint64_t bits;

	memcpy(&bits, &value, 8);
	bits = __builtin_bswap64(bits);
	memcpy(out, &bits, 8);
	return out + 8;
}

static uint8_t *put_u16(uint8_t *out, uint32_t value)
{
	out[0] = (uint8_t)(value >> 8);
	out[1] = (uint8_t)value;
	return out + 2;
}

static struct bucket_instance *instance_of(struct buckets *buckets, const uint8_t *name)
{
	for (uint32_t i = 0; i < buckets->instance_count; i++)
		if (memcmp(buckets->instances[i].name, name, SL_FLEET_INSTANCE) == 0)
			return &buckets->instances[i];
	assert(buckets->instance_count < SL_COUNT_OF(buckets->instances));

	struct bucket_instance *instance = &buckets->instances[buckets->instance_count++];

	*instance = (struct bucket_instance){.alive = -1e18};
	memcpy(instance->name, name, SL_FLEET_INSTANCE);
	return instance;
}

static struct bucket *bucket_of(struct buckets *buckets, struct sl_bytes field, double now)
{
	for (uint32_t i = 0; i < buckets->count; i++) {
		struct bucket *bucket = &buckets->buckets[i];

		if (sl_bytes_equal(sl_bytes(bucket->field, bucket->field_bytes), field))
			return bucket;
	}
	assert(buckets->count < BUCKETS_MAX);

	struct bucket *bucket = &buckets->buckets[buckets->count++];

	*bucket = (struct bucket){.field_bytes = field.size, .tat = now, .seen = now};
	memcpy(bucket->field, field.data, field.size);
	return bucket;
}

static double slide(struct bucket *bucket, double length, double now)
{
	const double ended = floor((now - bucket->begin) / length);

	if (ended > 0) {
		bucket->before = ended > 1 ? 0 : bucket->present;
		bucket->present = 0;
		bucket->begin += ended * length;
	}
	return bucket->present + bucket->before * (1 - (now - bucket->begin) / length);
}

static bool fill_bucket(struct bucket *bucket, const struct sl_fleet_ask *ask, double now,
			double *granted, double *room)
{
	const double us = 1000000 / ask->per_s, full = ask->burst * us;
	double tat = bucket->tat;

	if (bucket->sliding)
		tat = now + ceil(slide(bucket, full, now) * us);
	bucket->sliding = false;
	if (ask->floor_s < 0)
		tat += ceil(ask->owed * us);
	else
		tat = fmax(fmax(tat, fmin(tat + ceil(ask->owed * us), now + ceil(full))),
			   now + ceil(ask->floor_s * 1000000));
	tat = fmin(fmax(tat - floor(ask->give * us), now), now + 39000000000000);
	*granted = floor(fmax(0, fmin(ask->want, (full - (tat - now)) / us)));
	tat += ceil(*granted * us);
	*room = (full - (tat - now)) / us;
	bucket->tat = tat;
	return tat <= now;
}

static bool fill_window(struct bucket *bucket, const struct sl_fleet_ask *ask, double now,
			double *granted, double *room)
{
	const double length = ask->burst / ask->per_s * 1000000;
	double count, spent = ask->owed;

	if (!bucket->sliding) {
		bucket->present = (bucket->tat - now) * ask->per_s / 1000000;
		bucket->before = 0;
		bucket->begin = now;
		bucket->sliding = true;
	}
	count = slide(bucket, length, now);
	if (ask->floor_s >= 0)
		spent = fmax(
			fmax(fmin(spent, ask->burst - count), ask->floor_s * ask->per_s - count),
			0);
	bucket->present += spent - ask->give;
	if (bucket->present < 0) {
		bucket->before = fmax(bucket->before + bucket->present, 0);
		bucket->present = 0;
	}
	*room = ask->burst - slide(bucket, length, now);
	*granted = floor(fmax(0, fmin(ask->want, *room)));
	*room -= *granted;
	bucket->present += *granted;
	return bucket->present + bucket->before <= 0;
}

static uint8_t *update(struct bucket *bucket, const struct sl_fleet_ask *ask, double now,
		       uint8_t *out)
{
	const double back = fmax(bucket->seen - now, 0);
	double room, granted;
	bool empty;

	bucket->tat = fmax(bucket->tat - back, now);
	bucket->begin = fmin(bucket->begin - back, now);
	bucket->demand = fmax(
		fmax(bucket->demand * exp(fmin(0, (bucket->seen - now) / 2000000)) + ask->more,
		     ask->rate),
		0);
	empty = ask->sliding ? fill_window(bucket, ask, now, &granted, &room)
			     : fill_bucket(bucket, ask, now, &granted, &room);
	bucket->seen = now;
	out = put(put(put(out, granted), room), bucket->demand);
	if (empty && bucket->demand * 10000 <= ask->per_s) {
		bucket->demand = bucket->tat = 0;
		bucket->sliding = false;
	}
	return out;
}

size_t buckets_call(struct buckets *buckets, struct sl_bytes argument, double now_us, uint8_t *out)
{
	const uint8_t *at = argument.data + 1, *name = at;
	struct bucket_instance *me;
	uint32_t count, alive = 0;
	bool beat;
	double id;
	uint8_t *to = out;

	if (argument.size < 28 || argument.data[0] != 1)
		return 0;
	at += SL_FLEET_INSTANCE;
	id = get(&at);
	beat = *at++;
	count = (uint32_t)(at[0] << 8 | at[1]);
	at += 2;
	me = instance_of(buckets, name);
	if (beat && id > me->last)
		me->alive = now_us;
	for (uint32_t i = 0; beat && i < buckets->instance_count; i++)
		alive += buckets->instances[i].alive >= now_us - 3000000;
	*to++ = id <= me->last ? SL_FLEET_DUPLICATE : SL_FLEET_DONE;
	to = put_u16(put_u16(put(put(to, id), now_us), id <= me->last ? 0 : alive), 0);
	if (id <= me->last)
		return (size_t)(put_u16(to, 0) - out);
	me->last = id;
	to = put_u16(to, count);
	for (uint32_t i = 0; i < count; i++) {
		const struct sl_bytes field = {at + 1, *at};
		struct sl_fleet_ask ask;

		at += 1 + field.size;
		ask = (struct sl_fleet_ask){0};
		ask.owed = get(&at);
		ask.give = get(&at);
		ask.want = get(&at);
		ask.rate = get(&at);
		ask.more = get(&at);
		ask.floor_s = get(&at);
		ask.per_s = get(&at);
		ask.burst = get(&at);
		ask.sliding = ask.burst < 0;
		ask.burst = fabs(ask.burst);
		to = update(bucket_of(buckets, field, now_us), &ask, now_us, to);
		buckets->updates++;
	}
	assert(at == argument.data + argument.size);
	return (size_t)(to - out);
}

static struct volume_field *field_of(struct buckets *buckets, const char *period, char kind,
				     struct sl_bytes instance, struct sl_bytes name)
{
	struct volume_field field = {.name_bytes = 1 + instance.size + name.size};

	snprintf(field.period, sizeof(field.period), "%s", period);
	field.name[0] = (uint8_t)kind;
	if (instance.size)
		memcpy(field.name + 1, instance.data, instance.size);
	if (name.size)
		memcpy(field.name + 1 + instance.size, name.data, name.size);
	for (uint32_t i = 0; i < buckets->field_count; i++) {
		struct volume_field *old = &buckets->fields[i];

		if (strcmp(old->period, field.period) == 0 &&
		    sl_bytes_equal(sl_bytes(old->name, old->name_bytes),
				   sl_bytes(field.name, field.name_bytes)))
			return old;
	}
	assert(buckets->field_count < VOLUME_FIELDS_MAX);
	buckets->fields[buckets->field_count] = field;
	return &buckets->fields[buckets->field_count++];
}

size_t buckets_volume_call(struct buckets *buckets, const char *period, struct sl_bytes argument,
			   double now_us, uint8_t *out)
{
	const uint8_t *at = argument.data + 1;
	const struct sl_bytes me = {at, SL_FLEET_INSTANCE};
	uint8_t *to = out;
	uint32_t count;
	double id;

	if (argument.size < SL_FLEET_VOLUME_HEAD || argument.data[0] != 1)
		return 0;
	at += SL_FLEET_INSTANCE;
	id = get(&at);
	get(&at);
	count = (uint32_t)(at[0] << 8 | at[1]);
	at += 2;
	*to++ = 0;
	to = put_u16(put_u16(put(to, now_us), 0), count);
	for (uint32_t i = 0; i < count; i++) {
		const struct sl_bytes name = {at + 1, *at};
		struct volume_field *said = field_of(buckets, period, 'c', me, name);
		struct volume_field *all = field_of(buckets, period, 't', SL_BYTES_NONE, name);
		double used, heard;

		at += 1 + name.size;
		used = get(&at);
		heard = get(&at);
		all->used = fmax(all->used, get(&at));
		if (id > said->id) {
			all->used += fmax(used - fmax(said->used, heard), 0);
			said->used = used;
			said->id = id;
		}
		to = put(to, all->used);
		buckets->volume_updates++;
	}
	assert(at == argument.data + argument.size);
	return (size_t)(to - out);
}
