#include "dataplane/options.h"

#include <getopt.h>
#include <stdio.h>

static const char help[] =
	"sluice: an ingestion gateway for OpenTelemetry data (OTLP)\n"
	"\n"
	"  sluice --config FILE   run\n"
	"  sluice --check FILE    read and check a configuration and all files it names\n"
	"  sluice --dump FILE     print every setting with its effective value\n"
	"  sluice --reference     print the reference of all settings, in Markdown\n"
	"  sluice replay FILE...  send files, such as dead letters, again (replay --help)\n"
	"  sluice --version\n"
	"  sluice --help\n"
	"\n"
	"SIGHUP reloads the configuration, SIGTERM drains and exits.\n"
	"Exit codes: 0 fine, 1 the drain did not finish, 64 usage, 69 cannot listen,\n"
	"70 failure inside, 78 configuration refused.\n";

static enum sl_command wrong(const char *program)
{
	fprintf(stderr, "Try '%s --help'.\n", program);
	return SL_COMMAND_WRONG;
}

static enum sl_command say(const char *text)
{
	fputs(text, stdout);
	return SL_COMMAND_DONE;
}

void sl_options_parse(struct sl_options *options, int argc, char **argv)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", required_argument, NULL, 'k'},
		{"dump", optional_argument, NULL, 'd'},
		{"reference", no_argument, NULL, 'r'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	bool chosen = false;
	int letter;

	*options = (struct sl_options){.command = SL_COMMAND_RUN};
	if (argc > 1 && strcmp(argv[1], "replay") == 0) {
		options->command = SL_COMMAND_REPLAY;
		return;
	}
	while ((letter = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
		switch (letter) {
		case 'c':
			options->config = optarg;
			break;
		case 'k':
			options->command = SL_COMMAND_CHECK;
			options->config = optarg;
			chosen = true;
			break;
		case 'd':
			options->command = SL_COMMAND_DUMP;
			if (optarg)
				options->config = optarg;
			chosen = true;
			break;
		case 'r':
			options->command = SL_COMMAND_REFERENCE;
			return;
		case 'v':
			options->command = say("sluice " SL_VERSION "\n");
			return;
		case 'h':
			options->command = say(help);
			return;
		default:
			options->command = wrong(argv[0]);
			return;
		}
	}
	// `--dump FILE` and `--dump=FILE` are the same.
	if (options->command == SL_COMMAND_DUMP && !options->config && optind < argc)
		options->config = argv[optind++];
	if (optind < argc) {
		fprintf(stderr, "%s: '%s' is not an option\n", argv[0], argv[optind]);
		options->command = wrong(argv[0]);
	} else if (!options->config && options->command != SL_COMMAND_DUMP) {
		fprintf(stderr, "%s: %s wants a configuration file\n", argv[0],
			chosen ? "that" : "--config");
		options->command = wrong(argv[0]);
	}
}
