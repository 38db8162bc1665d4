#pragma once

#include "dataplane/base/base.h"

// Keyed hashing (XXH3-64 with a secret drawn at start): tables whose keys come from outside
// cannot be made to collide. Threading: any, after sl_hash_seed().

// Draws the process' secret from the kernel; call once before any thread starts.
void sl_hash_seed(void);

uint64_t sl_hash(struct sl_bytes bytes);

// SHA-256, for credentials and files' identity (not hot: a tenant's result is cached a connection).
void sl_hash_sha256(struct sl_bytes bytes, uint8_t digest[32]);

// Compares without telling by its time where the first difference lies.
bool sl_hash_equal(const void *a, const void *b, size_t size);
