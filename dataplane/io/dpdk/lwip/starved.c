#include "dataplane/io/dpdk/lwip/internal.h"

// Without memory a write leaves nothing in flight whose acknowledgement would tell to go on: what
// any stream gets acknowledged makes room, and so may the next tenth of a second.
#define FED_MAX 32 // at a time

void sl_lwip_starve(struct sl_stream *stream)
{
	struct sl_stack *stack = stream->stack;

	if (stream->starved)
		return;
	stream->starved = true;
	stream->next_starved = NULL;
	stream->prev_starved = stack->starved_last;
	if (stack->starved_last)
		stack->starved_last->next_starved = stream;
	else
		stack->starved = stream;
	stack->starved_last = stream;
}

void sl_lwip_leave_starved(struct sl_stream *stream)
{
	struct sl_stack *stack = stream->stack;

	if (!stream->starved)
		return;
	stream->starved = false;
	if (stream->next_starved)
		stream->next_starved->prev_starved = stream->prev_starved;
	else
		stack->starved_last = stream->prev_starved;
	if (stream->prev_starved)
		stream->prev_starved->next_starved = stream->next_starved;
	else
		stack->starved = stream->next_starved;
}

void sl_lwip_feed_starved(struct sl_stack *stack)
{
	stack->relieved = false;
	for (unsigned i = 0; i < FED_MAX && stack->starved; i++) {
		struct sl_stream *stream = stack->starved;

		sl_lwip_leave_starved(stream);
		sl_lwip_note(stream, SL_STREAM_WRITABLE);
	}
}
