#include "tests/sim/delivery/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define FIBERS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIBERS 1
#endif
#endif
#ifdef FIBERS
#include <sanitizer/tsan_interface.h>
#endif

#define SECTOR      512
#define FILES_MAX   256
#define NAME_MAX_   64
#define FIRST_FD    1000000 // a file's is this and its index
#define FOLDER_FD   (FIRST_FD + FILES_MAX)
#define THREADS_MAX 16
#define STACK_BYTES (256 * SL_KIB)

struct file {
	char name[NAME_MAX_];
	bool linked, linked_kept;    // has its name now; and after a power cut
	uint8_t *now, *kept, *dirty; // dirty: a byte a sector, to be kept by the next sync
	size_t bytes, kept_bytes, capacity;
	off_t at;
};

struct thread {
	ucontext_t context;
	void *(*start)(void *);
	void *argument, *stack;
	uint64_t due_ns;
	bool ended;
#ifdef FIBERS
	void *fiber;
#endif
};

static struct {
	struct sl_sim_disk_config config;
	struct sl_random random;
	struct file files[FILES_MAX];
	struct thread threads[THREADS_MAX];
	unsigned thread_count;
	struct thread *running;
	ucontext_t world;
	void *world_fiber;
	uint64_t now_ns;
	bool dead;
	unsigned listed;
	struct dirent entry;
} disk;

struct sl_sim_disk_figures sl_sim_disk_figures;

static bool one_in(unsigned n)
{
	return n && sl_random_below(&disk.random, n) == 0;
}

// --- threads -------------------------------------------------------------------------------------

static void swap(ucontext_t *from, ucontext_t *to, void *fiber)
{
#ifdef FIBERS
	__tsan_switch_to_fiber(fiber, 0);
#endif
	(void)fiber;
	if (swapcontext(from, to) < 0)
		abort();
}

static void stop_until(uint64_t due_ns)
{
	struct thread *thread = disk.running;

	thread->due_ns = due_ns;
	swap(&thread->context, &disk.world, disk.world_fiber);
}

static void begin(void)
{
	struct thread *thread = disk.running;

	thread->start(thread->argument);
	thread->ended = true;
	stop_until(UINT64_MAX);
}

static void resume(struct thread *thread)
{
	assert(!disk.running && !thread->ended);
	disk.running = thread;
#ifdef FIBERS
	swap(&disk.world, &thread->context, thread->fiber);
#else
	swap(&disk.world, &thread->context, NULL);
#endif
	disk.running = NULL;
}

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*start)(void *),
			  void *argument)
{
	struct thread *thread = &disk.threads[disk.thread_count];

	(void)attributes;
	assert(disk.thread_count < THREADS_MAX);
	if (!thread->stack)
		thread->stack = malloc(STACK_BYTES);
	thread->start = start;
	thread->argument = argument;
	thread->ended = false;
	thread->due_ns = disk.now_ns;
	getcontext(&thread->context);
	thread->context.uc_stack.ss_sp = thread->stack;
	thread->context.uc_stack.ss_size = STACK_BYTES;
	makecontext(&thread->context, begin, 0);
#ifdef FIBERS
	disk.world_fiber = __tsan_get_current_fiber();
	thread->fiber = __tsan_create_fiber(0);
#endif
	*id = (pthread_t)disk.thread_count++;
	return 0;
}

int __wrap_pthread_join(pthread_t id, void **result)
{
	struct thread *thread = &disk.threads[id];

	(void)result;
	while (!thread->ended)
		resume(thread);
#ifdef FIBERS
	__tsan_destroy_fiber(thread->fiber);
#endif
	while (disk.thread_count && disk.threads[disk.thread_count - 1].ended)
		disk.thread_count--;
	return 0;
}

int __wrap_pthread_setname_np(pthread_t id, const char *name)
{
	(void)id, (void)name;
	return 0;
}

int __real_poll(struct pollfd *fds, nfds_t count, int wait_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int wait_ms)
{
	if (!disk.running)
		return __real_poll(fds, count, wait_ms);
	// Perhaps somebody wakes it before; here it looks each time that the world turns.
	stop_until(disk.now_ns);
	return 0;
}

uint64_t __real_sl_clock_now_ns(void);
uint64_t __wrap_sl_clock_now_ns(void)
{
	return disk.now_ns ? disk.now_ns : __real_sl_clock_now_ns();
}

uint64_t __wrap_sl_clock_wall_ns(void)
{
	return UINT64_C(1700000000) * SL_S + disk.now_ns;
}

void sl_sim_disk_run(uint64_t now_ns)
{
	disk.now_ns = now_ns;
	for (unsigned i = 0; i < disk.thread_count; i++) {
		if (!disk.threads[i].ended && disk.threads[i].due_ns <= now_ns)
			resume(&disk.threads[i]);
	}
}

// --- calls ---------------------------------------------------------------------------------------

// What goes for each call of a spool's thread: it may take long, and be the last.
static bool lives(void)
{
	if (disk.running && !disk.dead && one_in(disk.config.slow))
		stop_until(disk.now_ns + sl_random_below(&disk.random, 300 * SL_MS));
	if (disk.running && disk.config.calls_to_crash && --disk.config.calls_to_crash == 0)
		disk.dead = true;
	if (disk.dead)
		errno = EIO;
	return !disk.dead;
}

static bool fails(void)
{
	if (!disk.running || !one_in(disk.config.failing))
		return false;
	sl_sim_disk_figures.failed++;
	errno = EIO;
	return true;
}

static struct file *file_of(int fd)
{
	return fd >= FIRST_FD && fd < FOLDER_FD ? &disk.files[fd - FIRST_FD] : NULL;
}

static bool is_here(const char *path)
{
	return strncmp(path, SL_SIM_FOLDER "/", sizeof(SL_SIM_FOLDER)) == 0;
}

static struct file *find(const char *path)
{
	for (unsigned i = 0; i < FILES_MAX; i++)
		if (disk.files[i].linked && strcmp(disk.files[i].name, path) == 0)
			return &disk.files[i];
	return NULL;
}

static void reserve(struct file *file, size_t bytes)
{
	const size_t capacity = (bytes + SECTOR) / SECTOR * SECTOR;

	if (capacity <= file->capacity)
		return;
	file->now = realloc(file->now, capacity);
	file->kept = realloc(file->kept, capacity);
	file->dirty = realloc(file->dirty, capacity / SECTOR);
	memset(file->now + file->capacity, 0, capacity - file->capacity);
	memset(file->kept + file->capacity, 0, capacity - file->capacity);
	memset(file->dirty + file->capacity / SECTOR, 0, (capacity - file->capacity) / SECTOR);
	file->capacity = capacity;
}

static uint64_t used_bytes(void)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < FILES_MAX; i++)
		bytes += disk.files[i].linked ? disk.files[i].bytes : 0;
	return bytes;
}

static struct file *make_file(const char *path)
{
	for (unsigned i = 0; i < FILES_MAX; i++) {
		struct file *file = &disk.files[i];

		if (file->linked || file->linked_kept)
			continue;
		free(file->now);
		free(file->kept);
		free(file->dirty);
		*file = (struct file){.linked = true};
		assert(strlen(path) < sizeof(file->name));
		strcpy(file->name, path);
		reserve(file, SECTOR);
		return file;
	}
	abort();
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	struct file *file;
	va_list list;
	int mode;

	va_start(list, flags);
	mode = flags & O_CREAT ? va_arg(list, int) : 0;
	va_end(list);
	if (!is_here(path))
		return __real_open(path, flags, mode);
	if (!lives())
		return -1;
	if (disk.running && one_in(disk.config.open)) {
		errno = EMFILE;
		return -1;
	}
	if (flags & O_DIRECTORY)
		return FOLDER_FD;
	file = find(path);
	errno = ENOENT;
	if (!file && !(flags & O_CREAT))
		return -1;
	errno = EEXIST;
	if (file && flags & O_EXCL)
		return -1;
	if (!file && fails())
		return -1;
	file = file ? file : make_file(path);
	file->at = 0;
	return FIRST_FD + (int)(file - disk.files);
}

int __real_close(int fd);
int __wrap_close(int fd)
{
	return fd >= FIRST_FD && fd <= FOLDER_FD ? 0 : __real_close(fd);
}

ssize_t __wrap_pread(int fd, void *to, size_t size, off_t at)
{
	const struct file *file = file_of(fd);

	if (!lives())
		return -1;
	if ((size_t)at >= file->bytes)
		return 0;
	size = SL_MIN(size, file->bytes - (size_t)at);
	memcpy(to, file->now + at, size);
	return (ssize_t)size;
}

static void put(struct file *file, const void *from, size_t size, size_t at)
{
	reserve(file, at + size);
	memcpy(file->now + at, from, size);
	file->bytes = SL_MAX(file->bytes, at + size);
	for (size_t sector = at / SECTOR; sector * SECTOR < at + size; sector++)
		file->dirty[sector] = 1;
}

// How much of a write happens; the process hears of it, or is dead by then.
static ssize_t part_of(size_t size)
{
	const bool lived = !disk.dead;

	if (lived && !lives()) {
		sl_sim_disk_figures.torn++;
		return (ssize_t)sl_random_below(&disk.random, size + 1);
	}
	if (!lived || fails())
		return -1;
	if (disk.running && disk.config.bytes_max && used_bytes() + size > disk.config.bytes_max) {
		const uint64_t used = used_bytes();

		sl_sim_disk_figures.full++;
		errno = ENOSPC;
		return used < disk.config.bytes_max ? (ssize_t)(disk.config.bytes_max - used) : -1;
	}
	if (disk.running && one_in(disk.config.failing))
		return (ssize_t)(1 + sl_random_below(&disk.random, size));
	return (ssize_t)size;
}

ssize_t __wrap_pwrite(int fd, const void *from, size_t size, off_t at)
{
	const ssize_t part = part_of(size);

	if (part > 0)
		put(file_of(fd), from, (size_t)part, (size_t)at);
	return disk.dead ? -1 : part;
}

ssize_t __real_writev(int fd, const struct iovec *pieces, int count);
ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count)
{
	struct file *file = file_of(fd);
	size_t size = 0;
	ssize_t part;

	if (!file)
		return __real_writev(fd, pieces, count);
	for (int i = 0; i < count; i++)
		size += pieces[i].iov_len;
	part = part_of(size);
	for (ssize_t left = part; left > 0; pieces++) {
		const size_t some = SL_MIN((size_t)left, pieces->iov_len);

		put(file, pieces->iov_base, some, (size_t)file->at);
		file->at += (off_t)some;
		left -= (ssize_t)some;
	}
	return disk.dead ? -1 : part;
}

off_t __wrap_lseek(int fd, off_t at, int from)
{
	assert(from == SEEK_SET);
	if (!lives())
		return -1;
	return file_of(fd)->at = at;
}

int __wrap_ftruncate(int fd, off_t bytes)
{
	struct file *file = file_of(fd);

	if (!lives() || fails())
		return -1;
	if ((size_t)bytes < file->bytes)
		memset(file->now + bytes, 0, file->bytes - (size_t)bytes);
	for (size_t sector = (size_t)bytes / SECTOR; sector * SECTOR < file->bytes; sector++)
		file->dirty[sector] = 1;
	file->bytes = (size_t)bytes;
	return 0;
}

int __wrap_fdatasync(int fd)
{
	struct file *file = file_of(fd);
	bool failed;

	if (!lives())
		return -1;
	failed = fails();
	for (size_t sector = 0; sector * SECTOR < file->capacity; sector++) {
		if (file->dirty[sector] && (!failed || one_in(2)))
			memcpy(file->kept + sector * SECTOR, file->now + sector * SECTOR, SECTOR);
		file->dirty[sector] = 0;
	}
	if (failed)
		return -1;
	file->kept_bytes = file->bytes;
	sl_sim_disk_figures.syncs++;
	return 0;
}

// Of the folder: who has which name.
int __wrap_fsync(int fd)
{
	assert(fd == FOLDER_FD);
	if (!lives() || fails())
		return -1;
	for (unsigned i = 0; i < FILES_MAX; i++)
		disk.files[i].linked_kept = disk.files[i].linked;
	return 0;
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path)
{
	struct file *file;

	if (!is_here(path))
		return __real_unlink(path);
	if (!lives())
		return -1;
	file = find(path);
	if (file)
		file->linked = false;
	return file ? 0 : -1;
}

int __wrap_rename(const char *from, const char *to)
{
	struct file *file = find(from);

	if (!lives())
		return -1;
	if (file && strlen(to) < sizeof(file->name))
		strcpy(file->name, to);
	return 0;
}

DIR *__wrap_opendir(const char *path)
{
	assert(strncmp(path, SL_SIM_FOLDER, sizeof(SL_SIM_FOLDER) - 1) == 0);
	disk.listed = 0;
	return (DIR *)(uintptr_t)path; // only ever given back
}

struct dirent *__wrap_readdir(DIR *folder)
{
	const char *path = (const char *)folder;
	const size_t size = strlen(path);

	while (disk.listed < FILES_MAX) {
		const struct file *file = &disk.files[disk.listed++];

		if (!file->linked || strncmp(file->name, path, size) != 0)
			continue;
		strcpy(disk.entry.d_name, file->name + size + 1);
		return &disk.entry;
	}
	return NULL;
}

int __wrap_closedir(DIR *folder)
{
	(void)folder;
	return 0;
}

int __wrap_sl_disk_lock(const char *path, char *why)
{
	(void)path, (void)why;
	return FOLDER_FD;
}

int __real_fstat(int fd, struct stat *found);
int __wrap_fstat(int fd, struct stat *found)
{
	const struct file *file = file_of(fd);

	if (!file)
		return __real_fstat(fd, found);
	*found = (struct stat){.st_size = (off_t)file->bytes};
	return 0;
}

ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags)
{
	const uint64_t number = sl_random_next(&disk.random);

	(void)flags;
	assert(size == sizeof(number));
	memcpy(to, &number, size);
	return (ssize_t)size;
}

int __wrap_access(const char *path, int how)
{
	(void)path, (void)how;
	return 0;
}

int __wrap_lstat(const char *path, struct stat *there)
{
	(void)there;
	errno = ENOENT;
	return find(path) ? 0 : -1;
}

int __wrap_sl_disk_make_folders(char *path)
{
	(void)path;
	return 0;
}

int __wrap_sl_disk_look(const char *path)
{
	(void)path;
	return 0;
}

// --- crash and restart ---------------------------------------------------------------------------

void sl_sim_disk_crash(void)
{
	disk.dead = true;
}

bool sl_sim_disk_crashed(void)
{
	return disk.dead;
}

// Any sectors of what was not synced, and any end between the one that was and the one that is.
static void cut_power(struct file *file)
{
	const size_t least = SL_MIN(file->bytes, file->kept_bytes);
	const size_t most = SL_MAX(file->bytes, file->kept_bytes);

	if (file->linked != file->linked_kept)
		file->linked = one_in(2);
	for (size_t sector = 0; sector * SECTOR < file->capacity; sector++) {
		uint8_t *now = file->now + sector * SECTOR, *kept = file->kept + sector * SECTOR;

		if (memcmp(now, kept, SECTOR) == 0 || (file->dirty[sector] && one_in(2)))
			continue;
		memcpy(now, kept, SECTOR);
		sl_sim_disk_figures.lost_sectors++;
	}
	if (!one_in(3))
		file->bytes = one_in(2) ? file->kept_bytes
					: least + sl_random_below(&disk.random, most - least + 1);
	memset(file->now + file->bytes, 0, file->capacity - file->bytes);
}

void sl_sim_disk_restart(bool power)
{
	for (unsigned i = 0; i < FILES_MAX; i++) {
		struct file *file = &disk.files[i];

		if (power && (file->linked || file->linked_kept))
			cut_power(file);
		if (!power)
			continue;
		file->linked_kept = file->linked;
		memset(file->dirty ? file->dirty : (uint8_t *)"", 0, file->capacity / SECTOR);
		if (file->kept)
			memcpy(file->kept, file->now, file->capacity);
		file->kept_bytes = file->bytes;
	}
	disk.dead = false;
}

void sl_sim_disk_set(const struct sl_sim_disk_config *config)
{
	disk.config = *config;
}

void sl_sim_disk_init(uint64_t seed, const struct sl_sim_disk_config *config)
{
	sl_random_init(&disk.random, seed);
	disk.config = *config;
	disk.now_ns = 0;
	disk.dead = false;
	assert(!disk.thread_count);
}

void sl_sim_disk_fini(void)
{
	for (unsigned i = 0; i < FILES_MAX; i++) {
		free(disk.files[i].now);
		free(disk.files[i].kept);
		free(disk.files[i].dirty);
	}
	memset(disk.files, 0, sizeof(disk.files));
	for (unsigned i = 0; i < THREADS_MAX; i++) {
		free(disk.threads[i].stack);
		disk.threads[i].stack = NULL;
	}
}
