#include "tests/unit/tenants/fixture.h"

#define WALL (1700000000 * SL_S)

static void digest_of(const char *secret, char text[80])
{
	uint8_t digest[32];
	char *at = text + sprintf(text, "sha256:");

	sl_hash_sha256(sl_bytes_of(secret), digest);
	for (unsigned i = 0; i < 32; i++)
		at += sprintf(at, "%02x", digest[i]);
}

// gold: gold-token, gold-next (until WALL + 100 s), user:pass; free: free-token; shut is suspended.
struct world {
	char digests[6][80];
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
};

static void make_world(struct world *world, const char *unknown, const char *fallback)
{
	static const char *const secrets[] = {"gold-token", "gold-next",  "user:pass",
					      ">>>???:",    "free-token", "shut-token"};
	struct sl_credential_config credentials[6] = {{.digest = NULL}};
	const char *certificate = "client.gold.example";
	struct sl_tenant_config tenants[] = {
		{.name = "gold",
		 .credentials = {credentials, 4},
		 .certificates = {&certificate, 1}},
		{.name = "free", .credentials = {credentials + 4, 1}},
		{.name = "shut", .credentials = {credentials + 5, 1}, .suspended = true},
		{.name = "demo"},
	};
	struct sl_identify_config identify[] = {
		{.header = "X-Scope-OrgID", .by = SL_IDENTIFY_CLAIM},
		{.by = SL_IDENTIFY_CERTIFICATE},
		{.by = SL_IDENTIFY_CREDENTIAL},
	};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.tenants = {tenants, SL_COUNT_OF(tenants)}},
			    .identify = {identify, SL_COUNT_OF(identify)},
			    .unknown = unknown,
			    .fallback = fallback}};

	for (unsigned i = 0; i < SL_COUNT_OF(secrets); i++) {
		digest_of(secrets[i], world->digests[i]);
		credentials[i].digest = world->digests[i];
	}
	credentials[1].expires = "2023-11-14T22:15:00Z"; // WALL + 100 s
	world->tenants = make_tenants(&config, NULL);
	assert_non_null(world->tenants);
	world->shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_shard_turn(world->shard, world->tenants, SL_S);
}

static void end_world(struct world *world)
{
	sl_tenants_shard_destroy(world->shard);
	sl_tenants_destroy(world->tenants);
}

static struct sl_identity identify(const struct world *world, const char *const headers[4],
				   const char *peer, const char *certificate, uint64_t wall_ns)
{
	struct sl_http_header list[2];
	struct sl_address address;
	struct sl_identity_claim claim = {
		.headers = list, .peer = &address, .certificate_name = certificate};

	assert_int_equal(sl_address_parse(&address, peer), 0);
	for (unsigned i = 0; i < 4 && headers[i]; i += 2)
		list[claim.header_count++] = (struct sl_http_header){sl_bytes_of(headers[i]),
								     sl_bytes_of(headers[i + 1])};
	return sl_tenants_identify(world->shard, &claim, wall_ns);
}

static const struct {
	const char *why;
	const char *headers[4];
	const char *want; // a tenant, or NULL: refused
	enum sl_reason reason;
	const char *peer, *certificate;
	uint64_t later_s;
} claims[] = {
	{.why = "a bearer token",
	 .headers = {"authorization", "Bearer gold-token"},
	 .want = "gold"},
	{.why = "the scheme in any case",
	 .headers = {"authorization", "bEaReR gold-token"},
	 .want = "gold"},
	{.why = "more blanks than one",
	 .headers = {"authorization", "  Bearer \t gold-token "},
	 .want = "gold"},
	{.why = "a scheme that was not URL-decoded",
	 .headers = {"authorization", "ApiKey%20gold-token"},
	 .want = "gold"},
	{.why = "ApiKey", .headers = {"authorization", "ApiKey free-token"}, .want = "free"},
	{.why = "Api-Token", .headers = {"authorization", "Api-Token free-token"}, .want = "free"},
	{.why = "Basic is decoded",
	 .headers = {"authorization", "Basic dXNlcjpwYXNz"},
	 .want = "gold"},
	{.why = "Basic with padding, plus and slash",
	 .headers = {"authorization", "Basic Pj4+Pz8/Og=="},
	 .want = "gold"},
	{.why = "Basic in the alphabet for URLs",
	 .headers = {"authorization", "Basic Pj4-Pz8_Og"},
	 .want = "gold"},
	{.why = "Basic of an impossible length",
	 .headers = {"authorization", "Basic dXNlc"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "Basic that is no base64",
	 .headers = {"authorization", "Basic dXN*"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "a header of its own",
	 .headers = {"x-honeycomb-team", "gold-token"},
	 .want = "gold"},
	{.why = "another", .headers = {"dd-api-key", "free-token"}, .want = "free"},
	{.why = "present and unknown is refused",
	 .headers = {"authorization", "Bearer nope"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "never skipped for a claim",
	 .headers = {"authorization", "Bearer nope", "x-scope-orgid", "gold"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "nor for another credential",
	 .headers = {"authorization", "Bearer gold-token", "x-api-key", "nope"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "in either order",
	 .headers = {"x-api-key", "nope", "authorization", "Bearer gold-token"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "two of different tenants",
	 .headers = {"authorization", "Bearer gold-token", "x-api-key", "free-token"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "two of the same",
	 .headers = {"authorization", "Bearer gold-token", "x-api-key", "gold-next"},
	 .want = "gold"},
	{.why = "a scheme nobody listed",
	 .headers = {"authorization", "Digest gold-token"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "no scheme",
	 .headers = {"authorization", "gold-token"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "a scheme glued to the token",
	 .headers = {"authorization", "Bearergold-token"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "an empty token",
	 .headers = {"authorization", "Bearer "},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "an empty header",
	 .headers = {"x-api-key", ""},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "a prefix of a token",
	 .headers = {"authorization", "Bearer gold-toke"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL},
	{.why = "live until it expires",
	 .headers = {"authorization", "Bearer gold-next"},
	 .want = "gold",
	 .later_s = 99},
	{.why = "and not after, though cached",
	 .headers = {"authorization", "Bearer gold-next"},
	 .reason = SL_REASON_UNKNOWN_CREDENTIAL,
	 .later_s = 101},
	{.why = "a suspended tenant",
	 .headers = {"authorization", "Bearer shut-token"},
	 .want = "shut",
	 .reason = SL_REASON_SUSPENDED},
	{.why = "a claim from loopback", .headers = {"x-scope-orgid", "free"}, .want = "free"},
	{.why = "a claim from elsewhere does not count",
	 .headers = {"x-scope-orgid", "free"},
	 .reason = SL_REASON_NO_CREDENTIAL,
	 .peer = "10.1.2.3:5"},
	{.why = "a credential wins over a claim",
	 .headers = {"x-scope-orgid", "free", "authorization", "Bearer gold-token"},
	 .want = "gold"},
	{.why = "a certificate wins over a claim",
	 .headers = {"x-scope-orgid", "free"},
	 .want = "gold",
	 .certificate = "client.gold.example"},
	{.why = "a certificate of nobody does not name",
	 .headers = {"x-scope-orgid", "free"},
	 .want = "free",
	 .certificate = "other.example"},
	{.why = "a claimed tenant that is not",
	 .headers = {"x-scope-orgid", "none"},
	 .reason = SL_REASON_UNKNOWN_TENANT},
	{.why = "names are case-sensitive",
	 .headers = {"x-scope-orgid", "Free"},
	 .reason = SL_REASON_UNKNOWN_TENANT},
	{.why = "a write names one tenant",
	 .headers = {"x-scope-orgid", "free|gold"},
	 .reason = SL_REASON_UNKNOWN_TENANT},
	{.why = "not a path",
	 .headers = {"x-scope-orgid", ".."},
	 .reason = SL_REASON_UNKNOWN_TENANT},
	{.why = "twice the same claim",
	 .headers = {"x-scope-orgid", "free", "x-scope-orgid", "free"},
	 .want = "free"},
	{.why = "twice, and different",
	 .headers = {"x-scope-orgid", "free", "x-scope-orgid", "gold"},
	 .reason = SL_REASON_UNKNOWN_TENANT},
	{.why = "nothing at all", .headers = {NULL}, .reason = SL_REASON_NO_CREDENTIAL},
};

static void test_identify(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "refuse", NULL);
	for (unsigned i = 0; i < SL_COUNT_OF(claims) * 2; i++) {
		const unsigned r = i % SL_COUNT_OF(claims); // twice: with a cold and a warm cache
		const struct sl_identity identity = identify(
			&world, claims[r].headers,
			claims[r].peer ? claims[r].peer : "127.0.0.1:4000", claims[r].certificate,
			WALL + claims[r].later_s * SL_S);

		print_message("%s\n", claims[r].why);
		assert_int_equal(identity.reason, claims[r].reason);
		assert_int_equal(identity.tenant != SL_TENANT_NONE, claims[r].want != NULL);
		assert_true(sl_bytes_equal(identity.name, sl_bytes_of(claims[r].want)));
	}
	assert_true(world.shard->counters.hits[0] > 5);
	end_world(&world);
}

static void test_defaults(void **state)
{
	static const char *const nothing[4], *const stranger[4] = {"x-scope-orgid", "none"},
						    *const bad[4] = {"x-api-key", "none"};
	struct world world;

	(void)state;
	make_world(&world, "refuse", "demo");
	assert_true(sl_bytes_equal(identify(&world, nothing, "10.0.0.1:1", NULL, WALL).name,
				   SL_LITERAL("demo")));
	assert_int_equal(identify(&world, stranger, "127.0.0.1:1", NULL, WALL).reason,
			 SL_REASON_UNKNOWN_TENANT);
	assert_int_equal(identify(&world, bad, "127.0.0.1:1", NULL, WALL).reason,
			 SL_REASON_UNKNOWN_CREDENTIAL);
	end_world(&world);
	make_world(&world, "free", NULL);
	assert_true(sl_bytes_equal(identify(&world, nothing, "10.0.0.1:1", NULL, WALL).name,
				   SL_LITERAL("free")));
	assert_true(sl_bytes_equal(identify(&world, stranger, "127.0.0.1:1", NULL, WALL).name,
				   SL_LITERAL("free")));
	assert_int_equal(identify(&world, bad, "127.0.0.1:1", NULL, WALL).reason,
			 SL_REASON_UNKNOWN_CREDENTIAL);
	end_world(&world);
}

// A configuration without tenants: one tenant, and no credential means anything.
static void test_nobody(void **state)
{
	static const char *const bad[4] = {"authorization", "Bearer x"};
	const struct sl_tenants_module_config config = {.tenants = {.unknown = "refuse"}};
	struct world world = {.tenants = make_tenants(&config, NULL)};

	(void)state;
	world.shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_shard_turn(world.shard, world.tenants, SL_S);
	assert_true(sl_bytes_equal(identify(&world, bad, "10.0.0.1:1", NULL, WALL).name,
				   SL_LITERAL("default")));
	end_world(&world);
}

// What `identify` says, or leaves to the presets; who may claim.
static void test_rules(void **state)
{
	static const char *const token[4] = {"authorization", "Bearer t"};
	static const char *const name[4] = {"x-tenant", "a"};
	char digest[80];
	const char *mtls = "mtls", *net = "10.0.0.0/8";
	struct sl_credential_config credential = {.digest = digest};
	struct sl_tenant_config tenant = {.name = "a", .credentials = {&credential, 1}};
	struct sl_identify_config claim = {.header = "X-Tenant", .by = SL_IDENTIFY_CLAIM};
	const struct {
		const char *why;
		struct sl_list identify, trusted_from;
		const char *const *headers;
		const char *peer, *certificate;
		bool want;
	} rows[] = {
		{"unset: credentials", {NULL, 0}, {NULL, 0}, token, "10.0.0.1:1", NULL, true},
		{"a claim alone: no credentials",
		 {&claim, 1},
		 {NULL, 0},
		 token,
		 "127.0.0.1:1",
		 NULL,
		 false},
		{"a claim from here", {&claim, 1}, {NULL, 0}, name, "127.0.0.1:1", NULL, true},
		{"or from here by IPv6", {&claim, 1}, {NULL, 0}, name, "[::1]:1", NULL, true},
		{"but not from elsewhere", {&claim, 1}, {NULL, 0}, name, "10.0.0.1:1", NULL, false},
		{"not even with a certificate",
		 {&claim, 1},
		 {NULL, 0},
		 name,
		 "10.0.0.1:1",
		 "x",
		 false},
		{"with one where that is trusted",
		 {&claim, 1},
		 {&mtls, 1},
		 name,
		 "10.0.0.1:1",
		 "x",
		 true},
		{"and not without", {&claim, 1}, {&mtls, 1}, name, "10.0.0.1:1", NULL, false},
		{"not from here then", {&claim, 1}, {&mtls, 1}, name, "127.0.0.1:1", NULL, false},
		{"from a block", {&claim, 1}, {&net, 1}, name, "10.9.9.9:1", NULL, true},
		{"and its neighbour", {&claim, 1}, {&net, 1}, name, "11.0.0.1:1", NULL, false},
	};

	(void)state;
	digest_of("t", digest);
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_tenants_module_config config = {
			.tenants = {.inline_ = {.tenants = {&tenant, 1}},
				    .identify = rows[i].identify,
				    .unknown = "refuse"}};
		struct world world;

		claim.trusted_from = rows[i].trusted_from;
		world.tenants = make_tenants(&config, NULL);
		world.shard = sl_tenants_shard_create(0, 1, NULL);
		sl_tenants_shard_turn(world.shard, world.tenants, SL_S);
		if ((identify(&world, rows[i].headers, rows[i].peer, rows[i].certificate, WALL)
			     .reason == SL_REASON_NONE) != rows[i].want)
			fail_msg("%s", rows[i].why);
		end_world(&world);
	}
}

static void test_numbers_stay(void **state)
{
	struct sl_tenant_config first[] = {{.name = "a"}, {.name = "b"}};
	struct sl_tenant_config second[] = {{.name = "c"}, {.name = "b"}};
	struct sl_tenants_module_config config = {.tenants = {.inline_ = {.tenants = {first, 2}}}};
	struct sl_tenants *before = make_tenants(&config, NULL), *after;
	struct sl_tenant_info info;
	sl_tenant_id tenant;

	(void)state;
	config.tenants.inline_.tenants.items = second;
	after = make_tenants(&config, before);
	sl_tenants_destroy(before);
	assert_true(sl_tenants_find(after, SL_LITERAL("b"), &tenant));
	assert_int_equal(tenant, 1);
	assert_true(sl_tenants_find(after, SL_LITERAL("c"), &tenant));
	assert_int_equal(tenant, 2);
	assert_false(sl_tenants_find(after, SL_LITERAL("a"), &tenant));
	assert_false(sl_tenants_info(after, 0, &info));
	assert_int_equal(sl_tenants_count(after), 2);
	sl_tenants_destroy(after);
}

// An override replaces only the keys it names.
static void test_override(void **state)
{
	const struct sl_class_config class = {.quota = {.bytes = 1000,
							.spans = 100,
							.burst_ns = 2 * SL_S,
							.in_flight_bytes = 5000}};
	struct sl_quota_config quota = {.spans = 7, .burst_ns = SL_S, .has = {.spans = true}};
	const struct sl_tenant_config own = {.quota = &quota};
	const struct sl_limits limits = sl_tenants_limits(&class, &own, true);

	(void)state;
	assert_int_equal(limits.dimensions[SL_DIMENSION_SPANS].burst, 14);
	assert_int_equal(limits.dimensions[SL_DIMENSION_BYTES].burst, 2000);
	assert_int_equal(limits.dimensions[SL_DIMENSION_IN_FLIGHT_BYTES].burst, 5000);
	assert_false(sl_limit_is_set(&limits.dimensions[SL_DIMENSION_POINTS]));
	assert_true(limits.observe);
}

static void test_errors(void **state)
{
	char digest[80];
	struct sl_credential_config good = {.digest = digest}, bad = {.digest = "sha256:12"};
	struct sl_credential_config dated = {.digest = digest, .expires = "tomorrow"};
	const char *keys[SL_IDENTITY_ATTRIBUTES_MAX + 1] = {"1", "2", "3", "4", "5",
							    "6", "7", "8", "9"};
	struct sl_identify_config resource = {.resource = {keys, SL_COUNT_OF(keys)}};
	char header[65] = {0};
	struct sl_identify_config spaced = {.header = "x y", .by = SL_IDENTIFY_CLAIM};
	struct sl_identify_config nothing = {.by = SL_IDENTIFY_CLAIM};
	struct sl_identify_config lengthy = {.header = header, .by = SL_IDENTIFY_CLAIM};
	struct sl_tenant_config a = {.name = "a", .credentials = {&good, 1}};
	struct sl_tenant_config b = {.name = "b", .credentials = {&good, 1}};
	struct sl_tenant_config dots = {.name = ".."}, classy = {.name = "c", .class_name = "none"};
	struct sl_tenant_config broken = {.name = "d", .credentials = {&bad, 1}};
	struct sl_tenant_config late = {.name = "e", .credentials = {&dated, 1}};
	const struct {
		const char *why;
		struct sl_tenant_config tenants[2];
		const char *unknown;
		struct sl_list identify;
	} rows[] = {
		{"one credential of two tenants", {a, b}, NULL, {NULL, 0}},
		{"one name twice", {a, a}, NULL, {NULL, 0}},
		{"a name that is none", {a, dots}, NULL, {NULL, 0}},
		{"a class that is not", {a, classy}, NULL, {NULL, 0}},
		{"a digest that is none", {a, broken}, NULL, {NULL, 0}},
		{"a time that is none", {{.name = "x"}, late}, NULL, {NULL, 0}},
		{"unknown: somebody else", {{.name = "x"}, {.name = "y"}}, "z", {NULL, 0}},
		{"a header that is none", {{.name = "x"}, {.name = "y"}}, NULL, {&spaced, 1}},
		{"a header too long", {{.name = "x"}, {.name = "y"}}, NULL, {&lengthy, 1}},
		{"a claim of nothing", {{.name = "x"}, {.name = "y"}}, NULL, {&nothing, 1}},
		{"more resource attributes than there may be",
		 {{.name = "x"}, {.name = "y"}},
		 NULL,
		 {&resource, 1}},
	};

	(void)state;
	digest_of("secret", digest);
	memset(header, 'h', 64); // one more than there may be
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_tenants_module_config config = {
			.tenants = {.inline_ = {.tenants = {(void *)rows[i].tenants, 2}},
				    .identify = rows[i].identify,
				    .unknown = rows[i].unknown}};

		print_message("%s\n", rows[i].why);
		assert_null(make_tenants(&config, NULL));
	}
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		int64_t want_s; // -1: not a time
	} rows[] = {
		{"1970-01-01T00:00:01Z", 1},
		{"2027-01-31T00:00:00Z", 1801353600},
		{"2027-01-31t01:30:00.25+01:30", 1801353600},
		{"2027-01-30T23:00:00-01:00", 1801353600},
		{"2024-02-29T00:00:00Z", 1709164800},
		{"2023-02-29T00:00:00Z", -1},
		{"2027-04-31T00:00:00Z", -1},
		{"2027-13-01T00:00:00Z", -1},
		{"2027-01-31", -1},
		{"2027-01-31T00:00:00", -1},
		{"2027-01-31T24:00:00Z", -1},
		{"2027-01-31T00:00:00Zz", -1},
		{"2027-01-31T00:00:00.Z", -1},
		{"", -1},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t wall_ns = 0;
		const int error = sl_tenants_parse_time(rows[i].text, &wall_ns);

		print_message("%s\n", rows[i].text);
		assert_int_equal(error != 0, rows[i].want_s < 0);
		if (!error)
			assert_int_equal(wall_ns, (uint64_t)rows[i].want_s * SL_S);
	}
}

// Of many tenants that all send, hardly any costs a SHA-256 the second time; and what is kept is
// whose it was, and forgotten with its snapshot.
static void test_many_credentials(void **state)
{
	enum { MANY = 20000 };
	struct sl_tenant_config *tenants = calloc(MANY, sizeof(*tenants));
	struct sl_credential_config *credentials = calloc(MANY, sizeof(*credentials));
	char(*digests)[80] = calloc(MANY, sizeof(*digests)), (*names)[16] = calloc(MANY, 16);
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.tenants = {tenants, MANY}}}};
	struct sl_http_header header = {.name = SL_LITERAL("authorization")};
	const struct sl_identity_claim claim = {.headers = &header, .header_count = 1};
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct sl_tenants *made[2];
	char bearer[32];

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "t%u", i);
		digest_of(names[i], digests[i]);
		credentials[i].digest = digests[i];
		tenants[i] = (struct sl_tenant_config){.name = names[i],
						       .credentials = {&credentials[i], 1}};
	}
	made[0] = make_tenants(&config, NULL);
	made[1] = make_tenants(&config, made[0]);
	for (unsigned pass = 0; pass < 3; pass++) {
		const uint64_t before = shard->cache->hits;

		sl_tenants_shard_turn(shard, made[pass / 2], SL_S);
		for (unsigned i = 0; i < MANY; i++) {
			struct sl_identity identity;

			snprintf(bearer, sizeof(bearer), "Bearer t%u", i);
			header.value = sl_bytes_of(bearer);
			identity = sl_tenants_identify(shard, &claim, WALL);
			assert_true(sl_bytes_equal(identity.name, sl_bytes_of(names[i])));
		}
		if (pass == 1)
			assert_true(shard->cache->hits - before > MANY * 98 / 100);
		else
			assert_true(shard->cache->hits == before);
	}
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(made[0]);
	sl_tenants_destroy(made[1]);
	free(tenants);
	free(credentials);
	free(digests);
	free(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identify),         cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_nobody),           cmocka_unit_test(test_rules),
		cmocka_unit_test(test_numbers_stay),     cmocka_unit_test(test_override),
		cmocka_unit_test(test_errors),           cmocka_unit_test(test_times),
		cmocka_unit_test(test_many_credentials),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
