#include "routing/otlp_answer.h"

#include <time.h>

#include "dataplane/base/varint.h"
#include "routing/internal.h"

#define PREFIX_BYTES      5    // gRPC: flag, length
#define DETAILS_BYTES     6144 // common limits of a header list are 8 KiB, in base64
#define RETRY_AFTER_MOST  (24 * 3600 * SL_S)
#define RETRY_SECONDS_MAX 100000

// One field of a message that nobody has checked, and the next of `in`, which moves on; false at
// its end, and where it is not sound.
struct answer_field {
	uint64_t number, wire, value;
	struct sl_bytes bytes;
};

static bool next_field(struct sl_bytes *in, struct answer_field *field)
{
	static const uint8_t fixed[8] = {[1] = 8, [5] = 4};
	uint64_t tag, size;
	int used = sl_varint_get(in->data, in->size, &tag);

	if (used <= 0)
		return false;
	*in = sl_bytes(in->data + used, in->size - (size_t)used);
	field->number = tag >> 3;
	field->wire = tag & 7;
	field->bytes = SL_BYTES_NONE;
	if (field->wire == 0 || field->wire == 2) {
		used = sl_varint_get(in->data, in->size, &size);
		if (used <= 0)
			return false;
		*in = sl_bytes(in->data + used, in->size - (size_t)used);
		field->value = size;
		if (field->wire == 0)
			return true;
	} else {
		size = fixed[field->wire];
		if (!size)
			return false; // a group: google.rpc.Status has none
	}
	if (size > in->size)
		return false;
	field->bytes = sl_bytes(in->data, size);
	*in = sl_bytes(in->data + size, in->size - size);
	return true;
}

void sl_otlp_answer_init(struct sl_otlp_answer *answer, bool http)
{
	*answer = (struct sl_otlp_answer){.http = http, .grpc_status = -1};
}

static int sextet(uint8_t c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static size_t base64_read(struct sl_bytes text, uint8_t *out, size_t size)
{
	uint32_t bits = 0;
	unsigned held = 0;
	size_t count = 0;

	for (size_t i = 0; i < text.size && sextet(text.data[i]) >= 0 && count < size; i++) {
		bits = bits << 6 | (uint32_t)sextet(text.data[i]);
		held += 6;
		if (held >= 8) {
			held -= 8;
			out[count++] = (uint8_t)(bits >> held);
		}
	}
	return count;
}

static void ask(struct sl_otlp_answer *answer, uint64_t wait_ns)
{
	answer->asked = true;
	answer->retry_after_ns = SL_MIN(SL_MAX(answer->retry_after_ns, wait_ns), RETRY_AFTER_MOST);
}

// RetryInfo: retry_delay (1) -> Duration: seconds 1, nanos 2. Negative ones ask for no wait.
static void read_retry_info(struct sl_otlp_answer *answer, struct sl_bytes info)
{
	struct answer_field delay, part;
	uint64_t wait_ns = 0;

	while (next_field(&info, &delay)) {
		while (delay.number == 1 && delay.wire == 2 && next_field(&delay.bytes, &part)) {
			if (part.wire != 0 || part.value > INT64_MAX)
				continue;
			if (part.number == 1)
				wait_ns += SL_MIN(part.value, RETRY_SECONDS_MAX) * SL_S;
			else if (part.number == 2)
				wait_ns += SL_MIN(part.value, SL_S);
		}
	}
	ask(answer, wait_ns);
}

// google.rpc.Status -> details (3) -> Any: type_url 1, value 2.
static void read_details(struct sl_otlp_answer *answer, struct sl_bytes text)
{
	uint8_t status[DETAILS_BYTES];
	struct sl_bytes in = sl_bytes(status, base64_read(text, status, sizeof(status)));
	struct answer_field any, field;

	while (next_field(&in, &any)) {
		struct sl_bytes type = SL_BYTES_NONE, value = SL_BYTES_NONE;

		if (any.number != 3 || any.wire != 2)
			continue;
		while (next_field(&any.bytes, &field)) {
			if (field.number == 1)
				type = field.bytes;
			else if (field.number == 2)
				value = field.bytes;
		}
		if (sl_bytes_equal(type, SL_LITERAL("type.googleapis.com/google.rpc.RetryInfo")))
			read_retry_info(answer, value);
	}
}

// Decimal digits and nothing else, or -1; saturates.
static int64_t number_of(struct sl_bytes text)
{
	int64_t value = 0;

	if (!text.size)
		return -1;
	for (size_t i = 0; i < text.size; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return -1;
		value = SL_MIN(value * 10 + (text.data[i] - '0'), INT32_MAX);
	}
	return value;
}

// For a log line's quotes.
static void keep_message(struct sl_otlp_answer *answer, struct sl_bytes text)
{
	const size_t size = SL_MIN(text.size, sizeof(answer->message) - 1);

	for (size_t i = 0; i < size; i++) {
		const uint8_t c = text.data[i];

		answer->message[i] = (char)(c < ' ' || c > '~' || c == '"' || c == '\\' ? '?' : c);
	}
	answer->message[size] = 0;
}

// A date in one of the three forms of RFC 9110, section 5.6.7, in seconds; 0: none.
static int64_t date_of(struct sl_bytes text)
{
	static const char *const forms[] = {
		"%a, %d %b %Y %H:%M:%S GMT",
		"%A, %d-%b-%y %H:%M:%S GMT",
		"%a %b %e %H:%M:%S %Y",
	};
	char copy[40];

	if (text.size >= sizeof(copy))
		return 0;
	memcpy(copy, text.data, text.size);
	copy[text.size] = 0;
	for (size_t i = 0; i < SL_COUNT_OF(forms); i++) {
		struct tm tm = {0};
		const char *end = strptime(copy, forms[i], &tm);

		if (end && !*end)
			return SL_MAX(timegm(&tm), 0);
	}
	return 0;
}

// What is not of the protocol itself comes from something in between, whose status of HTTP counts.
static bool is_foreign(const struct sl_otlp_answer *answer, struct sl_bytes type)
{
	const struct sl_bytes own = answer->http ? SL_LITERAL("application/x-protobuf")
						 : SL_LITERAL("application/grpc");

	return type.size < own.size || memcmp(type.data, own.data, own.size) != 0;
}

void sl_otlp_answer_headers(struct sl_otlp_answer *answer, const struct sl_http_header *headers,
			    uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct sl_http_header *header = &headers[i];
		const int64_t number = number_of(header->value);

		if (sl_bytes_equal(header->name, SL_LITERAL("grpc-status"))) {
			// What is no number is no success.
			answer->grpc_status = number < 0 ? SL_GRPC_UNKNOWN : (int)number;
		} else if (sl_bytes_equal(header->name, SL_LITERAL("grpc-message"))) {
			keep_message(answer, header->value);
		} else if (sl_bytes_equal(header->name, SL_LITERAL("grpc-status-details-bin"))) {
			read_details(answer, header->value);
		} else if (sl_bytes_equal(header->name, SL_LITERAL("retry-after"))) {
			if (number < 0)
				answer->retry_at_s = date_of(header->value);
			ask(answer, (uint64_t)SL_MIN(SL_MAX(number, 0), RETRY_SECONDS_MAX) * SL_S);
		} else if (sl_bytes_equal(header->name, SL_LITERAL("date"))) {
			answer->now_s = date_of(header->value);
		} else if (sl_bytes_equal(header->name, SL_LITERAL("content-type"))) {
			answer->foreign = is_foreign(answer, header->value);
		}
	}
	// Without the peer's date its time says nothing: the own backoff decides.
	if (answer->retry_at_s && answer->now_s && answer->retry_at_s > answer->now_s)
		ask(answer,
		    (uint64_t)SL_MIN(answer->retry_at_s - answer->now_s, RETRY_SECONDS_MAX) * SL_S);
}

// Its own status decides, unless the answer is not gRPC's at all.
bool sl_otlp_answer_is_grpc(const struct sl_otlp_answer *answer)
{
	return !answer->http && !answer->foreign && answer->grpc_status >= 0 &&
	       (answer->grpc_status || answer->status == 200);
}

void sl_otlp_answer_data(struct sl_otlp_answer *answer, struct sl_bytes bytes)
{
	const size_t count = SL_MIN(bytes.size, SL_OTLP_REPLY_KEPT - answer->reply_bytes);

	memcpy(answer->reply + answer->reply_bytes, bytes.data, count);
	answer->reply_bytes += count;
}

// partial_success (1) -> rejected (1). A long error_message behind it is not kept, so its message
// may be longer than what there is.
uint64_t sl_otlp_answer_rejected(const struct sl_otlp_answer *answer)
{
	const size_t skip = answer->http ? 0 : PREFIX_BYTES;
	struct answer_field field;
	struct sl_bytes in;
	uint64_t tag, size, rejected = 0;
	int used;

	if (answer->foreign || answer->reply_bytes <= skip || (!answer->http && answer->reply[0]))
		return 0;
	in = sl_bytes(answer->reply + skip, answer->reply_bytes - skip);
	used = sl_varint_get(in.data, in.size, &tag);
	if (used <= 0 || tag != (1 << 3 | 2))
		return 0;
	in = sl_bytes(in.data + used, in.size - (size_t)used);
	used = sl_varint_get(in.data, in.size, &size);
	if (used <= 0)
		return 0;
	in = sl_bytes(in.data + used, SL_MIN(size, in.size - (size_t)used));
	while (next_field(&in, &field)) {
		if (field.number == 1 && field.wire == 0)
			rejected = field.value;
	}
	return rejected > INT64_MAX ? 0 : rejected;
}

static enum sl_outcome http_outcome(uint16_t status)
{
	switch (status) {
	case 429:
	case 502:
	case 503:
	case 504:
		return SL_OUTCOME_RETRYABLE;
	default:
		return SL_OUTCOME_REJECTED;
	}
}

enum sl_outcome sl_otlp_answer_outcome(const struct sl_otlp_answer *answer)
{
	if (answer->http)
		return answer->status / 100 == 2 ? SL_OUTCOME_DELIVERED
						 : http_outcome(answer->status);
	if (!sl_otlp_answer_is_grpc(answer))
		return http_outcome(answer->status);
	switch (answer->grpc_status) {
	case SL_GRPC_OK:
		return SL_OUTCOME_DELIVERED;
	case SL_GRPC_CANCELLED:
	case SL_GRPC_DEADLINE_EXCEEDED:
	case SL_GRPC_ABORTED:
	case SL_GRPC_OUT_OF_RANGE:
	case SL_GRPC_UNAVAILABLE:
	case SL_GRPC_DATA_LOSS:
		return SL_OUTCOME_RETRYABLE;
	case SL_GRPC_RESOURCE_EXHAUSTED:
		return answer->asked ? SL_OUTCOME_RETRYABLE : SL_OUTCOME_REJECTED;
	default:
		return SL_OUTCOME_REJECTED;
	}
}

enum sl_answer sl_otlp_answer_word(const struct sl_otlp_answer *answer)
{
	return sl_otlp_answer_is_grpc(answer) ? sl_answer_of_grpc(answer->grpc_status)
					      : sl_answer_of_http(answer->status);
}

bool sl_otlp_answer_denied(const struct sl_otlp_answer *answer)
{
	if (!sl_otlp_answer_is_grpc(answer))
		return answer->status == 401 || answer->status == 403;
	return answer->grpc_status == SL_GRPC_UNAUTHENTICATED ||
	       answer->grpc_status == SL_GRPC_PERMISSION_DENIED;
}
