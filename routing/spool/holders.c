#include "routing/spool/running.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"

// Held for a look at the list only: a disk that hangs holds up its own spool.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct sl_spool *spools;

// What this process has left in a folder: when it opens it again, these are found a second time,
// and counted already. Under `lock`; one for each path that was ever open.
struct left {
	struct left *next;
	char *path;
	uint64_t items[SL_SIGNALS];
};
static struct left *lefts;

struct sl_spool_limits sl_spool_limits_of(const struct sl_spool_config *config)
{
	return (struct sl_spool_limits){
		.bytes_max = config->bytes_max,
		.segment_bytes = SL_MIN(config->segment_bytes, config->bytes_max / 4),
		.age_max_ns = config->age_max_ns,
		.drop_oldest = config->when_full == SL_SPOOL_DROP_OLDEST,
	};
}

static void close_store(struct sl_spool *spool)
{
	sl_spool_store_close(spool->store);
	spool->store = NULL;
	if (spool->lock_fd >= 0)
		close(spool->lock_fd);
	spool->lock_fd = -1;
}

static void free_spool(struct sl_spool *spool)
{
	close_store(spool);
	sl_sides_end(&spool->sides);
	pthread_mutex_destroy(&spool->settings_lock);
	free(spool->path);
	free(spool);
}

// Under `lock`. NULL: nothing is known of it, or there is no memory to know it.
static struct left *left_in(const char *path, bool make)
{
	struct left *left = lefts;

	while (left && strcmp(left->path, path) != 0)
		left = left->next;
	if (left || !make)
		return left;
	left = calloc(1, sizeof(*left));
	if (left)
		left->path = strdup(path);
	if (!left || !left->path) {
		free(left);
		return NULL;
	}
	left->next = lefts;
	lefts = left;
	return left;
}

static void leave_items(const char *path, const uint64_t items[SL_SIGNALS])
{
	struct left *left = left_in(path, true);

	if (left)
		memcpy(left->items, items, sizeof(left->items));
}

// What was left is told already.
static void find_items(struct sl_spool *spool)
{
	const struct sl_spool_figures *figures = sl_spool_store_figures(spool->store);
	const struct left *left = left_in(spool->path, false);

	for (unsigned i = 0; left && i < SL_SIGNALS; i++)
		spool->told.recovered_items[i] = SL_MIN(left->items[i],
							figures->recovered_items[i]);
}

static struct sl_spool *alloc_spool(const struct sl_spool_config *config)
{
	struct sl_spool *spool = calloc(1, sizeof(*spool));

	if (!spool)
		return NULL;
	pthread_mutex_init(&spool->settings_lock, NULL);
	spool->lock_fd = -1;
	spool->references = 1;
	spool->changing = true;
	spool->now = spool->config = *config;
	spool->failing = true; // one goes first
	spool->backoff_ns = SL_SPOOL_BACKOFF_MIN_NS;
	spool->path = strdup(config->path);
	if (spool->path)
		return spool;
	free_spool(spool);
	return NULL;
}

// The folder is there, and this process' own as long as the spool is.
static int take_folder(struct sl_spool *spool, char why[SL_DISK_WHY])
{
	char lock_path[PATH_MAX];
	char *path = strdup(spool->path); // others compare that one meanwhile
	int failed = path ? sl_disk_make_folders(path) : -ENOMEM;

	free(path);
	if (!failed && access(spool->path, W_OK | X_OK) < 0)
		failed = -errno;
	if (!failed && snprintf(lock_path, sizeof(lock_path), "%s/lock", spool->path) >= PATH_MAX)
		failed = -ENAMETOOLONG;
	if (failed) {
		snprintf(why, SL_DISK_WHY, "%s", strerror(-failed));
		return failed;
	}
	spool->lock_fd = sl_disk_lock(lock_path, why);
	return SL_MIN(spool->lock_fd, 0);
}

int sl_spool_open(struct sl_spool *spool, char why[SL_DISK_WHY])
{
	const struct sl_spool_limits limits = sl_spool_limits_of(&spool->now);
	int failed = spool->lock_fd < 0 ? take_folder(spool, why) : 0;

	if (failed)
		return failed;
	spool->store = sl_spool_store_open(spool->path, &limits, &failed);
	if (!spool->store) {
		snprintf(why, SL_DISK_WHY, "%s", strerror(-failed));
		return failed;
	}
	pthread_mutex_lock(&lock);
	find_items(spool);
	pthread_mutex_unlock(&lock);
	return 0;
}

// Who wrote the settings has to see to it; all else is the disk's, and a matter of that one
// destination: it goes without a spool until it has one.
static bool is_mistake(int failed)
{
	switch (-failed) {
	case EBUSY:
	case EACCES:
	case EPERM:
	case ENOENT:
	case ENOTDIR:
	case ENAMETOOLONG:
	case ELOOP:
		return true;
	default:
		return false;
	}
}

static int start_spool(struct sl_spool *spool, char why[SL_DISK_WHY])
{
	int failed = sl_spool_open(spool, why);

	if (failed && spool->lock_fd < 0 && is_mistake(failed))
		return failed;
	if (failed)
		sl_spool_refuses(spool, 0, why);
	else if (!sl_spool_store_is_empty(spool->store))
		sl_outage_more(&spool->outage, "left there before", 0, sl_clock_now_ns());
	sl_spool_publish(spool);
	failed = sl_sides_init(&spool->sides, &sl_spool_sides);
	if (!failed)
		failed = sl_sides_start(&spool->sides, sl_spool_thread, spool);
	if (failed)
		snprintf(why, SL_DISK_WHY, "%s", strerror(-failed));
	return failed;
}

// Under `lock`; another thread may open or end that one now: it is waited for, others are not.
static struct sl_spool *find_spool(const char *path)
{
	struct sl_spool *spool = spools;

	while (spool) {
		if (strcmp(spool->path, path) != 0) {
			spool = spool->next;
		} else if (spool->changing) {
			pthread_cond_wait(&changed, &lock);
			spool = spools;
		} else {
			return spool;
		}
	}
	return NULL;
}

static void unlist(struct sl_spool *spool)
{
	struct sl_spool **link = &spools;

	while (*link != spool)
		link = &(*link)->next;
	*link = spool->next;
}

struct sl_spool *sl_spool_get(const struct sl_spool_config *config, struct sl_errors *errors)
{
	char why[SL_DISK_WHY] = "no memory";
	struct sl_spool *spool;
	int failed;

	pthread_mutex_lock(&lock);
	spool = find_spool(config->path);
	if (spool) {
		spool->references++;
		pthread_mutex_unlock(&lock);
		return spool;
	}
	spool = alloc_spool(config);
	if (spool) {
		spool->next = spools;
		spools = spool;
	}
	pthread_mutex_unlock(&lock);

	failed = spool ? start_spool(spool, why) : -ENOMEM; // reads all of the folder
	if (failed)
		sl_errors_add(errors, &config->where, "spool: %s: %s", config->path, why);
	if (!spool)
		return NULL;
	if (failed)
		close_store(spool); // before anybody else tries
	pthread_mutex_lock(&lock);
	spool->changing = false;
	if (failed)
		unlist(spool);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	if (!failed)
		return spool;
	free_spool(spool);
	return NULL;
}

void sl_spool_configure(struct sl_spool *spool, const struct sl_spool_config *config)
{
	pthread_mutex_lock(&spool->settings_lock);
	spool->config = *config;
	__atomic_add_fetch(&spool->config_version, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&spool->settings_lock);
	sl_waker_wake(&spool->sides.waker);
}

void sl_spool_put(struct sl_spool *spool)
{
	struct sl_spool_figures figures = {0};
	bool last, opened;

	if (!spool)
		return;
	pthread_mutex_lock(&lock);
	last = spool->changing = --spool->references == 0;
	pthread_mutex_unlock(&lock);
	if (!last)
		return;
	sl_sides_end(&spool->sides); // as long as its disk takes
	if (spool->store)
		figures = *sl_spool_store_figures(spool->store);
	if (spool->store && !sl_spool_store_is_empty(spool->store))
		sl_log(SL_LOG_WARN, "spool_left", "destination=%s folder=\"%s\" bytes=%llu",
		       spool->now.destination, spool->path, (unsigned long long)figures.bytes);
	opened = spool->store != NULL;
	close_store(spool);

	pthread_mutex_lock(&lock);
	if (opened)
		leave_items(spool->path, figures.items);
	unlist(spool);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	free_spool(spool);
}
