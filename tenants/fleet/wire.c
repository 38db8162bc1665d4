#include "tenants/fleet/wire.h"

#include <errno.h>
#include <math.h>

#define VERSION 1
// More than any quota: 100 GiB/s is the most that can be configured.
#define TOKENS_MAX 1e15

uint8_t *sl_fleet_put_double(uint8_t *out, double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	bits = __builtin_bswap64(bits);
	memcpy(out, &bits, sizeof(bits));
	return out + sizeof(bits);
}

double sl_fleet_get_double(const uint8_t *in)
{
	uint64_t bits;
	double value;

	memcpy(&bits, in, sizeof(bits));
	bits = __builtin_bswap64(bits);
	memcpy(&value, &bits, sizeof(value));
	return value;
}

static uint16_t get_u16(const uint8_t *in)
{
	return (uint16_t)(in[0] << 8 | in[1]);
}

size_t sl_fleet_pack_head(uint8_t *out, const struct sl_fleet_head *head)
{
	uint8_t *at = out;

	assert(head->count <= SL_FLEET_CALL_MAX);
	*at++ = VERSION;
	memcpy(at, head->instance, SL_FLEET_INSTANCE);
	at = sl_fleet_put_double(at + SL_FLEET_INSTANCE, (double)head->id);
	*at++ = head->beat;
	*at++ = (uint8_t)(head->count >> 8);
	*at++ = (uint8_t)head->count;
	return (size_t)(at - out);
}

size_t sl_fleet_pack_ask(uint8_t *out, struct sl_bytes field, const struct sl_fleet_ask *ask)
{
	uint8_t *at = out;

	assert(field.size >= 1 && field.size <= SL_FLEET_FIELD_MAX);
	*at++ = (uint8_t)field.size;
	memcpy(at, field.data, field.size);
	at = sl_fleet_put_double(at + field.size, ask->owed);
	at = sl_fleet_put_double(at, ask->give);
	at = sl_fleet_put_double(at, ask->want);
	at = sl_fleet_put_double(at, ask->rate);
	at = sl_fleet_put_double(at, ask->more);
	at = sl_fleet_put_double(at, ask->floor_s);
	at = sl_fleet_put_double(at, ask->per_s);
	at = sl_fleet_put_double(at, ask->sliding ? -ask->burst : ask->burst);
	return (size_t)(at - out);
}

int sl_fleet_parse_reply(struct sl_bytes bytes, struct sl_fleet_reply *reply)
{
	const uint8_t *at = bytes.data;
	double id, now;

	if (bytes.size < SL_FLEET_REPLY_HEAD || at[0] > SL_FLEET_DUPLICATE)
		return -EINVAL;
	id = sl_fleet_get_double(at + 1);
	now = sl_fleet_get_double(at + 9);
	if (!(id >= 1 && id < 9e15) || !(now >= 0 && now < 9e15))
		return -EINVAL;
	*reply = (struct sl_fleet_reply){
		.status = at[0],
		.id = (uint64_t)id,
		.now_us = (uint64_t)now,
		.alive = get_u16(at + 17),
		.mended = get_u16(at + 19),
		.count = get_u16(at + 21),
		.answers = at + SL_FLEET_REPLY_HEAD,
	};
	if (bytes.size != SL_FLEET_REPLY_HEAD + (size_t)reply->count * SL_FLEET_REPLY_EACH)
		return -EINVAL;
	return 0;
}

int sl_fleet_parse_answer(const struct sl_fleet_reply *reply, uint32_t index, int64_t want,
			  struct sl_fleet_answer *answer)
{
	const uint8_t *at = reply->answers + (size_t)index * SL_FLEET_REPLY_EACH;

	assert(index < reply->count);
	*answer = (struct sl_fleet_answer){sl_fleet_get_double(at), sl_fleet_get_double(at + 8),
					   sl_fleet_get_double(at + 16)};
	if (!(answer->granted >= 0 && answer->granted <= (double)want))
		return -EINVAL;
	if (!(fabs(answer->room) <= TOKENS_MAX) ||
	    !(answer->demand >= 0 && answer->demand <= TOKENS_MAX))
		return -EINVAL;
	return 0;
}

size_t sl_fleet_field(uint8_t out[SL_FLEET_FIELD_MAX], struct sl_bytes tenant,
		      enum sl_dimension dimension)
{
	assert(tenant.size >= 1 && tenant.size < SL_FLEET_FIELD_MAX);
	out[0] = (uint8_t)('0' + dimension);
	memcpy(out + 1, tenant.data, tenant.size);
	return tenant.size + 1;
}

uint32_t sl_fleet_home(struct sl_bytes tenant, uint32_t count)
{
	uint64_t hash = 0xcbf29ce484222325u; // FNV-1a

	for (size_t i = 0; i < tenant.size; i++)
		hash = (hash ^ tenant.data[i]) * 0x100000001b3u;
	hash ^= hash >> 32;
	return count ? (uint32_t)(hash % count) : 0;
}
