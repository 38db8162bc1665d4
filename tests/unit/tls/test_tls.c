#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/tls/internal.h"

// Certificates are made here: an authority, two servers, a client, and a client of nobody.
enum { CA, SERVER, OTHER, CLIENT, STRANGER, CERTIFICATES };
static char folder[] = "/tmp/sl_tls_XXXXXX";
static char certificate_files[CERTIFICATES][64], key_files[CERTIFICATES][64], ticket_file[64];
static struct sl_memory memory;

static void issue(int which, const char *name, const char *alternative, X509 **issuer,
		  EVP_PKEY **issuer_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509V3_CTX context;
	X509_EXTENSION *extension;
	FILE *file;

	X509_set_version(certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), which + 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600 * (which + 1));
	X509_set_pubkey(certificate, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
				   (const uint8_t *)name, -1, -1, 0);
	X509_set_issuer_name(certificate, X509_get_subject_name(*issuer ? *issuer : certificate));
	X509V3_set_ctx(&context, *issuer ? *issuer : certificate, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, NID_basic_constraints,
					*issuer ? "CA:FALSE" : "critical,CA:TRUE");
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
	if (alternative) {
		extension = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, alternative);
		X509_add_ext(certificate, extension, -1);
		X509_EXTENSION_free(extension);
	}
	assert_true(X509_sign(certificate, *issuer ? *issuer_key : key, EVP_sha256()) > 0);
	snprintf(certificate_files[which], 64, "%s/%d.pem", folder, which);
	snprintf(key_files[which], 64, "%s/%d.key", folder, which);
	file = fopen(certificate_files[which], "w");
	PEM_write_X509(file, certificate);
	fclose(file);
	file = fopen(key_files[which], "w");
	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	if (*issuer) {
		X509_free(certificate);
		EVP_PKEY_free(key);
	} else {
		*issuer = certificate;
		*issuer_key = key;
	}
}

static int set_up(void **state)
{
	X509 *ca = NULL, *nobody = NULL;
	EVP_PKEY *ca_key = NULL, *nobody_key = NULL;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	issue(CA, "authority", NULL, &ca, &ca_key);
	issue(SERVER, "server", "DNS:gateway.example,DNS:*.wild.example,IP:127.0.0.1", &ca,
	      &ca_key);
	issue(OTHER, "other", "DNS:other.example", &ca, &ca_key);
	issue(CLIENT, "client-cn", "email:x@y.example,URI:spiffe://example/agent,DNS:c.example",
	      &ca, &ca_key);
	issue(STRANGER, "stranger", NULL, &nobody, &nobody_key);
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	X509_free(nobody);
	EVP_PKEY_free(nobody_key);
	snprintf(ticket_file, sizeof(ticket_file), "%s/tickets", folder);
	file = fopen(ticket_file, "w");
	for (int i = 0; i < 48; i++)
		fputc(i, file);
	fclose(file);
	return sl_memory_init(&memory, SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	for (int i = 0; i < CERTIFICATES; i++) {
		unlink(certificate_files[i]);
		unlink(key_files[i]);
	}
	unlink(ticket_file);
	rmdir(folder);
	assert_int_equal(memory.used_bytes, 0);
	sl_memory_fini(&memory);
	return 0;
}

static struct sl_tls_certificate files_of(int which)
{
	return (struct sl_tls_certificate){certificate_files[which], key_files[which]};
}

struct side {
	struct sl_tls *tls;
	enum sl_tls_result result;
	char plain[1 << 17];
	size_t size;
};

static void take_plain(void *user, struct sl_bytes bytes)
{
	struct side *side = user;

	assert_true(side->size + bytes.size <= sizeof(side->plain));
	memcpy(side->plain + side->size, bytes.data, bytes.size);
	side->size += bytes.size;
}

// Carries what one side has to say to the other, in runs of `cut` bytes. Returns the bytes.
static size_t carry(struct side *from, struct side *to, size_t cut)
{
	const struct sl_bytes cipher = sl_tls_pull(from->tls);

	for (size_t at = 0; at < cipher.size; at += cut)
		to->result = sl_tls_feed(to->tls,
					 sl_bytes(cipher.data + at, SL_MIN(cut, cipher.size - at)),
					 take_plain, to);
	sl_tls_pulled(from->tls);
	return cipher.size;
}

static void settle(struct side *client, struct side *server, size_t cut)
{
	while (carry(client, server, cut) + carry(server, client, cut))
		;
}

static struct side client, server;

static void open_sides(const struct sl_tls_config *client_config,
		       const struct sl_tls_config *server_config, size_t cut)
{
	char error[256] = "";
	struct sl_tls_context *c = sl_tls_context_create(client_config, error, sizeof(error));
	struct sl_tls_context *s = sl_tls_context_create(server_config, error, sizeof(error));

	assert_string_equal(error, "");
	memset(&client, 0, sizeof(client));
	memset(&server, 0, sizeof(server));
	client.tls = sl_tls_create(c, &memory);
	server.tls = sl_tls_create(s, &memory);
	sl_tls_context_put(c); // sessions hold their own references
	sl_tls_context_put(s);
	client.result = sl_tls_feed(client.tls, SL_BYTES_NONE, take_plain, &client);
	assert_int_equal(client.result, SL_TLS_OK);
	settle(&client, &server, cut);
}

static void close_sides(void)
{
	sl_tls_destroy(client.tls);
	sl_tls_destroy(server.tls);
	assert_int_equal(memory.used_bytes, 0); // released buffers: nothing is left behind
}

static struct sl_tls_config client_config(const char *name)
{
	return (struct sl_tls_config){
		.ca_file = certificate_files[CA], .server_name = name, .alpn = "h2"};
}

static void test_every_cut(void **state)
{
	const struct sl_tls_certificate files = files_of(SERVER);
	const struct sl_tls_config to = client_config("gateway.example");
	const char *const versions[] = {"1.2", "1.3"};

	(void)state;
	for (size_t cut = 1; cut < 4096; cut = cut < 12 ? cut + 1 : cut * 3) {
		const struct sl_tls_config from = {.server = true,
						   .certificates = &files,
						   .certificate_count = 1,
						   .min_version = versions[cut % 2]};
		const struct iovec pieces[] = {{"hel", 3}, {"lo", 2}, {"", 0}};

		open_sides(&to, &from, cut);
		assert_true(sl_tls_is_up(client.tls) && sl_tls_is_up(server.tls));
		assert_true(sl_bytes_equal(sl_tls_alpn(server.tls), SL_LITERAL("h2")));
		assert_true(sl_bytes_equal(sl_tls_alpn(client.tls), SL_LITERAL("h2")));
		assert_null(sl_tls_peer_name(server.tls));
		assert_int_equal(sl_tls_write(client.tls, pieces, 3), SL_TLS_OK);
		settle(&client, &server, cut);
		assert_int_equal(server.size, 5);
		assert_memory_equal(server.plain, "hello", 5);
		sl_tls_shutdown(client.tls);
		sl_tls_shutdown(client.tls); // twice is once
		settle(&client, &server, cut);
		assert_int_equal(server.result, SL_TLS_CLOSED);
		assert_int_equal(sl_tls_write(client.tls, pieces, 1), SL_TLS_FAILED);
		close_sides();
	}
}

static void test_large_and_flight(void **state)
{
	static uint8_t data[100000];
	const struct sl_tls_certificate files = files_of(SERVER);
	const struct sl_tls_config to = client_config("127.0.0.1"); // an address, by its SAN
	const struct sl_tls_config from = {
		.server = true, .certificates = &files, .certificate_count = 1};
	struct sl_bytes flight, again;
	uint8_t first;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31);
	open_sides(&to, &from, 65536);
	assert_true(sl_tls_is_up(client.tls));

	const struct iovec pieces[] = {{data, 9}, {data + 9, 40000}, {data + 40009, 59991}};

	assert_int_equal(sl_tls_write(client.tls, pieces, 1), SL_TLS_OK);
	flight = sl_tls_pull(client.tls);
	first = flight.data[5];
	// What comes while a flight is out does not touch it.
	assert_int_equal(sl_tls_write(client.tls, pieces + 1, 2), SL_TLS_OK);
	again = sl_tls_pull(client.tls);
	assert_ptr_equal(again.data, flight.data);
	assert_int_equal(again.size, flight.size);
	assert_int_equal(again.data[5], first);
	settle(&client, &server, 65536);
	assert_int_equal(server.size, sizeof(data));
	assert_memory_equal(server.plain, data, sizeof(data));
	close_sides();
}

static void test_names(void **state)
{
	static const struct {
		const char *why, *name;
		bool up;
	} rows[] = {
		{"the first certificate's name", "gateway.example", true},
		{"SNI picks the second certificate", "other.example", true},
		{"a wildcard", "a.wild.example", true},
		{"a wildcard is one label", "a.b.wild.example", false},
		{"a name of neither is refused by the client", "evil.example", false},
		{"an address that is not in the certificate", "127.0.0.2", false},
	};
	const struct sl_tls_certificate files[] = {files_of(SERVER), files_of(OTHER)};
	const struct sl_tls_config from = {
		.server = true, .certificates = files, .certificate_count = 2};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_tls_config to = client_config(rows[i].name);

		open_sides(&to, &from, 4096);
		assert_int_equal(sl_tls_is_up(client.tls), rows[i].up);
		if (!rows[i].up) {
			assert_int_equal(client.result, SL_TLS_FAILED);
			assert_non_null(strstr(sl_tls_error(client.tls), "mismatch"));
			// The alert was pulled and told the server.
			assert_int_equal(server.result, SL_TLS_FAILED);
			assert_non_null(strstr(sl_tls_error(server.tls), "alert"));
		}
		close_sides();
	}
}

// One more connection between the two, with what the client keeps. Returns whether it resumed.
static bool connect_again(struct sl_tls_context *to, struct sl_tls_context *from,
			  struct sl_tls_tickets *tickets)
{
	bool resumed;

	memset(&client, 0, sizeof(client));
	memset(&server, 0, sizeof(server));
	client.tls = sl_tls_create(to, &memory);
	server.tls = sl_tls_create(from, &memory);
	sl_tls_resume(client.tls, tickets);
	client.result = sl_tls_feed(client.tls, SL_BYTES_NONE, take_plain, &client);
	settle(&client, &server, 65536);
	assert_true(sl_tls_is_up(client.tls) && sl_tls_is_up(server.tls));
	resumed = sl_tls_is_resumed(client.tls);
	assert_int_equal(resumed, sl_tls_is_resumed(server.tls));
	close_sides(); // without close_notify
	return resumed;
}

static void test_resumption(void **state)
{
	static const char *const versions[] = {"1.2", "1.3"};
	const struct sl_tls_certificate files = files_of(SERVER), mine = files_of(CLIENT);
	struct sl_tls_config to = client_config("gateway.example");

	(void)state;
	to.certificates = &mine;
	to.certificate_count = 1;
	for (unsigned i = 0; i < 2 * SL_COUNT_OF(versions); i++) {
		const struct sl_tls_config from = {.server = true,
						   .certificates = &files,
						   .certificate_count = 1,
						   .ca_file = certificate_files[CA],
						   .require_client = i % 2,
						   .min_version = versions[i / 2]};
		char error[256];
		struct sl_tls_context *c = sl_tls_context_create(&to, error, sizeof(error));
		struct sl_tls_context *s = sl_tls_context_create(&from, error, sizeof(error));
		struct sl_tls_context *other = sl_tls_context_create(&from, error, sizeof(error));
		struct sl_tls_tickets tickets = {0};

		assert_false(connect_again(c, s, &tickets));
		assert_true(tickets.count > 0);
		for (unsigned j = 0; j < 10; j++) {
			assert_true(connect_again(c, s, &tickets));
			assert_true(tickets.count > 0 && tickets.count <= SL_TLS_TICKETS_MAX);
		}
		// A server with other keys makes nothing of them, and gives its own.
		assert_false(connect_again(c, other, &tickets));
		assert_true(connect_again(c, other, &tickets));
		sl_tls_tickets_drop(&tickets);
		assert_int_equal(tickets.count, 0);
		assert_false(connect_again(c, s, &tickets));
		sl_tls_tickets_drop(&tickets);
		sl_tls_context_put(c);
		sl_tls_context_put(s);
		sl_tls_context_put(other);
	}
}

// For an hour only, and a ticket once.
static void test_tickets_are_spent(void **state)
{
	const struct sl_tls_certificate files = files_of(SERVER);
	const struct sl_tls_config to = client_config("gateway.example");
	const struct sl_tls_config from = {
		.server = true, .certificates = &files, .certificate_count = 1};
	char error[256];
	struct sl_tls_context *c = sl_tls_context_create(&to, error, sizeof(error));
	struct sl_tls_context *s = sl_tls_context_create(&from, error, sizeof(error));
	struct sl_tls_context *other = sl_tls_context_create(&from, error, sizeof(error));
	struct sl_tls_tickets tickets = {0};
	uint32_t count;

	(void)state;
	assert_false(connect_again(c, s, &tickets));
	count = tickets.count;
	client.tls = sl_tls_create(c, &memory);
	sl_tls_resume(client.tls, &tickets);
	sl_tls_destroy(client.tls);
	assert_int_equal(tickets.count, count - 1);
	// A server that gives many: the newest few stay.
	SSL_CTX_set_num_tickets(other->contexts[0], 3 * SL_TLS_TICKETS_MAX);
	assert_false(connect_again(c, other, &tickets));
	assert_int_equal(tickets.count, SL_TLS_TICKETS_MAX);
	for (uint32_t i = 0; i < tickets.count; i++)
		SSL_SESSION_set_time(tickets.sessions[i], time(NULL) - 3601);
	client.tls = sl_tls_create(c, &memory);
	sl_tls_resume(client.tls, &tickets);
	sl_tls_destroy(client.tls);
	assert_int_equal(tickets.count, 0);
	assert_false(connect_again(c, s, &tickets));
	sl_tls_tickets_drop(&tickets);
	sl_tls_context_put(c);
	sl_tls_context_put(s);
	sl_tls_context_put(other);
}

static void test_untrusted(void **state)
{
	const struct sl_tls_certificate files = files_of(STRANGER);
	const struct sl_tls_config from = {
		.server = true, .certificates = &files, .certificate_count = 1};
	struct sl_tls_config to = client_config("stranger");

	(void)state;
	open_sides(&to, &from, 4096);
	assert_int_equal(client.result, SL_TLS_FAILED);
	close_sides();
	to.ca_file = NULL; // the system's store does not know it either
	open_sides(&to, &from, 4096);
	assert_int_equal(client.result, SL_TLS_FAILED);
	close_sides();
	to.insecure = true; // unless asked not to look
	open_sides(&to, &from, 4096);
	assert_true(sl_tls_is_up(client.tls));
	close_sides();
}

static void test_mutual(void **state)
{
	static const struct {
		const char *why;
		int certificate; // -1: none
		bool require, up;
		const char *name;
	} rows[] = {
		{"the first URI or DNS name", CLIENT, true, true, "spiffe://example/agent"},
		{"without a certificate it is refused", -1, true, false, NULL},
		{"another authority's is refused", STRANGER, true, false, NULL},
		{"asked but not required", -1, false, true, NULL},
		{"present and bad is refused even so", STRANGER, false, false, NULL},
	};
	const struct sl_tls_certificate files = files_of(SERVER);

	(void)state;
	for (size_t i = 0; i < 2 * SL_COUNT_OF(rows); i++) {
		const size_t row = i / 2;
		struct sl_tls_certificate mine;
		struct sl_tls_config to = client_config("gateway.example");
		const struct sl_tls_config from = {.server = true,
						   .certificates = &files,
						   .certificate_count = 1,
						   .ca_file = certificate_files[CA],
						   .require_client = rows[row].require,
						   .min_version = i % 2 ? "1.3" : "1.2"};

		if (rows[row].certificate >= 0) {
			mine = files_of(rows[row].certificate);
			to.certificates = &mine;
			to.certificate_count = 1;
		}
		open_sides(&to, &from, 4096);
		assert_int_equal(sl_tls_is_up(server.tls), rows[row].up);
		if (!rows[row].up) {
			assert_int_equal(server.result, SL_TLS_FAILED);
			assert_int_equal(client.result, SL_TLS_FAILED); // by the alert
		}
		if (rows[row].name)
			assert_string_equal(sl_tls_peer_name(server.tls), rows[row].name);
		else
			assert_null(sl_tls_peer_name(server.tls));
		close_sides();
	}
}

static void test_garbage(void **state)
{
	const struct sl_tls_certificate files = files_of(SERVER);
	const struct sl_tls_config from = {
		.server = true, .certificates = &files, .certificate_count = 1};
	struct sl_tls_context *context;
	char error[256];

	(void)state;
	context = sl_tls_context_create(&from, error, sizeof(error));
	memset(&server, 0, sizeof(server));
	server.tls = sl_tls_create(context, &memory);
	sl_tls_context_put(context);
	assert_int_equal(
		sl_tls_feed(server.tls, SL_LITERAL("GET / HTTP/1.1\r\n\r\n"), take_plain, &server),
		SL_TLS_FAILED);
	assert_string_not_equal(sl_tls_error(server.tls), "");
	// It stays failed, and says nothing in plain.
	assert_int_equal(sl_tls_feed(server.tls, SL_LITERAL("x"), take_plain, &server),
			 SL_TLS_FAILED);
	assert_int_equal(server.size, 0);
	sl_tls_pull(server.tls);
	sl_tls_destroy(server.tls);
	assert_int_equal(memory.used_bytes, 0);
}

static void test_alpn_without_overlap(void **state)
{
	const struct sl_tls_certificate files = files_of(SERVER);
	const struct sl_tls_config from = {
		.server = true, .certificates = &files, .certificate_count = 1};
	struct sl_tls_config to = client_config("gateway.example");

	(void)state;
	to.alpn = "smtp";
	open_sides(&to, &from, 4096);
	assert_int_equal(server.result, SL_TLS_FAILED);
	close_sides();
	to.alpn = NULL;
	open_sides(&to, &from, 4096);
	assert_true(sl_tls_is_up(server.tls));
	assert_int_equal(sl_tls_alpn(server.tls).size, 0);
	close_sides();
}

static void test_config(void **state)
{
	const struct sl_tls_certificate good = files_of(SERVER);
	const struct sl_tls_certificate wrong_key = {certificate_files[SERVER], key_files[OTHER]};
	const struct sl_tls_certificate missing = {"/nonexistent.pem", "/nonexistent.key"};
	const struct {
		const char *why, *error; // NULL: taken
		struct sl_tls_config config;
	} rows[] = {
		{"a server", NULL, {.server = true, .certificates = &good, .certificate_count = 1}},
		{"with tickets",
		 NULL,
		 {.server = true,
		  .certificates = &good,
		  .certificate_count = 1,
		  .ticket_key_file = ticket_file}},
		{"a key of another certificate",
		 "key_file",
		 {.server = true, .certificates = &wrong_key, .certificate_count = 1}},
		{"a file that is not there is named",
		 "certificate_file /nonexistent.pem: No such file",
		 {.server = true, .certificates = &missing, .certificate_count = 1}},
		{"no certificate", "certificates", {.server = true}},
		{"ticket keys of a wrong size",
		 "48 or 80",
		 {.server = true,
		  .certificates = &good,
		  .certificate_count = 1,
		  .ticket_key_file = certificate_files[CA]}},
		{"mTLS without authorities",
		 "require_client",
		 {.server = true,
		  .certificates = &good,
		  .certificate_count = 1,
		  .require_client = true}},
		{"an old version",
		 "min_version",
		 {.server = true,
		  .certificates = &good,
		  .certificate_count = 1,
		  .min_version = "1.1"}},
		{"a client that could not verify", "server_name", {.server = false}},
		{"authorities that are none",
		 "ca_file",
		 {.server_name = "x", .ca_file = key_files[CA]}},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		char error[256] = "";
		struct sl_tls_context *context = sl_tls_context_create(&rows[i].config, error,
								       sizeof(error));

		assert_int_equal(context != NULL, rows[i].error == NULL);
		if (rows[i].error)
			assert_non_null(strstr(error, rows[i].error));
		sl_tls_context_put(context);
	}
}

static void test_expiry_and_files(void **state)
{
	const struct sl_tls_certificate files[] = {files_of(OTHER), files_of(SERVER)};
	struct sl_tls_config config = {
		.server = true, .certificates = files, .certificate_count = 2};
	char error[256];
	struct sl_tls_context *context = sl_tls_context_create(&config, error, sizeof(error));
	const int64_t left = sl_tls_context_expiry(context) - (int64_t)time(NULL);
	const uint64_t hash = sl_tls_config_files_hash(&config);
	FILE *file;

	(void)state;
	// The second expires first.
	assert_true(left > 3600 * (SERVER + 1) - 60 && left <= 3600 * (SERVER + 1));
	sl_tls_context_put(context);
	assert_int_equal(sl_tls_config_files_hash(&config), hash);
	file = fopen(certificate_files[SERVER], "a");
	fputs("# renewed\n", file);
	fclose(file);
	assert_int_not_equal(sl_tls_config_files_hash(&config), hash);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_large_and_flight),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_resumption),
		cmocka_unit_test(test_tickets_are_spent),
		cmocka_unit_test(test_untrusted),
		cmocka_unit_test(test_mutual),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_alpn_without_overlap),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_expiry_and_files),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
