#pragma once

#include "tenants/fleet/account.h"

// The script that runs in Redis, and its argument and its reply as packed strings.
//
// Keys: a hash with a field of 24 bytes a tenant and dimension (tat, D, when; doubles; of a sliding
// window 40: present, before, its begin, D, when) and a field an instance (its last call); a sorted
// set of instances by when they were last alive. Numbers are big-endian, times are Redis' own in
// microseconds, costs are rounded up.
//
//   argument  B version  c16 instance  d id  B beat  H count
//             count x (B n  cn field  d owed give want rate more floor R B; a window: -B)
//   reply     B status  d id  d now  H alive  H mended  H count  count x (d granted room D)
//
// Threading: any; no state.
#define SL_FLEET_CALL_MAX     256 // accounts a call: 0.3 ms of Redis' time
#define SL_FLEET_INSTANCE     16  // bytes
#define SL_FLEET_FIELD_MAX    (1 + 150)
#define SL_FLEET_ARGUMENT_MAX (28 + SL_FLEET_CALL_MAX * (1 + SL_FLEET_FIELD_MAX + 64))
#define SL_FLEET_REPLY_HEAD   23
#define SL_FLEET_REPLY_EACH   24

extern const char sl_fleet_quota_script[], sl_fleet_volume_script[];

struct sl_fleet_head {
	uint8_t instance[SL_FLEET_INSTANCE];
	uint64_t id; // 1 ... 2^53; grows with every call of an instance to a Redis
	bool beat;   // say that this instance lives, and count those that do
	uint16_t count;
};

// Both return the bytes written; the buffer holds what they need.
size_t sl_fleet_pack_head(uint8_t *out, const struct sl_fleet_head *head);
size_t sl_fleet_pack_ask(uint8_t *out, struct sl_bytes field, const struct sl_fleet_ask *ask);

enum sl_fleet_status { SL_FLEET_DONE, SL_FLEET_DUPLICATE };

struct sl_fleet_reply {
	enum sl_fleet_status status;
	uint64_t id, now_us;
	uint16_t alive;  // instances; 0: not counted this time
	uint16_t mended; // fields that held something else, and count as new
	uint16_t count;
	const uint8_t *answers;
};

// Returns 0, or -EINVAL: this is not a reply of the script.
int sl_fleet_parse_reply(struct sl_bytes bytes, struct sl_fleet_reply *reply);
// Returns 0, or -EINVAL when the numbers cannot be an answer to an ask for `want`.
int sl_fleet_parse_answer(const struct sl_fleet_reply *reply, uint32_t index, int64_t want,
			  struct sl_fleet_answer *answer);

// The field of a tenant and dimension. Returns its size.
size_t sl_fleet_field(uint8_t out[SL_FLEET_FIELD_MAX], struct sl_bytes tenant,
		      enum sl_dimension dimension);
// Which of `count` Redis a tenant lives in: the same for every instance and every version.
uint32_t sl_fleet_home(struct sl_bytes tenant, uint32_t count);

// Big-endian. put returns what follows.
uint8_t *sl_fleet_put_double(uint8_t *out, double value);
double sl_fleet_get_double(const uint8_t *in);

// A call about volumes (volumes.h, volume.lua):
//
//   argument  B version  c16 instance  d id  d seconds to keep  H count
//             count x (B n  cn field  d used here  d of it answered  d the fleet's sum then)
//   reply     B 0  d now  H mended  H count  count x (d the fleet's sum)
#define SL_FLEET_VOLUME_CALL_MAX 256
#define SL_FLEET_VOLUME_HEAD     35
#define SL_FLEET_VOLUME_ARGUMENT_MAX                                                               \
	(SL_FLEET_VOLUME_HEAD + SL_FLEET_VOLUME_CALL_MAX * (1 + SL_FLEET_FIELD_MAX + 24))
#define SL_FLEET_VOLUME_REPLY_HEAD 13
