#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// What lwIP asks of a compiler and a machine. A broken invariant ends the program, as everywhere.
// Threading: the shard's thread.
#define LWIP_NO_INTTYPES_H 0
#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(x)                                                                    \
	do {                                                                                       \
		fprintf(stderr, "lwip: %s (%s:%d)\n", x, __FILE__, __LINE__);                      \
		abort();                                                                           \
	} while (0)
#define LWIP_RAND() sl_lwip_random()
#define LWIP_CHKSUM sl_lwip_sum
#define SYS_ARCH_DECL_PROTECT(x)
#define SYS_ARCH_PROTECT(x)
#define SYS_ARCH_UNPROTECT(x)

uint32_t sl_lwip_random(void);
// The sum of 16-bit words as they lie in memory, not inverted.
uint16_t sl_lwip_sum(const void *data, int size);
// Copies, and returns the sum of what it copied, unless the device sums up.
uint16_t sl_lwip_copy(void *to, const void *from, uint16_t size);
