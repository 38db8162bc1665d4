#pragma once

// lwIP as one shard has it: one thread, the raw API, no memory beyond its own pools.

#define NO_SYS                    1
#define LWIP_TIMERS               0 // the shard's own clock calls them (stack.c: tick)
#define SYS_LIGHTWEIGHT_PROT      0
#define LWIP_NETCONN              0
#define LWIP_SOCKET               0
#define LWIP_COMPAT_SOCKETS       0
#define LWIP_STATS                0
#define LWIP_DHCP                 0
#define LWIP_DNS                  0
#define LWIP_IGMP                 0
#define LWIP_RAW                  0
#define LWIP_AUTOIP               0
#define LWIP_NETIF_API            0
#define LWIP_NETIF_HOSTNAME       0
#define LWIP_NETIF_LOOPBACK       0
#define LWIP_HAVE_LOOPIF          0
#define LWIP_SINGLE_NETIF         0
#define LWIP_NETIF_TX_SINGLE_PBUF 0
#define LWIP_SUPPORT_CUSTOM_PBUF  1

// Pools by size instead of a heap: O(1), and no fragmentation (lwippools.def). The fuzz target has
// each object from malloc, so that AddressSanitizer sees where one ends.
#ifdef SL_LWIP_MALLOC
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#else
#define MEM_LIBC_MALLOC               0
#define MEM_USE_POOLS                 1
#define MEMP_USE_CUSTOM_POOLS         1
#define MEM_USE_POOLS_TRY_BIGGER_POOL 1
#endif
#define MEM_ALIGNMENT           8
#define MEMP_NUM_TCP_PCB        20000
#define MEMP_NUM_TCP_PCB_LISTEN 64
#define MEMP_NUM_TCP_SEG        65000
#define MEMP_NUM_PBUF           8192
#define MEMP_NUM_UDP_PCB        16
#define PBUF_POOL_SIZE          2048 // copies of packets when mbufs run low
#define PBUF_POOL_BUFSIZE       2048
#define MEMP_NUM_ARP_QUEUE      256
#define MEMP_NUM_MLD6_GROUP     32 // one an IPv6 address: 4 of each of 8 interfaces

#define LWIP_ARP                      1
#define ARP_TABLE_SIZE                127
#define ARP_QUEUEING                  1
#define ETHARP_TRUST_IP_MAC           0
#define ETHARP_SUPPORT_STATIC_ENTRIES 1
#define LWIP_ICMP                     1
#define LWIP_BROADCAST_PING           0
#define LWIP_MULTICAST_PING           0
#define IP_REASSEMBLY                 0 // fragments are dropped: TCP does not need them
#define IP_FRAG                       0
#define IP_FORWARD                    0

#define LWIP_IPV4                     1
#define LWIP_IPV6                     1
#define LWIP_IPV6_MLD                 1
#define LWIP_IPV6_FORWARD             0
#define LWIP_IPV6_FRAG                0
#define LWIP_IPV6_REASS               0
#define LWIP_IPV6_AUTOCONFIG          0
#define LWIP_IPV6_NUM_ADDRESSES       4
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0 // ours are set: a neighbour's word does not end them
#define LWIP_ND6_NUM_NEIGHBORS        127
#define LWIP_ND6_NUM_DESTINATIONS     127

#define LWIP_UDP                       1
#define LWIP_TCP                       1
#define LWIP_WND_SCALE                 1
#define TCP_RCV_SCALE                  8
#define TCP_MSS                        8960 // the interface's MTU makes it smaller
#define TCP_WND                        (1024 * 1024)
#define TCP_SND_BUF                    (256 * 1024)
#define TCP_SND_QUEUELEN               1024
#define TCP_SNDLOWAT                   (64 * 1024)
#define TCP_SNDQUEUELOWAT              64
#define TCP_OVERSIZE                   1024 // answers are small: an oversized segment would be waste
#define TCP_QUEUE_OOSEQ                1
#define TCP_OOSEQ_MAX_BYTES            (256 * 1024)
#define TCP_OOSEQ_MAX_PBUFS            255
#define LWIP_TCP_SACK_OUT              1
#define LWIP_TCP_KEEPALIVE             1
#define TCP_LISTEN_BACKLOG             1
#define TCP_DEFAULT_LISTEN_BACKLOG     255
#define TCP_TMR_INTERVAL               100
#define TCP_MSL                        5000ul
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1

#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHECKSUM_ON_COPY        1
#define LWIP_CHKSUM_COPY             sl_lwip_copy

// RFC 6528: an initial sequence number that an outsider cannot guess.
#define LWIP_HOOK_FILENAME                           "dataplane/io/dpdk/lwip/hooks.h"
#define LWIP_HOOK_TCP_ISN                            sl_lwip_isn
#define LWIP_HOOK_IP4_ROUTE_SRC(from, to)            sl_lwip_route4(from, to)
#define LWIP_HOOK_IP6_ROUTE(from, to)                sl_lwip_route6(from, to)
#define LWIP_HOOK_ND6_GET_GW(netif, to)              (to) // links.c has chosen the next hop
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, header, ...) sl_lwip_admit_segment(pcb, header)
