#pragma once

#include "dataplane/base/memory.h"
#include "dataplane/base/metrics.h"
#include "dataplane/io/backend.h"

// The DPDK ports of a process: EAL, ports, and for each shard a queue pair on each of them with a
// TCP/IP stack of its own, as a backend of the shard's io.
//
// Threading: open, finish and close belong to main; a backend belongs to its shard.
// Memory:    the ports outlive the backends made from them.
// Errors:    a text for the operator that says what to do.
struct sl_dpdk;

// A port, or one VLAN of it.
struct sl_dpdk_interface {
	const char *device;           // name of the port; NULL: the first
	const char *const *addresses; // "10.0.0.2/24", "fd00::2/64"
	size_t address_count;
	const char *gateway4, *gateway6; // NULL: none
	uint32_t mtu;                    // 0: the port's, `only.mtu`
	uint16_t vlan;                   // 0: frames without a tag
};

struct sl_dpdk_config {
	const char *const *eal; // arguments, without the program's name
	size_t eal_count;
	// Without a list the one interface. With one its addresses are every interface's (VIPs),
	// its MTU is that of interfaces that name none, and it has nothing else.
	struct sl_dpdk_interface only;
	const struct sl_dpdk_interface *interfaces;
	size_t interface_count;
	uint32_t packets; // mbufs; 0: by the number of shards and ports
	uint64_t idle_ns;
	bool offloads;     // checksums are the device's, where it offers them
	bool segmentation; // and so are cutting and joining segments of TCP
};

// Whether this build has DPDK at all.
bool sl_dpdk_is_built_in(void);

// Checks what can be checked without a port. Returns 0 or -EINVAL with a text.
int sl_dpdk_check(const struct sl_dpdk_config *config, uint32_t shards, char *error,
		  size_t error_size);

// What the packet buffers and the shards' stacks take in all, roughly and rather too much.
uint64_t sl_dpdk_memory_bytes(const struct sl_dpdk_config *config, uint32_t shards);

// Starts the EAL (once a process) and the ports. Returns NULL with a text.
struct sl_dpdk *sl_dpdk_open(const struct sl_dpdk_config *config, uint32_t shards,
			     struct sl_metrics *metrics, char *error, size_t error_size);
// Sees through what closed connections have yet to deliver, for at most two seconds. Once all
// shards' threads have ended, before the close. NULL: nothing to do.
void sl_dpdk_finish(struct sl_dpdk *dpdk);
// After the last shard was destroyed.
void sl_dpdk_close(struct sl_dpdk *dpdk);

// Whether a listener on this address belongs on the ports: any address, or one of theirs.
bool sl_dpdk_serves(const struct sl_dpdk *dpdk, const struct sl_address *address);

// The backend of a shard. The io that it is attached to gives it up at its end; it goes at close.
struct sl_io_backend *sl_dpdk_backend(struct sl_dpdk *dpdk, uint32_t shard);
