#pragma once

#include "config/module.h"
#include "dataplane/otlp/signal.h"
#include "routing/settings.h"

// `sluice replay`: sends what files hold again, through a destination of its own: with that one's
// retries, splitting, TLS and headers, and nothing else of a gateway.
//
// Threading: main only; a destination's own threads as ever. Memory: its own, until it returns.
#define SL_REPLAY_HEADERS_MAX 12

struct sl_replay_options {
	char *const *files; // of argv
	int file_count;
	const char *to;                   // an OTLP endpoint, or NULL:
	const char *config, *destination; // a destination of that configuration
	const char *tenant;               // of what is no dead letter; "" without
	struct sl_name_value_config headers[SL_REPLAY_HEADERS_MAX];
	uint32_t header_count;
	const char *tenant_header, *ca_file;
	bool http, insecure, check;
	int signal;        // enum sl_signal of all files; -1: their names say it
	uint64_t from;     // bytes of the first file to leave out
	uint32_t parallel; // requests at a time
	uint64_t retry_ns; // how long one is tried
};

// sysexits.h's numbers.
#define SL_EXIT_REFUSED  1  // some were refused for good, or are no requests
#define SL_EXIT_BROKEN   65 // a file ends inside an entry
#define SL_EXIT_NO_INPUT 66
#define SL_EXIT_AGAIN    75 // the destination could not take it, or a signal came: go on later
#define SL_EXIT_DENIED   77 // the destination does not accept who sends

// argv[1] is "replay". False: `*code` is the exit code (help has been printed, or a mistake told).
bool sl_replay_parse(struct sl_replay_options *options, int argc, char **argv, int *code);
// Returns the exit code.
int sl_replay(const struct sl_replay_options *options, const struct sl_module *modules,
	      uint32_t module_count);
