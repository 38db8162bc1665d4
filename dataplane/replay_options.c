#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/options.h"
#include "dataplane/replay.h"
#include "dataplane/request/request.h"

static const char help[] =
	"sluice replay FILE... sends again what a file destination has written, dead letters too,\n"
	"or what a segment of a spool holds (the gateway drains its own spool by itself).\n"
	"\n"
	"  --to URL              to this OTLP endpoint, such as a gateway's own listener:\n"
	"                        http://host:port or https://host:port\n"
	"  --config FILE --destination NAME\n"
	"                        or to a destination of a configuration, of any kind\n"
	"\n"
	"  --from OFFSET         leave so many bytes of the first file out: a run that stopped\n"
	"                        says where to go on\n"
	"  --parallel N          requests at a time (64); 1 keeps their order\n"
	"  --retry SECONDS       how long a request is tried (60)\n"
	"  --signal SIGNAL       traces, metrics or logs, where files' names do not begin so\n"
	"  --tenant NAME         the tenant of what is no dead letter; those know theirs\n"
	"  --check               only read the files\n"
	"\n"
	"With --to:\n"
	"  --http                OTLP over HTTP instead of gRPC\n"
	"  --header NAME:VALUE   a header of every call, such as authorization; may be repeated\n"
	"  --tenant-header NAME  the header that carries the tenant's name\n"
	"  --ca-file FILE        whom to trust, instead of the system's store\n"
	"  --insecure            do not verify the certificate\n"
	"\n"
	"Progress is told on stderr. Exit codes: 0 all was taken; 1 some requests were refused "
	"for\n"
	"good or are none; 64 usage; 65 a file ends inside an entry; 66 a file cannot be read;\n"
	"75 the destination could not take it, or a signal came: go on from the offset that was "
	"told;\n"
	"77 the destination does not accept who sends, so nothing more was tried; 78 "
	"configuration\n"
	"refused.\n";

enum {
	TO = 256,
	CONFIG,
	DESTINATION,
	FROM,
	PARALLEL,
	RETRY,
	SIGNAL,
	TENANT,
	CHECK,
	HTTP,
	HEADER,
	TENANT_HEADER,
	CA_FILE,
	INSECURE
};

static const struct option longs[] = {
	{"to", required_argument, NULL, TO},
	{"config", required_argument, NULL, CONFIG},
	{"destination", required_argument, NULL, DESTINATION},
	{"from", required_argument, NULL, FROM},
	{"parallel", required_argument, NULL, PARALLEL},
	{"retry", required_argument, NULL, RETRY},
	{"signal", required_argument, NULL, SIGNAL},
	{"tenant", required_argument, NULL, TENANT},
	{"check", no_argument, NULL, CHECK},
	{"http", no_argument, NULL, HTTP},
	{"header", required_argument, NULL, HEADER},
	{"tenant-header", required_argument, NULL, TENANT_HEADER},
	{"ca-file", required_argument, NULL, CA_FILE},
	{"insecure", no_argument, NULL, INSECURE},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static bool wrong(const char *what, const char *value)
{
	fprintf(stderr, "sluice replay: %s%s\nTry 'sluice replay --help'.\n", what, value);
	return false;
}

static bool number(const char *text, uint64_t max, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return wrong("not a number: ", text);
	*value = strtoull(text, &end, 10);
	return (!*end && *value <= max) || wrong("not a number here: ", text);
}

static bool add_header(struct sl_replay_options *options, char *text)
{
	char *colon = strchr(text, ':');

	if (!colon || colon == text)
		return wrong("a header is NAME:VALUE, not ", text);
	if (options->header_count == SL_REPLAY_HEADERS_MAX)
		return wrong("too many headers", "");
	*colon++ = 0;
	options->headers[options->header_count++] = (struct sl_name_value_config){
		text, colon + strspn(colon, " ")};
	return true;
}

static bool set_signal(struct sl_replay_options *options, const char *text)
{
	for (int i = 0; i < SL_SIGNALS; i++) {
		if (strcmp(text, sl_signal_names[i]) == 0)
			options->signal = i;
	}
	return options->signal >= 0 || wrong("no signal: ", text);
}

static bool take(struct sl_replay_options *options, int letter)
{
	uint64_t value;

	switch (letter) {
	case TO:
		options->to = optarg;
		return true;
	case CONFIG:
		options->config = optarg;
		return true;
	case DESTINATION:
		options->destination = optarg;
		return true;
	case FROM:
		return number(optarg, INT64_MAX, &options->from);
	case PARALLEL:
		if (!number(optarg, 10000, &value))
			return false;
		options->parallel = (uint32_t)SL_MAX(value, UINT64_C(1));
		return true;
	case RETRY:
		if (!number(optarg, 1000000, &value))
			return false;
		options->retry_ns = SL_MAX(value, UINT64_C(1)) * SL_S;
		return true;
	case SIGNAL:
		return set_signal(options, optarg);
	case TENANT:
		options->tenant = optarg;
		return true;
	case CHECK:
		return options->check = true;
	case HTTP:
		return options->http = true;
	case HEADER:
		return add_header(options, optarg);
	case TENANT_HEADER:
		options->tenant_header = optarg;
		return true;
	case CA_FILE:
		options->ca_file = optarg;
		return true;
	case INSECURE:
		return options->insecure = true;
	default:
		fputs("Try 'sluice replay --help'.\n", stderr);
		return false;
	}
}

bool sl_replay_parse(struct sl_replay_options *options, int argc, char **argv, int *code)
{
	int letter;

	*options = (struct sl_replay_options){
		.tenant = "", .signal = -1, .parallel = 64, .retry_ns = 60 * SL_S};
	*code = SL_EXIT_USAGE;
	optind = 2;
	while ((letter = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (letter == 'h') {
			fputs(help, stdout);
			*code = 0;
			return false;
		}
		if (!take(options, letter))
			return false;
	}
	options->files = argv + optind;
	options->file_count = argc - optind;
	if (!options->file_count)
		return wrong("name at least one file", "");
	if (!options->check && !options->to == !options->destination)
		return wrong("say either --to or --config and --destination", "");
	if (!options->config != !options->destination)
		return wrong("--config and --destination belong together", "");
	if (strlen(options->tenant) > SL_TENANT_NAME_MAX)
		return wrong("too long for a tenant: ", options->tenant);
	return true;
}
