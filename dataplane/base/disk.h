#pragma once

#include <sys/uio.h>

#include "dataplane/base/base.h"

// Folders and whole writes, for what keeps data in files.
//
// Threading: any; all of it may block.

// Writes all pieces, whatever their number; they are used up. Returns 0, or -errno with an unknown
// part written.
int sl_disk_write(int fd, struct iovec *pieces, size_t count);
// What was made, renamed or removed in the folder is so on the disk. Returns 0 or -errno.
int sl_disk_sync_folder(const char *folder);
// The file is these bytes, on the disk, or what it was: they are written beside it as PATH.new,
// synced and renamed, and its folder is synced. Its owner alone may read it. Returns 0 or -errno.
int sl_disk_replace(const char *path, struct sl_bytes bytes);
// The folder and those it lies in, where they are not there. `path` is changed and put back.
int sl_disk_make_folders(char *path);
// What making it and writing into it would meet, without making anything: the innermost folder that
// is there must let us write. Returns 0 or -errno.
int sl_disk_look(const char *path);

// What belongs to one process at a time, by a file that stands for it, made where it is not there:
// locked (flock) until the descriptor is closed or the process is gone, however it went. Returns
// the descriptor, or -errno with the reason in `why`: -EBUSY, a process has it, this one perhaps.
#define SL_DISK_WHY 64
int sl_disk_lock(const char *path, char why[SL_DISK_WHY]);
