#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/hash.h"
#include "dataplane/io/dpdk/stack.h"

// What comes over the wire by hand, and what leaves for it.
#define PORT     4317
#define ETHERNET 14
#define HEADER   40
#define MTU      1500
#define SENT_MAX 64

struct frame {
	uint8_t room[SL_STACK_ROOM_BYTES];
	uint8_t data[ETHERNET + MTU];
};

static const struct sl_stack_ops *ops;
static struct sl_stack *stack;
static struct {
	uint8_t data[ETHERNET + MTU];
	size_t bytes;
} sent[SENT_MAX];
static unsigned sent_count;
static int frames_alive;
static char listener;
static uint64_t now_ns;

static const uint8_t own_mac[6] = {2, 0, 0, 0, 0, 1}, peer_mac[6] = {2, 0, 0, 0, 0, 2};
static const uint8_t own[16] = {0xfd, [15] = 1}, peer[16] = {0xfd, [15] = 2}, none[16],
		     link_local[16] = {0xfe, 0x80, [15] = 2}, gateway[16] = {0xfd, [15] = 0xfe},
		     far[16] = {0x20, 1, 0xd, 0xb8, [15] = 9}, all[16] = {0xff, 2, [15] = 1},
		     asked[16] = {0xff, 2, [11] = 1, 0xff, 0, 0, 1};

static uint64_t hash(const void *key, size_t size)
{
	return sl_hash(sl_bytes(key, size));
}

static uint32_t draw(void)
{
	static uint32_t drawn;

	return drawn = drawn * 1664525 + 1013904223;
}

static bool transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		     size_t bytes)
{
	size_t at = 0;

	(void)self;
	assert_int_equal(interface, 0);
	assert_in_range(bytes, ETHERNET, ETHERNET + MTU);
	assert_true(sent_count < SENT_MAX);
	for (unsigned i = 0; i < count; i++) {
		assert_true(at + pieces[i].iov_len <= bytes);
		memcpy(sent[sent_count].data + at, pieces[i].iov_base, pieces[i].iov_len);
		at += pieces[i].iov_len;
	}
	assert_int_equal(at, bytes);
	sent[sent_count++].bytes = bytes;
	return true;
}

static void release(void *packet)
{
	frames_alive--;
	free(packet);
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

static uint32_t add(uint32_t total, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		total += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	return total;
}

// An IPv6 packet: `skip` bytes of extension headers, then `protocol` with its checksum at `sum_at`.
struct packet {
	uint8_t next, hops, protocol;
	const uint8_t *from, *to;
	size_t skip, sum_at, cut; // `cut`: bytes that the frame lacks at its end
};

static void give(const struct packet *packet, const uint8_t *payload, size_t size)
{
	struct frame *frame = calloc(1, sizeof(*frame));
	uint8_t *ip = frame->data + ETHERNET, *upper = ip + HEADER + packet->skip;
	const size_t bytes = size - packet->skip;
	uint32_t total;

	assert_non_null(frame);
	frames_alive++;
	memcpy(frame->data, own_mac, 6);
	memcpy(frame->data + 6, peer_mac, 6);
	put16(frame->data + 12, 0x86dd);
	ip[0] = 0x60;
	put16(ip + 4, (uint32_t)size);
	ip[6] = packet->next;
	ip[7] = packet->hops;
	memcpy(ip + 8, packet->from, 16);
	memcpy(ip + 24, packet->to, 16);
	memcpy(ip + HEADER, payload, size);
	total = add((uint32_t)(packet->protocol + bytes), ip + 8, 32);
	total = add(total, upper, bytes);
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	if (packet->sum_at + 2 <= bytes)
		put16(upper + packet->sum_at, ~total);
	sent_count = 0;
	ops->input(stack, frame, frame->room, frame->data,
		   (uint16_t)(ETHERNET + HEADER + size - packet->cut), false);
}

static size_t from_hex(uint8_t *to, const char *hex)
{
	size_t count = 0;

	for (; *hex; hex++) {
		const char digit = *hex;

		if (digit == ' ')
			continue;
		if (count % 2 == 0)
			to[count / 2] = 0;
		to[count / 2] |= (uint8_t)((digit <= '9' ? digit - '0' : digit - 'a' + 10)
					   << (count % 2 ? 0 : 4));
		count++;
	}
	assert_int_equal(count % 2, 0);
	return count / 2;
}

static int set_up(void **state)
{
	const struct sl_stack_host host = {NULL, hash, draw, transmit, release};
	struct sl_stack_config config = {.interface_count = 1, .window_budget = SL_MIB};
	struct sl_stack_interface *interface = &config.interfaces[0];
	char error[256] = "";

	(void)state;
	now_ns = 1000 * SL_S;
	sent_count = 0;
	interface->mtu = MTU;
	interface->address_count = 1;
	memcpy(interface->mac, own_mac, 6);
	memcpy(interface->addresses[0].address, own, 16);
	interface->addresses[0].prefix = 64;
	memcpy(interface->gateway6, gateway, 16);
	ops = sl_stack_load(error, sizeof(error));
	assert_string_equal(error, "");
	stack = ops->create(&host, &config);
	assert_non_null(stack);
	ops->tick(stack, now_ns);
	assert_non_null(ops->listen(stack, &(struct sl_endpoint){.port = PORT}, &listener));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ops->destroy(stack);
	assert_int_equal(frames_alive, 0);
	return 0;
}

// --- ICMPv6 -------------------------------------------------------------------------------------

#define OWN       "fd00 0000 0000 0000 0000 0000 0000 0001"
#define PEER      "fd00 0000 0000 0000 0000 0000 0000 0002"
#define MANY      "ff02 0000 0000 0000 0000 0000 0000 0001"
#define ASKS      "8700 0000 0000 0000"
#define SAYS      "8800 0000 6000 0000"
#define SAYS_ALL  "8800 0000 2000 0000"
#define SENDER    "0101 0200 0000 0002"
#define TARGET    "0201 0200 0000 0002"
#define NONCE     "0e01 0102 0304 0506"
#define PING      "8000 0000 1234 0001"
#define QUERY     "8200 0000 0064 0000" OWN
#define PAD       "0104 0000 0000"
#define ALERT     "0502 0000 0100"
#define TOO_BIG   "0200 0000 0000 0500 6000 0000 0014 0640" OWN PEER "10dd 03e8 0000 0000"
#define ROUTER    "8600 0000 4000 0708 0000 0000 0000 0000" SENDER "0501 0000 0000 0500"
#define REDIRECTS "8900 0000 0000 0000" PEER PEER TARGET

#define PLAIN                 0, NULL, 0
#define BEHIND(next, headers) next, headers, 0
#define CUT(bytes)            0, NULL, bytes

enum want { DROPPED, UNBELIEVED, TAKEN, ADVERTISES = 136, PONG = 129 };

static const struct {
	const char *why;
	enum want want;
	uint8_t hops;
	const uint8_t *from, *to;
	const char *icmp;
	uint8_t next; // 0: ICMPv6 at once
	const char *headers;
	size_t cut;
} rows[] = {
	{"a neighbour asks for our address", ADVERTISES, 255, peer, asked, ASKS OWN SENDER, PLAIN},
	{"it may ask us alone", ADVERTISES, 255, peer, own, ASKS OWN SENDER, PLAIN},
	{"who is a hop away is no neighbour", DROPPED, 254, peer, asked, ASKS OWN SENDER, PLAIN},
	{"there is no code but 0", DROPPED, 255, peer, asked, "8701 0000 0000 0000" OWN SENDER,
	 PLAIN},
	{"a group has no neighbour", DROPPED, 255, peer, asked, ASKS MANY SENDER, PLAIN},
	{"a target is whole", DROPPED, 255, peer, own, "8700 0000 0000 0000 fd00", PLAIN},
	{"an option has a length", DROPPED, 255, peer, asked, ASKS OWN "0100 0200 0000 0002",
	 PLAIN},
	{"an option lies inside", DROPPED, 255, peer, asked, ASKS OWN "0102 0200 0000 0002", PLAIN},
	{"a cut option", DROPPED, 255, peer, asked, ASKS OWN "0101", PLAIN},
	{"half an option's head", DROPPED, 255, peer, asked, ASKS OWN SENDER "01", PLAIN},
	{"an Ethernet address takes one unit", DROPPED, 255, peer, asked,
	 ASKS OWN "0102 0200 0000 0002 0000 0000 0000 0000", PLAIN},
	{"options come in any order", ADVERTISES, 255, peer, asked, ASKS OWN NONCE SENDER, PLAIN},
	{"an answer needs an address", DROPPED, 255, peer, asked, ASKS OWN NONCE, PLAIN},
	{"is the address free?", ADVERTISES, 255, none, asked, ASKS OWN, PLAIN},
	{"is it, asked with a nonce (RFC 7527)", ADVERTISES, 255, none, asked, ASKS OWN NONCE,
	 PLAIN},
	{"who has no address gives none", DROPPED, 255, none, asked, ASKS OWN SENDER, PLAIN},
	{"and asks no one in particular", DROPPED, 255, none, own, ASKS OWN, PLAIN},
	{"a neighbour says where it is", TAKEN, 255, peer, own, SAYS PEER TARGET, PLAIN},
	{"it is still there", TAKEN, 255, peer, own, SAYS PEER, PLAIN},
	{"it tells all", TAKEN, 255, peer, all, SAYS_ALL PEER TARGET, PLAIN},
	{"all have not asked", DROPPED, 255, peer, all, SAYS PEER TARGET, PLAIN},
	{"an advertisement from elsewhere", DROPPED, 64, peer, own, SAYS PEER TARGET, PLAIN},
	{"its option has a length", DROPPED, 255, peer, own, SAYS PEER "0200", PLAIN},
	{"as has one to all", DROPPED, 255, peer, all, SAYS_ALL PEER "0200", PLAIN},
	{"its option lies inside", DROPPED, 255, peer, own, SAYS PEER "0202 0200 0000 0002", PLAIN},
	{"a nonce is no address", DROPPED, 255, peer, own, SAYS PEER NONCE, PLAIN},
	{"a router", UNBELIEVED, 255, link_local, all, ROUTER, PLAIN},
	{"a redirect", UNBELIEVED, 255, link_local, own, REDIRECTS, PLAIN},
	{"too big, of no flow", TAKEN, 64, far, own, TOO_BIG, PLAIN},
	{"too big hides from who looks for it", DROPPED, 64, far, own, TOO_BIG,
	 BEHIND(60, "3a00" PAD)},
	{"a query from the link", TAKEN, 1, link_local, all, QUERY, BEHIND(0, "3a00" ALERT)},
	{"a query from afar", DROPPED, 64, link_local, all, QUERY, BEHIND(0, "3a00" ALERT)},
	{"a query with a global source", DROPPED, 1, peer, all, QUERY, BEHIND(0, "3a00" ALERT)},
	{"a cut query", DROPPED, 1, link_local, all, "8200 0000 0064 0000 ff02", PLAIN},
	{"echo", PONG, 64, peer, own, PING, PLAIN},
	{"echo of nobody", DROPPED, 64, none, own, PING, PLAIN},
	{"echo of nobody to a solicited node", DROPPED, 64, none, asked, PING, PLAIN},
	{"half a header", DROPPED, 64, peer, own, "8000 0000 12", PLAIN},
	{"a cut packet", DROPPED, 64, peer, own, PING "4141 4141", CUT(1)},
	{"echo behind options", PONG, 64, peer, own, PING, BEHIND(60, "3a00" PAD)},
	{"echo behind single pads", PONG, 64, peer, own, PING, BEHIND(60, "3a00 0000 0000 0000")},
	{"an option beyond its header", DROPPED, 64, peer, own, PING,
	 BEHIND(60, "3a00 0105 0000 0000")},
	{"an option without a length", DROPPED, 64, peer, own, PING,
	 BEHIND(60, "3a00 0102 0000 0005")},
	{"a header beyond the packet", DROPPED, 64, peer, own, PING, BEHIND(60, "3a05" PAD)},
	{"hop by hop comes first", DROPPED, 64, peer, own, PING, BEHIND(60, "0000" PAD "3a00" PAD)},
	{"a route that has ended", PONG, 64, peer, own, PING, BEHIND(43, "3a00 0000 0000 0000")},
	{"a route that goes on", DROPPED, 64, peer, own, PING, BEHIND(43, "3a00 0201 0000 0000")},
	{"a fragment", DROPPED, 64, peer, own, PING, BEHIND(44, "3a00 0001 0000 0001")},
	{"eight headers", PONG, 64, peer, own, PING,
	 BEHIND(60, "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD
		    "3a00" PAD)},
	{"nine are nobody's", DROPPED, 64, peer, own, PING,
	 BEHIND(60, "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD "3c00" PAD
		    "3c00" PAD "3a00" PAD)},
};

static void test_rows(void **state)
{
	const struct sl_stack_stats *stats = ops->stats(stack);

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const uint64_t dropped = stats->dropped_packets, unbelieved = stats->unbelieved;
		const enum want want = rows[i].want;
		uint8_t payload[256];
		struct packet packet = {
			.next = rows[i].headers ? rows[i].next : 58,
			.hops = rows[i].hops,
			.protocol = 58,
			.from = rows[i].from,
			.to = rows[i].to,
			.sum_at = 2,
			.cut = rows[i].cut,
		};

		if (rows[i].headers)
			packet.skip = from_hex(payload, rows[i].headers);
		give(&packet, payload, packet.skip + from_hex(payload + packet.skip, rows[i].icmp));
		if (stats->dropped_packets - dropped != (want < TAKEN) ||
		    stats->unbelieved - unbelieved != (want == UNBELIEVED) ||
		    sent_count != (want > TAKEN) ||
		    (sent_count && sent[0].data[ETHERNET + HEADER] != want))
			fail_msg("%s: dropped %lu, sent %u", rows[i].why,
				 (unsigned long)(stats->dropped_packets - dropped), sent_count);
	}
}

// --- what it comes to ---------------------------------------------------------------------------

static void give_icmp(const uint8_t *from, const uint8_t *to, const char *hex)
{
	const struct packet packet = {58, 255, 58, from, to, .sum_at = 2};
	uint8_t payload[256];

	give(&packet, payload, from_hex(payload, hex));
}

static void give_tcp(const uint8_t *from, uint32_t seq, uint32_t ack, const char *flags_and_more)
{
	const struct packet packet = {6, 64, 6, from, own, .sum_at = 16};
	uint8_t payload[256] = {9999 >> 8, 9999 & 255, PORT >> 8, PORT & 255};

	put32(payload + 4, seq);
	put32(payload + 8, ack);
	give(&packet, payload, 12 + from_hex(payload + 12, flags_and_more));
}

// A neighbour's word is that its address is ours, too: we stay.
static void test_our_address_stays_ours(void **state)
{
	(void)state;
	give_icmp(peer, own, ASKS OWN SENDER);
	give_icmp(peer, all, SAYS_ALL OWN TARGET);
	give_icmp(peer, own, PING);
	assert_int_equal(sent_count, 1);
	assert_int_equal(sent[0].data[ETHERNET + HEADER], PONG);
}

static void test_the_gateway_stays_the_gateway(void **state)
{
	(void)state;
	give_icmp(link_local, all, ROUTER);
	give_icmp(far, own, PING);
	assert_int_equal(sent_count, 1);
	assert_int_equal(sent[0].data[ETHERNET + HEADER], 135); // asks where
	assert_memory_equal(sent[0].data + ETHERNET + HEADER + 8, gateway, 16);
}

static void test_the_address_is_not_the_first_option(void **state)
{
	(void)state;
	give_icmp(peer, asked, ASKS OWN NONCE SENDER);
	assert_int_equal(sent_count, 1);
	assert_memory_equal(sent[0].data, peer_mac, 6);
}

// Strangers' packets for what is not there are answered, but not all of them (RFC 4443, 2.4 f).
static void test_errors_are_bounded(void **state)
{
	const struct packet udp = {17, 64, 17, peer, own, .sum_at = 6};
	const struct packet unknown = {200, 64, 200, peer, own, .sum_at = 8};
	const uint8_t datagram[12] = {9, 9, 9, 9, 0, 12}, nothing[8] = {0};

	(void)state;
	give_icmp(peer, asked, ASKS OWN SENDER);
	for (unsigned turn = 0; turn < 3; turn++) {
		unsigned answered = 0;

		for (unsigned i = 0; i < 150; i++) {
			if (i % 2)
				give(&udp, datagram, sizeof(datagram));
			else
				give(&unknown, nothing, sizeof(nothing));
			answered += sent_count;
			if (sent_count)
				assert_in_range(sent[0].data[ETHERNET + HEADER], 1, 4);
		}
		assert_int_equal(answered, 100);
		assert_int_equal(ops->stats(stack)->withheld, 50 * (turn + 1));
		give_icmp(peer, own, PING); // which is none
		assert_int_equal(sent_count, 1);
		now_ns += 100 * SL_MS;
		ops->tick(stack, now_ns);
	}
}

#define SYN_JUMBO "6002 ffff 0000 0000 0204 2300"
#define SYN_1460  "6002 ffff 0000 0000 0204 05b4"
#define ACK       "5010 ffff 0000 0000"
#define ACK_JUMBO "6010 ffff 0000 0000 0204 2300"

static struct sl_stream *accept_after(const char *syn, const char *again)
{
	struct sl_stream *stream;
	uint32_t next;

	give_icmp(peer, asked, ASKS OWN SENDER);
	give_tcp(peer, 1000, 0, syn);
	assert_int_equal(sent_count, 1);
	next = get32(sent[0].data + ETHERNET + HEADER + 4) + 1;
	if (again)
		give_tcp(peer, 1000, 0, again);
	give_tcp(peer, 1001, next, ACK);
	stream = ops->next_ready(stack);
	assert_non_null(stream);
	give_tcp(peer, 1001, next, ACK_JUMBO);
	return stream;
}

// Whatever a peer says of the size of its segments, and when: a packet of ours fits the MTU.
static void test_segments_fit(void **state)
{
	static const struct {
		const char *syn, *again;
	} cases[] = {
		{SYN_JUMBO, NULL},
		{SYN_JUMBO, SYN_JUMBO}, // the answer was lost
		{SYN_1460, SYN_1460},   // more than IPv6's header leaves room for
	};
	static uint8_t sample[16384];
	const struct iovec piece = {sample, sizeof(sample)};

	for (size_t i = 0; i < SL_COUNT_OF(cases); i++) {
		struct sl_stream *stream = accept_after(cases[i].syn, cases[i].again);
		size_t largest = 0;

		assert_int_equal(ops->write(stream, &piece, 1), sizeof(sample));
		assert_true(sent_count > 1);
		for (unsigned k = 0; k < sent_count; k++)
			largest = SL_MAX(largest, sent[k].bytes);
		assert_int_equal(largest, ETHERNET + MTU); // transmit() looks that none is more
		ops->drop(stream, true);
		assert_int_equal(tear_down(state), 0);
		assert_int_equal(set_up(state), 0);
	}
}

// Numbers from halfway around, where lwIP cannot tell before from after: dropped, and answered by
// an acknowledgement of what is expected. The connection goes on.
static void test_numbers_from_far_away(void **state)
{
	static const char *const flags[] = {"5011 ffff 0000 0000", "5010 ffff 0000 0000",
					    "5018 ffff 0000 0000 4142 4344"};
	static const uint32_t away[] = {1u << 31, (1u << 31) - 1, (1u << 31) + 1, (1u << 30) + 1,
					-(1u << 30) - 1};
	const struct sl_stack_stats *stats = ops->stats(stack);
	struct sl_stream *stream;
	struct sl_bytes bytes;
	uint32_t next;

	(void)state;
	give_icmp(peer, asked, ASKS OWN SENDER);
	give_tcp(peer, 1000, 0, SYN_1460);
	next = get32(sent[0].data + ETHERNET + HEADER + 4) + 1;
	give_tcp(peer, 1001 + (1u << 31), next, flags[0]); // half-open
	assert_null(ops->next_ready(stack));
	give_tcp(peer, 1001, next, ACK);
	stream = ops->next_ready(stack);
	assert_non_null(stream);
	for (size_t i = 0; i < SL_COUNT_OF(flags); i++) {
		for (size_t k = 0; k < SL_COUNT_OF(away); k++) {
			const uint64_t dropped = stats->dropped_packets;

			give_tcp(peer, 1001 + away[k], next, flags[i]);
			assert_int_equal(stats->dropped_packets, dropped + 1);
			assert_null(ops->next_ready(stack));
		}
	}
	give_tcp(peer, 1001, next + 1, flags[2]); // acknowledges what was not sent
	give_tcp(peer, 1001, next + (1u << 31) - 1, flags[0]);
	assert_null(ops->next_ready(stack));
	sent_count = 0;
	for (unsigned i = 0; i < 5; i++) {
		now_ns += 100 * SL_MS;
		ops->tick(stack, now_ns);
	}
	assert_int_equal(sent_count, 1); // for all of them
	assert_int_equal(get32(sent[0].data + ETHERNET + HEADER + 8), 1001);
	give_tcp(peer, 1001, next, flags[2]);
	assert_true(ops->peek(stream, &bytes));
	assert_int_equal(bytes.size, 4);
	ops->drop(stream, true);
}

// A peer that says it takes a byte at a time, or had a window of eight, does not get as many
// packets.
static void test_segments_are_no_crumbs(void **state)
{
	static const struct {
		const char *syn, *ack;
	} cases[] = {
		{"6002 ffff 0000 0000 0204 0001", ACK},
		{"6002 0008 0000 0000 0204 05a0", "5010 0008 0000 0000"},
	};
	static uint8_t sample[11 * 88];
	const struct iovec piece = {sample, sizeof(sample)};

	for (size_t i = 0; i < SL_COUNT_OF(cases); i++) {
		struct sl_stream *stream;
		unsigned data = 0;
		uint32_t next;

		give_icmp(peer, asked, ASKS OWN SENDER);
		give_tcp(peer, 1000, 0, cases[i].syn);
		next = get32(sent[0].data + ETHERNET + HEADER + 4) + 1;
		give_tcp(peer, 1001, next, cases[i].ack);
		stream = ops->next_ready(stack);
		assert_non_null(stream);
		assert_int_equal(ops->write(stream, &piece, 1), sizeof(sample));
		for (unsigned turn = 0; turn < 2; turn++) {
			for (unsigned k = 0; k < sent_count; k++) {
				assert_in_range(sent[k].bytes, ETHERNET + HEADER + 20 + 88,
						ETHERNET + MTU);
				data++;
			}
			give_tcp(peer, 1001, next, ACK); // the window opens
		}
		assert_true(data > 0);
		ops->drop(stream, true);
		assert_int_equal(tear_down(state), 0);
		assert_int_equal(set_up(state), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_our_address_stays_ours, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_the_gateway_stays_the_gateway, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_the_address_is_not_the_first_option, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_errors_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_segments_fit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_segments_are_no_crumbs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_numbers_from_far_away, set_up, tear_down),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
