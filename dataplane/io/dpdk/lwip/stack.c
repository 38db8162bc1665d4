#include "dataplane/io/dpdk/lwip/internal.h"

#include <errno.h>
#include <lwip/etharp.h>
#include <lwip/ethip6.h>
#include <lwip/init.h>
#include <lwip/mld6.h>
#include <lwip/nd6.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip.h>
#include <lwip/sys.h>
#include <netif/ethernet.h>

// lwIP looks a connection up in linear lists. Here there is one pair of lists (active, TIME_WAIT)
// for each bucket of a keyed hash over the connection's four words, and lwIP's two globals are set
// to one bucket's pair before anything may look at them: `sl_lwip_select` is the one door. Timers
// walk all connections, ten times a second, bucket by bucket.
#define WINDOW_FIRST (64 * 1024 - 1) // what a SYN-ACK can say without scaling
#define WINDOW_STEP  (128 * 1024)
#define TIMERS_AHEAD 32 // buckets
#define TIMER_NS     (TCP_TMR_INTERVAL * SL_MS)

struct sl_stack *sl_lwip_stack;

static void to_lwip(ip_addr_t *to, const uint8_t address[16])
{
	memset(to, 0, sizeof(*to));
	if (sl_endpoint_is_v4(address)) {
		IP_SET_TYPE(to, IPADDR_TYPE_V4);
		memcpy(&ip_2_ip4(to)->addr, address + 12, 4);
	} else {
		IP_SET_TYPE(to, IPADDR_TYPE_V6);
		memcpy(ip_2_ip6(to)->addr, address, 16);
	}
}

uint32_t sl_lwip_bucket(const struct sl_stack *stack, const struct flow *flow)
{
	return (uint32_t)stack->host.hash(flow, sizeof(*flow)) & (BUCKETS - 1);
}

static struct flow flow_of_pcb(const struct tcp_pcb *pcb)
{
	struct flow flow = {.local_port = pcb->local_port, .remote_port = pcb->remote_port};

	from_lwip(flow.local, &pcb->local_ip);
	from_lwip(flow.remote, &pcb->remote_ip);
	return flow;
}

bool sl_lwip_is_flow(const struct tcp_pcb *pcb, const struct flow *flow)
{
	const struct flow own = flow_of_pcb(pcb);

	return memcmp(&own, flow, sizeof(own)) == 0;
}

void sl_lwip_select(struct sl_stack *stack, uint32_t bucket)
{
	stack->lists[stack->bucket].active = tcp_active_pcbs;
	stack->lists[stack->bucket].waiting = tcp_tw_pcbs;
	tcp_active_pcbs = stack->lists[bucket].active;
	tcp_tw_pcbs = stack->lists[bucket].waiting;
	stack->bucket = bucket;
}

// The door: the stream's connection, with its own lists in place. NULL: it is gone.
struct tcp_pcb *sl_lwip_with(struct sl_stream *stream)
{
	if (stream->pcb && stream->stack->bucket != stream->bucket)
		sl_lwip_select(stream->stack, stream->bucket);
	return stream->pcb;
}

// --- streams ------------------------------------------------------------------------------------

static struct sl_stream *take_stream(struct sl_stack *stack)
{
	struct sl_stream *stream = stack->free;

	if (!stream) {
		struct stream_block *block = calloc(1, sizeof(*block));

		if (!block)
			return NULL;
		block->next = stack->blocks;
		stack->blocks = block;
		for (unsigned i = 0; i < STREAMS_A_BLOCK; i++) {
			block->streams[i].next_free = stack->free;
			stack->free = &block->streams[i];
		}
		stream = stack->free;
	}
	stack->free = stream->next_free;
	*stream = (struct sl_stream){.stack = stack};
	sl_gauge(&stack->stats.streams, stack->stats.streams + 1);
	return stream;
}

static void give_stream(struct sl_stream *stream)
{
	struct sl_stack *stack = stream->stack;

	assert(!stream->pcb && !stream->rx && !stream->queued && !stream->starved);
	stream->next_free = stack->free;
	stack->free = stream;
	sl_gauge(&stack->stats.streams, stack->stats.streams - 1);
}

void sl_lwip_note(struct sl_stream *stream, uint8_t event)
{
	struct sl_stack *stack = stream->stack;

	stream->events |= event;
	if (stream->queued)
		return;
	stream->queued = true;
	stream->next_ready = NULL;
	*stack->ready_last = stream;
	stack->ready_last = &stream->next_ready;
}

static struct sl_stream *next_ready(struct sl_stack *stack)
{
	while (stack->ready) {
		struct sl_stream *stream = stack->ready;

		stack->ready = stream->next_ready;
		if (!stack->ready)
			stack->ready_last = &stack->ready;
		stream->queued = false;
		if (!stream->closing)
			return stream;
		give_stream(stream); // dropped while it was queued
	}
	return NULL;
}

static void free_rx(struct sl_stream *stream)
{
	while (stream->rx) {
		struct pbuf *first = stream->rx;

		stream->rx = first->next;
		first->next = NULL;
		pbuf_free(first);
	}
}

static void release_window(struct sl_stream *stream)
{
	stream->stack->granted -= stream->window;
	stream->window = 0;
}

static void forget_stream(struct tcp_pcb *pcb)
{
	tcp_arg(pcb, NULL);
	tcp_recv(pcb, NULL);
	tcp_sent(pcb, NULL);
	tcp_err(pcb, NULL);
}

void sl_lwip_part(struct tcp_pcb *pcb)
{
	struct sl_stream *stream = pcb->callback_arg;

	forget_stream(pcb);
	stream->pcb = NULL;
	release_window(stream);
}

static err_t on_received(void *argument, struct tcp_pcb *pcb, struct pbuf *p, err_t failed)
{
	struct sl_stream *stream = argument;
	struct pbuf *last = p;

	(void)failed;
	if (!p) {
		sl_lwip_note(stream, SL_STREAM_ENDED);
		return ERR_OK;
	}
	// A list of single buffers from here on: each is freed by itself.
	while (last->next)
		last = last->next;
	if (stream->rx)
		((struct pbuf *)stream->rx_last)->next = p;
	else
		stream->rx = p;
	stream->rx_last = last;
	sl_lwip_delay_ack(stream, pcb);
	sl_lwip_note(stream, SL_STREAM_READABLE);
	return ERR_OK;
}

static err_t on_sent(void *argument, struct tcp_pcb *pcb, u16_t bytes)
{
	struct sl_stream *stream = argument;

	(void)pcb;
	(void)bytes;
	stream->stack->relieved = true;
	if (stream->want_write)
		sl_lwip_note(stream, SL_STREAM_WRITABLE);
	return ERR_OK;
}

static int errno_of(err_t failed)
{
	switch (failed) {
	case ERR_RST:
		return ECONNRESET;
	case ERR_ABRT:
	case ERR_TIMEOUT:
		return ETIMEDOUT;
	case ERR_MEM:
	case ERR_BUF:
		return ENOMEM;
	case ERR_RTE:
		return EHOSTUNREACH;
	case ERR_USE:
		return EADDRINUSE;
	default:
		return EPIPE;
	}
}

// lwIP has freed the connection already.
static void on_failed(void *argument, err_t failed)
{
	struct sl_stream *stream = argument;

	stream->pcb = NULL;
	stream->error = errno_of(failed);
	release_window(stream);
	sl_lwip_note(stream, SL_STREAM_FAILED);
}

static err_t on_connected(void *argument, struct tcp_pcb *pcb, err_t failed)
{
	struct sl_stream *stream = argument;

	(void)failed;
	sl_lwip_bound_segments(stream, pcb); // now agreed
	sl_lwip_note(stream, SL_STREAM_CONNECTED);
	return ERR_OK;
}

// lwIP gives each connection the full window; nothing beyond 64 KiB has been said yet.
static void attach(struct sl_stream *stream, struct tcp_pcb *pcb)
{
	struct sl_stack *stack = stream->stack;

	stream->pcb = pcb;
	stream->window = WINDOW_FIRST;
	stack->granted += WINDOW_FIRST;
	pcb->so_options |= SOF_KEEPALIVE;
	pcb->keep_idle = 60000;
	pcb->keep_intvl = 15000;
	pcb->keep_cnt = 4;
	tcp_nagle_disable(pcb);
	tcp_arg(pcb, stream);
	tcp_recv(pcb, on_received);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_failed);
	from_lwip(stream->local.address, &pcb->local_ip);
	from_lwip(stream->peer.address, &pcb->remote_ip);
	stream->local.port = pcb->local_port;
	stream->peer.port = pcb->remote_port;
	sl_lwip_bound_segments(stream, pcb);
}

static void narrow(struct tcp_pcb *pcb)
{
	if (pcb->rcv_wnd > WINDOW_FIRST)
		pcb->rcv_wnd = WINDOW_FIRST;
	pcb->rcv_ann_wnd = pcb->rcv_wnd;
	pcb->rcv_ann_right_edge = pcb->rcv_nxt + pcb->rcv_wnd;
}

static err_t on_accepted(void *argument, struct tcp_pcb *pcb, err_t failed)
{
	struct sl_stream *stream;

	if (failed != ERR_OK || !pcb)
		return ERR_VAL;
	stream = take_stream(sl_lwip_stack);
	if (!stream) {
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	stream->listener = argument;
	stream->bucket = sl_lwip_stack->bucket;
	attach(stream, pcb);
	narrow(pcb);
	sl_lwip_note(stream, SL_STREAM_ACCEPTED);
	return ERR_OK;
}

static void again(struct sl_stream *stream)
{
	sl_lwip_note(stream, stream->rx ? SL_STREAM_READABLE : 0);
}

static bool peek(struct sl_stream *stream, struct sl_bytes *bytes)
{
	const struct pbuf *first = stream->rx;

	if (!first)
		return false;
	*bytes = sl_bytes(first->payload, first->len);
	return true;
}

static void eat(struct sl_stream *stream)
{
	struct pbuf *first = stream->rx;

	stream->rx = first->next;
	first->next = NULL;
	stream->eaten += first->len;
	pbuf_free(first);
}

static void ate(struct sl_stream *stream)
{
	struct sl_stack *stack = stream->stack;
	uint32_t more = stream->eaten;
	struct tcp_pcb *pcb = sl_lwip_with(stream);

	if (!pcb || !more)
		return;
	stream->eaten = 0;
	// One that keeps sending gets a larger window, as long as the port's memory can hold what
	// all may send at once.
	if (stream->window < TCP_WND &&
	    stack->granted + WINDOW_STEP <= stack->config.window_budget) {
		const uint32_t step = SL_MIN(TCP_WND - stream->window, (uint32_t)WINDOW_STEP);

		stream->window += step;
		stack->granted += step;
		more += step;
	}
	while (more) { // lwIP's count is 16 bits wide
		const u16_t some = (u16_t)SL_MIN(more, 0xffffu);

		tcp_recved(pcb, some);
		more -= some;
	}
}

static ssize_t write_pieces(struct sl_stream *stream, const struct iovec *pieces, size_t count)
{
	struct tcp_pcb *pcb = sl_lwip_with(stream);
	uint8_t gathered[SL_LWIP_GATHER_BYTES];
	struct iovec whole;
	size_t taken = 0;
	bool full = false;

	if (!pcb)
		return -EPIPE;
	if (count > 1 && sl_lwip_gather(gathered, &whole, pieces, count)) {
		pieces = &whole;
		count = 1;
	}
	for (size_t i = 0; i < count && !full; i++) {
		const uint8_t *from = pieces[i].iov_base;
		size_t left = pieces[i].iov_len;

		while (left && !full) {
			const size_t room = SL_MIN((size_t)tcp_sndbuf(pcb), (size_t)0x8000);
			const size_t some = SL_MIN(left, room);
			const bool last = i + 1 == count && some == left;

			full = !some ||
			       tcp_write(pcb, from, (u16_t)some,
					 TCP_WRITE_FLAG_COPY | (last ? 0 : TCP_WRITE_FLAG_MORE)) !=
				       ERR_OK;
			if (full)
				break;
			from += some;
			left -= some;
			taken += some;
		}
	}
	stream->want_write = full;
	if (full && tcp_sndbuf(pcb))
		sl_lwip_starve(stream);
	tcp_output(pcb);
	return (ssize_t)taken;
}

static int shut(struct sl_stream *stream)
{
	struct tcp_pcb *pcb = sl_lwip_with(stream);

	return !pcb || tcp_shutdown(pcb, 0, 1) == ERR_OK ? 0 : -ENOMEM;
}

static void drop(struct sl_stream *stream, bool reset)
{
	struct tcp_pcb *pcb = sl_lwip_with(stream);

	if (pcb) {
		// Unread bytes mean a reset (RFC 2525, 2.17).
		reset = reset || stream->rx;
		forget_stream(pcb);
		// To lwIP a window that is not the full one means the same; ours never was.
		pcb->rcv_wnd = TCP_WND_MAX(pcb);
		if (reset || tcp_close(pcb) != ERR_OK)
			tcp_abort(pcb);
		stream->pcb = NULL;
		release_window(stream);
	}
	free_rx(stream);
	sl_lwip_leave_starved(stream);
	sl_lwip_forget_ack(stream);
	stream->closing = true;
	if (!stream->queued)
		give_stream(stream);
}

// lwIP lets only a free port be bound, and looks at the connections it can see: some bucket's. A
// connection is in nobody's way but that of its own twin.
static bool bind_beside(struct tcp_pcb *pcb, const ip_addr_t *address, uint16_t port)
{
	struct tcp_pcb *active = tcp_active_pcbs, *waiting = tcp_tw_pcbs;
	err_t failed;

	tcp_active_pcbs = tcp_tw_pcbs = NULL;
	failed = tcp_bind(pcb, address, port);
	tcp_active_pcbs = active;
	tcp_tw_pcbs = waiting;
	return failed == ERR_OK;
}

static bool has_twin(const struct tcp_pcb *list, const ip_addr_t *local, uint16_t local_port,
		     const ip_addr_t *remote, uint16_t remote_port)
{
	while (list &&
	       !(list->local_port == local_port && list->remote_port == remote_port &&
		 ip_addr_cmp(&list->local_ip, local) && ip_addr_cmp(&list->remote_ip, remote)))
		list = list->next;
	return list != NULL;
}

static struct sl_stream *connect_to(struct sl_stack *stack, const struct sl_endpoint *from,
				    const struct sl_endpoint *to)
{
	struct sl_stream *stream = take_stream(stack);
	ip_addr_t local, remote;
	struct tcp_pcb *pcb;
	struct flow flow;

	if (!stream)
		return NULL;
	memcpy(flow.local, from->address, 16);
	memcpy(flow.remote, to->address, 16);
	flow.local_port = from->port;
	flow.remote_port = to->port;
	stream->bucket = sl_lwip_bucket(stack, &flow);
	sl_lwip_select(stack, stream->bucket);
	to_lwip(&local, from->address);
	to_lwip(&remote, to->address);
	if (has_twin(tcp_active_pcbs, &local, from->port, &remote, to->port) ||
	    has_twin(tcp_tw_pcbs, &local, from->port, &remote, to->port))
		goto fail;
	pcb = tcp_new_ip_type(IP_GET_TYPE(&remote));
	if (!pcb)
		goto fail;
	if (stack->link_count > 1) {
		const unsigned way = sl_lwip_way(stack, from->address, to->address);

		if (way == NOWHERE) {
			tcp_abort(pcb);
			goto fail;
		}
		sl_lwip_put_on(stack, pcb, way);
	}
	if (!bind_beside(pcb, &local, from->port) ||
	    tcp_connect(pcb, &remote, to->port, on_connected) != ERR_OK) {
		tcp_abort(pcb);
		goto fail;
	}
	attach(stream, pcb);
	narrow(pcb);
	return stream;
fail:
	give_stream(stream);
	return NULL;
}

static void *listen_at(struct sl_stack *stack, const struct sl_endpoint *at, void *listener)
{
	static const uint8_t none[16];
	struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_ANY), *listening;
	ip_addr_t address = *IP_ANY_TYPE;

	(void)stack;
	if (!pcb)
		return NULL;
	if (memcmp(at->address, none, sizeof(none)) != 0)
		to_lwip(&address, at->address);
	if (!bind_beside(pcb, &address, at->port))
		goto fail;
	listening = tcp_listen_with_backlog(pcb, TCP_DEFAULT_LISTEN_BACKLOG);
	if (!listening)
		goto fail;
	tcp_arg(listening, listener);
	tcp_accept(listening, on_accepted);
	return listening;
fail:
	tcp_abort(pcb);
	return NULL;
}

// Half-open connections name their listener: each bucket has to forget it.
static void unlisten(struct sl_stack *stack, void *listening)
{
	struct tcp_pcb_listen *listener = listening;

	for (uint32_t i = 0; i < BUCKETS; i++) {
		sl_lwip_select(stack, i);
		for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
			if (pcb->listener == listener)
				pcb->listener = NULL;
		}
	}
	tcp_close((struct tcp_pcb *)listening);
}

// --- timers -------------------------------------------------------------------------------------

// What tcp_tmr() does, bucket by bucket, with the next ones on their way from memory. A tick of
// lwIP's is still one. By a count of its timers' runs it knows whom it has seen in this one: here
// they run so often that the count, eight bits wide, would come round, so each connection is marked
// as seen in the run before.
static void tcp_timers(struct sl_stack *stack)
{
	static u8_t runs; // as lwIP's: it too lasts as long as this copy
	const bool slow = stack->ticks % 2 == 0;
	const u32_t ticks = tcp_ticks;

	sl_lwip_select(stack, stack->bucket); // the lists that lwIP has now go to their place
	for (uint32_t i = 0; i < BUCKETS; i++) {
		struct lists *own = &stack->lists[i];

		if (i + TIMERS_AHEAD < BUCKETS && own[TIMERS_AHEAD].active)
			sl_prefetch_all(own[TIMERS_AHEAD].active, sizeof(struct tcp_pcb));
		if (!own->active && !own->waiting)
			continue;
		tcp_active_pcbs = own->active;
		tcp_tw_pcbs = own->waiting;
		for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
			pcb->last_timer = runs;
		tcp_fasttmr();
		runs++;
		if (slow) {
			tcp_ticks = ticks;
			tcp_slowtmr();
			runs++;
		}
		own->active = tcp_active_pcbs;
		own->waiting = tcp_tw_pcbs;
	}
	tcp_ticks = ticks + slow;
	tcp_active_pcbs = stack->lists[stack->bucket].active;
	tcp_tw_pcbs = stack->lists[stack->bucket].waiting;
}

static void tick(struct sl_stack *stack, uint64_t now_ns)
{
	const bool due = now_ns - stack->tick_ns >= TIMER_NS;

	if (SL_UNLIKELY(stack->starved) && (stack->relieved || due))
		sl_lwip_feed_starved(stack);
	if (!due)
		return;
	stack->tick_ns = now_ns;
	stack->errors = 0;
	tcp_timers(stack);
	mld6_tmr();
	if (++stack->ticks % (ND6_TMR_INTERVAL / TCP_TMR_INTERVAL) != 0)
		return;
	etharp_tmr();
	nd6_tmr();
}

// --- set-up -------------------------------------------------------------------------------------

static struct sl_stack *create(const struct sl_stack_host *host,
			       const struct sl_stack_config *config)
{
	struct sl_stack *stack = calloc(1, sizeof(*stack));

	assert(!sl_lwip_stack);
	if (!stack)
		return NULL;
	stack->host = *host;
	stack->config = *config;
	stack->ready_last = &stack->ready;
	sl_lwip_stack = stack;
	lwip_init();
	if (!sl_lwip_set_links(stack)) {
		sl_lwip_remove_links(stack);
		sl_lwip_stack = NULL;
		free(stack);
		return NULL;
	}
	return stack;
}

// Connections end by a reset: who wanted an orderly end has closed them before.
static void destroy(struct sl_stack *stack)
{
	if (!stack)
		return;
	sl_lwip_flush(stack);
	for (uint32_t i = 0; i < BUCKETS; i++) {
		sl_lwip_select(stack, i);
		while (tcp_active_pcbs)
			tcp_abort(tcp_active_pcbs);
		while (tcp_tw_pcbs)
			tcp_abort(tcp_tw_pcbs);
	}
	while (tcp_listen_pcbs.pcbs)
		tcp_close(tcp_listen_pcbs.pcbs);
	while (stack->ready)
		next_ready(stack);
	sl_lwip_remove_links(stack);
	while (stack->blocks) {
		struct stream_block *block = stack->blocks;

		stack->blocks = block->next;
		free(block);
	}
	sl_lwip_stack = NULL;
	free(stack);
}

static bool owes(struct sl_stack *stack)
{
	for (uint32_t i = 0; i < BUCKETS; i++) {
		sl_lwip_select(stack, i);
		for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
			if (pcb->state != SYN_RCVD && (pcb->unsent || pcb->unacked))
				return true;
		}
	}
	return false;
}

static const struct sl_stack_stats *stats(const struct sl_stack *stack)
{
	sl_gauge(&((struct sl_stack *)stack)->stats.granted_bytes, stack->granted);
	return &stack->stats;
}

static uint32_t buckets(const struct sl_stack *stack, uint32_t *longest)
{
	uint32_t used = 0;

	sl_lwip_select((struct sl_stack *)stack, stack->bucket);
	*longest = 0;
	for (uint32_t i = 0; i < BUCKETS; i++) {
		uint32_t length = 0;

		for (const struct tcp_pcb *pcb = stack->lists[i].active; pcb; pcb = pcb->next)
			length++;
		used += length > 0;
		*longest = SL_MAX(*longest, length);
	}
	return used;
}

__attribute__((visibility("default"))) const struct sl_stack_ops sl_stack_ops = {
	.create = create,
	.destroy = destroy,
	.look_ahead = sl_lwip_look_ahead,
	.input = sl_lwip_input,
	.add = sl_lwip_add,
	.flush = sl_lwip_flush,
	.link = sl_lwip_link,
	.tick = tick,
	.acknowledge = sl_lwip_acknowledge,
	.listen = listen_at,
	.unlisten = unlisten,
	.connect = connect_to,
	.next_ready = next_ready,
	.again = again,
	.peek = peek,
	.eat = eat,
	.ate = ate,
	.write = write_pieces,
	.shut = shut,
	.drop = drop,
	.owes = owes,
	.stats = stats,
	.buckets = buckets,
	.held = sl_lwip_held,
};
