#pragma once

#include "dataplane/base/base.h"

// The command line of sluice. Threading: main only.
enum sl_command {
	SL_COMMAND_RUN,
	SL_COMMAND_CHECK,
	SL_COMMAND_DUMP,
	SL_COMMAND_REFERENCE,
	SL_COMMAND_REPLAY, // the rest is replay.h's to read
	SL_COMMAND_DONE,   // --help, --version: it has been printed
	SL_COMMAND_WRONG,  // a mistake: it has been printed; exit with SL_EXIT_USAGE
};

// sysexits.h's numbers, so that scripts can tell mistakes from failures.
#define SL_EXIT_USAGE   64
#define SL_EXIT_LISTEN  69
#define SL_EXIT_FAILURE 70
#define SL_EXIT_CONFIG  78

struct sl_options {
	enum sl_command command;
	const char *config; // NULL: none given
};

void sl_options_parse(struct sl_options *options, int argc, char **argv);
