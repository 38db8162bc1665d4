#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The few words every file uses. Nothing here has state.

#define SL_LIKELY(x)                           __builtin_expect(!!(x), 1)
#define SL_UNLIKELY(x)                         __builtin_expect(!!(x), 0)
#define SL_INLINE                              static inline __attribute__((always_inline))
#define SL_COUNT_OF(array)                     (sizeof(array) / sizeof((array)[0]))
#define SL_CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#define SL_MIN(a, b)                           ((a) < (b) ? (a) : (b))
#define SL_MAX(a, b)                           ((a) > (b) ? (a) : (b))

#define SL_KIB (UINT64_C(1) << 10)
#define SL_MIB (UINT64_C(1) << 20)
#define SL_GIB (UINT64_C(1) << 30)
#define SL_US  UINT64_C(1000)
#define SL_MS  UINT64_C(1000000)
#define SL_S   UINT64_C(1000000000)

#define SL_CACHE_LINE 64

// A run of bytes somebody else owns. Not terminated; `data` may be NULL when `size` is 0.
struct sl_bytes {
	const uint8_t *data;
	size_t size;
};

#define SL_BYTES_NONE ((struct sl_bytes){NULL, 0})

// A string literal as bytes.
#define SL_LITERAL(text) ((struct sl_bytes){(const uint8_t *)(text), sizeof(text) - 1})

SL_INLINE struct sl_bytes sl_bytes(const void *data, size_t size)
{
	return (struct sl_bytes){data, size};
}

SL_INLINE struct sl_bytes sl_bytes_of(const char *text)
{
	return (struct sl_bytes){(const uint8_t *)text, text ? strlen(text) : 0};
}

SL_INLINE bool sl_bytes_equal(struct sl_bytes a, struct sl_bytes b)
{
	return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

SL_INLINE bool sl_bytes_start(struct sl_bytes bytes, struct sl_bytes prefix)
{
	return bytes.size >= prefix.size &&
	       (prefix.size == 0 || memcmp(bytes.data, prefix.data, prefix.size) == 0);
}

SL_INLINE void sl_prefetch(const void *address)
{
	__builtin_prefetch(address);
}

// All cache lines of an object.
SL_INLINE void sl_prefetch_all(const void *object, size_t bytes)
{
	const char *at = object, *last = at + bytes - 1;

	for (; at < last; at += 64)
		__builtin_prefetch(at);
	__builtin_prefetch(last);
}

// Add to a counter that one core writes and others read (metrics): a relaxed store, no lock.
SL_INLINE void sl_count(uint64_t *counter, uint64_t more)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + more,
			 __ATOMIC_RELAXED);
}

// The same for a gauge.
SL_INLINE void sl_gauge(uint64_t *gauge, uint64_t value)
{
	__atomic_store_n(gauge, value, __ATOMIC_RELAXED);
}
