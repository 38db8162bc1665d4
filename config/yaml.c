#include "config/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

struct builder {
	struct sl_loaded_memory *blocks;
	struct sl_errors *errors;
	const char *name;
	struct sl_node *open[SL_YAML_DEPTH_MAX];
	struct sl_node **tail[SL_YAML_DEPTH_MAX]; // where the next child goes
	uint32_t depth;
	struct sl_node *root;
	uint32_t documents;
};

static bool refuse(struct builder *builder, const yaml_mark_t *mark, const char *what)
{
	const struct sl_where where = {builder->name, (uint32_t)mark->line + 1,
				       (uint32_t)mark->column + 1};

	sl_errors_add(builder->errors, &where, "%s", what);
	return false;
}

static struct sl_node *add(struct builder *builder, enum sl_node_kind kind, const yaml_mark_t *mark)
{
	struct sl_node *node = sl_blocks_take(builder->blocks, sizeof(*node));

	if (!node) {
		refuse(builder, mark, "no memory");
		return NULL;
	}
	node->kind = (uint8_t)kind;
	node->line = (uint32_t)mark->line + 1;
	node->column = (uint32_t)mark->column + 1;
	if (!builder->depth) {
		builder->root = node;
		return node;
	}

	struct sl_node *parent = builder->open[builder->depth - 1];

	*builder->tail[builder->depth - 1] = node;
	builder->tail[builder->depth - 1] = &node->next;
	parent->count++;
	return node;
}

static bool begin(struct builder *builder, enum sl_node_kind kind, const yaml_mark_t *mark,
		  const void *anchor, const void *tag)
{
	struct sl_node *node;

	if (anchor)
		return refuse(builder, mark, "anchors are not taken: write the value out");
	if (tag)
		return refuse(builder, mark, "tags are not taken: types follow from the keys");
	if (builder->depth == SL_YAML_DEPTH_MAX)
		return refuse(builder, mark, "nested too deeply");
	node = add(builder, kind, mark);
	if (!node)
		return false;
	builder->open[builder->depth] = node;
	builder->tail[builder->depth] = &node->first;
	builder->depth++;
	return true;
}

static bool scalar(struct builder *builder, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;
	struct sl_node *node;

	if (event->data.scalar.anchor)
		return refuse(builder, mark, "anchors are not taken: write the value out");
	if (event->data.scalar.tag)
		return refuse(builder, mark, "tags are not taken: types follow from the keys");
	if (memchr(event->data.scalar.value, 0, event->data.scalar.length))
		return refuse(builder, mark, "a text must not hold a zero byte");
	node = add(builder, SL_NODE_SCALAR, mark);
	if (!node)
		return false;
	node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	node->count = (uint32_t)event->data.scalar.length;
	node->text = sl_blocks_text(builder->blocks, (const char *)event->data.scalar.value,
				    event->data.scalar.length);
	return node->text ? true : refuse(builder, mark, "no memory");
}

// Of bytes that are no text: the parser tells their offset alone.
static bool refuse_bytes(struct builder *builder, const yaml_parser_t *parser, const char *text)
{
	yaml_mark_t mark = {0};

	for (size_t i = 0; i < parser->problem_offset; i++) {
		mark.column += ((unsigned char)text[i] & 0xc0) != 0x80;
		if (text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return refuse(builder, &mark, parser->problem);
}

// Of the parser. Its words for the commonest slip say nothing of it; for the others it is where
// what was not ended began that helps.
static bool refuse_syntax(struct builder *builder, const yaml_parser_t *parser, const char *text,
			  size_t size)
{
	const yaml_mark_t *mark = parser->problem_mark.line ? &parser->problem_mark : &parser->mark;
	const char *problem = parser->problem ? parser->problem : "not YAML";
	char what[200];
	size_t at = 0;

	if (parser->error == YAML_READER_ERROR && parser->problem && parser->problem_offset < size)
		return refuse_bytes(builder, parser, text);
	// The mark counts characters.
	for (size_t left = mark->index; left && at < size; left--)
		while (++at < size && ((unsigned char)text[at] & 0xc0) == 0x80)
			;
	if (at < size && text[at] == '\t')
		return refuse(builder, mark,
			      "a tab: expected blanks, YAML is not indented with tabs");
	if (!parser->context)
		return refuse(builder, mark, problem);
	snprintf(what, sizeof(what), "%s %s that begins at %zu:%zu", problem, parser->context,
		 parser->context_mark.line + 1, parser->context_mark.column + 1);
	return refuse(builder, mark, what);
}

static bool take(struct builder *builder, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;

	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (builder->documents++)
			return refuse(builder, mark, "a second document: one file is one document");
		return true;
	case YAML_ALIAS_EVENT:
		return refuse(builder, mark, "aliases are not taken: write the value out");
	case YAML_SCALAR_EVENT:
		return scalar(builder, event);
	case YAML_SEQUENCE_START_EVENT:
		return begin(builder, SL_NODE_SEQUENCE, mark, event->data.sequence_start.anchor,
			     event->data.sequence_start.tag);
	case YAML_MAPPING_START_EVENT:
		return begin(builder, SL_NODE_MAPPING, mark, event->data.mapping_start.anchor,
			     event->data.mapping_start.tag);
	case YAML_MAPPING_END_EVENT:
		builder->depth--;
		builder->open[builder->depth]->count /= 2;
		return true;
	case YAML_SEQUENCE_END_EVENT:
		builder->depth--;
		return true;
	default:
		return true;
	}
}

struct sl_node *sl_yaml_parse(struct sl_loaded_memory *blocks, const char *name, const char *text,
			      size_t size, struct sl_errors *errors)
{
	struct builder builder = {.blocks = blocks, .errors = errors, .name = name};
	yaml_parser_t parser;
	yaml_event_t event;
	bool fine = true, more = true;

	if (!yaml_parser_initialize(&parser)) {
		sl_errors_add(errors, NULL, "no memory");
		return NULL;
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
	while (fine && more) {
		if (!yaml_parser_parse(&parser, &event)) {
			fine = refuse_syntax(&builder, &parser, text, size);
			break;
		}
		fine = take(&builder, &event);
		more = event.type != YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	if (!fine)
		return NULL;
	if (!builder.root) {
		builder.root = sl_blocks_take(blocks, sizeof(*builder.root));
		if (!builder.root)
			return NULL;
		builder.root->kind = SL_NODE_MAPPING;
		builder.root->line = builder.root->column = 1;
	}
	return builder.root;
}
