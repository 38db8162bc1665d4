#include "tests/unit/dpdk/twins.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/hash.h"
#include "dataplane/io/dpdk/sum.h"

#define PORT      4317
#define BYTES_MAX 1514
#define SENT_MAX  (128 * SL_KIB)
#define ETHERNET  14
#define FIN       1
#define SYN       2
#define RST       4
#define PSH       8
#define ACK       16
#define URG       32
#define ECE       64
#define CWR       128

_Static_assert(MADE_BYTES >= BYTES_MAX + 6, "the longest one, padded");

struct packet {
	uint8_t room[SL_STACK_ROOM_BYTES];
	uint8_t data[];
};

struct twin twins[2];
struct peer peers[FLOWS];
struct sl_random chance;
uint64_t now_ns;

uint32_t twins_below(uint32_t limit)
{
	return (uint32_t)sl_random_below(&chance, limit);
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t hash(const void *key, size_t size)
{
	return sl_hash(sl_bytes(key, size));
}

static uint32_t draw0(void)
{
	return (uint32_t)++twins[0].drawn * 2654435761u;
}

static uint32_t draw1(void)
{
	return (uint32_t)++twins[1].drawn * 2654435761u;
}

static unsigned flow_of(const uint8_t *frame)
{
	const bool v4 = frame[12] == 0x08 && frame[13] == 0x00;
	const uint8_t *ip = frame + ETHERNET, *tcp = ip + (v4 ? 20 : 40);
	const unsigned flow = (unsigned)(tcp[2] << 8 | tcp[3]) - 30000;

	if (!v4 && frame[12] != 0x86)
		return FLOWS;
	return ip[v4 ? 9 : 6] == 6 && flow < FLOWS ? flow : FLOWS;
}

static bool transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		     size_t bytes)
{
	struct twin *twin = self;
	uint8_t frame[BYTES_MAX];
	size_t filled = 0;
	unsigned flow;

	assert_int_equal(interface, 0);
	assert_in_range(bytes, 42, sizeof(frame));
	for (unsigned i = 0; i < count; i++) {
		memcpy(frame + filled, pieces[i].iov_base, pieces[i].iov_len);
		filled += pieces[i].iov_len;
	}
	flow = flow_of(frame);
	if (frame[12] == 0x08 && frame[13] == 0x00) {
		assert_int_equal(sl_sum_scalar(frame + ETHERNET, 20), 0xffff);
		put16(frame + ETHERNET + 4, 0);
		put16(frame + ETHERNET + 10, 0);
	}
	assert_true(twin->sent_bytes[flow] + bytes <= SENT_MAX);
	memcpy(twin->sent[flow] + twin->sent_bytes[flow], frame, bytes);
	twin->sent_bytes[flow] += bytes;
	return true;
}

static void release0(void *packet)
{
	twins[0].alive--;
	free(packet);
}

static void release1(void *packet)
{
	twins[1].alive--;
	free(packet);
}

// --- frames -------------------------------------------------------------------------------------

static void sum_up(struct made *made, bool v6, size_t tcp_bytes, const struct words *words)
{
	uint8_t *ip = made->data + ETHERNET, *tcp = ip + (v6 ? 40 : 20);
	uint32_t sum;
	uint16_t whole;

	if (!v6) {
		whole = (uint16_t)~sl_sum_scalar(ip, 20);
		memcpy(ip + 10, &whole, 2);
		ip[10] ^= words->damaged_ip;
	}
	sum = (v6 ? sl_sum_scalar(ip + 8, 32) : sl_sum_scalar(ip + 12, 8)) + htons(6) +
	      htons((uint16_t)tcp_bytes) + sl_sum_scalar(tcp, tcp_bytes);
	sum = (sum & 0xffff) + (sum >> 16);
	whole = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
	memcpy(tcp + 16, &whole, 2);
	tcp[17] ^= words->damaged;
}

uint8_t twins_byte(uint32_t seq)
{
	return (uint8_t)(seq * 167 >> 3);
}

void twins_make(struct made *made, unsigned flow, const struct words *words)
{
	static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
	const bool v6 = peers[flow].v6;
	const size_t header = v6 ? 40 : 20;
	const size_t tcp_bytes = 20 + words->options + words->size;
	uint8_t *ip = made->data + ETHERNET, *tcp = ip + header;

	memset(made, 0, sizeof(*made));
	memcpy(made->data, macs, sizeof(macs));
	put16(made->data + 12, v6 ? 0x86dd : 0x0800);
	if (v6) {
		ip[0] = (uint8_t)(0x60 | words->tos >> 4);
		ip[1] = (uint8_t)(words->tos << 4);
		put16(ip + 4, (uint32_t)tcp_bytes);
		ip[6] = 6;
		ip[7] = words->hops;
		ip[8] = ip[24] = 0xfd;
		ip[23] = 2;
		ip[39] = 1;
	} else {
		ip[0] = 0x45;
		ip[1] = words->tos;
		put16(ip + 2, (uint32_t)(20 + tcp_bytes));
		ip[6] = words->fragment ? 0x20 : 0x40;
		ip[8] = words->hops;
		ip[9] = 6;
		memcpy(ip + 12, (uint8_t[]){10, 0, 0, 2, 10, 0, 0, 1}, 8);
	}
	put16(tcp, 30000 + flow);
	put16(tcp + 2, PORT);
	put32(tcp + 4, words->seq);
	put32(tcp + 8, words->ack);
	tcp[12] = (uint8_t)((20 + words->options) / 4 << 4);
	tcp[13] = words->flags;
	put16(tcp + 14, words->window);
	if (words->flags & SYN && words->options) {
		memcpy(tcp + 20, (uint8_t[]){1, 3, 3, 7}, 4); // the window's scale
	} else if (words->options) {                          // a timestamp that nobody agreed to
		memcpy(tcp + 20, (uint8_t[]){1, 1, 8, 10}, 4);
		put32(tcp + 24, words->seq / 4096);
	}
	for (size_t i = 0; i < words->size; i++)
		tcp[20 + words->options + i] = twins_byte(words->seq + (uint32_t)i);
	made->bytes = ETHERNET + header + tcp_bytes + (words->padded ? 6 : 0);
	sum_up(made, v6, tcp_bytes, words);
}

void twins_give(struct twin *twin, const struct made *made, unsigned how)
{
	struct packet *packet = malloc(sizeof(*packet) + made->bytes); // to the byte

	memcpy(packet->data, made->data, made->bytes);
	twin->alive++;
	twin->ops->input(twin->stack, packet, packet->room, packet->data, (uint16_t)made->bytes,
			 how);
}

// --- the two ------------------------------------------------------------------------------------

void twins_take_events(struct twin *twin)
{
	struct sl_stream *stream;

	while ((stream = twin->ops->next_ready(twin->stack))) {
		const unsigned flow = stream->peer.port - 30000u;

		if (stream->events & SL_STREAM_ACCEPTED)
			twin->streams[flow] = stream;
		if (stream->events & SL_STREAM_FAILED) {
			twin->ops->drop(stream, true);
			twin->streams[flow] = NULL;
			continue;
		}
		stream->events = 0;
	}
}

void twins_read_on(struct twin *twin, unsigned flow)
{
	struct sl_stream *stream = twin->streams[flow];
	struct sl_bytes bytes;

	while (stream && twin->ops->peek(stream, &bytes)) {
		assert_true(bytes.size && twin->read_bytes[flow] + bytes.size <= STREAM_MAX);
		memcpy(twin->read[flow] + twin->read_bytes[flow], bytes.data, bytes.size);
		twin->read_bytes[flow] += bytes.size;
		twin->ops->eat(stream);
	}
	if (stream)
		twin->ops->ate(stream);
}

void twins_say(struct twin *twin, unsigned flow, size_t size)
{
	static const uint8_t words[3000];

	if (twin->streams[flow] && size)
		(void)twin->ops->write(twin->streams[flow], &(struct iovec){(void *)words, size},
				       1);
}

// One that was sent: TCP of one flow, or anything else.
struct view {
	const uint8_t *frame, *tcp;
	size_t bytes, payload;
	bool bare; // only acknowledges
};

static struct view view_at(const struct twin *twin, unsigned flow, size_t at)
{
	const uint8_t *frame = twin->sent[flow] + at, *ip = frame + ETHERNET;
	const bool v6 = peers[flow].v6;
	struct view view = {.frame = frame, .tcp = ip + (v6 ? 40 : 20)};

	view.bytes = ETHERNET +
		     (v6 ? 40 + (size_t)(ip[4] << 8 | ip[5]) : (size_t)(ip[2] << 8 | ip[3]));
	view.payload = view.bytes - (size_t)(view.tcp - frame) - (size_t)(view.tcp[12] >> 4) * 4;
	view.bare = !view.payload && view.tcp[13] == ACK;
	return view;
}

// The next one behind `*at` that is more than an acknowledgement.
static bool next_said(const struct twin *twin, unsigned flow, size_t *at, struct view *view)
{
	while (*at < twin->sent_bytes[flow]) {
		*view = view_at(twin, flow, *at);
		*at += view->bytes;
		if (!view->bare)
			return true;
	}
	return false;
}

// What they say beside acknowledgements.
static void compare_said(unsigned flow)
{
	struct view views[2] = {0};
	size_t at[2] = {0};

	while (next_said(&twins[0], flow, &at[0], &views[0])) {
		const uint8_t *one = views[0].tcp, *other;

		assert_true(next_said(&twins[1], flow, &at[1], &views[1]));
		other = views[1].tcp;
		assert_int_equal(views[0].bytes, views[1].bytes);
		assert_memory_equal(views[0].frame, views[1].frame,
				    (size_t)(one + 8 - views[0].frame));
		assert_true((int32_t)(get32(one + 8) - get32(other + 8)) >= 0);
		assert_memory_equal(one + 12, other + 12, 2);
		assert_memory_equal(one + 20, other + 20,
				    views[0].bytes - (size_t)(one + 20 - views[0].frame));
	}
	assert_false(next_said(&twins[1], flow, &at[1], &views[1]));
}

static void compare(bool talks)
{
	for (unsigned i = 0; i <= FLOWS; i++) {
		if (talks && i < FLOWS) {
			compare_said(i);
			continue;
		}
		assert_int_equal(twins[0].sent_bytes[i], twins[1].sent_bytes[i]);
		assert_memory_equal(twins[0].sent[i], twins[1].sent[i], twins[0].sent_bytes[i]);
	}
	for (unsigned i = 0; i < FLOWS; i++) {
		assert_int_equal(twins[0].read_bytes[i], twins[1].read_bytes[i]);
		assert_memory_equal(twins[0].read[i], twins[1].read[i], twins[0].read_bytes[i]);
		assert_int_equal(!twins[0].streams[i], !twins[1].streams[i]);
	}
}

void twins_take_note(void)
{
	for (unsigned flow = 0; flow <= FLOWS; flow++) {
		for (size_t at = 0; flow < FLOWS && at < twins[0].sent_bytes[flow];) {
			const struct view view = view_at(&twins[0], flow, at);

			peers[flow].ack = get32(view.tcp + 4) + (uint32_t)view.payload +
					  (view.tcp[13] & (FIN | SYN) ? 1 : 0);
			if (view.tcp[13] & ACK)
				peers[flow].taken = get32(view.tcp + 8);
			at += view.bytes;
		}
		twins[0].sent_bytes[flow] = twins[1].sent_bytes[flow] = 0;
	}
}

void twins_end_turn(bool reads, bool talks)
{
	for (unsigned i = 0; i < FLOWS; i++) {
		const size_t answer = reads && talks && twins_below(8) == 0 ? 1 + twins_below(2999)
									    : 0;

		for (unsigned t = 0; t < 2; t++) {
			if (i == 0)
				twins_take_events(&twins[t]);
			if (reads)
				twins_read_on(&twins[t], i);
			twins_say(&twins[t], i, answer);
		}
	}
	for (unsigned t = 0; t < 2; t++) {
		twins[t].ops->acknowledge(twins[t].stack);
		twins[t].ops->tick(twins[t].stack, now_ns);
	}
	compare(talks);
	twins_take_note();
	now_ns += 10 * SL_MS;
}

void twins_burst(const struct made *frames, unsigned count, unsigned how)
{
	for (unsigned t = 0; t < 2; t++) {
		for (unsigned i = 0; i < count; i++)
			twins_give(&twins[t], &frames[i], how | (t ? 0 : SL_INPUT_MORE));
		twins[t].ops->flush(twins[t].stack);
	}
}

struct words twins_plain(unsigned flow, size_t size)
{
	return (struct words){
		.seq = peers[flow].seq,
		.ack = peers[flow].ack,
		.window = 60000,
		.flags = ACK,
		.hops = 64,
		.size = size,
	};
}

// ARP and neighbours have to be known, or answers wait for them.
static void greet(void)
{
	static const uint8_t arp[42] = {
		2, 0, 0, 0, 0, 1, 2, 0,  0, 0, 0, 2, 8, 6, 0, 1, 8, 0,  6, 4, 0,
		2, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1,
	};
	struct made frame = {.bytes = sizeof(arp)};

	memcpy(frame.data, arp, sizeof(arp));
	twins_burst(&frame, 1, 0);
	for (unsigned i = 0; i < FLOWS; i++) {
		struct words words = {.flags = SYN, .hops = 64, .window = 60000, .options = 4};

		peers[i] = (struct peer){.seq = 0xffff0000u + i * 7919, .v6 = i % 2};
		words.seq = peers[i].seq++;
		twins_make(&frame, i, &words);
		twins_burst(&frame, 1, 0);
		twins_end_turn(false, false);
	}
	for (unsigned turn = 0; turn < 3; turn++) { // neighbour discovery asks for IPv6's peer
		static const uint8_t answer[ETHERNET + 40 + 32] = {
			2,    0,        0,        0,        0,   1, 2, 0, 0,    0,  0,
			2,    0x86,     0xdd,     0x60,     0,   0, 0, 0, 32,   58, 255,
			0xfd, [37] = 2, 0xfd,     [53] = 1, 136, 0, 0, 0, 0x60, 0,  0,
			0,    0xfd,     [77] = 2, 2,        1,   2, 0, 0, 0,    0,  2};
		uint32_t sum;
		uint16_t whole;

		memcpy(frame.data, answer, sizeof(answer));
		frame.bytes = sizeof(answer);
		sum = sl_sum_scalar(frame.data + ETHERNET + 8, 32) + htons(58) + htons(32) +
		      sl_sum_scalar(frame.data + ETHERNET + 40, 32);
		sum = (sum & 0xffff) + (sum >> 16);
		whole = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
		memcpy(frame.data + ETHERNET + 42, &whole, 2);
		twins_burst(&frame, 1, 0);
		now_ns += 200 * SL_MS;
		twins_end_turn(false, false);
	}
	for (unsigned i = 0; i < FLOWS; i++) {
		const struct words words = twins_plain(i, 0);

		assert_int_not_equal(peers[i].ack, 0);
		twins_make(&frame, i, &words);
		twins_burst(&frame, 1, 0);
		twins_end_turn(false, false);
		assert_non_null(twins[0].streams[i]);
	}
}

int twins_set_up(void **state)
{
	(void)state;
	now_ns = 1000 * SL_S;
	sl_random_init(&chance, 42);
	for (unsigned t = 0; t < 2; t++) {
		struct twin *twin = &twins[t];
		const struct sl_stack_host host = {twin, hash, t ? draw1 : draw0, transmit,
						   t ? release1 : release0};
		struct sl_stack_config config = {
			.interfaces[0] = {.mac = {2, 0, 0, 0, 0, 1},
					  .mtu = 1500,
					  .addresses = {{{[10] = 0xff, 0xff, 10, 0, 0, 1}, 24},
							{{0xfd, [15] = 1}, 64}},
					  .address_count = 2},
			.interface_count = 1,
			.window_budget = 8 * SL_MIB,
		};
		char error[256] = "";

		*twin = (struct twin){0};
		for (unsigned i = 0; i <= FLOWS; i++)
			twin->sent[i] = malloc(SENT_MAX);
		for (unsigned i = 0; i < FLOWS; i++)
			twin->read[i] = malloc(STREAM_MAX);
		twin->ops = sl_stack_load(error, sizeof(error));
		assert_string_equal(error, "");
		twin->stack = twin->ops->create(&host, &config);
		assert_non_null(twin->stack);
		twin->ops->tick(twin->stack, now_ns);
		assert_non_null(
			twin->ops->listen(twin->stack, &(struct sl_endpoint){.port = PORT}, twin));
	}
	greet();
	return 0;
}

int twins_tear_down(void **state)
{
	(void)state;
	for (unsigned t = 0; t < 2; t++) {
		memset(twins[t].sent_bytes, 0, sizeof(twins[t].sent_bytes));
		for (unsigned i = 0; i < FLOWS; i++) {
			if (twins[t].streams[i])
				twins[t].ops->drop(twins[t].streams[i], true);
		}
		twins[t].ops->destroy(twins[t].stack);
		assert_int_equal(twins[t].alive, 0);
		for (unsigned i = 0; i < FLOWS; i++)
			free(twins[t].read[i]);
		for (unsigned i = 0; i <= FLOWS; i++)
			free(twins[t].sent[i]);
	}
	return 0;
}

uint64_t twins_merged(void)
{
	assert_int_equal(twins[1].ops->stats(twins[1].stack)->merged, 0);
	return twins[0].ops->stats(twins[0].stack)->merged;
}

#define BEND(name, what)                                                                           \
	static void name(struct words *words)                                                      \
	{                                                                                          \
		what;                                                                              \
	}

BEND(none, (void)words)
BEND(psh, words->flags |= PSH)
BEND(padding, words->padded = true)
BEND(gap, words->seq += 1)
BEND(again, words->seq -= 100)
BEND(fin, words->flags |= FIN)
BEND(urg, words->flags |= URG)
BEND(ece, words->flags |= ECE)
BEND(cwr, words->flags |= CWR)
BEND(syn, words->flags |= SYN)
BEND(no_ack, words->flags = 0)
BEND(other_ack, words->ack -= 1)
BEND(window, words->window += 1)
BEND(tos, words->tos = 3) // congestion was met
BEND(hops, words->hops--)
BEND(options, words->options = 12)
BEND(empty, words->size = 0)
BEND(damage, words->damaged = true)
BEND(damage_ip, words->damaged_ip = true)
BEND(fragment, words->fragment = true)
BEND(reset, words->flags |= RST)

const struct bend bends[BENDS] = {
	{"a push in the midst", psh, {2, 2}},
	{"Ethernet's padding is not TCP's; IPv6 needs none", padding, {2, 0}},
	{"a gap: nobody waits for it", gap, {0, 0}},
	{"bytes that came already", again, {0, 0}},
	{"urgent bytes", urg, {0, 0}},
	{"congestion echoed", ece, {0, 0}},
	{"congestion heard of", cwr, {0, 0}},
	{"no acknowledgement", no_ack, {0, 0}},
	{"another acknowledgement", other_ack, {0, 0}},
	{"another window", window, {0, 0}},
	{"congestion met", tos, {0, 0}},
	{"another way", hops, {0, 0}},
	{"other options", options, {0, 0}},
	{"no bytes", empty, {0, 0}},
	{"a wrong checksum", damage, {0, 0}},
	{"a wrong header checksum, which IPv6 has none of", damage_ip, {0, 2}},
	{"a fragment, which IPv6 shows elsewhere", fragment, {0, 2}},
	{"an opening", syn, {0, 0}},
	{"an end", fin, {0, 0}},
	{"a reset", reset, {0, 0}},
	{"three in order", none, {2, 2}},
};

void twins_add(struct made *frames, unsigned *count, unsigned flow, unsigned trouble)
{
	struct peer *peer = &peers[flow];
	struct words words = twins_plain(flow, 1 + twins_below(twins_below(3) ? 1440 : 30));
	struct made *made = &frames[(*count)++];

	if (peer->ended)
		words.size = 0;
	if (twins_below(100) < trouble)
		bends[twins_below(BENDS_ALIVE)].bend(&words);
	else if (twins_below(100) < trouble)
		words.seq -= twins_below(4000);
	else if (twins_below(100) < trouble)
		words.seq += twins_below(4000);
	else if (twins_below(2000) < trouble)
		words.flags |= twins_below(4) ? FIN : RST;
	twins_make(made, flow, &words);
	if (words.seq == peer->seq && !words.damaged && !words.damaged_ip && !words.fragment &&
	    !(words.flags & SYN) && (words.flags & ACK)) {
		peer->seq += (uint32_t)words.size;
		peer->ended |= words.flags & (FIN | RST);
		peer->seq += words.flags & FIN;
	}
	if (*count > 1 && twins_below(100) < trouble) {
		const struct made last = *made;

		*made = made[-1];
		made[-1] = last;
	}
}
