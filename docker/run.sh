#!/bin/sh
# Starts sluice on a configuration and says where data goes and how to send some.
set -eu

binary=$1
config=$2

cat <<TEXT
OTLP on 4317 (gRPC) and 4318 (HTTP), admin on http://127.0.0.1:8080
Data goes to: ${SLUICE_DATA:-/tmp/sluice}
Send a span:
  curl -s -H 'content-type: application/json' -d '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"hello","kind":1,"startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}' http://127.0.0.1:4318/v1/traces
TEXT
exec "$binary" --config "$config"
