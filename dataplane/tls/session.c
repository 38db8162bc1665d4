#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sys/uio.h>
#include <time.h>

#include "dataplane/tls/internal.h"

// One BIO for both directions: OpenSSL reads straight from the bytes of feed() and writes straight
// into the buffer that pull() will give, so records are copied once less each way.
#define RECORD_BYTES    16384 // plain bytes of a record at most (RFC 8446, section 5.1)
#define OUT_FIRST_BYTES 4096

struct buffer {
	uint8_t *data;
	size_t size, capacity;
};

struct sl_tls {
	SSL *ssl;
	struct sl_tls_context *context;
	struct sl_memory *memory;
	struct sl_bytes in;        // what is left of feed()'s bytes
	struct buffer out, flight; // growing; given by pull() until pulled()
	enum sl_tls_result result; // once it is over
	bool up;
	const char *error;
	char *peer_name;
	struct sl_tls_tickets *tickets; // NULL: none are kept
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method;

static int bio_read(BIO *bio, char *into, size_t size, size_t *got)
{
	struct sl_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	*got = SL_MIN(size, tls->in.size);
	if (!*got) {
		BIO_set_retry_read(bio);
		return 0;
	}
	memcpy(into, tls->in.data, *got);
	tls->in.data += *got;
	tls->in.size -= *got;
	return 1;
}

static bool grow(struct sl_tls *tls, size_t bytes)
{
	struct buffer *out = &tls->out;
	struct buffer bigger;

	bytes = SL_MAX(SL_MAX(bytes, 2 * out->capacity), (size_t)OUT_FIRST_BYTES);
	bigger.data = sl_memory_take_reserve(tls->memory, bytes, &bigger.capacity);
	if (!bigger.data)
		return false;
	if (out->size)
		memcpy(bigger.data, out->data, out->size);
	bigger.size = out->size;
	sl_memory_give(tls->memory, out->data, out->capacity);
	*out = bigger;
	return true;
}

static int bio_write(BIO *bio, const char *from, size_t size, size_t *put)
{
	struct sl_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	*put = 0;
	if (tls->out.capacity - tls->out.size < size && !grow(tls, tls->out.size + size))
		return 0;
	memcpy(tls->out.data + tls->out.size, from, size);
	tls->out.size += size;
	*put = size;
	return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

static void make_method(void)
{
	method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "sluice");
	if (!method)
		return;
	BIO_meth_set_read_ex(method, bio_read);
	BIO_meth_set_write_ex(method, bio_write);
	BIO_meth_set_ctrl(method, bio_control);
	BIO_meth_set_create(method, bio_create);
}

static bool name_server(const struct sl_tls_context *context, SSL *ssl)
{
	if (!context->server_name)
		return true;
	// An address is no SNI name (RFC 6066, section 3).
	if (context->name_is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), context->server_name) ==
		       1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set_tlsext_host_name(ssl, context->server_name) == 1 &&
	       SSL_set1_host(ssl, context->server_name) == 1;
}

struct sl_tls *sl_tls_create(struct sl_tls_context *context, struct sl_memory *memory)
{
	struct sl_tls *tls;
	BIO *bio;

	pthread_once(&once, make_method);
	tls = method ? OPENSSL_zalloc(sizeof(*tls)) : NULL;
	if (!tls)
		return NULL;
	tls->memory = memory;
	tls->context = sl_tls_context_get(context);
	tls->ssl = SSL_new(context->contexts[0]);
	bio = tls->ssl ? BIO_new(method) : NULL;
	if (!bio || !name_server(context, tls->ssl)) {
		BIO_free(bio);
		sl_tls_destroy(tls);
		return NULL;
	}
	BIO_set_data(bio, tls);
	SSL_set_app_data(tls->ssl, tls);
	SSL_set_bio(tls->ssl, bio, bio);
	if (context->server)
		SSL_set_accept_state(tls->ssl);
	else
		SSL_set_connect_state(tls->ssl);
	return tls;
}

void sl_tls_destroy(struct sl_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	sl_tls_context_put(tls->context);
	sl_memory_give(tls->memory, tls->out.data, tls->out.capacity);
	sl_memory_give(tls->memory, tls->flight.data, tls->flight.capacity);
	OPENSSL_free(tls->peer_name);
	OPENSSL_free(tls);
}

// --- resumption ----------------------------------------------------------------------------------

void sl_tls_tickets_drop(struct sl_tls_tickets *tickets)
{
	while (tickets->count)
		SSL_SESSION_free(tickets->sessions[--tickets->count]);
}

// A copy: OpenSSL spoils its own when the connection ends without close_notify, as many do.
int sl_tls_keep_session(SSL *ssl, SSL_SESSION *session)
{
	const struct sl_tls *tls = SSL_get_app_data(ssl);
	struct sl_tls_tickets *tickets = tls->tickets;
	SSL_SESSION *copy;

	if (!tickets || !SSL_SESSION_is_resumable(session))
		return 0;
	copy = SSL_SESSION_dup(session);
	if (!copy)
		return 0;
	if (tickets->count == SL_TLS_TICKETS_MAX) {
		SSL_SESSION_free(tickets->sessions[0]);
		memmove(tickets->sessions, tickets->sessions + 1,
			--tickets->count * sizeof(tickets->sessions[0]));
	}
	tickets->sessions[tickets->count++] = copy;
	return 0;
}

// The newest. Its certificate is not looked at again, so it is not for long; a ticket of TLS 1.3
// that is used twice lets an observer link the two (RFC 8446, appendix C.4).
void sl_tls_resume(struct sl_tls *tls, struct sl_tls_tickets *tickets)
{
	SSL_SESSION *session;

	assert(!tls->context->server && SSL_in_before(tls->ssl));
	tls->tickets = tickets;
	if (!tickets->count)
		return;
	session = tickets->sessions[tickets->count - 1];
	if (time(NULL) - (time_t)SSL_SESSION_get_time(session) >= SL_TLS_SESSION_S) {
		sl_tls_tickets_drop(tickets); // the others are older
		return;
	}
	if (SSL_SESSION_get_protocol_version(session) < TLS1_3_VERSION)
		session = SSL_SESSION_dup(session);
	else
		tickets->count--;
	if (session)
		SSL_set_session(tls->ssl, session);
	SSL_SESSION_free(session);
}

bool sl_tls_is_resumed(const struct sl_tls *tls)
{
	return SSL_session_reused(tls->ssl);
}

// --- handshake -----------------------------------------------------------------------------------

// A name that is safe as a C string, else NULL: an embedded NUL would let "good\0.evil" pass.
static char *clean_text(const ASN1_STRING *text)
{
	uint8_t *utf8 = NULL;
	const int size = ASN1_STRING_to_UTF8(&utf8, text);

	if (size <= 0 || size > 255 || memchr(utf8, 0, (size_t)size)) {
		if (size >= 0)
			OPENSSL_free(utf8);
		return NULL;
	}
	return (char *)utf8; // OpenSSL terminates it
}

char *sl_tls_certificate_name(X509 *certificate)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	const X509_NAME *subject = X509_get_subject_name(certificate);
	char *found = NULL;
	int index;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_URI || name->type == GEN_DNS)
			found = clean_text(name->d.ia5);
	}
	GENERAL_NAMES_free(names);
	if (found)
		return found;
	index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (index < 0)
		return NULL;
	return clean_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
}

static enum sl_tls_result fail(struct sl_tls *tls)
{
	const long verified = SSL_get_verify_result(tls->ssl);
	const unsigned long code = ERR_peek_error();

	tls->result = SL_TLS_FAILED;
	if (verified != X509_V_OK && !tls->up)
		tls->error = X509_verify_cert_error_string(verified);
	else if (code)
		tls->error = ERR_reason_error_string(code);
	if (!tls->error)
		tls->error = "tls failed";
	ERR_clear_error();
	return tls->result;
}

static void come_up(struct sl_tls *tls)
{
	X509 *certificate = SSL_get0_peer_certificate(tls->ssl);

	tls->up = true;
	if (certificate && SSL_get_verify_result(tls->ssl) == X509_V_OK)
		tls->peer_name = sl_tls_certificate_name(certificate);
}

static enum sl_tls_result hand_shake(struct sl_tls *tls)
{
	const int done = SSL_do_handshake(tls->ssl);

	if (done == 1) {
		come_up(tls);
		return SL_TLS_OK;
	}
	return SSL_get_error(tls->ssl, done) == SSL_ERROR_WANT_READ ? SL_TLS_OK : fail(tls);
}

enum sl_tls_result sl_tls_feed(struct sl_tls *tls, struct sl_bytes cipher,
			       void (*plain)(void *user, struct sl_bytes bytes), void *user)
{
	uint8_t record[RECORD_BYTES];
	size_t size;

	if (tls->result != SL_TLS_OK)
		return tls->result;
	ERR_clear_error();
	tls->in = cipher;
	if (!tls->up && (hand_shake(tls) != SL_TLS_OK || !tls->up))
		return tls->result;
	while (SSL_read_ex(tls->ssl, record, sizeof(record), &size) == 1) {
		plain(user, sl_bytes(record, size));
		// What the upcall wrote may have failed.
		if (tls->result != SL_TLS_OK)
			return tls->result;
	}
	switch (SSL_get_error(tls->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		assert(tls->in.size == 0);
		break;
	case SSL_ERROR_ZERO_RETURN:
		tls->result = SL_TLS_CLOSED;
		break;
	default:
		fail(tls);
	}
	return tls->result;
}

static bool write_run(struct sl_tls *tls, const void *data, size_t size)
{
	size_t put;

	if (!size || SSL_write_ex(tls->ssl, data, size, &put) == 1)
		return true;
	fail(tls);
	return false;
}

// Small pieces share a record: one for each frame header would cost 29 bytes and a seal each.
enum sl_tls_result sl_tls_write(struct sl_tls *tls, const struct iovec *pieces, size_t count)
{
	uint8_t record[RECORD_BYTES];
	size_t held = 0;

	if (!tls->up || tls->result == SL_TLS_FAILED ||
	    (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN))
		return SL_TLS_FAILED;
	ERR_clear_error();
	for (size_t i = 0; i < count; i++) {
		const uint8_t *data = pieces[i].iov_base;
		size_t size = pieces[i].iov_len;

		while (size) {
			if (!held && size >= RECORD_BYTES) {
				const size_t whole = size - size % RECORD_BYTES;

				if (!write_run(tls, data, whole))
					return SL_TLS_FAILED;
				data += whole;
				size -= whole;
				continue;
			}

			const size_t take = SL_MIN(size, RECORD_BYTES - held);

			memcpy(record + held, data, take);
			held += take;
			data += take;
			size -= take;
			if (held == RECORD_BYTES) {
				if (!write_run(tls, record, held))
					return SL_TLS_FAILED;
				held = 0;
			}
		}
	}
	return write_run(tls, record, held) ? SL_TLS_OK : SL_TLS_FAILED;
}

struct sl_bytes sl_tls_pull(struct sl_tls *tls)
{
	// What is made while a flight is in the socket gathers in `out` and waits its turn.
	if (!tls->flight.data) {
		tls->flight = tls->out;
		tls->out = (struct buffer){0};
	}
	return sl_bytes(tls->flight.data, tls->flight.size);
}

void sl_tls_pulled(struct sl_tls *tls)
{
	sl_memory_give(tls->memory, tls->flight.data, tls->flight.capacity);
	tls->flight = (struct buffer){0};
}

void sl_tls_shutdown(struct sl_tls *tls)
{
	if (!tls->up || tls->result == SL_TLS_FAILED ||
	    (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN))
		return;
	ERR_clear_error();
	SSL_shutdown(tls->ssl); // 0: sent, and the peer's has not come; nobody waits for it
	ERR_clear_error();
}

bool sl_tls_is_up(const struct sl_tls *tls)
{
	return tls->up;
}

struct sl_bytes sl_tls_alpn(const struct sl_tls *tls)
{
	const uint8_t *data = NULL;
	unsigned size = 0;

	SSL_get0_alpn_selected(tls->ssl, &data, &size);
	return sl_bytes(data, size);
}

const char *sl_tls_peer_name(const struct sl_tls *tls)
{
	return tls->peer_name;
}

const char *sl_tls_error(const struct sl_tls *tls)
{
	return tls->error ? tls->error : "";
}
