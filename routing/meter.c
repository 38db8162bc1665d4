#include <stdio.h>
#include <stdlib.h>

#include "routing/internal.h"

#define SL_COUNTER_STRUCT_ struct sl_destination_counters
SL_COUNTER_ROWS(destination, SL_DESTINATION_COUNTERS)

static const char *const breaker_states[] = {
	[SL_BREAKER_CLOSED] = "closed",
	[SL_BREAKER_HALF_OPEN] = "half_open",
	[SL_BREAKER_OPEN] = "open",
};
const struct sl_label sl_label_breaker = {"state", breaker_states, SL_LABEL_COUNT_breaker};

const struct sl_metric_row sl_delivery_duration_rows[1] = {{
	.name = "sluice_delivery_duration_seconds",
	.help = "From a record's first submission to its confirmation, retries included.",
	.kind = SL_METRIC_HISTOGRAM,
	.count = 1,
	.labels = {&sl_label_none},
}};

struct sl_meter *sl_meter_of(struct sl_routing_shard *self, const char *name)
{
	struct sl_meter *meter = self->meters;
	char labels[96];

	while (meter && strcmp(meter->name, name) != 0)
		meter = meter->next;
	if (meter)
		return meter;
	meter = calloc(1, sizeof(*meter));
	if (!meter)
		return NULL;
	snprintf(meter->name, sizeof(meter->name), "%s", name);
	snprintf(labels, sizeof(labels), "destination=\"%s\"", name);
	if (sl_metrics_add(self->env.metrics, sl_destination_counter_rows,
			   sl_destination_counter_row_count, &meter->counters, (int)self->env.shard,
			   labels) < 0 ||
	    sl_metrics_add(self->env.metrics, sl_delivery_duration_rows, 1, &meter->duration,
			   (int)self->env.shard, labels) < 0 ||
	    sl_metrics_add(self->env.metrics, sl_refusal_rows, SL_COUNT_OF(sl_refusal_rows),
			   &meter->refusals, (int)self->env.shard, labels) < 0) {
		sl_metrics_remove(self->env.metrics, &meter->counters);
		sl_metrics_remove(self->env.metrics, &meter->duration);
		free(meter);
		return NULL;
	}
	if (self->env.endings.ended)
		meter->number = self->env.endings.number(self->env.endings.names, name);
	meter->next = self->meters;
	self->meters = meter;
	return meter;
}

void sl_meters_free(struct sl_routing_shard *self)
{
	while (self->meters) {
		struct sl_meter *meter = self->meters;

		self->meters = meter->next;
		sl_metrics_remove(self->env.metrics, &meter->counters);
		sl_metrics_remove(self->env.metrics, &meter->duration);
		sl_metrics_remove(self->env.metrics, &meter->refusals);
		free(meter);
	}
}

void sl_breaker_tell(struct sl_destination_counters *counters, int *told, int state)
{
	if (SL_LIKELY(*told == state))
		return;
	if (*told != SL_BREAKER_UNTOLD)
		sl_count(&counters->breakers[*told], UINT64_MAX);
	if (state != SL_BREAKER_UNTOLD)
		sl_count(&counters->breakers[state], 1);
	*told = state;
}

void sl_egress_answered(const struct sl_record *record, enum sl_answer answer,
			enum sl_outcome outcome)
{
	const struct sl_egress *egress = record->destination;

	sl_refusals_count(&egress->meter->refusals, answer,
			  outcome == SL_OUTCOME_REJECTED        ? SL_REASON_REJECTED
			  : answer == SL_ANSWER_TIMEOUT         ? SL_REASON_TIMED_OUT
			  : answer == SL_ANSWER_KAFKA_TIMED_OUT ? SL_REASON_TIMED_OUT
								: SL_REASON_UNDELIVERED);
}
