#include <stdio.h>
#include <stdlib.h>

#include "routing/internal.h"

#define SL_COUNTER_STRUCT_ struct sl_destination_counters
SL_COUNTER_ROWS(destination, SL_DESTINATION_COUNTERS)

static const struct sl_metric_row duration_rows[] = {{
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
	    sl_metrics_add(self->env.metrics, duration_rows, SL_COUNT_OF(duration_rows),
			   &meter->duration, (int)self->env.shard, labels) < 0) {
		sl_metrics_remove(self->env.metrics, &meter->counters);
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
		free(meter);
	}
}
