#include "tests/unit/dpdk/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/hash.h"

struct wire wire;
struct end ends[2];
static char listener;

const struct sl_endpoint server_at = {{[10] = 0xff, 0xff, 10, 0, 0, 1}, PORT};
const struct sl_endpoint client_at = {{[10] = 0xff, 0xff, 10, 0, 0, 2}, 0};

static uint64_t hash(const void *key, size_t size)
{
	return sl_hash(sl_bytes(key, size));
}

uint32_t wire_draw(void)
{
	return (uint32_t)sl_random_next(&wire.chance);
}

bool wire_happens(unsigned percent)
{
	return sl_random_below(&wire.chance, 100) < percent;
}

void wire_release(void *packet)
{
	wire.frames_alive--;
	free(packet);
}

void wire_push(struct end *to, const uint8_t *data, size_t bytes)
{
	struct frame *frame = malloc(sizeof(*frame));

	assert_non_null(frame);
	assert_true(to->tail - to->head < FRAMES_MAX);
	wire.frames_alive++;
	frame->bytes = (uint16_t)bytes;
	memcpy(frame->data, data, bytes);
	to->in[to->tail++ % FRAMES_MAX] = frame;
	if (to->tail - to->head > 1 && wire_happens(wire.reorder)) {
		struct frame **last = &to->in[(to->tail - 1) % FRAMES_MAX];
		struct frame **before = &to->in[(to->tail - 2) % FRAMES_MAX];

		frame = *last;
		*last = *before;
		*before = frame;
	}
}

// The router of a narrow link: drops what does not fit, and says so (RFC 1191, RFC 4443 3.2).
static bool is_too_big(struct end *from, const uint8_t *data, size_t bytes)
{
	const bool v4 = data[12] == 0x08;
	const size_t header = v4 ? 20 : 40, quoted = v4 ? 28 : 64;
	uint8_t back[14 + 40 + 8 + 64] = {0};
	uint8_t *ip = back + 14, *icmp = ip + header;

	if (!wire.narrow || bytes <= 14 + wire.narrow)
		return false;
	if (v4)
		assert_true(data[14 + 6] & 0x40); // DF: nobody cuts it on the way
	memcpy(back, data + 6, 6);
	memcpy(back + 6, data, 6);
	memcpy(back + 12, data + 12, 2);
	ip[0] = v4 ? 0x45 : 0x60;
	ip[v4 ? 3 : 5] = (uint8_t)(v4 ? header + 8 + quoted : 8 + quoted);
	ip[v4 ? 9 : 6] = v4 ? 1 : 58;
	ip[v4 ? 8 : 7] = 64;
	memcpy(ip + (v4 ? 12 : 8), data + 14 + (v4 ? 16 : 24), v4 ? 4 : 16);
	memcpy(ip + (v4 ? 16 : 24), data + 14 + (v4 ? 12 : 8), v4 ? 4 : 16);
	icmp[0] = v4 ? 3 : 2;
	icmp[1] = v4 ? 4 : 0;
	icmp[6] = (uint8_t)(wire.narrow >> 8);
	icmp[7] = (uint8_t)wire.narrow;
	memcpy(icmp + 8, data + 14, quoted);
	wire.told++;
	wire_push(from, back, 14 + header + 8 + quoted);
	return true;
}

// Over a header or a segment: 0 when it carries its own complement (RFC 1071).
static uint16_t sum_of(uint32_t sum, const uint8_t *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint16_t sum_of_tcp(const uint8_t *ip)
{
	const uint16_t size = (uint16_t)((ip[2] << 8 | ip[3]) - 20);
	const uint32_t addresses = (uint16_t)~sum_of(0, ip + 12, 8);

	return sum_of(addresses + 6 + size, ip + 20, size);
}

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static bool is_v4(const uint8_t *frame)
{
	return frame[12] == 0x08 && frame[13] == 0x00;
}

// As a device computes what was left to it.
static void sum_up(uint8_t *frame)
{
	uint8_t *ip = frame + 14;

	if (!is_v4(frame))
		return;
	if (wire.device_sums & SL_SUM_TCP) {
		assert_int_equal(ip[9], 6);
		assert_int_equal(ip[20 + 16] | ip[20 + 17], 0);
		put16(ip + 20 + 16, sum_of_tcp(ip));
	}
	if (wire.device_sums & SL_SUM_IP) {
		put16(ip + 10, 0);
		put16(ip + 10, sum_of(0, ip, 20));
	}
}

// As a device checks what it received. False: it is damaged.
static bool is_whole(const uint8_t *frame)
{
	return !is_v4(frame) || (!sum_of(0, frame + 14, 20) && !sum_of_tcp(frame + 14));
}

static bool transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		     size_t bytes)
{
	struct end *end = self;
	uint8_t data[FRAME_BYTES];
	size_t at = 0;

	for (unsigned i = 0; i < count; i++) {
		assert_true(at + pieces[i].iov_len <= sizeof(data));
		memcpy(data + at, pieces[i].iov_base, pieces[i].iov_len);
		at += pieces[i].iov_len;
	}
	assert_int_equal(at, bytes);
	assert_int_equal(interface, 0);
	wire.frames++;
	sum_up(data);
	if (is_v4(data) && wire_happens(wire.damage))
		data[14 + sl_random_below(&wire.chance, bytes - 14)] ^= 1 << sl_random_below(
										&wire.chance, 8);
	if ((wire.swallows && wire.swallows(data)) || is_too_big(end, data, bytes) ||
	    wire_happens(wire.lose))
		return true;
	wire_push(end->peer, data, bytes);
	if (wire_happens(wire.repeat))
		wire_push(end->peer, data, bytes);
	return true;
}

int wire_set_up(void **state)
{
	(void)state;
	memset(ends, 0, sizeof(ends));
	wire = (struct wire){.device_sums = wire.device_sums, .now_ns = 1000 * SL_S};
	sl_random_init(&wire.chance, 7);
	for (unsigned i = 0; i < 2; i++) {
		const struct sl_stack_host host = {&ends[i], hash, wire_draw, transmit,
						   wire_release};
		struct sl_stack_config config = {
			.interfaces[0] = {.mac = {2, 0, 0, 0, 0, (uint8_t)(i + 1)},
					  .mtu = 1500,
					  .address_count = 1,
					  .device_sums = wire.device_sums},
			.interface_count = 1,
			.window_budget = 8 * SL_MIB,
		};
		struct sl_stack_address *own = &config.interfaces[0].addresses[0];
		char error[256] = "";

		memcpy(own->address, i ? client_at.address : server_at.address, 16);
		own->prefix = 24;
		ends[i].peer = &ends[1 - i];
		ends[i].ops = sl_stack_load(error, sizeof(error));
		assert_string_equal(error, "");
		ends[i].stack = ends[i].ops->create(&host, &config);
		assert_non_null(ends[i].stack);
	}
	assert_ptr_not_equal(ends[0].ops, ends[1].ops);
	assert_non_null(
		ends[0].ops->listen(ends[0].stack, &(struct sl_endpoint){.port = PORT}, &listener));
	return 0;
}

int wire_tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		ends[i].ops->destroy(ends[i].stack);
	for (unsigned i = 0; i < 2; i++) {
		while (ends[i].head != ends[i].tail)
			wire_release(ends[i].in[ends[i].head++ % FRAMES_MAX]);
	}
	assert_int_equal(wire.frames_alive, 0); // every frame went back
	return 0;
}

// As from a device that joins segments: every 7th frame of TCP comes in three buffers.
static void add_pieces(struct end *end, struct frame *frame)
{
	const bool v4 = frame->data[12] == 0x08;
	const uint16_t cut = 14 + 40 + 60; // behind any headers

	if (frame->data[14 + (v4 ? 9 : 6)] != 6 || frame->bytes < cut + 100 || wire.pieces++ % 7)
		return;
	for (uint16_t at = cut, size; at < frame->bytes; at += size) {
		struct frame *more = malloc(sizeof(*more));

		assert_non_null(more);
		wire.frames_alive++;
		size = at == cut ? 33 : (uint16_t)(frame->bytes - at);
		memcpy(more->data, frame->data + at, size);
		end->ops->add(end->stack, more, more->room, more->data, size);
	}
	frame->bytes = cut;
}

void wire_deliver(struct end *end)
{
	const uint32_t until = end->tail;
	const unsigned merged = wire_happens(50) ? SL_INPUT_MORE : 0;

	end->ops->tick(end->stack, wire.now_ns);
	while (end->head != until) {
		struct frame *frame = end->in[end->head++ % FRAMES_MAX];
		unsigned how = merged | (wire_happens(10) ? SL_INPUT_COPY : 0);

		if (wire.device_sums && !is_whole(frame->data)) {
			wire.refused++;
			wire_release(frame);
			continue;
		}
		if (wire.device_sums)
			how |= SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE;
		add_pieces(end, frame);
		end->ops->input(end->stack, frame, frame->room, frame->data, frame->bytes, how);
	}
	end->ops->flush(end->stack);
	end->ops->acknowledge(end->stack);
}

void wire_step(uint64_t ns)
{
	wire.now_ns += ns;
	wire_deliver(&ends[0]);
	wire_deliver(&ends[1]);
}
