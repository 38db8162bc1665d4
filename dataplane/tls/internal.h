#pragma once

#include <openssl/ssl.h>

#include "dataplane/tls/tls.h"

// Inside tls/: what context.c (files to SSL_CTX) and session.c (bytes) share.
//
// Threading: a context is read-only once made, but for its count of references.
struct sl_tls_context {
	SSL_CTX **contexts; // one a certificate; at least one
	uint32_t context_count;
	uint32_t references;
	int64_t expiry_s;
	char *server_name; // client: to be verified; NULL: none
	bool server;
	bool name_is_address;
};

#define SL_TLS_SESSION_S 3600 // how long one may be resumed

// OpenSSL has a session that a client could resume: kept, a copy of it. Returns 0.
int sl_tls_keep_session(SSL *ssl, SSL_SESSION *session);

// The name a certificate was issued to: first SAN URI or DNS name, else the common name.
// OpenSSL's memory (OPENSSL_free); NULL when there is none that is clean text.
char *sl_tls_certificate_name(X509 *certificate);
