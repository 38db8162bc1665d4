#pragma once

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/waker.h"
#include "dataplane/otlp/json.h"
#include "routing/internal.h"

// A shard's side of routing as a shard drives it.

struct rig {
	struct sl_memory memory;
	struct sl_timers timers;
	struct sl_waker waker;
	struct sl_random random;
	struct sl_metrics *metrics;
	struct sl_errors *errors;
	struct sl_loaded loaded[2];
	struct sl_routing *routing[2];
	struct sl_routing_shard *shard;
	struct sl_batch batch;
	const struct sl_driver *driver; // in place of the first destination's; NULL: its own
	void (*adjust)(struct sl_routing *routing); // before a shard sees it; may be NULL
	bool check_only;
	uint64_t left;   // bytes of the budget that the stage may take; 0: all
	uint64_t now_ns; // 0: the real clock
};

struct call {
	struct sl_request request;
	unsigned settled, released;
	enum sl_reason refused;
};

static inline void settled(struct sl_request *request)
{
	((struct call *)request->shard)->settled++;
}

static inline void released(struct sl_request *request)
{
	((struct call *)request->shard)->released++;
	sl_arena_fini(&request->arena);
}

static inline uint64_t rig_now_ns(const struct rig *rig)
{
	return rig->now_ns ? rig->now_ns : sl_clock_now_ns();
}

static const struct sl_request_owner owner = {settled, released};

static inline struct sl_routing *build(struct rig *rig, unsigned index, const char *yaml)
{
	struct sl_snapshot before = {.parts[SL_MODULE_ROUTING] = rig->routing[0]};
	const struct sl_build with = {.before = index ? &before : NULL,
				      .errors = rig->errors,
				      .check_only = rig->check_only};

	if (sl_settings_load_text(&sl_routing_settings, "test.yaml", yaml, strlen(yaml),
				  &rig->loaded[index], rig->errors) < 0)
		return NULL;
	rig->routing[index] = sl_routing_module.build(rig->loaded[index].object, &with);
	if (rig->routing[index] && rig->adjust)
		rig->adjust(rig->routing[index]);
	return rig->routing[index];
}

static inline void set_up(struct rig *rig, const char *yaml)
{
	const struct sl_routing_env env = {
		.shards = 1,
		.memory = &rig->memory,
		.timers = &rig->timers,
		.waker = &rig->waker,
		.random = &rig->random,
		.metrics = rig->metrics = sl_metrics_create(),
	};

	memset(rig->loaded, 0, sizeof(rig->loaded));
	memset(rig->routing, 0, sizeof(rig->routing));
	assert_int_equal(sl_memory_init(&rig->memory, 64 * SL_MIB), 0);
	sl_timers_init(&rig->timers, rig_now_ns(rig));
	sl_waker_init(&rig->waker);
	sl_random_init(&rig->random, 1);
	rig->errors = sl_errors_create();
	if (!build(rig, 0, yaml))
		fail_msg("%s", sl_errors_line(rig->errors, 0));
	if (rig->driver)
		rig->routing[0]->destinations[0]->driver = rig->driver;
	rig->shard = sl_routing_shard_create(&env);
	sl_routing_shard_turn(rig->shard, rig->routing[0], rig_now_ns(rig));
}

static inline void tear_down(struct rig *rig)
{
	assert_int_equal(sl_routing_in_flight(rig->shard), 0);
	sl_routing_shard_destroy(rig->shard);
	for (unsigned i = 0; i < 2; i++) {
		sl_routing_module.destroy(rig->routing[i]);
		sl_loaded_fini(&rig->loaded[i]);
	}
	while (sl_routing_closing())
		usleep(1000);
	sl_errors_destroy(rig->errors);
	sl_metrics_destroy(rig->metrics);
	sl_waker_fini(&rig->waker);
	assert_int_equal(rig->memory.used_bytes, 0);
	sl_memory_fini(&rig->memory);
}

static inline void offer(struct rig *rig, struct call *call, const char *tenant,
			 enum sl_signal signal, const char *json)
{
	const struct sl_json_limits limits = {.depth_max = 100, .wire_bytes_max = SL_MIB};
	const struct sl_view_limits view = {.items_max = 10000, .depth_max = 64};
	struct sl_request *request = &call->request;
	struct sl_bytes wire;

	memset(call, 0, sizeof(*call));
	request->owner = &owner;
	request->shard = call;
	request->signal = signal;
	sl_arena_init(&request->arena, &rig->memory);
	assert_int_equal(sl_json_to_wire(signal, sl_bytes_of(json), &limits, &request->arena, &wire,
					 NULL, 0),
			 SL_JSON_OK);
	assert_int_equal(sl_view_scan(&request->view, signal, wire, &view, &request->arena, NULL),
			 SL_VIEW_OK);
	request->references = request->required_open = 1;
	request->body_capacity = 100000; // what it is weighed by
	request->parts = &request->first_part;
	request->part_count = 1;
	request->first_part = (struct sl_part){
		.request = request,
		.tenant = (uint8_t)tenant[0], // one id a first letter
		.tenant_name = sl_bytes_of(tenant),
		.kept_items = request->view.item_count,
	};
	rig->batch = (struct sl_batch){.now_ns = rig_now_ns(rig), .count = 1};
	rig->batch.parts[0] = &request->first_part;
	request->answer_by_ns = rig->batch.now_ns + 4 * SL_S;
	if (rig->left)
		rig->memory.budget_bytes = rig->memory.used_bytes + rig->left;
	sl_routing_stage(rig->shard, &rig->batch);
	rig->memory.budget_bytes = 64 * SL_MIB;
	call->refused = request->first_part.reason;
	assert_int_equal(rig->batch.refused_count, call->refused != SL_REASON_NONE);
	sl_request_let_go(request, true);
}

static inline void pump(struct rig *rig, const struct call *call)
{
	for (unsigned i = 0; i < 1000 && !call->released; i++) {
		struct pollfd wait = {.fd = rig->waker.fd, .events = POLLIN};

		sl_routing_poll(rig->shard, rig_now_ns(rig));
		if (call->released)
			break;
		poll(&wait, 1, 5);
		sl_waker_clear(&rig->waker);
	}
	assert_int_equal(call->released, 1);
	assert_int_equal(call->settled, 1);
}

static inline uint64_t count(const struct rig *rig, const char *name, const char *value)
{
	return sl_metrics_sum(rig->metrics, name, value);
}

#define SPAN(id) "{\"traceId\":\"" id "\",\"spanId\":\"0102030405060708\"}"
#define RESOURCE(service, spans)                                                                   \
	"{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":"     \
	"\"" service "\"}}]},\"scopeSpans\":[{\"spans\":[" spans "]}]}"
#define TRACES(resources) "{\"resourceSpans\":[" resources "]}"
#define ID1               "4bf92f3577b34da6a3ce929d0e0e4736"
#define ID2               "5b8efff798038103d269b633813fc60c"
