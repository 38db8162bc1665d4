#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/hash.h"
#include "dataplane/io/dpdk/stack.h"

// A stack with two uplinks, each to a router, and one address that is reached over both: by which
// of them does something leave? The peer behind the routers is made by hand.
#define ETHERNET 14
#define SENT_MAX 64
#define PORT     4317
#define FIN      1
#define SYN      2
#define RST      4
#define ACK      16
#define SMALL    1280 // the second uplink's MTU

struct frame {
	uint8_t room[SL_STACK_ROOM_BYTES];
	uint8_t data[2048];
};

static struct {
	unsigned interface;
	size_t bytes;
	uint8_t data[2048];
} sent[SENT_MAX];
static unsigned sent_count, taken_count;
static int frames_alive;
static const struct sl_stack_ops *ops;
static struct sl_stack *stack;
static uint64_t now_ns;
static char listener;

// The peer, in either family; what is of one VIP is of the other.
static bool v6;
static const uint8_t vip[2][16] = {{[10] = 0xff, 0xff, 203, 0, 113, 7},
				   {0x20, 1, 0xd, 0xb8, [15] = 7}};
static const uint8_t peer[2][16] = {{[10] = 0xff, 0xff, 198, 51, 100, 9},
				    {0x20, 1, 0xd, 0xb8, 1, [15] = 9}};
static const uint8_t own[2][2][16] = {
	{{[10] = 0xff, 0xff, 10, 0, 1, 2}, {0xfd, 0, 0, 1, [15] = 2}},
	{{[10] = 0xff, 0xff, 10, 0, 2, 2}, {0xfd, 0, 0, 2, [15] = 2}},
};
static const uint8_t router[2][2][16] = {
	{{[10] = 0xff, 0xff, 10, 0, 1, 1}, {0xfe, 0x80, [15] = 1}},
	{{[10] = 0xff, 0xff, 10, 0, 2, 1}, {0xfe, 0x80, [15] = 1}}, // the same, on another link
};

static uint64_t hash(const void *key, size_t size)
{
	return sl_hash(sl_bytes(key, size));
}

static uint32_t draw(void)
{
	return 0x51;
}

static void release(void *packet)
{
	frames_alive--;
	free(packet);
}

static bool transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		     size_t bytes)
{
	size_t at = 0;

	(void)self;
	assert_true(sent_count < SENT_MAX && bytes <= sizeof(sent[0].data));
	for (unsigned i = 0; i < count; i++) {
		memcpy(sent[sent_count].data + at, pieces[i].iov_base, pieces[i].iov_len);
		at += pieces[i].iov_len;
	}
	// Each speaks with its own address, to its own router where it is not to many.
	assert_int_equal(sent[sent_count].data[11], interface + 1);
	if (!(sent[sent_count].data[0] & 1))
		assert_int_equal(sent[sent_count].data[5], 0x10 + interface);
	sent[sent_count].interface = interface;
	sent[sent_count++].bytes = bytes;
	return true;
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint16_t sum(uint32_t total, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		total += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint16_t)~total;
}

// An IP packet of the router's, with the sum at `sum_at` of its payload.
static void give(unsigned interface, uint8_t protocol, const uint8_t *from, const uint8_t *to,
		 uint8_t *payload, size_t size, size_t sum_at)
{
	const size_t header = v6 ? 40 : 20;
	struct frame *frame = calloc(1, sizeof(*frame));
	uint8_t *ip = frame->data + ETHERNET;
	uint32_t pseudo = protocol + (uint32_t)size;

	assert_non_null(frame);
	frames_alive++;
	memcpy(frame->data, (uint8_t[]){2, 0, 0, 0, 0, (uint8_t)(interface + 1)}, 6);
	memcpy(frame->data + 6, (uint8_t[]){2, 0, 0, 0, 0, (uint8_t)(0x10 + interface)}, 6);
	put16(frame->data + 12, v6 ? 0x86dd : 0x0800);
	ip[0] = v6 ? 0x60 : 0x45;
	put16(ip + (v6 ? 4 : 2), (uint32_t)(v6 ? size : header + size));
	ip[v6 ? 7 : 8] = 255;
	ip[v6 ? 6 : 9] = protocol;
	memcpy(ip + (v6 ? 8 : 12), from + (v6 ? 0 : 12), v6 ? 16 : 4);
	memcpy(ip + (v6 ? 24 : 16), to + (v6 ? 0 : 12), v6 ? 16 : 4);
	if (!v6)
		put16(ip + 10, sum(0, ip, 20));
	put16(payload + sum_at, 0);
	pseudo = protocol == 1 ? 0 : pseudo + (uint16_t)~sum(0, ip + (v6 ? 8 : 12), v6 ? 32 : 8);
	put16(payload + sum_at, sum(pseudo, payload, size));
	memcpy(ip + header, payload, size);
	ops->input(stack, frame, frame->room, frame->data, (uint16_t)(ETHERNET + header + size),
		   interface * SL_INPUT_INTERFACE);
}

static void say_to(const uint8_t *to, unsigned interface, uint8_t flags, uint32_t seq, uint32_t ack,
		   const char *text)
{
	uint8_t tcp[256] = {0};

	put16(tcp, 40000);
	put16(tcp + 2, PORT);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = flags & SYN ? 0x60 : 0x50;
	tcp[13] = flags;
	put16(tcp + 14, 60000);
	memcpy(tcp + 20, (uint8_t[]){2, 4, 1400 >> 8, 1400 & 255}, 4);
	memcpy(tcp + (tcp[12] >> 4) * 4, text, strlen(text));
	give(interface, 6, peer[v6], to, tcp, (size_t)(tcp[12] >> 4) * 4 + strlen(text), 16);
}

static void say(unsigned interface, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
	say_to(vip[v6], interface, flags, seq, ack, text);
}

// The next segment that left, its bytes behind the addresses; NULL: none has.
static const uint8_t *next(unsigned *interface, size_t *bytes)
{
	while (taken_count < sent_count) {
		const uint8_t *ip = sent[taken_count].data + ETHERNET;
		const bool four = sent[taken_count].data[12] == 0x08 && !sent[taken_count].data[13];

		*interface = sent[taken_count].interface;
		*bytes = sent[taken_count].bytes - ETHERNET;
		taken_count++;
		if (four ? ip[9] == 6 : ip[6] == 6)
			return ip + (four ? 20 : 40);
	}
	sent_count = taken_count = 0;
	return NULL;
}

static const uint8_t *expect(unsigned want)
{
	unsigned interface;
	size_t bytes;
	const uint8_t *tcp = next(&interface, &bytes);

	assert_non_null(tcp);
	assert_int_equal(interface, want);
	return tcp;
}

static void expect_nothing(void)
{
	unsigned interface;
	size_t bytes;

	assert_null(next(&interface, &bytes));
}

static void pass(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		now_ns += 100 * SL_MS;
		ops->tick(stack, now_ns);
		ops->acknowledge(stack);
	}
}

// Both routers make themselves known, in both families.
static void meet_routers(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct frame *frame = calloc(1, sizeof(*frame));
		uint8_t mac[6] = {2, 0, 0, 0, 0, (uint8_t)(0x10 + i)}, ask[32] = {135};

		assert_non_null(frame);
		frames_alive++;
		memset(frame->data, 0xff, 6);
		memcpy(frame->data + 6, mac, 6);
		memcpy(frame->data + 12, (uint8_t[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, 10);
		memcpy(frame->data + 22, mac, 6);
		memcpy(frame->data + 28, router[i][0] + 12, 4);
		memcpy(frame->data + 38, own[i][0] + 12, 4);
		ops->input(stack, frame, frame->room, frame->data, 60, i * SL_INPUT_INTERFACE);
		memcpy(ask + 8, own[i][1], 16);
		memcpy(ask + 24, (uint8_t[]){1, 1}, 2);
		memcpy(ask + 26, mac, 6);
		v6 = true;
		give(i, 58, router[i][1], own[i][1], ask, sizeof(ask), 2);
		v6 = false;
	}
	sent_count = taken_count = 0;
}

static int set_up(void **state)
{
	const struct sl_stack_host host = {NULL, hash, draw, transmit, release};
	struct sl_stack_config config = {.interface_count = 2, .window_budget = SL_MIB};
	char error[256] = "";

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct sl_stack_interface *interface = &config.interfaces[i];

		interface->mac[0] = 2;
		interface->mac[5] = (uint8_t)(i + 1);
		interface->mtu = i ? SMALL : 1500;
		for (unsigned k = 0; k < 4; k++) {
			memcpy(interface->addresses[k].address, k < 2 ? own[i][k] : vip[k - 2], 16);
			interface->addresses[k].prefix = (uint8_t[]){24, 64, 32, 128}[k];
		}
		interface->address_count = 4;
		memcpy(interface->gateway4, router[i][0] + 12, 4);
		memcpy(interface->gateway6, router[i][1], 16);
	}
	now_ns = 1000 * SL_S;
	v6 = false;
	ops = sl_stack_load(error, sizeof(error));
	assert_string_equal(error, "");
	sent_count = taken_count = 0;
	stack = ops->create(&host, &config);
	assert_non_null(stack);
	ops->tick(stack, now_ns);
	assert_non_null(ops->listen(stack, &(struct sl_endpoint){.port = PORT}, &listener));
	meet_routers();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sent_count = taken_count = 0;
	ops->destroy(stack);
	assert_int_equal(frames_alive, 0);
	return 0;
}

// A connection over `interface`. Returns its stream; *number is what it says next.
static struct sl_stream *open_over(unsigned interface, uint32_t *number)
{
	struct sl_stream *stream;

	say(interface, SYN, 1000, 0, "");
	*number = get32(expect(interface) + 4) + 1;
	say(interface, ACK, 1001, *number, "");
	stream = ops->next_ready(stack);
	assert_non_null(stream);
	assert_true(stream->events & SL_STREAM_ACCEPTED);
	stream->events = 0;
	return stream;
}

static void answer(struct sl_stream *stream, size_t size)
{
	static uint8_t sample[4000];
	const struct iovec piece = {sample, size};

	assert_int_equal(ops->write(stream, &piece, 1), size);
}

static void in_both_families(void (*test)(void))
{
	for (unsigned family = 0; family < 2; family++) {
		assert_int_equal(set_up(NULL), 0);
		v6 = family;
		test();
		assert_int_equal(tear_down(NULL), 0);
	}
}

static void go_where_the_peer_speaks(void)
{
	uint32_t number;
	struct sl_stream *stream = open_over(1, &number);

	for (unsigned i = 0; i < 6; i++) {
		const unsigned way = i / 2 % 2;

		say(way, ACK, 1001 + i, number, "x");
		answer(stream, 10);
		assert_int_equal(get32(expect(way) + 4), number);
		expect_nothing();
		number += 10;
	}
	say(0, ACK, 1007, number, "");
	assert_int_equal(ops->stats(stack)->moved, 3);
	ops->drop(stream, true);
	assert_int_equal(expect(0)[13] & RST, RST);
}

static void test_an_answer_leaves_by_the_last_segments(void **state)
{
	(void)state;
	in_both_families(go_where_the_peer_speaks);
}

static void leave_a_dead_link(void)
{
	uint32_t number;
	struct sl_stream *stream = open_over(0, &number);
	unsigned turns = 0;

	say(0, ACK, 1001, number, "call");
	ops->link(stack, 0, false);
	answer(stream, 10); // its peer is silent, and waits
	assert_int_equal(get32(expect(1) + 4), number);
	ops->link(stack, 0, true);
	ops->link(stack, 1, false); // now that one, with the answer under way
	expect_nothing();
	while (!sent_count && turns++ < 100)
		pass(1);
	assert_int_equal(get32(expect(0) + 4), number);
	assert_int_equal(ops->stats(stack)->moved, 2);
	// The link's return moves nothing.
	ops->link(stack, 1, true);
	say(0, ACK, 1005, number + 10, "");
	answer(stream, 10);
	expect(0);
	ops->drop(stream, true);
}

static void test_a_dead_link_is_left(void **state)
{
	(void)state;
	in_both_families(leave_a_dead_link);
}

static void stay_with_its_peer(void)
{
	static const struct {
		const char *why;
		uint8_t flags;
		int32_t seq, ack; // beyond what is right
	} rows[] = {
		{"no number fits", ACK, 1 << 30, 1 << 30},
		{"only what it says", ACK, 0, 1 << 24},
		{"only what it acknowledges", ACK, 1 << 24, 0},
		{"what was never sent is acknowledged", ACK, 0, 1},
		{"a SYN", SYN, 0, 0},
		{"a reset elsewhere", RST, 5000, 0},
	};
	uint32_t number;
	struct sl_stream *stream = open_over(0, &number);

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		unsigned interface;
		size_t bytes;

		say(1, rows[i].flags, 1001 + (uint32_t)rows[i].seq, number + (uint32_t)rows[i].ack,
		    "");
		pass(3);
		while (next(&interface, &bytes)) // a challenge goes to who has asked for it
			;
		answer(stream, 10);
		if (!next(&interface, &bytes) || interface != 0)
			fail_msg("%s: moved", rows[i].why);
		number += 10;
		say(0, ACK, 1001, number, "");
		expect_nothing();
	}
	assert_int_equal(ops->stats(stack)->moved, 0);
	// What the peer may say again, as it has seen no acknowledgement, moves it.
	say(0, ACK, 1001, number, "abc");
	say(1, ACK, 1001, number, "abc");
	assert_int_equal(ops->stats(stack)->moved, 1);
	ops->drop(stream, true);
}

static void test_a_stranger_moves_nobody(void **state)
{
	(void)state;
	in_both_families(stay_with_its_peer);
}

static void bound_by_the_link(void)
{
	uint32_t number;
	struct sl_stream *stream = open_over(0, &number);
	unsigned interface;
	size_t bytes;

	say(0, ACK, 1001, number, "x");
	answer(stream, 1390);
	assert_non_null(next(&interface, &bytes));
	assert_true(interface == 0 && bytes > SMALL);
	expect_nothing();
	say(1, ACK, 1002, number, "y"); // the answer was lost
	pass(20);
	while (next(&interface, &bytes))
		assert_true(interface == 1 && bytes <= SMALL);
	ops->drop(stream, true);
}

static void test_a_smaller_link_takes_smaller_segments(void **state)
{
	(void)state;
	in_both_families(bound_by_the_link);
}

static void ask_again(void)
{
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *tcp;

		assert_int_equal(set_up(NULL), 0);
		v6 = i;
		say(1, SYN, 1000, 0, "");
		assert_int_equal(expect(1)[13], SYN | ACK);
		expect_nothing();
		pass(60);
		tcp = expect(1); // once more, unasked
		assert_int_equal(tcp[13], SYN | ACK);
		// Its ACK comes by the other one.
		say(0, ACK, 1001, get32(tcp + 4) + 1, "");
		assert_non_null(ops->next_ready(stack));
		assert_int_equal(ops->stats(stack)->moved, 1);
		assert_int_equal(tear_down(NULL), 0);
	}
}

static void test_a_handshake_over_both(void **state)
{
	(void)state;
	ask_again();
}

static void answer_strangers(void)
{
	for (unsigned way = 0; way < 2; way++) {
		uint8_t ping[16] = {v6 ? 128 : 8};

		say(way, ACK, 5000, 5000, ""); // no such connection
		assert_int_equal(expect(way)[13] & RST, RST);
		expect_nothing();
		give(way, v6 ? 58 : 1, peer[v6], vip[v6], ping, sizeof(ping), 2);
		assert_int_equal(sent_count, 1);
		assert_int_equal(sent[0].interface, way);
		sent_count = 0;
		give(way, 17, peer[v6], own[way][v6], (uint8_t[]){1, 2, 3, 4, 0, 8, 0, 0}, 8, 6);
		assert_int_equal(sent_count, 1); // nobody is there
		assert_int_equal(sent[0].interface, way);
		sent_count = 0;
		// The other's own address is not here, whatever it is for.
		say_to(own[1 - way][v6], way, SYN, 1000, 0, "");
		give(way, v6 ? 58 : 1, peer[v6], own[1 - way][v6], ping, sizeof(ping), 2);
		assert_int_equal(sent_count, 0);
		assert_int_equal(ops->stats(stack)->elsewhere, 2 * (way + 1));
		say_to(own[way][v6], way, SYN, 1000, 0, "");
		assert_int_equal(expect(way)[13], SYN | ACK);
		expect_nothing();
	}
}

static void test_what_is_no_connections(void **state)
{
	(void)state;
	in_both_families(answer_strangers);
}

// Of a connection of our own addresses decide: the link it is on, else one with a gateway.
static void test_the_way_to_a_peer(void **state)
{
	static const struct sl_endpoint near = {{[10] = 0xff, 0xff, 10, 0, 2, 1}, 80};
	struct sl_endpoint from = {.port = 50000}, far = {.port = 80};

	(void)state;
	assert_int_equal(set_up(NULL), 0);
	memcpy(from.address, vip[0], 16);
	memcpy(far.address, peer[0], 16);
	assert_non_null(ops->connect(stack, &from, &near));
	assert_int_equal(expect(1)[13], SYN);
	from.port++;
	assert_non_null(ops->connect(stack, &from, &far));
	assert_int_equal(expect(0)[13], SYN);
	ops->link(stack, 0, false);
	from.port++;
	assert_non_null(ops->connect(stack, &from, &far));
	assert_int_equal(expect(1)[13], SYN);
	// An address of one interface only has one way, even while its link is gone.
	memcpy(from.address, own[0][0], 16);
	assert_non_null(ops->connect(stack, &from, &far));
	assert_int_equal(expect(0)[13], SYN);
	from.address[15] ^= 0x40; // nobody's
	from.port++;
	assert_null(ops->connect(stack, &from, &far));
	assert_int_equal(tear_down(NULL), 0);
}

// A neighbour of the first link that speaks on the second would draw the first one's packets.
static void test_a_neighbour_speaks_on_its_link(void **state)
{
	static const uint8_t neighbour[16] = {0xfd, 0, 0, 1, [15] = 9};
	uint8_t says[32] = {136, [4] = 0x60}, asks[32] = {135};

	(void)state;
	assert_int_equal(set_up(NULL), 0);
	v6 = true;
	memcpy(says + 8, neighbour, 16);
	memcpy(says + 24, (uint8_t[]){2, 1, 2, 0, 0, 0, 0, 0x11}, 8);
	memcpy(asks + 8, vip[1], 16);
	memcpy(asks + 24, (uint8_t[]){1, 1, 2, 0, 0, 0, 0, 0x11}, 8);
	give(1, 58, neighbour, own[1][1], says, sizeof(says), 2);
	assert_int_equal(ops->stats(stack)->dropped_packets, 1);
	give(1, 58, neighbour, vip[1], asks, sizeof(asks), 2);
	assert_int_equal(ops->stats(stack)->dropped_packets, 2);
	assert_int_equal(sent_count, 0);
	memcpy(asks + 26, (uint8_t[]){2, 0, 0, 0, 0, 0x10}, 6);
	give(0, 58, neighbour, vip[1], asks, sizeof(asks), 2);
	assert_int_equal(sent_count, 1);
	assert_int_equal(sent[0].interface, 0);
	assert_int_equal(tear_down(NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_answer_leaves_by_the_last_segments),
		cmocka_unit_test(test_a_dead_link_is_left),
		cmocka_unit_test(test_a_stranger_moves_nobody),
		cmocka_unit_test(test_a_smaller_link_takes_smaller_segments),
		cmocka_unit_test(test_a_handshake_over_both),
		cmocka_unit_test(test_what_is_no_connections),
		cmocka_unit_test(test_the_way_to_a_peer),
		cmocka_unit_test(test_a_neighbour_speaks_on_its_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
