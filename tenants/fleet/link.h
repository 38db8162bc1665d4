#pragma once

#include <hiredis/read.h>

#include "dataplane/base/random.h"
#include "tenants/fleet/wire.h"

// One Redis, as a connection that somebody else carries: bytes in, bytes out, the time passed in.
// It says when to dial and when to hang up, greets, loads the script, and keeps at most
// SL_FLEET_CALLS calls under way, answered in order.
//
//        dial due                connected            greeted
//   DOWN ---------> DIALING ----------------> GREETING -------> UP
//    ^                 |                         |   <---------  |    NOSCRIPT
//    +---- backoff ----+------- error, silence --+---------------+
//
// Threading: one owner. Memory: a buffer that grows to two calls, taken once.
#define SL_FLEET_CALLS 2

enum sl_fleet_link_state {
	SL_FLEET_LINK_DOWN,
	SL_FLEET_LINK_DIALING,
	SL_FLEET_LINK_GREETING,
	SL_FLEET_LINK_UP,
};

// How a call ended.
enum sl_fleet_end {
	SL_FLEET_ANSWERED,
	SL_FLEET_LOST,    // nobody knows whether it took effect
	SL_FLEET_UNHEARD, // it took none
};

struct sl_fleet_call {
	struct sl_fleet_account *accounts[SL_FLEET_CALL_MAX];
	int64_t wants[SL_FLEET_CALL_MAX];
	uint64_t id, sent_ns;
	uint32_t count;
};

// A URL's parts, copied by init.
struct sl_fleet_link_options {
	const char *user, *password; // NULL: none
	uint32_t database;
	const char *prefix; // of our keys
	uint8_t instance[SL_FLEET_INSTANCE];
};

struct sl_fleet_link_reply {
	int type;
	long long integer;
	size_t size;
	uint8_t bytes[SL_FLEET_REPLY_HEAD + SL_FLEET_CALL_MAX * SL_FLEET_REPLY_EACH + 1];
};

struct sl_fleet_link {
	enum sl_fleet_link_state state;
	bool hang_up; // the owner has to close the connection
	// A call was since it failed last: one that greets and then refuses every call (no memory,
	// read only, no permission, another's slot) is down all the same.
	bool answered;
	uint64_t dial_ns, backoff_ns, since_ns, beat_ns;
	double rtt_s;
	uint32_t alive;            // instances, as last counted; 0: not known
	uint64_t told_us, told_ns; // Redis' clock, and when it told; 0: never
	uint64_t last_id;
	char problem[128]; // the last failure
	uint64_t failures, mended, lost;

	struct sl_fleet_call calls[SL_FLEET_CALLS];
	uint32_t first_call, call_count;
	uint8_t awaited[8]; // kinds of replies under way, in order
	uint32_t first_awaited, awaited_count;

	redisReader *reader;
	struct sl_fleet_link_reply reply;
	uint8_t *out;
	size_t out_at, out_size, out_max;
	char sha[41], keys[2][64];
	// Of volumes: the script is loaded when the first call is to be made.
	char volume_sha[41], prefix[44];
	bool volume_loading, volume_asking;
	uint64_t volume_sent_ns;
	char *user, *password;
	uint32_t database;
	uint8_t instance[SL_FLEET_INSTANCE];
	struct sl_random random;
	uint8_t *argument;

	// Told once for each call. `reply` is NULL unless it was answered.
	void (*ended)(void *owner, struct sl_fleet_link *link, struct sl_fleet_call *call,
		      enum sl_fleet_end end, const struct sl_fleet_reply *reply, uint64_t now_ns);
	// The same of a volumes' call; SL_BYTES_NONE: nobody knows whether it took effect.
	void (*volume_ended)(void *owner, struct sl_fleet_link *link, struct sl_bytes reply,
			     uint64_t now_ns);
	void *owner;
};

// Returns 0 or -ENOMEM. The first dial is due at once.
int sl_fleet_link_init(struct sl_fleet_link *link, const struct sl_fleet_link_options *options,
		       uint64_t seed);
void sl_fleet_link_fini(struct sl_fleet_link *link); // a zeroed one is fine

// Time passes: gives up on those that are silent. Returns true when the owner has to dial now; it
// answers with connected() or failed().
bool sl_fleet_link_tick(struct sl_fleet_link *link, uint64_t now_ns);
void sl_fleet_link_connected(struct sl_fleet_link *link, uint64_t now_ns);
void sl_fleet_link_received(struct sl_fleet_link *link, struct sl_bytes bytes, uint64_t now_ns);
// The connection is gone, or could not be made.
void sl_fleet_link_failed(struct sl_fleet_link *link, const char *problem, uint64_t now_ns);
// What is to be written, and how much of it has been.
struct sl_bytes sl_fleet_link_output(const struct sl_fleet_link *link);
void sl_fleet_link_sent(struct sl_fleet_link *link, size_t bytes);

// A call to fill in, or NULL: none can be made now.
struct sl_fleet_call *sl_fleet_link_begin(struct sl_fleet_link *link);
// Sends it with an ask for each of call->accounts; fields follow each other in `fields`.
void sl_fleet_link_call(struct sl_fleet_link *link, struct sl_fleet_call *call,
			const struct sl_fleet_ask *asks, const struct sl_bytes *fields,
			uint64_t now_ns);

// Whether a call about volumes can be made now; there is one at a time (fleet/volumes.h).
bool sl_fleet_link_volume_begin(struct sl_fleet_link *link);
// Sends it, about the period's key.
void sl_fleet_link_volume_call(struct sl_fleet_link *link, const char *period,
			       struct sl_bytes argument, uint64_t now_ns);
