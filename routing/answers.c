#include "routing/answers.h"

static const char *const answer_names[SL_ANSWER_COUNT] = {
#define SL_ANSWER_(name, label) [SL_ANSWER_##name] = label,
	SL_ANSWERS(SL_ANSWER_)
#undef SL_ANSWER_
};
static const struct sl_label answer_label = {"answer", answer_names, SL_ANSWER_COUNT};

// The labels of reason.def, for a table of some of them.
#define SL_REASON(name_, label_, ...)                                                              \
	__attribute__((unused)) static const char reason_##name_[] = label_;
#include "dataplane/request/reason.def"
#undef SL_REASON

static const char *const reason_names[] = {
#define REASON_(name) reason_##name,
	SL_ANSWER_REASONS(REASON_)
#undef REASON_
};
static_assert(SL_COUNT_OF(reason_names) == SL_ANSWER_REASON_COUNT, "counted by hand");
static const struct sl_label reason_label = {"reason", reason_names, SL_ANSWER_REASON_COUNT};

static const enum sl_reason reasons[] = {
#define REASON_(name) SL_REASON_##name,
	SL_ANSWER_REASONS(REASON_)
#undef REASON_
};

const struct sl_metric_row sl_refusal_rows[1] = {{
	.name = "sluice_destination_refused_records",
	.help = "Records or calls that the destination did not take, each attempt, by what it "
		"answered and what that is to the sender.",
	.kind = SL_METRIC_COUNTER,
	.count = SL_ANSWER_COUNT * SL_ANSWER_REASON_COUNT,
	.labels = {&answer_label, &reason_label},
}};

void sl_refusals_count(struct sl_refusals *refusals, enum sl_answer answer, enum sl_reason reason)
{
	uint32_t index = 0;

	while (reasons[index] != reason) {
		index++;
		assert(index < SL_ANSWER_REASON_COUNT);
	}
	sl_count(&refusals->records[answer * SL_ANSWER_REASON_COUNT + index], 1);
}

enum sl_answer sl_answer_of_http(uint16_t status)
{
	static const struct {
		uint16_t status;
		uint8_t answer;
	} named[] = {
		{400, SL_ANSWER_HTTP_400}, {401, SL_ANSWER_HTTP_401}, {403, SL_ANSWER_HTTP_403},
		{404, SL_ANSWER_HTTP_404}, {413, SL_ANSWER_HTTP_413}, {415, SL_ANSWER_HTTP_415},
		{429, SL_ANSWER_HTTP_429}, {431, SL_ANSWER_HTTP_431}, {500, SL_ANSWER_HTTP_500},
		{502, SL_ANSWER_HTTP_502}, {503, SL_ANSWER_HTTP_503}, {504, SL_ANSWER_HTTP_504},
	};
	static const uint8_t classes[] = {
		SL_ANSWER_HTTP_OTHER, SL_ANSWER_HTTP_1XX, SL_ANSWER_HTTP_2XX,
		SL_ANSWER_HTTP_3XX,   SL_ANSWER_HTTP_4XX, SL_ANSWER_HTTP_5XX,
	};

	for (size_t i = 0; i < SL_COUNT_OF(named); i++) {
		if (named[i].status == status)
			return (enum sl_answer)named[i].answer;
	}
	return (enum sl_answer)classes[status < 600 ? status / 100 : 0];
}

enum sl_answer sl_answer_of_grpc(int status)
{
	static_assert(SL_ANSWER_GRPC_OTHER - SL_ANSWER_GRPC_OK == SL_GRPC_UNAUTHENTICATED + 1,
		      "in the order of the codes");
	return status <= SL_GRPC_UNAUTHENTICATED
		       ? (enum sl_answer)(SL_ANSWER_GRPC_OK + (uint32_t)status)
		       : SL_ANSWER_GRPC_OTHER;
}
