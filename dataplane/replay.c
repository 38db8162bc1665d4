#include "dataplane/replay.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"
#include "dataplane/codec/codec.h"
#include "dataplane/io/io.h"
#include "dataplane/options.h"
#include "dataplane/otlp/json.h"
#include "routing/entries.h"
#include "routing/routing.h"

// One shard's side of routing, with requests that come from files. Jobs are taken up in the files'
// order and may end in another; what is told as the offset is where the oldest open one begins, so
// a run that goes on there sends nothing too little, and perhaps something twice.
#define MEMORY_BYTES  (1 * SL_GIB)
#define WINDOW_BYTES  (64 * SL_MIB) // of entries under way, or one that is larger
#define ENTRY_MAX     (256 * SL_MIB)
#define AGAIN_NS      (100 * SL_MS)
#define TURN_NS       (20 * SL_MS)
#define TELL_NS       SL_S
#define GIVE_UP_NS    (5 * SL_S) // after a signal
#define TOLD_MAX      20         // refused ones that are named, each file
#define SHUT_DOWN_MAX 1000       // turns

struct file {
	const char *name;
	struct sl_bytes bytes;
	enum sl_entries kind;
	enum sl_signal signal;
	uint64_t at; // of the next to be taken up
	uint64_t sent, refused, partly, broken;
};

enum state { WAITS, OPEN, ENDED };

struct job {
	struct sl_request request;
	struct replay *replay;
	struct sl_entry entry;
	uint64_t at, bytes, due_ns, give_up_ns;
	enum state state;
	char tenant[SL_TENANT_NAME_MAX + 1];
};

struct replay {
	const struct sl_replay_options *options;
	struct sl_memory memory;
	struct sl_timers timers;
	struct sl_waker waker;
	struct sl_random random;
	struct sl_io *io;
	struct sl_codec *codec;
	struct sl_metrics *metrics;
	struct sl_loaded loaded, whole;
	struct sl_routing *routing;
	struct sl_routing_shard *shard;
	struct job *jobs; // a ring of options->parallel
	uint32_t first, count;
	uint64_t window_bytes, now_ns, told_ns, stopped_ns;
	struct file *file;
	bool stopping, denied;
	char **tenants; // by id, so that nothing of two of them is merged
	uint32_t tenant_count;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

static struct job *job_at(struct replay *replay, uint32_t index)
{
	return &replay->jobs[(replay->first + index) % replay->options->parallel];
}

static uint64_t offset_of(struct replay *replay)
{
	return replay->count ? job_at(replay, 0)->at : replay->file->at;
}

// --- ends ----------------------------------------------------------------------------------------

static void name_it(struct file *file, uint64_t *count, const struct job *job, const char *what)
{
	if ((*count)++ < TOLD_MAX)
		fprintf(stderr, "%s: offset %llu: %s\n", file->name, (unsigned long long)job->at,
			what);
}

static void end_job(struct job *job, enum sl_reason reason)
{
	struct replay *replay = job->replay;
	struct file *file = replay->file;

	job->state = ENDED;
	if (reason == SL_REASON_NONE) {
		file->sent++;
		if (job->request.first_part.rejected_items)
			name_it(file, &file->partly, job,
				"some of its items were refused for good");
	} else if (reason == SL_REASON_MALFORMED) {
		name_it(file, &file->broken, job, "not a request of its signal");
	} else if (job->request.denied) {
		job->state = WAITS; // not the file's fault: all of it would be refused
		job->due_ns = UINT64_MAX;
		replay->stopping = replay->denied = true;
	} else if (!sl_reasons[reason].retry) {
		name_it(file, &file->refused, job, sl_reasons[reason].help);
	} else if (replay->now_ns < job->give_up_ns && !replay->stopping) {
		job->state = WAITS;
		job->due_ns = replay->now_ns + AGAIN_NS;
	} else {
		job->state = WAITS; // it is what has to be sent by the next run
		job->due_ns = UINT64_MAX;
		replay->stopping = true;
	}
}

static void settled(struct sl_request *request)
{
	(void)request; // nobody waits for an answer
}

static void released(struct sl_request *request)
{
	struct job *job = request->shard;
	const enum sl_reason reason = request->first_part.reason != SL_REASON_NONE
					      ? request->first_part.reason
					      : request->reason;

	sl_arena_fini(&request->arena);
	end_job(job, reason);
}

static const struct sl_request_owner owner = {settled, released};

// --- requests ------------------------------------------------------------------------------------

// The entry as a body of its own; what is wrong with it, or SL_REASON_NONE.
static enum sl_reason scan(struct job *job)
{
	static const struct sl_json_limits limits = {.depth_max = 200, .wire_bytes_max = ENTRY_MAX};
	static const struct sl_view_limits view = {.items_max = UINT32_MAX, .depth_max = 100};
	struct sl_request *request = &job->request;
	struct sl_bytes body = job->entry.body;
	uint8_t *copy;

	if (job->entry.json) {
		const enum sl_json_result result = sl_json_to_wire(request->signal, body, &limits,
								   &request->arena, &body, NULL, 0);

		if (result != SL_JSON_OK)
			return result == SL_JSON_NO_MEMORY ? SL_REASON_MEMORY_FULL
							   : SL_REASON_MALFORMED;
	} else {
		copy = sl_arena_alloc(&request->arena, body.size + SL_BODY_SLACK);
		if (!copy)
			return SL_REASON_MEMORY_FULL;
		memcpy(copy, body.data, body.size);
		memset(copy + body.size, 0, SL_BODY_SLACK);
		body.data = copy;
	}
	request->body_capacity = body.size;
	switch (sl_view_scan(&request->view, request->signal, body, &view, &request->arena, NULL)) {
	case SL_VIEW_OK:
		return SL_REASON_NONE;
	case SL_VIEW_NO_MEMORY:
		return SL_REASON_MEMORY_FULL;
	default:
		return SL_REASON_MALFORMED;
	}
}

// The number of a tenant's name; as the names are few they are looked through.
static sl_tenant_id tenant_id(struct replay *replay, const char *name)
{
	char **grown;
	uint32_t id = 0;

	while (id < replay->tenant_count && strcmp(replay->tenants[id], name) != 0)
		id++;
	if (id < replay->tenant_count)
		return id;
	grown = realloc(replay->tenants, (id + 1) * sizeof(*grown));
	if (!grown)
		abort();
	replay->tenants = grown;
	replay->tenants[id] = strdup(name);
	if (!replay->tenants[id])
		abort();
	return replay->tenant_count++;
}

static void start(struct replay *replay, struct job *job)
{
	struct sl_request *request = &job->request;
	struct sl_batch batch = {.now_ns = replay->now_ns, .count = 1};
	enum sl_reason reason;

	memset(request, 0, sizeof(*request));
	request->owner = &owner;
	request->shard = job;
	request->signal = replay->file->kind == SL_ENTRIES_SEGMENT ? job->entry.signal
								   : replay->file->signal;
	sl_arena_init(&request->arena, &replay->memory);
	job->state = OPEN;
	reason = scan(job);
	if (reason != SL_REASON_NONE) {
		sl_arena_fini(&request->arena);
		end_job(job, reason);
		return;
	}
	request->references = request->required_open = 1;
	request->parts = &request->first_part;
	request->part_count = 1;
	request->first_part = (struct sl_part){
		.request = request,
		.tenant = tenant_id(replay, job->tenant),
		.tenant_name = sl_bytes_of(job->tenant),
		.class_name = "",
		.kept_items = request->view.item_count,
	};
	request->answer_by_ns = job->give_up_ns;
	batch.parts[0] = &request->first_part;
	sl_routing_stage(replay->shard, &batch);
	sl_request_let_go(request, true);
}

// Takes the next entry up. False: there is none, or no room.
static bool take_up(struct replay *replay)
{
	struct file *file = replay->file;
	struct job *job = job_at(replay, replay->count);
	struct sl_entry entry;
	int64_t bytes;

	if (replay->count == replay->options->parallel)
		return false;
	bytes = sl_entry_read(file->bytes, file->at, file->kind, &entry);
	if (bytes <= 0 || (replay->count && replay->window_bytes + (uint64_t)bytes > WINDOW_BYTES))
		return false;
	*job = (struct job){
		.replay = replay,
		.entry = entry,
		.at = file->at,
		.bytes = (uint64_t)bytes,
		.give_up_ns = replay->now_ns + replay->options->retry_ns,
	};
	if (!sl_entry_tenant(&entry, job->tenant, sizeof(job->tenant)))
		snprintf(job->tenant, sizeof(job->tenant), "%s", replay->options->tenant);
	file->at += job->bytes;
	replay->window_bytes += job->bytes;
	replay->count++;
	if (entry.body.size) {
		start(replay, job);
	} else {
		job->state = ENDED; // an empty request, or line
		if (entry.damaged)
			name_it(file, &file->broken, job, "damaged, and left out");
	}
	return true;
}

// --- the loop ------------------------------------------------------------------------------------

static void tell(struct replay *replay, const char *how)
{
	const struct file *file = replay->file;
	const uint64_t at = offset_of(replay);

	fprintf(stderr, "%s: %s: %.0f %%, offset %llu of %zu, %llu requests sent\n", file->name,
		how, file->bytes.size ? 100.0 * (double)at / (double)file->bytes.size : 100.0,
		(unsigned long long)at, file->bytes.size, (unsigned long long)file->sent);
}

static bool turn(struct replay *replay)
{
	bool busy = false, open = false;

	sl_routing_shard_turn(replay->shard, replay->routing, replay->now_ns);
	while (!replay->stopping && take_up(replay))
		busy = true;
	for (uint32_t i = 0; i < replay->count; i++) {
		struct job *job = job_at(replay, i);

		if (job->state == WAITS && replay->now_ns >= job->due_ns && !replay->stopping)
			start(replay, job);
		open |= job->state == OPEN;
	}
	sl_routing_poll(replay->shard, replay->now_ns);
	sl_io_poll(replay->io, busy ? 0 : TURN_NS, &replay->now_ns);
	sl_waker_clear(&replay->waker);
	for (; replay->count && job_at(replay, 0)->state == ENDED; replay->count--) {
		busy = true; // there is room again
		replay->window_bytes -= job_at(replay, 0)->bytes;
		replay->first = (replay->first + 1) % replay->options->parallel;
	}
	if (interrupted && !replay->stopping) {
		replay->stopping = true;
		fprintf(stderr, "%s: a signal came: waiting for what is under way\n",
			replay->file->name);
	}
	if (replay->stopping && !replay->stopped_ns)
		replay->stopped_ns = replay->now_ns;
	if (replay->now_ns - replay->told_ns >= TELL_NS) {
		replay->told_ns = replay->now_ns;
		tell(replay, "under way");
	}
	if (replay->stopping)
		return open && replay->now_ns - replay->stopped_ns < GIVE_UP_NS;
	return busy || replay->count;
}

// The exit code that this file alone would have.
static int send_file(struct replay *replay)
{
	struct file *file = replay->file;

	while (turn(replay))
		;
	if (replay->stopping) {
		tell(replay, "stopped");
		if (replay->denied)
			fprintf(stderr,
				"%s: the destination refuses whoever sends this (not "
				"authenticated, or "
				"not permitted), and would refuse all of it: mend the credentials "
				"(%s)\n",
				file->name,
				replay->options->to ? "--header" : "the destination's settings");
		fprintf(stderr, "%s: go on with --from %llu\n", file->name,
			(unsigned long long)offset_of(replay));
		return replay->denied ? SL_EXIT_DENIED : SL_EXIT_AGAIN;
	}
	tell(replay, "done");
	if (file->refused + file->partly + file->broken)
		fprintf(stderr, "%s: %llu refused for good, %llu in part, %llu are no requests\n",
			file->name, (unsigned long long)file->refused,
			(unsigned long long)file->partly, (unsigned long long)file->broken);
	if (file->at < file->bytes.size) {
		fprintf(stderr, "%s: offset %llu: the file ends inside this entry\n", file->name,
			(unsigned long long)file->at);
		return SL_EXIT_BROKEN;
	}
	return file->refused + file->partly + file->broken ? SL_EXIT_REFUSED : 0;
}

static int check_file(struct file *file)
{
	uint64_t count = 0, letters = 0, damaged = 0;
	struct sl_entry entry;
	int64_t bytes;

	while ((bytes = sl_entry_read(file->bytes, file->at, file->kind, &entry)) > 0) {
		file->at += (uint64_t)bytes;
		letters += entry.letter.size > 0;
		damaged += entry.damaged;
		count += entry.body.size > 0;
	}
	printf("%s: %s, %llu requests, %llu of them dead letters, %llu damaged places%s\n",
	       file->name,
	       file->kind == SL_ENTRIES_SEGMENT ? "of a spool" : sl_signal_names[file->signal],
	       (unsigned long long)count, (unsigned long long)letters, (unsigned long long)damaged,
	       bytes ? ", ends inside an entry" : "");
	return bytes ? SL_EXIT_BROKEN : damaged ? SL_EXIT_REFUSED : 0;
}

// --- files ---------------------------------------------------------------------------------------

static bool ends_with(const char *text, const char *end)
{
	const size_t size = strlen(text), tail = strlen(end);

	return size >= tail && strcmp(text + size - tail, end) == 0;
}

// <signal>-... .binpb or .jsonl, as the file destination names them.
static int look_at_name(const struct sl_replay_options *options, struct file *file)
{
	const char *slash = strrchr(file->name, '/'), *base = slash ? slash + 1 : file->name;
	int found = options->signal;

	for (int i = 0; i < SL_SIGNALS && found < 0; i++) {
		if (strncmp(base, sl_signal_names[i], strlen(sl_signal_names[i])) == 0)
			found = i;
	}
	if (found < 0) {
		fprintf(stderr, "%s: its name does not say the signal: use --signal\n", file->name);
		return -EINVAL;
	}
	file->signal = (enum sl_signal)found;
	file->kind = ends_with(base, ".jsonl") || ends_with(base, ".json") ? SL_ENTRIES_LINES
									   : SL_ENTRIES_DELIMITED;
	return 0;
}

static int map(struct file *file)
{
	const int fd = open(file->name, O_RDONLY | O_CLOEXEC);
	struct stat stat_;
	void *at = NULL;

	if (fd < 0 || fstat(fd, &stat_) < 0 || !S_ISREG(stat_.st_mode)) {
		fprintf(stderr, "%s: %s\n", file->name, fd < 0 ? strerror(errno) : "not a file");
		if (fd >= 0)
			close(fd);
		return -EINVAL;
	}
	if (stat_.st_size)
		at = mmap(NULL, (size_t)stat_.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (at == MAP_FAILED) {
		fprintf(stderr, "%s: %s\n", file->name, strerror(errno));
		return -errno;
	}
	file->bytes = sl_bytes(at, (size_t)stat_.st_size);
	return 0;
}

static int worse(int a, int b)
{
	return SL_MAX(a, b);
}

static int go_through(struct replay *replay)
{
	const struct sl_replay_options *options = replay->options;
	int code = 0;

	for (int i = 0; i < options->file_count && !replay->stopping; i++) {
		struct file file = {.name = options->files[i]};

		if (map(&file) < 0)
			return SL_EXIT_NO_INPUT;
		if (sl_entries_is_segment(file.bytes))
			file.kind = SL_ENTRIES_SEGMENT;
		else if (look_at_name(options, &file) < 0)
			return SL_EXIT_USAGE;
		if (i == 0 && options->from > file.bytes.size) {
			fprintf(stderr, "%s: it has no offset %llu\n", file.name,
				(unsigned long long)options->from);
			return SL_EXIT_USAGE;
		}
		file.at = i == 0 ? options->from : 0;
		replay->file = &file;
		replay->told_ns = replay->now_ns;
		code = worse(code, options->check ? check_file(&file) : send_file(replay));
		if (file.bytes.size)
			munmap((void *)(uintptr_t)file.bytes.data, file.bytes.size);
		if (replay->stopping && i + 1 < options->file_count)
			fprintf(stderr, "%s and what follows it is not begun\n",
				options->files[i + 1]);
	}
	return code;
}

// --- the destination -----------------------------------------------------------------------------

static const char frame[] = "destinations: {replay: {otlp: {endpoint: \"http://127.0.0.1:1\"}}}\n"
			    "routes: [{to: [replay]}]\n";

static void fill_otlp(const struct sl_replay_options *options, struct sl_otlp_config *otlp,
		      struct sl_otlp_tls_config *tls)
{
	*tls = (struct sl_otlp_tls_config){.ca_file = options->ca_file,
					   .verify = !options->insecure};
	otlp->endpoint = options->to;
	otlp->protocol = options->http;
	otlp->tenant_header = options->tenant_header;
	otlp->headers = (struct sl_list){.items = (void *)(uintptr_t)options->headers,
					 .count = options->header_count};
	otlp->tls = tls;
	otlp->timeout_ns = SL_MIN(otlp->timeout_ns, options->retry_ns);
}

// The named one as it is, but on its own: what it cannot take stays in the file.
static bool take_destination(struct replay *replay, const struct sl_module *modules,
			     uint32_t module_count, struct sl_destination_config *to,
			     struct sl_errors *errors)
{
	const struct sl_replay_options *options = replay->options;
	const struct sl_routing_config *config;
	const struct sl_destination_config *found = NULL, *destinations;

	if (sl_settings_load(sl_modules_settings(modules, module_count), options->config,
			     &replay->whole, errors) < 0)
		return false;
	config = sl_modules_config(modules, module_count, SL_MODULE_ROUTING, replay->whole.object);
	destinations = config->destinations.items;
	for (size_t i = 0; i < config->destinations.count; i++) {
		if (strcmp(destinations[i].name, options->destination) == 0)
			found = &destinations[i];
	}
	if (!found || found->failover) {
		sl_errors_add(errors, NULL, "%s: %s \"%s\"", options->config,
			      found ? "name one of the destinations of the group"
				    : "no destination is named",
			      options->destination);
		return false;
	}
	*to = *found;
	to->dead_letter = NULL;
	to->spool = NULL;
	to->pinned_bytes_max = 0;
	return true;
}

static bool make_routing(struct replay *replay, const struct sl_module *modules,
			 uint32_t module_count, struct sl_errors *errors)
{
	static struct sl_otlp_tls_config tls;
	const struct sl_build build = {.errors = errors};
	struct sl_routing_config *config;
	struct sl_destination_config *destination;
	struct sl_route_config *routes;
	struct sl_route_target_config *targets;

	if (sl_settings_load_text(&sl_routing_settings, "replay", frame, sizeof(frame) - 1,
				  &replay->loaded, errors) < 0)
		return false;
	config = replay->loaded.object;
	destination = config->destinations.items;
	routes = config->routes.items;
	targets = routes->to.items;
	if (replay->options->to)
		fill_otlp(replay->options, destination->otlp, &tls);
	else if (!take_destination(replay, modules, module_count, destination, errors))
		return false;
	destination->tenant_share = 1;
	targets->destination = destination->name;
	replay->routing = sl_routing_module.build(config, &build);
	return replay->routing != NULL;
}

static int set_up(struct replay *replay)
{
	const struct sl_io_options io = {.read_bytes = 256 * SL_KIB};
	int failed = sl_memory_init(&replay->memory, MEMORY_BYTES);

	replay->now_ns = sl_clock_now_ns();
	sl_timers_init(&replay->timers, replay->now_ns);
	sl_random_init(&replay->random, replay->now_ns);
	if (!failed)
		failed = sl_waker_init(&replay->waker);
	if (failed)
		return failed;
	replay->metrics = sl_metrics_create();
	replay->io = sl_io_create_kernel(&io, &replay->memory, &replay->timers, &replay->waker);
	replay->codec = sl_codec_create(&replay->memory);
	replay->jobs = calloc(replay->options->parallel, sizeof(*replay->jobs));
	if (!replay->metrics || !replay->io || !replay->codec || !replay->jobs)
		return -ENOMEM;
	replay->shard = sl_routing_shard_create(&(struct sl_routing_env){
		.shards = 1,
		.memory = &replay->memory,
		.timers = &replay->timers,
		.waker = &replay->waker,
		.io = replay->io,
		.codec = replay->codec,
		.metrics = replay->metrics,
		.random = &replay->random,
	});
	return replay->shard ? 0 : -ENOMEM;
}

// As a shard ends. With records under way, which drivers' threads may still read, nothing is
// undone: the process ends at once.
static void tear_down(struct replay *replay, int code)
{
	if (sl_routing_in_flight(replay->shard)) {
		fflush(NULL);
		_exit(code);
	}
	sl_routing_shard_destroy(replay->shard);
	for (unsigned i = 0; i < SHUT_DOWN_MAX && sl_io_stats(replay->io)->connections; i++)
		sl_io_poll(replay->io, SL_MS, &replay->now_ns);
	sl_routing_module.destroy(replay->routing);
	sl_routing_wait_closed();
	sl_codec_destroy(replay->codec);
	sl_io_destroy(replay->io);
	sl_metrics_destroy(replay->metrics);
	sl_waker_fini(&replay->waker);
	sl_memory_fini(&replay->memory);
	sl_loaded_fini(&replay->loaded);
	sl_loaded_fini(&replay->whole);
	for (uint32_t i = 0; i < replay->tenant_count; i++)
		free(replay->tenants[i]);
	free(replay->tenants);
	free(replay->jobs);
}

int sl_replay(const struct sl_replay_options *options, const struct sl_module *modules,
	      uint32_t module_count)
{
	const struct sigaction action = {.sa_handler = on_signal};
	struct replay replay = {.options = options};
	struct sl_errors *errors;
	int code = options->to ? SL_EXIT_USAGE : SL_EXIT_CONFIG;

	if (options->check)
		return go_through(&replay);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	if (set_up(&replay) < 0) {
		fputs("sluice replay: no memory\n", stderr);
		return SL_EXIT_FAILURE;
	}
	errors = sl_errors_create();
	if (make_routing(&replay, modules, module_count, errors))
		code = go_through(&replay);
	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		fprintf(stderr, "%s\n", sl_errors_line(errors, i));
	sl_errors_destroy(errors);
	tear_down(&replay, code);
	return code;
}
