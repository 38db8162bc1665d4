#include "dataplane/http/grpc.h"

enum sl_grpc_event sl_grpc_next(struct sl_grpc_deframer *deframer, struct sl_bytes *in,
				struct sl_bytes *data)
{
	size_t take;

	*data = SL_BYTES_NONE;
	// A whole message whose end has not been told: also that of an empty one.
	if (deframer->prefix_bytes == SL_GRPC_PREFIX_BYTES &&
	    deframer->message_seen == deframer->message_bytes) {
		deframer->prefix_bytes = SL_GRPC_PREFIX_BYTES + 1;
		return SL_GRPC_MESSAGE;
	}
	if (in->size == 0)
		return SL_GRPC_NEED_MORE;
	if (deframer->prefix_bytes != SL_GRPC_PREFIX_BYTES) {
		if (deframer->prefix_bytes > SL_GRPC_PREFIX_BYTES)
			deframer->prefix_bytes = 0;
		take = SL_MIN(in->size, (size_t)(SL_GRPC_PREFIX_BYTES - deframer->prefix_bytes));
		memcpy(deframer->prefix + deframer->prefix_bytes, in->data, take);
		deframer->prefix_bytes += (uint8_t)take;
		in->data += take;
		in->size -= take;
		if (deframer->prefix[0] > 1)
			return SL_GRPC_BAD;
		if (deframer->prefix_bytes < SL_GRPC_PREFIX_BYTES)
			return SL_GRPC_NEED_MORE;
		deframer->message_bytes = (uint32_t)deframer->prefix[1] << 24 |
					  (uint32_t)deframer->prefix[2] << 16 |
					  (uint32_t)deframer->prefix[3] << 8 | deframer->prefix[4];
		deframer->message_seen = 0;
		if (deframer->messages < UINT8_MAX)
			deframer->messages++;
		return SL_GRPC_BEGIN;
	}
	take = SL_MIN(in->size, (size_t)(deframer->message_bytes - deframer->message_seen));
	*data = sl_bytes(in->data, take);
	deframer->message_seen += (uint32_t)take;
	in->data += take;
	in->size -= take;
	return SL_GRPC_DATA;
}

bool sl_grpc_is_whole(const struct sl_grpc_deframer *deframer)
{
	return deframer->messages == 1 && deframer->prefix_bytes >= SL_GRPC_PREFIX_BYTES &&
	       deframer->message_seen == deframer->message_bytes;
}

bool sl_grpc_is_compressed(const struct sl_grpc_deframer *deframer)
{
	return deframer->prefix[0] == 1;
}

void sl_grpc_prefix(uint8_t out[SL_GRPC_PREFIX_BYTES], bool compressed, uint32_t message_bytes)
{
	out[0] = compressed;
	out[1] = (uint8_t)(message_bytes >> 24);
	out[2] = (uint8_t)(message_bytes >> 16);
	out[3] = (uint8_t)(message_bytes >> 8);
	out[4] = (uint8_t)message_bytes;
}

bool sl_grpc_timeout_parse(struct sl_bytes value, uint64_t *ns)
{
	uint64_t number = 0, unit;

	if (value.size < 2 || value.size > 9)
		return false;
	for (size_t i = 0; i + 1 < value.size; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return false;
		number = number * 10 + (value.data[i] - '0');
	}
	switch (value.data[value.size - 1]) {
	case 'H':
		unit = 3600 * SL_S;
		break;
	case 'M':
		unit = 60 * SL_S;
		break;
	case 'S':
		unit = SL_S;
		break;
	case 'm':
		unit = SL_MS;
		break;
	case 'u':
		unit = SL_US;
		break;
	case 'n':
		unit = 1;
		break;
	default:
		return false;
	}
	if (__builtin_mul_overflow(number, unit, ns))
		*ns = UINT64_MAX;
	return true;
}

size_t sl_grpc_message_encode(uint8_t *out, struct sl_bytes message)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t size = 0;

	for (size_t i = 0; i < message.size; i++) {
		const uint8_t byte = message.data[i];

		// A space at either end would be trimmed, or refused, as the field's blank.
		const bool edge = byte == ' ' && (i == 0 || i + 1 == message.size);

		if (byte >= 0x20 && byte <= 0x7e && byte != '%' && !edge) {
			out[size++] = byte;
			continue;
		}
		out[size++] = '%';
		out[size++] = (uint8_t)digits[byte >> 4];
		out[size++] = (uint8_t)digits[byte & 15];
	}
	return size;
}
