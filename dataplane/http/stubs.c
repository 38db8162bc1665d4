#include "dataplane/http/internal.h"
struct sl_http_client *sl_http1_client_create(struct sl_http_pools *pools)
{
	(void)pools;
	return NULL;
}
struct sl_http_client *sl_http2_client_create(struct sl_http_pools *pools)
{
	(void)pools;
	return NULL;
}
