#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/io/dpdk/config.h"

// What of a configuration is taken, and what is said of one that contradicts itself.
#define WORDS(...) ((const char *const[]){__VA_ARGS__})
#define LIST(...)                                                                                  \
	.addresses = WORDS(__VA_ARGS__),                                                           \
	.address_count = sizeof(WORDS(__VA_ARGS__)) / sizeof(char *)
#define ONE LIST("10.1.0.2/24")

static const struct {
	const char *why;
	struct sl_dpdk_interface only;
	struct sl_dpdk_interface interfaces[9];
	unsigned count;
	const char *says; // NULL: taken
} rows[] = {
	{"one port, as short as can be", {ONE, .mtu = 1500}, {{0}}, 0, NULL},
	{"one port with all it may have",
	 {LIST("10.1.0.2/24", "10.9.0.1/32", "10.1.0.3/32", "fd00::2/64"), .mtu = 1500, .vlan = 7,
	  .device = "a", .gateway4 = "10.1.0.1", .gateway6 = "fd00::1"},
	 {{0}},
	 0,
	 NULL},
	{"no address", {.mtu = 1500}, {{0}}, 0, "addresses must name at least one"},
	{"no address at all",
	 {LIST("ten"), .mtu = 1500},
	 {{0}},
	 0,
	 "dpdk: \"ten\" is not an address"},
	{"a prefix too long",
	 {LIST("10.0.0.2/33"), .mtu = 1500},
	 {{0}},
	 0,
	 "\"10.0.0.2/33\" is not"},
	{"the wrong family's gateway",
	 {ONE, .gateway4 = "fd00::1", .mtu = 1500},
	 {{0}},
	 0,
	 "gateway4"},
	{"the fourth of IPv6",
	 {LIST("fd00::1/64", "fd00::2/64", "fd00::3/64", "fd00::4/64"), .mtu = 1500},
	 {{0}},
	 0,
	 "at most 3 IPv6"},
	{"an address twice",
	 {LIST("10.1.0.2/24", "10.1.0.2/32"), .mtu = 1500},
	 {{0}},
	 0,
	 "there twice"},
	{"two ports and a VIP of both",
	 {.mtu = 1500, LIST("203.0.113.7/32")},
	 {{.device = "a", ONE, .gateway4 = "10.1.0.1"}, {.device = "b", LIST("10.2.0.2/24")}},
	 2,
	 NULL},
	{"a VIP that each names",
	 {.mtu = 1500},
	 {{.device = "a", LIST("10.1.0.2/24", "203.0.113.7/32")},
	  {.device = "b", LIST("10.2.0.2/24", "203.0.113.7/32")}},
	 2,
	 NULL},
	{"VLANs of one port, and frames without a tag",
	 {.mtu = 1500},
	 {{.device = "a", ONE},
	  {.device = "a", .vlan = 5, LIST("10.2.0.2/24")},
	  {.device = "a", .vlan = 6, LIST("10.3.0.2/24")}},
	 3,
	 NULL},
	{"the same VLAN number on two ports",
	 {.mtu = 1500},
	 {{.device = "a", .vlan = 5, ONE}, {.device = "b", .vlan = 5, LIST("10.2.0.2/24")}},
	 2,
	 NULL},
	{"the same device and VLAN",
	 {.mtu = 1500},
	 {{.device = "a", .vlan = 5, ONE}, {.device = "a", .vlan = 5, LIST("10.2.0.2/24")}},
	 2,
	 "dpdk: interface 2 (a, vlan 5): interface 1 is the same device and VLAN"},
	{"the first port twice",
	 {.mtu = 1500},
	 {{ONE}, {LIST("10.2.0.2/24")}},
	 2,
	 "interface 2 (the first port, vlan 0): interface 1 is the same"},
	{"an address twice in one subnet",
	 {.mtu = 1500},
	 {{.device = "a", ONE}, {.device = "b", ONE}},
	 2,
	 "\"10.1.0.2/24\" is in the subnet of interface 1"},
	{"two in one subnet",
	 {.mtu = 1500},
	 {{.device = "a", ONE}, {.device = "b", LIST("10.1.0.3/24")}},
	 2,
	 "\"10.1.0.3/24\" is in the subnet of interface 1"},
	{"a subnet around another",
	 {.mtu = 1500},
	 {{.device = "a", ONE}, {.device = "b", LIST("10.0.0.3/8")}},
	 2,
	 "is in the subnet of interface 1"},
	{"one subnet of IPv6",
	 {.mtu = 1500},
	 {{.device = "a", LIST("fd00:1::2/64")}, {.device = "b", LIST("fd00:1::3/64")}},
	 2,
	 "\"fd00:1::3/64\" is in the subnet of interface 1"},
	{"neighbouring subnets",
	 {.mtu = 1500},
	 {{.device = "a", LIST("10.1.0.2/25", "fd00:1::2/64")},
	  {.device = "b", LIST("10.1.0.130/25", "fd00:2::2/64")}},
	 2,
	 NULL},
	{"a second subnet of an interface",
	 {.mtu = 1500},
	 {{.device = "a", LIST("10.1.0.2/24", "10.2.0.2/24")}},
	 1,
	 "\"10.2.0.2/24\" is a second IPv4 subnet"},
	{"a second subnet of the one port",
	 {.mtu = 1500, LIST("10.1.0.2/24", "10.2.0.2/24")},
	 {{0}},
	 0,
	 "dpdk: \"10.2.0.2/24\" is a second IPv4 subnet"},
	{"a gateway for nobody, of the one port",
	 {.mtu = 1500, ONE, .gateway6 = "fd00::1"},
	 {{0}},
	 0,
	 "dpdk: gateway6 \"fd00::1\" serves nobody"},
	{"a VIP on no interface",
	 {.mtu = 1500, LIST("2001:db8::7/128")},
	 {{.device = "a", ONE}},
	 1,
	 "the VIP \"2001:db8::7/128\" is on no interface: none has an IPv6 address"},
	{"a subnet beside the list",
	 {.mtu = 1500, LIST("10.9.0.1/24")},
	 {{.device = "a", ONE}},
	 1,
	 "\"10.9.0.1/24\" beside interfaces is not a VIP"},
	{"a VIP that is there already",
	 {.mtu = 1500, LIST("203.0.113.7/32")},
	 {{.device = "a", LIST("10.1.0.2/24", "203.0.113.7/32")}},
	 1,
	 "\"203.0.113.7/32\" is there twice"},
	{"a gateway beside the list",
	 {.mtu = 1500, .gateway4 = "10.1.0.1"},
	 {{.device = "a", ONE}},
	 1,
	 "gateway4 is each interface's own"},
	{"a device beside the list",
	 {.mtu = 1500, .device = "a"},
	 {{.device = "a", ONE}},
	 1,
	 "device is each interface's own"},
	{"a gateway for nobody",
	 {.mtu = 1500},
	 {{.device = "a", ONE, .gateway6 = "fd00::1"}},
	 1,
	 "gateway6 \"fd00::1\" serves nobody"},
	{"an MTU below the least", {.mtu = 1500}, {{.device = "a", ONE, .mtu = 1279}}, 1, "mtu"},
	{"an interface without addresses",
	 {.mtu = 1500},
	 {{.device = "a"}},
	 1,
	 "interface 1 (a, vlan 0): addresses must name"},
	{"one too many", {.mtu = 1500}, {{.device = "a", ONE}}, 9, "at most 8 interfaces"},
};

static void test_what_is_taken(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_dpdk_config config = {.only = rows[i].only,
						      .interfaces = rows[i].interfaces,
						      .interface_count = rows[i].count};
		struct sl_dpdk_plan plan;
		char error[512] = "";
		const int failed = sl_dpdk_make_plan(&config, &plan, error, sizeof(error));

		if (!failed != !rows[i].says || !strstr(error, rows[i].says ? rows[i].says : ""))
			fail_msg("%s: %d, \"%s\"", rows[i].why, failed, error);
		if (!failed && *error)
			fail_msg("%s: \"%s\"", rows[i].why, error);
	}
}

// Cut anywhere: no text is written beyond the buffer, and it ends.
static void test_short_buffers(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_dpdk_config config = {.only = rows[i].only,
						      .interfaces = rows[i].interfaces,
						      .interface_count = rows[i].count};

		for (size_t size = 1; rows[i].says && size < 64; size++) {
			char *error = malloc(size); // to the byte
			struct sl_dpdk_plan plan;

			assert_int_not_equal(sl_dpdk_make_plan(&config, &plan, error, size), 0);
			assert_true(strnlen(error, size) < size);
			free(error);
		}
	}
}

// Two ports, and a VLAN of one of them.
static void test_packets(void **state)
{
	const struct sl_dpdk_interface listed[] = {
		{.device = "a", ONE},
		{.device = "a", .vlan = 5, LIST("10.2.0.2/24")},
		{.device = "b", LIST("10.3.0.2/24")},
	};
	static const struct {
		uint32_t packets, shards;
		size_t interfaces;
		const char *says; // NULL: enough
	} counts[] = {
		{0, 1, 0, NULL},
		{0, 256, 3, NULL},
		{300, 1, 0, "at least 4608"},
		{4607, 1, 0, "at least 4608"},
		{4608, 1, 0, NULL},
		{4608, 2, 0, "shards 2; at least 5120"},
		{4608, 1, 2, NULL},
		{9215, 1, 3, "ports 2, shards 1; at least 9216"},
		{9216, 1, 3, NULL},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(counts); i++) {
		const struct sl_dpdk_config config = {
			.only = {.mtu = 1500, LIST("10.9.0.1/32")},
			.interfaces = listed,
			.interface_count = counts[i].interfaces,
			.packets = counts[i].packets,
		};
		char error[512] = "";
		const int failed = sl_dpdk_check(&config, counts[i].shards, error, sizeof(error));

		if (!failed != !counts[i].says ||
		    !strstr(error, counts[i].says ? counts[i].says : ""))
			fail_msg("%u: %d, \"%s\"", counts[i].packets, failed, error);
	}
}

static const struct sl_dpdk_interface three[] = {
	{.device = "a", LIST("10.1.0.2/24", "fd00:1::2/64"), .gateway4 = "10.1.0.1"},
	{.device = "a", .vlan = 5, LIST("10.2.0.2/24"), .mtu = 9000},
	{.device = "b", LIST("fd00:3::2/64"), .gateway6 = "fe80::1"},
};

static void test_the_plan(void **state)
{
	static const uint8_t vip[16] = {[10] = 0xff, 0xff, 203, 0, 113, 7};
	const struct sl_dpdk_config config = {
		.only = {.mtu = 1400, LIST("203.0.113.7/32", "2001:db8::7/128")},
		.interfaces = three,
		.interface_count = 3,
	};
	struct sl_dpdk_plan plan;
	char error[512];

	(void)state;
	assert_int_equal(sl_dpdk_make_plan(&config, &plan, error, sizeof(error)), 0);
	assert_int_equal(plan.stack.interface_count, 3);
	assert_int_equal(plan.stack.interfaces[0].mtu, 1400);
	assert_int_equal(plan.stack.interfaces[1].mtu, 9000);
	assert_string_equal(plan.places[2].device, "b");
	assert_int_equal(plan.places[1].vlan, 5);
	assert_int_equal(plan.stack.interfaces[0].gateway4[3], 1);
	assert_int_equal(plan.stack.interfaces[2].gateway6[0], 0xfe);
	// The VIP of IPv4 is where IPv4 is, and that of IPv6 where IPv6 is.
	assert_true(sl_stack_owns(&plan.stack.interfaces[0], vip));
	assert_true(sl_stack_owns(&plan.stack.interfaces[1], vip));
	assert_false(sl_stack_owns(&plan.stack.interfaces[2], vip));
	assert_int_equal(plan.stack.interfaces[0].address_count, 4);
	assert_int_equal(plan.stack.interfaces[1].address_count, 2);
	assert_int_equal(plan.stack.interfaces[2].address_count, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_taken),
		cmocka_unit_test(test_short_buffers),
		cmocka_unit_test(test_packets),
		cmocka_unit_test(test_the_plan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
