#include "dataplane/base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

static uint8_t secret[XXH3_SECRET_SIZE_MIN] = {1};

void sl_hash_seed(void)
{
	const ssize_t got = getrandom(secret, sizeof(secret), 0);

	assert(got == (ssize_t)sizeof(secret));
}

uint64_t sl_hash(struct sl_bytes bytes)
{
	return XXH3_64bits_withSecret(bytes.data, bytes.size, secret, sizeof(secret));
}

void sl_hash_sha256(struct sl_bytes bytes, uint8_t digest[32])
{
	const int ok = EVP_Digest(bytes.data, bytes.size, digest, NULL, EVP_sha256(), NULL);

	assert(ok == 1);
}

bool sl_hash_equal(const void *a, const void *b, size_t size)
{
	return CRYPTO_memcmp(a, b, size) == 0;
}
