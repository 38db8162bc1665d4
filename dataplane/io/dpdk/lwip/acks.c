#include "dataplane/io/dpdk/lwip/internal.h"

// lwIP acknowledges every second segment at once, in a frame of its own. Here what came in one turn
// is acknowledged once, at the turn's end, and by the answer itself where there is one.

// Called while lwIP takes a segment in, before it sends what the segment asks for.
void sl_lwip_delay_ack(struct sl_stream *stream, struct tcp_pcb *pcb)
{
	struct sl_stack *stack = stream->stack;

	if (!(pcb->flags & TF_ACK_NOW) || (!stream->ack_slot && stack->ack_count == ACKS_MAX))
		return;
	tcp_clear_flags(pcb, TF_ACK_NOW);
	tcp_set_flags(pcb, TF_ACK_DELAY); // until then only a timer's
	if (stream->ack_slot)
		return;
	stack->acks[stack->ack_count++] = stream;
	stream->ack_slot = stack->ack_count;
}

void sl_lwip_forget_ack(struct sl_stream *stream)
{
	if (stream->ack_slot)
		stream->stack->acks[stream->ack_slot - 1] = NULL;
	stream->ack_slot = 0;
}

void sl_lwip_acknowledge(struct sl_stack *stack)
{
	for (uint32_t i = 0; i < stack->ack_count; i++) {
		struct sl_stream *stream = stack->acks[i];
		struct tcp_pcb *pcb = stream ? sl_lwip_with(stream) : NULL;

		if (stream)
			stream->ack_slot = 0;
		if (!pcb || !(pcb->flags & TF_ACK_DELAY))
			continue; // gone, or an answer has said it
		tcp_ack_now(pcb);
		tcp_output(pcb);
	}
	stack->ack_count = 0;
}
