// A shard's stack under any sequence of frames, lost time, shortage of memory and wishes of its
// owner: every packet goes back exactly once, no memory stays, what leaves is a whole frame from
// one of its addresses, and afterwards a stranger's SYN is still answered.
//
// The input is a script (`step` below). So that mutations reach beyond the first check, lengths
// and sums are mended in most frames, and TCP's numbers count from what the stack last said.

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/io/datagram.h"
#include "dataplane/io/dpdk/internal.h"
#include "dataplane/io/dpdk/vlan.h"

#define PORT        4317
#define DATAGRAMS   4319
#define STREAMS_MAX 16
#define FRAMES_MAX  512 // an answer may release what waited for an address
#define FLOWS_MAX   16
#define FRAME_BYTES 1514
#define ETHERNET    14
#define TCP_SYN_ACK 0x12
#define WRITE_BYTES (48 * SL_KIB)

#define VLAN   100
#define SECOND 6 // of a script's first step: there is a second interface, the VLAN's

enum { AS_IT_IS = 1, ITS_NUMBERS = 2, COPY = 4, TAGGED = 8, SUMMED = 16, MORE = 32 }; // of a frame

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

struct packet {
	uint8_t room[SL_STACK_ROOM_BYTES];
	uint8_t *whole, *data; // with its tag; without
};

// What the stack last said on a connection, found by its ports.
struct said {
	uint16_t local, remote; // network order
	uint32_t next, acknowledged;
};

static const uint8_t own4[2][4] = {{10, 0, 0, 1}, {10, 0, 1, 1}}, vip4[4] = {10, 9, 0, 1},
		     stranger4[4] = {10, 0, 0, 99};
static const uint8_t own6[2][16] = {{0xfd, [15] = 1}, {0xfd, [7] = 1, [15] = 1}};
static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static struct {
	struct sl_stack *stack;
	struct sl_dpdk dpdk;
	struct sl_lane lane;
	struct sl_datagram_source source;
	struct sl_stream *streams[STREAMS_MAX];
	void *listening;
	struct said said[FLOWS_MAX];
	uint32_t said_count;
	uint64_t now_ns;
	long packets;
	unsigned sent;
	unsigned allocations, fails_at; // 0: none
	bool inside, answered, strange;
	uint32_t drawn;
	uint8_t eaten;
} world;

static bool allocation_fails(void)
{
	return world.inside && ++world.allocations == world.fails_at;
}

void *__wrap_malloc(size_t size)
{
	return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return allocation_fails() ? NULL : __real_calloc(count, size);
}

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
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

static uint32_t sum(uint32_t start, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		start += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	return start;
}

static uint16_t fold(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint16_t)~total;
}

// Where things lie in a frame that is whole enough to have them.
struct layout {
	uint8_t *ip, *payload;
	size_t header, bytes; // bytes of the payload
	uint8_t protocol;
	bool v4;
};

static bool lay_out(struct layout *out, uint8_t *frame, size_t bytes)
{
	if (bytes < ETHERNET + 20)
		return false;
	out->ip = frame + ETHERNET;
	out->v4 = get16(frame + 12) == 0x0800;
	if (out->v4) {
		out->header = (size_t)(out->ip[0] & 15) * 4;
		out->protocol = out->ip[9];
	} else {
		out->header = 40;
		out->protocol = out->ip[6];
		if (get16(frame + 12) != 0x86dd)
			return false;
	}
	if (out->header < 20 || ETHERNET + out->header > bytes)
		return false;
	out->payload = out->ip + out->header;
	out->bytes = bytes - ETHERNET - out->header;
	return true;
}

static uint8_t *sum_field(const struct layout *at)
{
	static const struct {
		uint8_t protocol, offset, least;
	} rows[] = {{6, 16, 20}, {17, 6, 8}, {1, 2, 4}, {58, 2, 4}};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		if (at->protocol == rows[i].protocol && at->bytes >= rows[i].least)
			return at->payload + rows[i].offset;
	}
	return NULL;
}

static uint16_t payload_sum(const struct layout *at)
{
	uint32_t start = 0;

	if (at->protocol != 1) {
		start = at->protocol + (uint32_t)at->bytes;
		start = at->v4 ? sum(start, at->ip + 12, 8) : sum(start, at->ip + 8, 32);
	}
	return fold(sum(start, at->payload, at->bytes));
}

// --- out ----------------------------------------------------------------------------------------

// What leaves by an interface has an address of that interface.
static bool is_own(unsigned interface, const struct layout *at)
{
	static const uint8_t none[16];
	const uint8_t *source = at->ip + (at->v4 ? 12 : 8);

	if (at->v4)
		return memcmp(source, own4[interface], 4) == 0 || memcmp(source, vip4, 4) == 0;
	// Neighbour discovery and MLD speak from the link's address, and from none.
	return memcmp(source, own6[interface], 16) == 0 ||
	       (source[0] == 0xfe && source[1] == 0x80) || memcmp(source, none, 16) == 0;
}

static void remember(const struct layout *at)
{
	const uint8_t *tcp = at->payload;
	struct said *said = NULL;

	for (uint32_t i = 0; i < world.said_count && !said; i++) {
		if (world.said[i].local == get16(tcp) && world.said[i].remote == get16(tcp + 2))
			said = &world.said[i];
	}
	if (!said)
		said = &world.said[world.said_count < FLOWS_MAX ? world.said_count++ : 0];
	said->local = get16(tcp);
	said->remote = get16(tcp + 2);
	said->next = get32(tcp + 4) + (uint32_t)(at->bytes - (size_t)(tcp[12] >> 4) * 4) +
		     ((tcp[13] & 3) != 0);
	said->acknowledged = get32(tcp + 8);
}

// On a port in a VLAN it would leave with the tag, and come to the other end as it was.
static void check_tag(const uint8_t *frame, size_t bytes)
{
	uint8_t tagged[SL_VLAN_TAG_BYTES + FRAME_BYTES];

	memcpy(tagged + SL_VLAN_TAG_BYTES, frame, bytes);
	sl_vlan_tag(tagged, VLAN);
	assert(sl_vlan_untag(tagged, bytes + SL_VLAN_TAG_BYTES, VLAN) == SL_VLAN_TAG_BYTES);
	assert(memcmp(tagged + SL_VLAN_TAG_BYTES, frame, bytes) == 0);
}

static bool transmit(void *self, unsigned interface, const struct iovec *pieces, unsigned count,
		     size_t bytes)
{
	uint8_t frame[FRAME_BYTES];
	struct layout at;
	size_t filled = 0;

	(void)self;
	assert(interface < world.dpdk.plan.stack.interface_count);
	assert(bytes >= ETHERNET && bytes <= sizeof(frame));
	for (unsigned i = 0; i < count; i++) {
		assert(pieces[i].iov_len <= bytes - filled);
		memcpy(frame + filled, pieces[i].iov_base, pieces[i].iov_len);
		filled += pieces[i].iov_len;
	}
	assert(filled == bytes);
	assert(memcmp(frame + 6, mac, sizeof(mac)) == 0);
	assert(++world.sent < FRAMES_MAX);
	check_tag(frame, bytes);
	if (get16(frame + 12) == 0x0806)
		return true;
	assert(lay_out(&at, frame, bytes) && is_own(interface, &at));
	if (at.v4) {
		assert(get16(at.ip + 2) == bytes - ETHERNET);
		assert(fold(sum(0, at.ip, at.header)) == 0);
	} else {
		assert(get16(at.ip + 4) == at.bytes);
	}
	if (at.protocol == 1 || at.protocol == 58)
		assert(at.bytes >= 8 && payload_sum(&at) == 0);
	if (at.protocol == 6) {
		assert(at.bytes >= 20 && payload_sum(&at) == 0);
		remember(&at);
		if (at.v4 && memcmp(at.ip + 16, stranger4, 4) == 0)
			world.answered |= at.payload[13] == TCP_SYN_ACK;
	}
	return true;
}

// --- in -----------------------------------------------------------------------------------------

static void release(void *opaque)
{
	struct packet *packet = opaque;

	world.packets--;
	assert(world.packets >= 0);
	free(packet->whole);
	free(packet);
}

static void count_on(const struct layout *at)
{
	uint8_t *tcp = at->payload;

	for (uint32_t i = 0; i < world.said_count; i++) {
		const struct said *said = &world.said[i];

		if (said->local != get16(tcp + 2) || said->remote != get16(tcp))
			continue;
		put32(tcp + 4, get32(tcp + 4) + said->acknowledged);
		put32(tcp + 8, get32(tcp + 8) + said->next);
		return;
	}
}

static void mend(uint8_t *frame, size_t bytes, uint8_t flags)
{
	struct layout at;
	uint8_t *field;

	if (!lay_out(&at, frame, bytes))
		return;
	if (at.v4) {
		put16(at.ip + 2, (uint32_t)(bytes - ETHERNET));
		put16(at.ip + 10, 0);
		put16(at.ip + 10, fold(sum(0, at.ip, at.header)));
	} else {
		put16(at.ip + 4, (uint32_t)at.bytes);
	}
	if (at.protocol == 6 && at.bytes >= 20 && !(flags & ITS_NUMBERS))
		count_on(&at);
	field = sum_field(&at);
	if (field) {
		put16(field, 0);
		put16(field, payload_sum(&at));
	}
}

static void datagram_received(struct sl_datagram_source *source, const struct sl_address *peer,
			      struct sl_bytes bytes, bool cut, uint64_t now_ns)
{
	(void)now_ns;
	assert(source == &world.source && peer->size && bytes.size <= source->bytes_max);
	assert(!cut || bytes.size == source->bytes_max);
	for (size_t i = 0; i < bytes.size; i++)
		world.eaten ^= bytes.data[i];
}

static void give(const uint8_t *data, size_t size, uint8_t flags)
{
	// A tag leads to the second interface, where there is one.
	const unsigned interface = world.dpdk.plan.stack.interface_count > 1 && flags & TAGGED;
	struct packet *packet = malloc(sizeof(*packet));
	int cut;

	// To the byte, and as far from a word's bounds as the port's headroom makes it.
	packet->whole = malloc(size ? size : 1);
	memcpy(packet->whole, data, size);
	cut = sl_vlan_untag(packet->whole, size, flags & TAGGED ? VLAN : 0);
	if (cut < 0) {
		free(packet->whole);
		free(packet);
		return;
	}
	packet->data = packet->whole + cut;
	size -= (size_t)cut;
	if (!(flags & AS_IT_IS))
		mend(packet->data, size, flags);
	if (sl_lane_take_datagram(&world.lane, interface, packet->data, size, 0)) {
		free(packet->whole);
		free(packet);
		return;
	}
	world.packets++;
	world.sent = 0;
	world.inside = true;
	sl_stack_ops.input(world.stack, packet, packet->room, packet->data, (uint16_t)size,
			   interface * SL_INPUT_INTERFACE | (flags & COPY ? SL_INPUT_COPY : 0) |
				   (flags & MORE ? SL_INPUT_MORE : 0) |
				   (flags & SUMMED ? SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE : 0));
	world.inside = false;
}

static void tick(unsigned count, uint64_t ns)
{
	world.inside = true;
	for (unsigned i = 0; i < count; i++) {
		world.sent = 0;
		world.now_ns += ns;
		sl_stack_ops.tick(world.stack, world.now_ns);
	}
	world.inside = false;
}

static uint32_t place_of(const struct sl_stream *stream)
{
	uint32_t at = 0;

	while (at < STREAMS_MAX && world.streams[at] != stream)
		at++;
	return at;
}

static void forget(uint32_t at, bool reset)
{
	struct sl_stream *stream = world.streams[at];

	world.streams[at] = NULL;
	sl_stack_ops.drop(stream, reset);
}

static void flush(void)
{
	world.sent = 0;
	world.inside = true;
	sl_stack_ops.flush(world.stack);
	world.inside = false;
}

// Takes the events as the shard does, within what there is room for.
static void take_events(void)
{
	struct sl_stream *stream;

	world.inside = true;
	while ((stream = sl_stack_ops.next_ready(world.stack))) {
		const uint8_t events = stream->events;
		uint32_t at = place_of(stream);

		stream->events = 0;
		if (events & SL_STREAM_ACCEPTED) {
			at = place_of(NULL);
			if (at == STREAMS_MAX) {
				sl_stack_ops.drop(stream, false);
				continue;
			}
			world.streams[at] = stream;
		}
		assert(at < STREAMS_MAX); // one that was dropped is never told of
		if (events & SL_STREAM_FAILED)
			forget(at, true);
	}
	world.inside = false;
}

static void read_all(struct sl_stream *stream)
{
	struct sl_bytes bytes;

	while (sl_stack_ops.peek(stream, &bytes)) {
		for (size_t i = 0; i < bytes.size; i++)
			world.eaten ^= bytes.data[i]; // reads each: none may be gone
		sl_stack_ops.eat(stream);
	}
	sl_stack_ops.ate(stream);
}

static void wish(uint8_t what, uint8_t which)
{
	static uint8_t sample[WRITE_BYTES];
	const uint32_t at = which % STREAMS_MAX;
	struct sl_stream *stream = world.streams[at];
	const struct iovec piece = {sample, (size_t)which * (WRITE_BYTES / 255)};

	if (!stream)
		return;
	world.sent = 0;
	world.inside = true;
	switch (what % 5) {
	case 0:
		read_all(stream);
		break;
	case 1:
		sl_stack_ops.write(stream, &piece, 1);
		break;
	case 2:
		sl_stack_ops.shut(stream);
		break;
	default:
		forget(at, what % 5 == 3);
		break;
	}
	world.inside = false;
}

static void listen_again(void)
{
	static const struct sl_endpoint any = {.port = PORT};

	world.inside = true;
	if (world.listening)
		sl_stack_ops.unlisten(world.stack, world.listening);
	world.listening = sl_stack_ops.listen(world.stack, &any, &world);
	world.inside = false;
}

static void connect_out(uint8_t port)
{
	struct sl_endpoint from = {{[10] = 0xff, 0xff, 10, 0, 0, 1}, (uint16_t)(30000 + port)};
	static const struct sl_endpoint to = {{[10] = 0xff, 0xff, 10, 0, 0, 2}, 80};
	const uint32_t at = place_of(NULL);

	if (at == STREAMS_MAX)
		return;
	world.inside = true;
	world.sent = 0;
	world.streams[at] = sl_stack_ops.connect(world.stack, &from, &to);
	world.inside = false;
}

static void cut_link(uint8_t what)
{
	const unsigned interface = what & 1;

	if (interface >= world.dpdk.plan.stack.interface_count)
		return;
	world.inside = true;
	world.sent = 0;
	sl_stack_ops.link(world.stack, interface, what & 2);
	world.inside = false;
}

// One step of the script. Returns what it took of it, 0 at its end.
static size_t step(const uint8_t *data, size_t size)
{
	size_t bytes;

	if (size < 3)
		return 0;
	if (data[0] & 4)
		flush(); // the turn's end
	switch (data[0] & 7) {
	case 4:
		tick(data[1] & 63, 100 * SL_MS);
		break;
	case 5:
		wish(data[1], data[2]);
		break;
	case 6:
		if (data[1] & 1)
			listen_again();
		else
			connect_out(data[2]);
		break;
	case 7:
		if ((data[1] & 7) == SECOND)
			cut_link(data[2]);
		else if (data[1] & 1) // hours: what keep-alive and the neighbours' ages wait for
			tick(data[2] & 15, 20 * SL_S);
		else
			world.fails_at = world.allocations + data[2] % 32;
		break;
	default:
		bytes = SL_MIN((size_t)(data[1] | data[2] << 8) % (FRAME_BYTES + 1), size - 3);
		world.strange |= memmem(data + 3, bytes, stranger4, 4) != NULL;
		give(data + 3, bytes, data[0] >> 3 | (data[0] & 1 ? MORE : 0));
		if (!(data[0] & 1))
			flush();
		take_events();
		return 3 + bytes;
	}
	take_events();
	return 3;
}

// From an address that the script did not name.
static void check_it_still_answers(void)
{
	static const uint8_t syn[ETHERNET + 40] = {
		2,    0,  0,  0, 0, 1, 2,  0,  0,         0,          0,           99, 8,  0,
		0x45, 0,  0,  0, 0, 0, 0,  0,  64,        6,          0,           0,  10, 0,
		0,    99, 10, 0, 0, 1, 99, 99, PORT >> 8, PORT & 255, [46] = 0x50, 2,  16, 0,
	};
	static const uint8_t arp[42] = {
		2, 0, 0, 0, 0, 1, 2,  0,  0, 0, 0,  99, 8, 6, 0, 1, 8, 0,  6, 4, 0,
		2, 2, 0, 0, 0, 0, 99, 10, 0, 0, 99, 2,  0, 0, 0, 0, 1, 10, 0, 0, 1,
	};

	world.fails_at = 0;
	if (!world.listening)
		listen_again();
	tick(1, 100 * SL_MS);
	give(syn, sizeof(syn), ITS_NUMBERS);
	give(arp, sizeof(arp), AS_IT_IS);
	for (unsigned i = 0; i < 100 && !world.answered; i++)
		tick(1, 100 * SL_MS);
	take_events();
	assert(world.answered || world.strange);
}

static uint64_t hash(const void *key, size_t size)
{
	const uint8_t *bytes = key;
	uint64_t value = 0xcbf29ce484222325;

	for (size_t i = 0; i < size; i++)
		value = (value ^ bytes[i]) * 0x100000001b3;
	return value ^ value >> 32;
}

static uint32_t draw(void)
{
	return world.drawn = world.drawn * 1664525 + 1013904223;
}

static void begin(unsigned count)
{
	static const struct sl_stack_host host = {
		.hash = hash, .random = draw, .transmit = transmit, .release = release};
	struct sl_stack_config config = {.interface_count = count, .window_budget = SL_MIB};

	memset(&world, 0, sizeof(world));
	world.now_ns = 1000 * SL_S;
	for (unsigned i = 0; i < count; i++) {
		struct sl_stack_interface *interface = &config.interfaces[i];
		struct sl_stack_address *addresses = interface->addresses;

		interface->mtu = (uint16_t)(FRAME_BYTES - ETHERNET - 200 * i);
		memcpy(interface->mac, mac, sizeof(mac));
		memset(addresses[0].address + 10, 0xff, 2);
		memcpy(addresses[0].address + 12, own4[i], 4);
		memset(addresses[1].address + 10, 0xff, 2);
		memcpy(addresses[1].address + 12, vip4, 4);
		memcpy(addresses[2].address, own6[i], 16);
		addresses[0].prefix = 24;
		addresses[1].prefix = 32;
		addresses[2].prefix = 64;
		interface->address_count = 3;
		memcpy(interface->gateway4, own4[i], 4);
		memcpy(interface->gateway6, own6[i], 16);
		interface->gateway4[3] = interface->gateway6[15] = 254;
	}
	world.dpdk.plan.stack = config;
	world.lane.dpdk = &world.dpdk;
	world.source = (struct sl_datagram_source){
		.address = {.size = sizeof(struct sockaddr_in6)},
		.bytes_max = 1000,
		.received = datagram_received,
	};
	world.source.address.u.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
							  .sin6_port = htons(DATAGRAMS)};
	world.lane.datagrams[world.lane.datagram_count++] = &world.source;
	world.stack = sl_stack_ops.create(&host, &config);
	assert(world.stack);
	sl_stack_ops.tick(world.stack, world.now_ns);
	listen_again();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t taken;

	begin(size >= 3 && (data[0] & 7) == 7 && (data[1] & 7) == SECOND ? 2 : 1);
	while ((taken = step(data, size))) {
		data += taken;
		size -= taken;
	}
	flush();
	check_it_still_answers();
	for (uint32_t i = 0; i < STREAMS_MAX; i++) {
		if (world.streams[i])
			forget(i, i & 1);
	}
	sl_stack_ops.destroy(world.stack);
	assert(world.packets == 0);
	return 0;
}
