#pragma once

#include "config/settings.h"

// A table with every type, for the fuzz target and its kin.
struct sample_inner {
	struct sl_where where;
	const char *name, *text, *suffix;
	uint64_t count, bytes, duration;
	double per_s, bytes_per_s, ratio, number;
	bool has_count;
};

struct sample_choice {
	const char *destination;
	bool required;
};

struct sample {
	bool flag, watch;
	uint32_t word;
	struct sl_address address;
	struct sl_cidr cidr;
	const char *path, *secret;
	struct sample_inner inner, idle;
	struct sample_inner *optional;
	struct sl_list texts, counts, choices, objects, map;
};

#define SAMPLE_ROW(struct_, field_, type_, ...)                                                    \
	{                                                                                          \
		.name = #field_, .type = SL_TYPE_##type_,                                          \
		.offset = offsetof(struct struct_, field_), .help = "Help.", __VA_ARGS__           \
	}
#define SAMPLE_TABLE(name_, struct_, rows_)                                                        \
	{                                                                                          \
		.name = name_, .bytes = sizeof(struct struct_), .rows = rows_,                     \
		.row_count = SL_COUNT_OF(rows_)                                                    \
	}

static const struct sl_setting sample_inner_rows[] = {
	{.type = SL_TYPE_WHERE, .offset = offsetof(struct sample_inner, where)},
	{.type = SL_TYPE_KEY, .offset = offsetof(struct sample_inner, name)},
	SAMPLE_ROW(sample_inner, text, STRING),
	SAMPLE_ROW(sample_inner, count, COUNT, .preset = "17", .max = 1e6,
		   .present_offset = offsetof(struct sample_inner, has_count)),
	SAMPLE_ROW(sample_inner, bytes, BYTES, .preset = "64KiB"),
	SAMPLE_ROW(sample_inner, duration, DURATION, .min = 1e6, .max = 6e10, .preset = "250ms"),
	SAMPLE_ROW(sample_inner, per_s, PER_S),
	SAMPLE_ROW(sample_inner, bytes_per_s, BYTES_PER_S, .preset = "50MiB/s"),
	SAMPLE_ROW(sample_inner, ratio, RATIO, .preset = "10%"),
	SAMPLE_ROW(sample_inner, number, NUMBER),
	SAMPLE_ROW(sample_inner, suffix, STRING, .only = "text; !number"),
};
static const struct sl_settings sample_inner_table = SAMPLE_TABLE("inner", sample_inner,
								  sample_inner_rows);
static const struct sl_setting sample_choice_rows[] = {
	SAMPLE_ROW(sample_choice, destination, STRING, .required = true),
	SAMPLE_ROW(sample_choice, required, BOOL, .preset = "true"),
};
static const struct sl_settings sample_choice_table = SAMPLE_TABLE("choice", sample_choice,
								   sample_choice_rows);
static const char *const sample_words[] = {"enforce", "observe", NULL};
static const struct sl_setting sample_rows[] = {
	SAMPLE_ROW(sample, flag, BOOL),
	SAMPLE_ROW(sample, word, ENUM, .choices = sample_words, .apply = SL_APPLY_RESTART),
	SAMPLE_ROW(sample, watch, BOOL, .only = "word: observe"),
	SAMPLE_ROW(sample, idle, OBJECT, .object = &sample_inner_table, .only = "flag"),
	SAMPLE_ROW(sample, address, ADDRESS, .preset = "127.0.0.1:8080"),
	SAMPLE_ROW(sample, cidr, CIDR),
	SAMPLE_ROW(sample, path, PATH, .watched = true),
	SAMPLE_ROW(sample, secret, STRING, .secret = true),
	SAMPLE_ROW(sample, inner, OBJECT, .object = &sample_inner_table),
	SAMPLE_ROW(sample, optional, OPTIONAL, .object = &sample_inner_table),
	SAMPLE_ROW(sample, texts, LIST, .element = SL_TYPE_STRING, .preset = "[a, \"b c\"]"),
	SAMPLE_ROW(sample, counts, LIST, .element = SL_TYPE_COUNT),
	SAMPLE_ROW(sample, choices, LIST, .element = SL_TYPE_CHOICE, .apply = SL_APPLY_RESTART,
		   .object = &sample_choice_table, .shorthand = "destination"),
	SAMPLE_ROW(sample, objects, LIST, .element = SL_TYPE_OBJECT, .object = &sample_inner_table),
	SAMPLE_ROW(sample, map, MAP, .object = &sample_inner_table),
};
static const struct sl_settings sample_table = SAMPLE_TABLE("sample", sample, sample_rows);
