#pragma once

#include "dataplane/base/base.h"

// A field of an HTTP head, of a gRPC call's metadata, or of a Kafka record: what identity reads and
// destinations send. Names are in lower case. Threading: plain value; the bytes are somebody
// else's.
struct sl_http_header {
	struct sl_bytes name, value;
};
