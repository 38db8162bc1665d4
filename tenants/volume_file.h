#pragma once

#include "tenants/tenants.h"

// The volumes of an instance by itself, in a file, so that a restart does not give them anew: a
// line a tenant, and a last line that tells that it is whole.
//
//   sluice-volumes 1
//   acme day 20779 10240 32 0 0 4            name, period, and what is used, in the order of
//   end 1                                    enum sl_dimension
//
// Threading: the control thread.

// Takes what it says for the periods it names; those that are over begin anew by themselves. Before
// the quota thread begins. Returns how many lines were taken, or -errno: -ENOENT, there is none;
// -EBADMSG, it is not whole, or not ours (what can be read of it is taken).
int sl_volume_file_read(const char *path, const struct sl_tenants *tenants);
// A number that changes when the file would.
uint64_t sl_volume_file_stamp(const struct sl_tenants *tenants);
// Replaces it as a whole, and has it on the disk when it returns. Returns 0 or -errno.
int sl_volume_file_write(const char *path, const struct sl_tenants *tenants);
