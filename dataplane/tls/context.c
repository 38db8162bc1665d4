#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "dataplane/base/hash.h"
#include "dataplane/tls/internal.h"

#define FILE_BYTES_MAX    (1 * SL_MIB)
#define TICKET_KEYS_BYTES 80 // OpenSSL's: a name of 16, an HMAC key of 32, an AES key of 32

// Forward secrecy and authenticated encryption only (RFC 9113, section 9.2.2); 1.3 has no others.
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

static const uint8_t alpn_both[] = "\x02h2\x08http/1.1";

// Why OpenSSL refused, as text that names the setting and the file.
static void tell(char *error, size_t error_size, const char *setting, const char *file)
{
	const unsigned long code = ERR_peek_last_error();
	const char *why = code ? ERR_reason_error_string(code) : NULL;

	if (code && ERR_SYSTEM_ERROR(code))
		why = strerror(ERR_GET_REASON(code));
	// OpenSSL reports the failed fopen first and its own conclusion last.
	if (file && ERR_SYSTEM_ERROR(ERR_peek_error()))
		why = strerror(ERR_GET_REASON(ERR_peek_error()));
	snprintf(error, error_size, "%s%s%s: %s", setting, file ? " " : "", file ? file : "",
		 why ? why : "refused");
	ERR_clear_error();
}

// A small file, whole. Returns malloc'ed bytes or NULL with errno set.
static uint8_t *read_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "re");
	uint8_t *bytes = NULL;

	if (!file)
		return NULL;
	bytes = malloc(FILE_BYTES_MAX);
	if (bytes)
		*size = fread(bytes, 1, FILE_BYTES_MAX, file);
	fclose(file);
	return bytes;
}

// A key with a passphrase must not make the process ask on its terminal.
static int no_passphrase(char *buffer, int size, int writing, void *user)
{
	(void)buffer;
	(void)size;
	(void)writing;
	(void)user;
	return -1;
}

static int select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_size, const uint8_t *in,
		       unsigned in_size, void *user)
{
	uint8_t *chosen;

	(void)ssl;
	(void)user;
	if (SSL_select_next_proto(&chosen, out_size, alpn_both, sizeof(alpn_both) - 1, in,
				  in_size) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL; // RFC 7301, section 3.2
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

// SNI: the first certificate that holds the name, else the default.
static int select_certificate(SSL *ssl, int *alert, void *user)
{
	const struct sl_tls_context *context = user;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert;
	if (!name)
		return SSL_TLSEXT_ERR_NOACK;
	for (uint32_t i = 0; i < context->context_count; i++) {
		X509 *certificate = SSL_CTX_get0_certificate(context->contexts[i]);

		if (X509_check_host(certificate, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
				    NULL) == 1) {
			SSL_set_SSL_CTX(ssl, context->contexts[i]);
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_NOACK;
}

static int64_t expiry_of(const X509 *certificate)
{
	struct tm time;

	if (!ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time))
		return 0;
	return timegm(&time);
}

static void note_expiry(struct sl_tls_context *context, const X509 *certificate)
{
	const int64_t expiry_s = expiry_of(certificate);

	if (expiry_s && (!context->expiry_s || expiry_s < context->expiry_s))
		context->expiry_s = expiry_s;
}

static bool use_certificate(struct sl_tls_context *context, SSL_CTX *ctx,
			    const struct sl_tls_certificate *files, char *error, size_t error_size)
{
	STACK_OF(X509) *chain = NULL;

	if (SSL_CTX_use_certificate_chain_file(ctx, files->certificate_file) != 1) {
		tell(error, error_size, "certificate_file", files->certificate_file);
		return false;
	}
	if (SSL_CTX_use_PrivateKey_file(ctx, files->key_file, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1) {
		tell(error, error_size, "key_file", files->key_file);
		return false;
	}
	note_expiry(context, SSL_CTX_get0_certificate(ctx));
	SSL_CTX_get0_chain_certs(ctx, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		note_expiry(context, sk_X509_value(chain, i));
	return true;
}

// Tickets outlive a process and are honoured by the whole fleet when the file is shared.
static bool use_ticket_keys(SSL_CTX *ctx, const char *path, char *error, size_t error_size)
{
	uint8_t keys[TICKET_KEYS_BYTES], salted[1 + 48];
	size_t size = 0;
	uint8_t *file = read_file(path, &size);
	bool good = file && (size == 48 || size == TICKET_KEYS_BYTES);

	if (!good) {
		snprintf(error, error_size, "ticket_key_file %s: %s", path,
			 file ? "must be 48 or 80 bytes" : strerror(errno));
	} else if (size == TICKET_KEYS_BYTES) {
		memcpy(keys, file, size);
	} else {
		// The short form is stretched: its name, and two digests of the whole.
		memcpy(keys, file, 16);
		memcpy(salted + 1, file, 48);
		for (unsigned i = 0; i < 2; i++) {
			salted[0] = (uint8_t)(i + 1);
			sl_hash_sha256(sl_bytes(salted, sizeof(salted)), keys + 16 + 32 * i);
		}
	}
	if (good && SSL_CTX_set_tlsext_ticket_keys(ctx, keys, sizeof(keys)) != 1) {
		tell(error, error_size, "ticket_key_file", path);
		good = false;
	}
	OPENSSL_cleanse(keys, sizeof(keys));
	OPENSSL_cleanse(salted, sizeof(salted));
	if (file)
		OPENSSL_cleanse(file, size);
	free(file);
	return good;
}

// A ticket is taken only where the same authorities vouch for clients: a resumed session is not
// verified again.
static bool bind_sessions(SSL_CTX *ctx, const struct sl_tls_config *config)
{
	uint8_t digest[32] = {0};

	if (config->ca_file) {
		size_t size = 0;
		uint8_t *file = read_file(config->ca_file, &size);

		if (file)
			sl_hash_sha256(sl_bytes(file, size), digest);
		free(file);
	}
	return SSL_CTX_set_session_id_context(ctx, digest, sizeof(digest)) == 1;
}

static bool use_server(struct sl_tls_context *context, SSL_CTX *ctx,
		       const struct sl_tls_config *config, char *error, size_t error_size)
{
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	SSL_CTX_set_tlsext_servername_callback(ctx, select_certificate);
	SSL_CTX_set_tlsext_servername_arg(ctx, context);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); // tickets only: no state of ours
	SSL_CTX_set_num_tickets(ctx, 1);
	SSL_CTX_set_timeout(ctx, SL_TLS_SESSION_S);
	if (!bind_sessions(ctx, config)) {
		tell(error, error_size, "tls", NULL);
		return false;
	}
	if (config->ticket_key_file &&
	    !use_ticket_keys(ctx, config->ticket_key_file, error, error_size))
		return false;
	if (config->ca_file) {
		STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(config->ca_file);

		if (!names) {
			tell(error, error_size, "ca_file", config->ca_file);
			return false;
		}
		SSL_CTX_set_client_CA_list(ctx, names);
		SSL_CTX_set_verify(
			ctx,
			SSL_VERIFY_PEER |
				(config->require_client ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
			NULL);
	}
	return true;
}

static bool use_client(SSL_CTX *ctx, const struct sl_tls_config *config, char *error,
		       size_t error_size)
{
	uint8_t wire[256];
	const size_t size = config->alpn ? strlen(config->alpn) : 0;

	SSL_CTX_set_verify(ctx, config->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	// Sessions are kept by those who know the endpoint that they are for.
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, sl_tls_keep_session);
	if (!config->ca_file && SSL_CTX_set_default_verify_paths(ctx) != 1) {
		tell(error, error_size, "ca_file", NULL);
		return false;
	}
	if (!size)
		return true;
	wire[0] = (uint8_t)size;
	memcpy(wire + 1, config->alpn, size);
	if (SSL_CTX_set_alpn_protos(ctx, wire, (unsigned)size + 1) == 0)
		return true;
	tell(error, error_size, "alpn", NULL);
	return false;
}

static SSL_CTX *make(struct sl_tls_context *context, const struct sl_tls_config *config,
		     const struct sl_tls_certificate *files, char *error, size_t error_size)
{
	const bool only_1_3 = config->min_version && strcmp(config->min_version, "1.3") == 0;
	SSL_CTX *ctx = SSL_CTX_new(config->server ? TLS_server_method() : TLS_client_method());

	if (!ctx) {
		tell(error, error_size, "tls", NULL);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(ctx, only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (SSL_CTX_set_cipher_list(ctx, CIPHERS) != 1) {
		tell(error, error_size, "tls", NULL);
		goto fail;
	}
	if (files && !use_certificate(context, ctx, files, error, error_size))
		goto fail;
	if (config->ca_file && SSL_CTX_load_verify_file(ctx, config->ca_file) != 1) {
		tell(error, error_size, "ca_file", config->ca_file);
		goto fail;
	}
	if (config->server ? !use_server(context, ctx, config, error, error_size)
			   : !use_client(ctx, config, error, error_size))
		goto fail;
	return ctx;
fail:
	SSL_CTX_free(ctx);
	return NULL;
}

// What can be said without opening a file. Returns NULL when all is well.
static const char *check(const struct sl_tls_config *config)
{
	const char *version = config->min_version;

	if (version && strcmp(version, "1.2") != 0 && strcmp(version, "1.3") != 0)
		return "min_version: must be 1.2 or 1.3";
	if (config->server && !config->certificate_count)
		return "certificates: a server needs one";
	if (config->server && config->require_client && !config->ca_file)
		return "require_client: needs the authorities of clients";
	if (!config->server && !config->insecure && !config->server_name)
		return "server_name: needed to verify the server";
	if (config->alpn && strlen(config->alpn) > 255)
		return "alpn: too long";
	if (!config->server && config->certificate_count > 1)
		return "certificates: a client has at most one";
	return NULL;
}

struct sl_tls_context *sl_tls_context_create(const struct sl_tls_config *config, char *error,
					     size_t error_size)
{
	const uint32_t count = SL_MAX(config->certificate_count, 1u);
	const char *wrong = check(config);
	struct sl_tls_context *context;
	uint8_t address[16];

	ERR_clear_error();
	if (wrong) {
		snprintf(error, error_size, "%s", wrong);
		return NULL;
	}
	context = calloc(1, sizeof(*context));
	if (!context)
		goto fail;
	context->references = 1;
	context->server = config->server;
	context->contexts = calloc(count, sizeof(SSL_CTX *));
	if (!context->contexts)
		goto fail;
	if (config->server_name) {
		context->server_name = strdup(config->server_name);
		if (!context->server_name)
			goto fail;
		context->name_is_address = inet_pton(AF_INET, config->server_name, address) == 1 ||
					   inet_pton(AF_INET6, config->server_name, address) == 1;
	}
	for (uint32_t i = 0; i < count; i++) {
		context->contexts[i] = make(context, config,
					    config->certificate_count ? &config->certificates[i]
								      : NULL,
					    error, error_size);
		if (!context->contexts[i]) {
			sl_tls_context_put(context);
			return NULL;
		}
		context->context_count++;
	}
	return context;
fail:
	snprintf(error, error_size, "tls: out of memory");
	sl_tls_context_put(context);
	return NULL;
}

struct sl_tls_context *sl_tls_context_get(struct sl_tls_context *context)
{
	__atomic_fetch_add(&context->references, 1, __ATOMIC_RELAXED);
	return context;
}

void sl_tls_context_put(struct sl_tls_context *context)
{
	if (!context || __atomic_sub_fetch(&context->references, 1, __ATOMIC_ACQ_REL))
		return;
	for (uint32_t i = 0; i < context->context_count; i++)
		SSL_CTX_free(context->contexts[i]);
	free(context->contexts);
	free(context->server_name);
	free(context);
}

int64_t sl_tls_context_expiry(const struct sl_tls_context *context)
{
	return context->expiry_s;
}

static uint64_t mix_file(uint64_t seed, const char *path)
{
	uint64_t words[5] = {seed};
	size_t size = 0;
	uint8_t *bytes = path ? read_file(path, &size) : NULL;

	if (bytes)
		sl_hash_sha256(sl_bytes(bytes, size), (uint8_t *)(words + 1));
	else
		words[1] = path != NULL; // one that cannot be read differs from one not asked for
	free(bytes);
	return sl_hash(sl_bytes(words, sizeof(words)));
}

uint64_t sl_tls_config_files_hash(const struct sl_tls_config *config)
{
	uint64_t hash = mix_file(0, config->ca_file);

	hash = mix_file(hash, config->ticket_key_file);
	for (uint32_t i = 0; i < config->certificate_count; i++) {
		hash = mix_file(hash, config->certificates[i].certificate_file);
		hash = mix_file(hash, config->certificates[i].key_file);
	}
	return hash;
}
