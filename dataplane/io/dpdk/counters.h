#pragma once

#include "dataplane/base/metrics.h"

// What a lane and a port count; the rows are in every build, as they are part of the reference.
//
// Threading: a lane's are written by its shard, a port's and the pool's by the shard of the
//            first lane.

//        field      kind     name                          label  help
#define SL_DPDK_COUNTERS(X)                                                                        \
	X(rx, COUNTER, "sluice_dpdk_received_packets", none, "Frames taken from the port.")        \
	X(tx, COUNTER, "sluice_dpdk_sent_packets", none, "Frames given to the port.")              \
	X(tx_full, COUNTER, "sluice_dpdk_unsent_packets", none,                                    \
	  "Frames that the port's queue had no room for; TCP sends them again.")                   \
	X(foreign, COUNTER, "sluice_dpdk_foreign_packets", none,                                   \
	  "Frames of another shard's flow, handed over.")                                          \
	X(unhanded, COUNTER, "sluice_dpdk_unhanded_packets", none,                                 \
	  "Frames of another shard's flow, dropped as its ring was full.")                         \
	X(copied, COUNTER, "sluice_dpdk_copied_packets", none,                                     \
	  "Frames copied out since the pool was low.")                                             \
	X(dropped, COUNTER, "sluice_dpdk_dropped_packets", none,                                   \
	  "Frames dropped: malformed, fragments, not believed, or no memory.")                     \
	X(unbelieved, COUNTER, "sluice_dpdk_unbelieved_packets", none,                             \
	  "Router advertisements and redirects; addresses and gateways are what was set.")         \
	X(withheld, COUNTER, "sluice_dpdk_withheld_packets", none,                                 \
	  "ICMP errors not sent: more than 1,000 a second of a shard.")                            \
	X(half_open_full, COUNTER, "sluice_dpdk_half_open_full_packets", none,                     \
	  "SYNs dropped as their listener has all the half-open connections it may have.")         \
	X(merged, COUNTER, "sluice_dpdk_merged_packets", none,                                     \
	  "Segments that went through TCP along with the one before them.")                        \
	X(joined, COUNTER, "sluice_dpdk_joined_packets", none,                                     \
	  "Segments sent along with the one before them, for the device to cut (TSO).")            \
	X(large, COUNTER, "sluice_dpdk_large_packets", none,                                       \
	  "Frames received in several buffers: the device has joined segments (LRO).")             \
	X(smaller_mtu, COUNTER, "sluice_dpdk_smaller_mtu_connections", none,                       \
	  "Connections that a router told of a smaller MTU; they send smaller packets.")           \
	X(elsewhere, COUNTER, "sluice_dpdk_other_interface_packets", none,                         \
	  "Frames dropped as their address is another interface's than they came in on.")          \
	X(moved, COUNTER, "sluice_dpdk_moved_connections", none,                                   \
	  "Changes of a connection's interface: its peer's segments came in by another one, or "   \
	  "its link went down.")                                                                   \
	X(other_vlan, COUNTER, "sluice_dpdk_other_vlan_packets", none,                             \
	  "Frames dropped as no interface of their port is in their VLAN, or as they have no "     \
	  "tag.")                                                                                  \
	X(broken, COUNTER, "sluice_dpdk_broken_datagrams", none,                                   \
	  "Datagrams for a port of ours dropped: wrong length or checksum, or a fragment.")        \
	X(bad_sum, COUNTER, "sluice_dpdk_bad_checksum_packets", none,                              \
	  "Frames dropped as a checksum of theirs is wrong, by the device or by the stack.")       \
	X(busy, COUNTER, "sluice_dpdk_busy_turns", none,                                           \
	  "Turns of a shard's loop in which the port or a connection on it had something.")        \
	X(idle, COUNTER, "sluice_dpdk_idle_turns", none,                                           \
	  "Turns of a shard's loop in which the port had nothing.")
SL_COUNTERS(dpdk, SL_DPDK_COUNTERS)

// As the device counts them: what its driver does not count stays 0.
//        field      kind     name                          label  help
#define SL_DPDK_PORT_COUNTERS(X)                                                                   \
	X(rx_packets, COUNTER, "sluice_dpdk_port_received_packets", none,                          \
	  "Frames that the device received and passed on.")                                        \
	X(rx_bytes, COUNTER, "sluice_dpdk_port_received_bytes", none, "Bytes of those frames.")    \
	X(tx_packets, COUNTER, "sluice_dpdk_port_sent_packets", none,                              \
	  "Frames that the device sent.")                                                          \
	X(tx_bytes, COUNTER, "sluice_dpdk_port_sent_bytes", none, "Bytes of those frames.")        \
	X(rx_errors, COUNTER, "sluice_dpdk_port_receive_errors", none,                             \
	  "Frames that arrived broken, as the device found.")                                      \
	X(tx_errors, COUNTER, "sluice_dpdk_port_send_errors", none,                                \
	  "Frames that the device could not send.")                                                \
	X(no_buffer, COUNTER, "sluice_dpdk_port_no_buffer_packets", none,                          \
	  "Frames that the device dropped for want of a packet buffer; missed, too.")              \
	X(missed, COUNTER, "sluice_dpdk_missed_packets", none,                                     \
	  "Frames that the device dropped as nobody took them in time, or without a buffer.")      \
	X(link_up, GAUGE, "sluice_dpdk_link_up", none, "1 while the port's link is up.")           \
	X(link_speed, GAUGE, "sluice_dpdk_link_bits_per_second", none,                             \
	  "The link's speed as the device says; 0: down, or it does not say.")
SL_COUNTERS(dpdk_port, SL_DPDK_PORT_COUNTERS)

// Of all ports together.
//        field      kind     name                          label  help
#define SL_DPDK_POOL_COUNTERS(X)                                                                   \
	X(pool_free, GAUGE, "sluice_dpdk_free_buffers", none, "Packet buffers nobody holds.")      \
	X(pool_used, GAUGE, "sluice_dpdk_used_buffers", none,                                      \
	  "Packet buffers in use: in the device's queues, in connections, on their way.")
SL_COUNTERS(dpdk_pool, SL_DPDK_POOL_COUNTERS)
