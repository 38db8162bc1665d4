"""OTLP over HTTP: items 34-43 of the protocol's checklist, and HTTP/1.1 taken strictly."""

import email.utils
import gzip
import json
import re
import time

import h2.events
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2
from lib import otlp, wire
from lib.sluice import wait_for

MESSAGE = otlp.request("traces", 2)
BODY = MESSAGE.SerializeToString()
PROTOBUF, JSON = "application/x-protobuf", "application/json"


@pytest.mark.parametrize("signal", otlp.SIGNALS)
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_34_paths(shared, signal, kind):
    message = otlp.request(signal, 4)
    body = message.SerializeToString() if kind == PROTOBUF else otlp.to_json(message)
    for port in (shared.http_port, shared.grpc_port):
        status, headers, answer = wire.post(port, f"/v1/{signal}", body, kind)
        assert status == 200 and headers["content-type"] == kind
        assert answer == (b"" if kind == PROTOBUF else b"{}")
    assert shared.files(signal)[-2:] == [message, message]


def test_34_http2_too(shared):
    client = wire.Http2(shared.http_port)
    stream = client.call("/v1/traces", BODY, content_type=PROTOBUF)
    assert stream.headers[":status"] == "200" and stream.data == b""
    client.close()


@pytest.mark.parametrize("path", ["/", "/v1/trace", "/v1/traces/", "/V1/traces", "/v2/traces",
                                  "/v1development/profiles"])
def test_34_unknown_path(shared, path):
    assert wire.post(shared.http_port, path, BODY)[0] == 404


def test_34_query_is_not_the_path(shared):
    assert wire.post(shared.http_port, "/v1/traces?x=1", BODY)[0] == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_34_method(shared, method):
    status, headers, _ = wire.post(shared.http_port, "/v1/traces", b"", method=method)
    assert status == 405 and headers["allow"] == "POST"


@pytest.mark.parametrize("method", ["BREW", "get", "GETX"])
def test_34_a_method_nobody_knows(shared, method):
    """RFC 9110, section 15.6.2; on HTTP/2 it is one of those that are not POST."""
    client = wire.Http1(shared.http_port)
    client.send(f"{method} /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\n\r\n".encode())
    status, headers, body = client.read_response()
    assert status == 501 and headers["content-type"] == JSON and json.loads(body)["code"] == 12
    assert client.closed()
    client.close()
    client = wire.Http2(shared.http_port)
    stream = client.finish(client.start("/v1/traces", None, PROTOBUF, method, end_stream=True))
    assert stream.headers[":status"] == "405" and stream.headers["allow"] == "POST"
    client.close()


def is_now(date):
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date), date
    return abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 30


def test_answers_tell_their_date(shared):
    """RFC 9110, section 6.6.1: whatever they say, and it goes on."""
    client = wire.Http1(shared.http_port)
    dates = set()
    for path, body, status in (("/v1/traces", BODY, 200), ("/v1/traces", b"\xff", 400),
                               ("/nowhere", b"", 404), ("/v1/traces", BODY, 200)):
        client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got, headers, _ = client.read_response()
        assert got == status and is_now(headers["date"])
        dates.add(headers["date"])
        time.sleep(0.6)
    assert len(dates) > 1
    client.send(b"NONSENSE\r\n\r\n")
    status, headers, _ = client.read_response()
    assert status == 400 and is_now(headers["date"])
    client.close()
    client = wire.Http2(shared.http_port)
    for body, status in ((BODY, "200"), (b"\xff", "400")):
        stream = client.call("/v1/traces", body, content_type=PROTOBUF)
        assert stream.headers[":status"] == status and is_now(stream.headers["date"])
    # gRPC's own servers have none either: a client would take it for metadata.
    assert "date" not in client.call(otlp.SERVICES["traces"], wire.frame(BODY)).headers
    client.close()


@pytest.mark.parametrize("credentials, challenge", [
    (None, 'Bearer realm="sluice"'),
    ([{"header": "Authorization", "scheme": "Basic"}, {"header": "x-api-key"},
      {"header": "authorization", "scheme": "ApiKey"}],
     'Basic realm="sluice", ApiKey realm="sluice"'),
    ([{"header": "x-api-key"}], 'ApiKey realm="sluice", header="x-api-key"'),
])
def test_401_says_how_to_log_in(start, credentials, challenge):
    """RFC 9110, section 11.6.1."""
    tenants = {"file": "tenants.yaml", "identify": ["credential"], "unknown": "refuse"}
    sluice = start(config={"tenants": tenants | ({"credentials": credentials} if credentials else {})})
    for headers in ({}, {credentials[0]["header"] if credentials else "authorization": "Bearer no"}):
        status, got, _ = wire.post(sluice.http_port, "/v1/traces", BODY, headers=headers)
        assert status == 401 and got["www-authenticate"] == challenge
    client = wire.Http2(sluice.http_port)
    assert client.call("/v1/traces", BODY, content_type=PROTOBUF).headers[
        "www-authenticate"] == challenge
    stream = client.call(otlp.SERVICES["traces"], wire.frame(BODY))
    assert stream.grpc_status == 16 and "www-authenticate" not in stream.headers
    client.close()


def test_34_head_is_answered_without_a_body(shared):
    """RFC 9110, section 9.3.2, on both protocols; the connection goes on."""
    client = wire.Http1(shared.http_port)
    client.send(b"HEAD /v1/traces HTTP/1.1\r\nHost: x\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for("both answers", lambda: client._more() and client.buffer.count(b"\r\n\r\n") == 2)
    heads = client.buffer.split(b"\r\n\r\n")
    assert heads[0].startswith(b"HTTP/1.1 405 ") and heads[1].startswith(b"HTTP/1.1 404 ")
    client.close()
    client = wire.Http2(shared.http_port)
    for path, status in (("/v1/traces", "405"), ("/", "404")):
        stream = client.finish(client.start(path, None, PROTOBUF, "HEAD", end_stream=True))
        assert stream.headers[":status"] == status and stream.ended and stream.data == b""
    client.close()


@pytest.mark.parametrize("kind", [PROTOBUF + "; charset=utf-8", "Application/X-Protobuf",
                                  PROTOBUF + " ;x=y"])
def test_35_parameters_are_allowed(shared, kind):
    assert wire.post(shared.http_port, "/v1/traces", BODY, kind)[0] == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/protobuf2", "application/grpc"])
def test_35_other_types(shared, kind):
    assert wire.post(shared.http_port, "/v1/traces", BODY, kind)[0] == 415


def test_35_38_39_error_has_the_request_s_type(shared):
    status, headers, body = wire.post(shared.http_port, "/v1/traces", b"\xff\xff")
    assert status == 400 and headers["content-type"] == PROTOBUF
    answer = status_pb2.Status.FromString(body)
    assert answer.message and wire.bad_field(answer) == "body"
    status, headers, body = wire.post(shared.http_port, "/v1/traces", b"{", JSON)
    assert status == 400 and headers["content-type"] == JSON
    answer = json_format.Parse(body, status_pb2.Status())
    assert answer.message and wire.bad_field(answer) == "body"


def test_37_response_is_plain_unless_asked(shared):
    status, headers, _ = wire.post(shared.http_port, "/v1/traces", gzip.compress(BODY),
                                   headers={"Content-Encoding": "gzip"})
    assert status == 200 and "content-encoding" not in headers


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "lz4"])
def test_37_unknown_coding(shared, coding):
    status, headers, body = wire.post(shared.http_port, "/v1/traces", BODY,
                                      headers={"Content-Encoding": coding})
    assert status == 415 and status_pb2.Status.FromString(body).message
    # RFC 9110, section 15.5.16
    assert headers["accept-encoding"] == "gzip, zstd, deflate, snappy"


def test_37_corrupt(shared):
    assert wire.post(shared.http_port, "/v1/traces", gzip.compress(BODY)[:-4],
                     headers={"Content-Encoding": "gzip"})[0] == 400


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_40_41_quota_is_429_with_retry_after(shared, kind):
    message = otlp.request("traces", 600)
    body = message.SerializeToString() if kind == PROTOBUF else otlp.to_json(message)

    def refused():
        answer = wire.post(shared.http_port, "/v1/traces", body, kind,
                           {"Authorization": "Bearer free-token"})
        return answer if answer[0] != 200 else None

    status, headers, answer = wait_for("a refusal", refused)
    assert status == 429 and int(headers["retry-after"]) >= 1
    if kind == JSON:
        assert json.loads(answer)["message"]


def test_43_preflight(start):
    sluice = start(config={"cors_origins": ["https://app.example"]})
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    status, answer, _ = wire.post(sluice.http_port, "/v1/traces", b"", None, headers, "OPTIONS")
    named = ("https://app.example", "origin")
    allowed = ("access-control-allow-origin", "vary")
    assert status == 204 and tuple(map(answer.get, allowed)) == named
    for kind, want in [(PROTOBUF, 200), ("text/plain", 415)]:
        status, answer, _ = wire.post(sluice.http_port, "/v1/traces", BODY, kind, headers)
        assert status == want and tuple(map(answer.get, allowed)) == named
    status, answer, _ = wire.post(sluice.http_port, "/v1/traces", b"", None,
                                  {"Origin": "https://evil.example"}, "OPTIONS")
    assert status == 405 and tuple(map(answer.get, allowed)) == (None, "origin")
    status, answer, _ = wire.post(sluice.http_port, "/v1/traces", BODY)
    assert status == 200 and tuple(map(answer.get, allowed)) == (None, None)


def test_43_a_script_sees_the_retry_hint(start):
    """Retry-After is not among the fields that Fetch shows of another origin's answer by itself."""
    sluice = start(config={"cors_origins": ["https://app.example"]})
    body = otlp.request("traces", 6000).SerializeToString()

    def refused():
        answer = wire.post(sluice.http_port, "/v1/traces", body, PROTOBUF,
                           {"Authorization": "Bearer free-token", "Origin": "https://app.example"})
        assert "access-control-expose-headers" not in answer[1] or answer[0] == 429
        return answer if answer[0] != 200 else None

    status, headers, _ = wait_for("a refusal", refused)
    assert status == 429 and headers["access-control-expose-headers"] == "retry-after"
    assert headers["access-control-allow-origin"] == "https://app.example"


def test_43_any_origin(start):
    sluice = start(config={"cors_origins": ["*"]})
    status, answer, _ = wire.post(sluice.http_port, "/v1/traces", BODY,
                                  headers={"Origin": "https://x.example"})
    assert status == 200 and answer["access-control-allow-origin"] == "*"
    assert "vary" not in answer


# --- HTTP/1.1 itself --------------------------------------------------------------------------------

def raw(shared, data):
    client = wire.Http1(shared.http_port)
    client.send(data)
    try:
        return client.read_response()[0]
    finally:
        client.close()


HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"


def chunked(body, size):
    pieces = [body[i:i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 10000])
def test_chunked(shared, size):
    assert raw(shared, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY, size)) == 200
    assert shared.files("traces")[-1] == MESSAGE


def test_chunked_of_unknown_large_size(shared):
    message = otlp.request("traces", 3000)
    body = message.SerializeToString()
    assert raw(shared, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 5000)) == 200
    assert shared.files("traces")[-1] == message


def test_head_cut_at_every_byte(shared):
    data = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    client = wire.Http1(shared.http_port)
    client.socket.setsockopt(6, 1, 1)  # TCP_NODELAY
    for at in range(len(data)):
        client.send(data[at:at + 1])
    assert client.read_response()[0] == 200
    client.close()


def test_pipelined_and_kept_alive(shared):
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    client = wire.Http1(shared.http_port)
    client.send(one * 5)
    assert [client.read_response()[0] for _ in range(5)] == [200] * 5
    client.close()


def test_empty_lines_before_a_request_line(shared):
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    client = wire.Http1(shared.http_port)
    client.send(b"\r\n" + one + b"\r\n\r\n" + one)
    assert [client.read_response()[0] for _ in range(2)] == [200] * 2
    client.close()


def test_expect_continue(shared):
    client = wire.Http1(shared.http_port)
    client.send(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert client.read_response()[0] == 100
    client.send(BODY)
    assert client.read_response()[0] == 200
    client.close()


def test_expect_continue_on_http_2(shared):
    """RFC 9110, section 10.1.1: the body comes only when it is asked for; a refusal takes its place."""
    client = wire.Http2(shared.http_port)
    number = client.start("/v1/traces", {"expect": "100-Continue"}, PROTOBUF)
    assert client.pump(lambda: any(isinstance(event, h2.events.InformationalResponseReceived)
                                   for event in client.events))
    client.data(number, BODY, end_stream=True)
    assert client.finish(number).headers[":status"] == "200"

    client.events.clear()
    stream = client.finish(client.start("/nowhere", {"expect": "100-continue"}, PROTOBUF))
    assert stream.headers[":status"] == "404"
    number = client.start("/v1/traces", {"expect": "100-continue"}, PROTOBUF, end_stream=True)
    assert client.finish(number).headers[":status"] == "200"  # there is no body to wait for
    assert not any(isinstance(event, h2.events.InformationalResponseReceived)
                   for event in client.events)
    client.close()


def test_expect_continue_gets_the_verdict_instead(shared):
    client = wire.Http1(shared.http_port)
    client.send(HEAD + b"Authorization: Bearer nobody\r\nExpect: 100-continue\r\n"
                b"Content-Length: 1000000\r\n\r\n")
    assert client.read_response()[0] == 401
    client.close()


@pytest.mark.parametrize("fields", [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 5x\r\n",
    b"X: a\r\n b\r\nContent-Length: 0\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Bad Header: x\r\n",
    b": x\r\n",
], ids=repr)
def test_smuggling_forms_are_refused(shared, fields):
    status = raw(shared, HEAD + fields + b"\r\n" + chunked(b"", 1))
    assert status == 400


def test_bare_line_feeds_are_refused(shared):
    assert raw(shared, HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n") == 400


def test_long_head_is_refused(shared):
    assert raw(shared, HEAD + b"X-Filler: " + b"a" * 20000 + b"\r\n\r\n") == 431


def test_early_refusal_reaches_a_client_that_goes_on_sending(shared):
    client = wire.Http1(shared.http_port)
    client.send(HEAD + b"Authorization: Bearer nobody\r\nContent-Length: 500000\r\n\r\n")
    try:
        for _ in range(50):
            client.send(bytes(10000))
    except OSError:
        pass
    assert client.read_response()[0] == 401
    client.close()


@pytest.mark.parametrize("length", [b"Content-Length: 20000000", b"Transfer-Encoding: chunked"])
def test_early_refusal_reaches_a_client_that_sends_all_first(shared, length):
    """Go's client gives the answer up when it cannot write the rest: a large body is heard out, for a
    second. On a busy machine that may be too short: then the client comes again."""
    def attempt():
        client = wire.Http1(shared.http_port)
        try:
            client.send(HEAD + b"Authorization: Bearer nobody\r\n" + length + b"\r\n\r\n")
            if length.startswith(b"Transfer"):
                client.send(b"1312D00\r\n")  # 20,000,000
            for _ in range(200):
                client.send(bytes(100000))  # raises when it is cut off
            return client.read_response()[0]
        except OSError:
            return None
        finally:
            client.close()

    assert wait_for("an attempt in time", attempt) == 401


def test_42_disconnect_before_the_end_leaves_nothing(shared):
    before = len(shared.files("traces"))
    client = wire.Http1(shared.http_port)
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:-1])
    client.close()
    assert wire.post(shared.http_port, "/v1/traces", BODY)[0] == 200
    assert len(shared.files("traces")) == before + 1


# --- refusals that HTTP itself makes ----------------------------------------------------------------

JSON_HEAD = HEAD.replace(b"x-protobuf", b"json")
REFUSED = [
    (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "bad_request"),
    (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
    (b"Expect: tea\r\n\r\n", 417, "expectation"),
    (b"X-Filler: " + b"a" * 20000 + b"\r\n\r\n", 431, "headers_too_large"),
]


def check_status(headers, body):
    """Item 38: a Status with a message, in the request's encoding."""
    if headers["content-type"] == JSON:
        assert json.loads(body)["message"]
    else:
        assert headers["content-type"] == PROTOBUF
        assert status_pb2.Status.FromString(body).message


@pytest.mark.parametrize("head, protocol", [(HEAD, "http/protobuf"), (JSON_HEAD, "http/json")],
                         ids=["protobuf", "json"])
@pytest.mark.parametrize("rest, want, reason", REFUSED, ids=["lengths", "chunk", "expect", "large"])
def test_38_http_1_refusals_have_a_body_and_are_counted(shared, head, protocol, rest, want, reason):
    def counts():
        return (shared.metric("sluice_requests_total", protocol=protocol, code=str(want)),
                shared.metric("sluice_refused_requests_total", reason=reason))

    before = counts()
    client = wire.Http1(shared.http_port)
    client.send(head + rest)
    status, headers, body = client.read_response()
    client.close()
    assert status == want and headers["connection"] == "close"
    assert headers["content-type"] == (JSON if head is JSON_HEAD else PROTOBUF)
    check_status(headers, body)
    assert counts() == (before[0] + 1, before[1] + 1)


def test_38_http_version(shared):
    client = wire.Http1(shared.http_port)
    client.send(JSON_HEAD.replace(b"1.1", b"3.0") + b"\r\n")
    status, headers, body = client.read_response()
    client.close()
    assert status == 505 and headers["content-type"] == JSON
    check_status(headers, body)


@pytest.mark.parametrize("first", [True, False], ids=["type first", "type last"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_38_http_2_large_head(shared, kind, first):
    filler, named = [("x-filler", "a" * 9000)], [("content-type", kind)]
    client = wire.Http2(shared.http_port)
    number = client.start("/v1/traces", named + filler if first else filler + named, None,
                          end_stream=True)
    stream = client.finish(number)
    assert stream.headers[":status"] == "431" and stream.headers["content-type"] == kind
    check_status(stream.headers, stream.data)
    assert client.call("/v1/traces", BODY, content_type=PROTOBUF).headers[":status"] == "200"
    client.close()


def test_38_http_2_malformed_is_counted(shared):
    def count(protocol, code):
        return shared.metric("sluice_requests_total", protocol=protocol, code=code)

    before = count("http/json", "400"), count("grpc", "INTERNAL")
    client = wire.Http2(shared.http_port)
    one = client.start("/v1/traces", [("content-length", "5")], JSON)
    client.data(one, b"abc", end_stream=True)
    assert client.finish(one).reset == 1  # PROTOCOL_ERROR
    two = client.start("no-slash", end_stream=True)
    assert client.finish(two).reset == 1
    assert count("http/json", "400") == before[0] + 1
    assert count("grpc", "INTERNAL") == before[1] + 1
    client.close()
