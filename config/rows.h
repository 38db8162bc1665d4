#pragma once

#include "config/settings.h"

// Words for declaring tables of settings. For a .c file that holds tables, last among its includes:
// the names are short because a table is mostly made of them.
// Threading: none; macros for constants.

// A row: ROW(quota_config, rate, "rate", BYTES_PER_S, .preset = "10MiB/s", .help = "...")
#define ROW(struct_, field_, name_, type_, ...)                                                    \
	{                                                                                          \
		.name = name_, .type = SL_TYPE_##type_,                                            \
		.offset = offsetof(struct struct_, field_), __VA_ARGS__                            \
	}

// The row that notes where the mapping began.
#define WHERE(struct_)                                                                             \
	{                                                                                          \
		.type = SL_TYPE_WHERE, .offset = offsetof(struct struct_, where)                   \
	}

// A table: SETTINGS("quota", quota_config, quota_rows, .help = "...")
#define SETTINGS(name_, struct_, rows_, ...)                                                       \
	{                                                                                          \
		.name = name_, .bytes = sizeof(struct struct_), .rows = rows_,                     \
		.row_count = SL_COUNT_OF(rows_), __VA_ARGS__                                       \
	}
