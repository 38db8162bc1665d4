"""Small requests go out together, and none of them suffers for another."""

import concurrent.futures

import pytest
from lib import otlp, wire
from lib.sluice import wait_for
from lib.upstream import Upstream, retry_info

TRACES = otlp.SERVICES["traces"]
KINDS = pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])


def config(upstream, http=False, merge=None, more=None, **settings):
    return {"destinations": {"up": {
        "otlp": {"endpoint": f"http://127.0.0.1:{upstream.port}",
                 "protocol": "http" if http else "grpc", **settings},
        "merge": {"requests": 4, "delay": "3s", **(merge or {})},
        "retry": {"initial": "20ms", "max": "100ms"}}},
        "routes": [{"to": ["up"]}], "answer_within": "20s", **(more or {})}


def send_all(sluice, bodies, coding=None, signal="traces"):
    """The streams of calls that are made at the same time, in the bodies' order."""
    return send_packed(sluice, [(otlp.compress(coding, body), coding) for body in bodies], signal)


def send_packed(sluice, bodies, signal="traces"):
    """The same of (bytes, coding)."""
    def one(body):
        body, coding = body
        client = wire.Http2(sluice.grpc_port)
        try:
            if coding:
                return client.call(otlp.SERVICES[signal], wire.frame(body, 1),
                                   {"grpc-encoding": coding})
            return client.call(otlp.SERVICES[signal], wire.frame(body))
        finally:
            client.close()
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(one, bodies))


def bodies_of(upstream):
    return [call.body[0 if upstream.http else 5:] for call in upstream.calls]


def ends(sluice):
    """The books close, to the item."""
    found = {name: sluice.metric(f"sluice_{name}_items_total", destination="up")
             for name in ("delivered", "rejected", "returned", "dropped", "lost")}
    wait_for("the books", lambda: sluice.metric("sluice_queue_records", destination="up") == 0)
    assert sum(found.values()) == sluice.metric("sluice_taken_items_total", destination="up")
    return {name: items for name, items in found.items() if items}


def spans(messages):
    return sorted(span.span_id for message in messages for resource in message.resource_spans
                  for scope in resource.scope_spans for span in scope.spans)


def many(count, items=5):
    return [otlp.request("traces", items) for _ in range(count)]


@KINDS
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_merged_by_count(start, http, compression):
    """Eight requests are two calls, whatever the coding they came in; each body stands unbroken."""
    messages = many(8)
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http, compression=compression))
        bodies = [one.SerializeToString() for one in messages]
        for half, coding in ((bodies[:4], "gzip"), (bodies[4:], None)):
            assert [one.grpc_status for one in send_all(sluice, half, coding)] == [0] * 4
        assert len(upstream.calls) == 2
        assert spans(upstream.messages()) == spans(messages)
        if compression == "none":
            for call, half in zip(bodies_of(upstream), (bodies[:4], bodies[4:])):
                assert len(call) == sum(map(len, half)) and all(one in call for one in half)
        assert sluice.metric("sluice_merged_records_total", destination="up") == 2
        assert ends(sluice) == {"delivered": 40}


@KINDS
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_compressed_bodies_merge_as_they_came_where_asked(start, http, coding):
    """Members (frames) one behind the other; one that came otherwise has all packed anew."""
    messages = many(8)
    bodies = [one.SerializeToString() for one in messages]
    packed = [otlp.compress(coding, one) for one in bodies]
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http, compression=coding, merge_compressed=True))
        found = send_packed(sluice, [(one, coding) for one in packed[:4]])
        found += send_packed(sluice, [(one, coding) for one in packed[4:7]] + [(bodies[7], None)])
        assert [one.grpc_status for one in found] == [0] * 8
        first, second = bodies_of(upstream)
        assert len(first) == sum(map(len, packed[:4]))
        assert all(one in first for one in packed[:4])
        assert not any(one in second for one in packed[4:])
        assert spans(upstream.messages()) == spans(messages)
        assert sluice.metric("sluice_merged_records_total", destination="up") == 2
        assert ends(sluice) == {"delivered": 40}


def test_compressed_bodies_merge_up_to_the_limit_inflated(start):
    """What is bounded is what a receiver has when it has inflated the call."""
    messages = many(4, 400)
    size = len(messages[0].SerializeToString())
    with Upstream() as upstream:
        sluice = start(config=config(upstream, compression="gzip", merge_compressed=True,
                                     max_call_bytes=3 * size, merge={"delay": "1s"}))
        found = send_all(sluice, [one.SerializeToString() for one in messages], "gzip")
        assert [one.grpc_status for one in found] == [0] * 4
        assert len(upstream.calls) == 2 and spans(upstream.messages()) == spans(messages)
        assert all(len(one.SerializeToString()) <= 3 * size for one in upstream.messages())


def test_merged_by_bytes_and_delay(start):
    messages = many(3, 20)
    size = len(messages[0].SerializeToString())
    with Upstream() as upstream:
        # Two fit, the third does not: the two go at once, it goes when its time has come.
        sluice = start(config=config(upstream, merge={
            "requests": 100, "bytes": size * 2 + size // 2, "delay": "300ms"}))
        assert [one.grpc_status for one in send_all(sluice, [
            one.SerializeToString() for one in messages])] == [0] * 3
        assert sorted(len(one.resource_spans) for one in upstream.messages()) == [1, 2]
        assert ends(sluice) == {"delivered": 60}


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_one_alone_goes_as_it_came(start, coding):
    body = otlp.request("traces", 30).SerializeToString()
    with Upstream() as upstream:
        sluice = start(config=config(upstream, merge={"delay": "10ms"}, compression=coding))
        client = wire.Http2(sluice.grpc_port)
        packed = otlp.compress(coding, body)
        assert client.call(TRACES, wire.frame(packed, 1), {"grpc-encoding": coding}).grpc_status == 0
        client.close()
        assert bodies_of(upstream) == [packed]


def test_signals_do_not_mix(start):
    with Upstream() as upstream:
        sluice = start(config=config(upstream, merge={"delay": "100ms"}))
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            done = [pool.submit(send_all, sluice, [otlp.request(signal).SerializeToString()] * 2,
                                None, signal) for signal in otlp.SIGNALS]
            assert all(one.grpc_status == 0 for each in done for one in each.result())
        for signal in otlp.SIGNALS:
            calls = [call for call in upstream.calls if call.path == otlp.SERVICES[signal]]
            found = [otlp.REQUESTS[signal].FromString(call.body[5:]) for call in calls]
            assert sum(len(one.ListFields()[0][1]) for one in found) == 2


@pytest.mark.parametrize("spoil", [
    lambda body: body.replace(b"span 0", b"span\xff\xff"),  # no UTF-8: a strict receiver would
    lambda body: body + b"\x12\x03abc",                     # refuse the others with it
], ids=["bad-utf8", "other-field"])
def test_what_must_not_merge_goes_alone(start, spoil):
    bodies = [one.SerializeToString() for one in many(3)]
    bad = spoil(otlp.request("traces", 5).SerializeToString())
    with Upstream() as upstream:
        sluice = start(config=config(upstream))
        assert [one.grpc_status for one in send_all(sluice, bodies + [bad])] == [0] * 4
        assert len(upstream.calls) == 2
        alone = [one for one in bodies_of(upstream) if len(one) < 2 * len(bad)]
        assert alone == [bad]


@KINDS
def test_one_bad_member_is_refused_alone(start, http):
    """Row 11: the merged call is refused for good; only the one that is at fault is."""
    messages = many(4)
    bad = messages[2].SerializeToString()
    with Upstream(http) as upstream:
        refusal = {"status": 400} if http else {"status": 3}

        def judge():
            return refusal if bad in upstream.calls[-1].body else {}
        upstream.script.extend([judge] * 20)
        sluice = start(config=config(upstream, http))
        found = [one.grpc_status for one in send_all(
            sluice, [one.SerializeToString() for one in messages])]
        assert found == [0, 0, 3, 0]
        assert len(upstream.calls) == 5  # together, then each alone
        assert spans(upstream.messages()[1:]) == spans(messages)
        assert sluice.metric("sluice_merged_taken_apart_total", destination="up") == 1
        assert ends(sluice) == {"delivered": 15, "rejected": 5}


@KINDS
def test_too_large_together(start, http):
    messages = many(4)
    bodies = [one.SerializeToString() for one in messages]
    with Upstream(http) as upstream:
        refusal = {"status": 413} if http else {"status": 8}

        def judge():
            return refusal if len(bodies_of(upstream)[-1]) > 2 * len(bodies[0]) else {}
        upstream.script.extend([judge] * 20)
        sluice = start(config=config(upstream, http))
        assert [one.grpc_status for one in send_all(sluice, bodies)] == [0] * 4
        assert ends(sluice) == {"delivered": 20}


def test_a_merged_partial_success_is_a_warning(start):
    messages = many(4)
    answer = otlp.RESPONSES["traces"]()
    answer.partial_success.rejected_spans = 3
    with Upstream(script=[{"body": answer.SerializeToString()}]) as upstream:
        sluice = start(config=config(upstream))
        for one in send_all(sluice, [one.SerializeToString() for one in messages]):
            reply = otlp.RESPONSES["traces"].FromString(one.data[5:])
            assert one.grpc_status == 0 and reply.partial_success.rejected_spans == 0
            assert "refused" in reply.partial_success.error_message
        assert sluice.metric("sluice_partially_rejected_items_total", destination="up") == 3
        assert ends(sluice) == {"delivered": 20}


@KINDS
def test_a_merged_call_is_tried_again(start, http):
    messages = many(4)
    busy = {"status": 503} if http else {
        "status": 14, "headers": {"grpc-status-details-bin": retry_info(14, 0.02)}}
    with Upstream(http, script=[busy, busy, {"do": "close"}]) as upstream:
        sluice = start(config=config(upstream, http))
        assert [one.grpc_status for one in send_all(
            sluice, [one.SerializeToString() for one in messages])] == [0] * 4
        assert spans(upstream.messages()[-1:]) == spans(messages)
        assert sluice.metric("sluice_merged_taken_apart_total", destination="up") == 0
        assert ends(sluice) == {"delivered": 20}


@KINDS
def test_larger_bodies_are_split_between_items(start, http):
    """Common receivers stop at 4 MiB: what is longer goes in several calls."""
    message = otlp.request("traces", 60)
    for span in message.resource_spans[0].scope_spans[0].spans:
        span.attributes.add(key="text").value.string_value = "x" * 100_000
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http))
        assert send_all(sluice, [message.SerializeToString()])[0].grpc_status == 0
        bodies = bodies_of(upstream)
        assert len(bodies) == 2 and max(map(len, bodies)) <= 3.5 * 2**20
        assert spans(upstream.messages()) == spans([message])
        assert ends(sluice) == {"delivered": 60}


@pytest.mark.kafka
@pytest.mark.parametrize("by", ["none", "trace"])
def test_records_merge_by_their_key(start, broker, by):
    """Four requests of the same two traces: one record, or one for each trace."""
    topic = f"merged-{by}"
    broker.create(topic)
    ids = [bytes([index] * 16) for index in (1, 2)]
    messages = many(4, 2)
    for message in messages:
        for span, trace_id in zip(message.resource_spans[0].scope_spans[0].spans, ids):
            span.trace_id = trace_id
    sluice = start(config={
        "destinations": {"up": {"kafka": {"brokers": [broker.address], "topic": topic,
                                          "partition_by": by},
                                "merge": {"requests": 4, "delay": "3s"}}},
        "routes": [{"to": ["up"]}], "answer_within": "20s"})
    assert [one.grpc_status for one in send_all(
        sluice, [one.SerializeToString() for one in messages])] == [0] * 4
    records = broker.read(topic)
    found = {record[1]: otlp.REQUESTS["traces"].FromString(record[2]) for record in records}
    assert len(records) == (1 if by == "none" else 2)
    assert set(found) == ({None} if by == "none" else {one.hex().encode() for one in ids})
    assert spans(found.values()) == spans(messages)
    assert ends(sluice) == {"delivered": 8}
