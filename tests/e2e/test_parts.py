"""Tenants that resources name: one body, a part for each.

"Tenancy item" means the list in tests/conform/README.md.
"""

import json

import pytest
from lib import otlp, wire
from lib.sluice import digest, wait_for

TENANTS = {"tenants": {
    "demo": {}, "a": {}, "b": {}, "gold": {"credentials": [digest("gold-token")]},
    "gone": {"suspended": True},
    "free": {"quota": {"spans": "10/s", "points": "10/s", "log_records": "10/s"}},
}}
OUTER = {"traces": "resource_spans", "metrics": "resource_metrics", "logs": "resource_logs"}
GOLD = {"Authorization": "Bearer gold-token"}


def config(mixed="refuse_all", resource=None, **tenants):
    return {
        "tenants": {"file": "tenants.yaml", "default": "demo",
                    "identify": ["credential", resource or {"by": "resource"}], **tenants},
        "quotas": {"mixed": mixed},
        "destinations": {
            name: {"file": {"path": name, "format": "protobuf"}} for name in ("rest", "a", "b")},
        "routes": [{"match": {"tenant": "a"}, "to": ["a"]},
                   {"match": {"tenant": "b"}, "to": ["b"]}, {"to": ["rest"]}],
    }


def body(signal, *named, key="tenant.id"):
    """One request: for each (tenant, items) a resource; None names nobody."""
    message = otlp.REQUESTS[signal]()
    for tenant, items in named:
        message.MergeFrom(otlp.request(signal, items, **({key: tenant} if tenant else {})))
    return message


def attributes(resource):
    return [(one.key, one.value.string_value) for one in resource.resource.attributes]


def taken(sluice, signal, name):
    """[(attributes, items)] of what a destination has."""
    found = []
    for path in sorted((sluice.folder / name).rglob(f"*{signal}*")):
        for message in otlp.read_delimited(signal, path.read_bytes()):
            for resource in getattr(message, OUTER[signal]):
                one = type(message)()
                getattr(one, OUTER[signal]).append(resource)
                found.append((attributes(resource), otlp.count(signal, one)))
    return found


def tenants_of(sluice, signal, name):
    """{tenant: items} of what a destination has."""
    sums = {}
    for pairs, items in taken(sluice, signal, name):
        tenant = dict(pairs).get("tenant.id")
        sums[tenant] = sums.get(tenant, 0) + items
    return sums


def send(sluice, signal, message, coding=None, as_json=False, headers=None):
    """(status, items rejected, message) over HTTP."""
    data = otlp.to_json(message) if as_json else message.SerializeToString()
    more = dict(headers or {})
    if coding:
        data, more["Content-Encoding"] = otlp.compress(coding, data), coding
    status, _, answer = wire.post(
        sluice.http_port, f"/v1/{signal}", data, headers=more,
        content_type="application/json" if as_json else "application/x-protobuf")
    if status != 200:
        return status, None, None
    if as_json:
        partial = json.loads(answer or b"{}").get("partialSuccess", {})
        rejected = [value for key, value in partial.items() if key.startswith("rejected")]
        return status, int(rejected[0]) if rejected else 0, partial.get("errorMessage", "")
    reply = otlp.RESPONSES[signal].FromString(answer)
    rejected = [getattr(reply.partial_success, field.name)
                for field in reply.partial_success.DESCRIPTOR.fields
                if field.name.startswith("rejected")]
    return status, rejected[0], reply.partial_success.error_message


@pytest.mark.parametrize("coding, as_json", [(None, False), ("gzip", False), ("zstd", False),
                                             (None, True), ("gzip", True)])
def test_one_body_of_several_tenants(start, coding, as_json):
    sluice = start(config=config(), tenants=TENANTS)
    for signal in otlp.SIGNALS:
        message = body(signal, ("a", 3), ("b", 2), ("a", 4), (None, 1))
        assert send(sluice, signal, message, coding, as_json) == (200, 0, "")
        assert tenants_of(sluice, signal, "a") == {"a": 7}
        assert tenants_of(sluice, signal, "b") == {"b": 2}
        assert tenants_of(sluice, signal, "rest") == {None: 1}
        assert sluice.metric("sluice_accepted_items_total", signal=signal) == 10


def test_over_grpc_with_parts_refused_for_good(start):
    """Tenancy item 6: unknown and suspended are not retryable; the rest is taken."""
    sluice = start(config=config(), tenants=TENANTS)
    client = wire.Http2(sluice.grpc_port)
    for signal in otlp.SIGNALS:
        message = body(signal, ("a", 3), ("who", 2), ("gone", 5), ("b", 1))
        stream = client.call(otlp.SERVICES[signal], wire.frame(message.SerializeToString()), {})
        assert stream.grpc_status == 0
        reply = otlp.RESPONSES[signal].FromString(stream.data[5:])
        assert "rejected" in str(reply) and ": 7" in str(reply)
        assert reply.partial_success.error_message
        assert sluice.metric("sluice_refused_items_total", signal=signal,
                             reason="unknown_tenant") == 2
        assert sluice.metric("sluice_refused_items_total", signal=signal, reason="suspended") == 5
        assert sluice.metric("sluice_accepted_items_total", signal=signal) == 4
    # All of it: 401 and 403, told apart, and no retry is offered.
    for tenant, wanted in (("who", 16), ("gone", 7)):
        stream = client.call(otlp.SERVICES["logs"], wire.frame(
            body("logs", (tenant, 2)).SerializeToString()), {})
        assert stream.grpc_status == wanted and stream.retry_delay is None
    client.close()


@pytest.mark.parametrize("name", ["..", ".", "", "a:b", "a|b", "a\x01", "n" * 151, "n" * 10240])
def test_names_that_are_none(start, name):
    """Tenancy item 2: 1-150 bytes of letters, digits and a few marks."""
    sluice = start(config=config(unknown="demo"), tenants=TENANTS)
    for signal in otlp.SIGNALS:
        message = body(signal, ("a", 1))
        getattr(message, OUTER[signal])[0].resource.attributes[-1].value.string_value = name
        assert send(sluice, signal, message)[0] == 401
        assert send(sluice, signal, message, as_json=True)[0] == 401


def test_refuse_all(start):
    """A part over its quota: nothing is taken, nobody is charged, and there is a hint when."""
    sluice = start(config=config(), tenants=TENANTS)
    client = wire.Http2(sluice.grpc_port)
    for signal in otlp.SIGNALS:
        assert send(sluice, signal, body(signal, ("a", 1), ("free", 10)))[0] == 200
        data = wire.frame(body(signal, ("a", 5), ("free", 9), ("b", 5)).SerializeToString())
        stream = client.call(otlp.SERVICES[signal], data, {})
        assert stream.grpc_status == 8 and stream.retry_delay > 0
        assert tenants_of(sluice, signal, "a") == {"a": 1}
        assert tenants_of(sluice, signal, "b") == {}
        assert sluice.metric("sluice_refused_items_total", signal=signal,
                             reason="quota_exceeded") == 19
        assert sluice.metric("sluice_accepted_items_total", signal=signal) == 11
    client.close()


def test_refunds_leave_the_others_quota(start):
    """Of a request that is refused for another tenant nothing is charged: b's burst is whole."""
    tenants = {"tenants": {**TENANTS["tenants"], "b": {"quota": {"spans": "0.01/s"}},
                           "free": {"quota": {"spans": "0.01/s"}}}}
    sluice = start(config=config(), tenants=tenants)
    assert send(sluice, "traces", body("traces", ("free", 1)))[0] == 200
    for _ in range(20):
        assert send(sluice, "traces", body("traces", ("b", 1), ("free", 1)))[0] == 429
    assert send(sluice, "traces", body("traces", ("b", 1)))[0] == 200
    assert send(sluice, "traces", body("traces", ("b", 1)))[0] == 429


def test_partial(start):
    sluice = start(config=config("partial"), tenants=TENANTS)
    for signal in otlp.SIGNALS:
        assert send(sluice, signal, body(signal, ("free", 10)))[0] == 200
        status, rejected, text = send(sluice, signal, body(signal, ("a", 5), ("free", 9), ("b", 4)))
        assert (status, rejected) == (200, 9) and "quota" in text
        assert tenants_of(sluice, signal, "a") == {"a": 5}
        assert tenants_of(sluice, signal, "b") == {"b": 4}
        assert sluice.metric("sluice_refused_items_total", signal=signal,
                             reason="quota_exceeded") == 9
        # All parts over quota: a refusal with its hint, not a success of nothing.
        assert send(sluice, signal, body(signal, ("free", 9)))[0] == 429


def test_sixty_four_tenants_and_one_more(start):
    named = [(f"t{index}", 2) for index in range(65)]
    tenants = {"tenants": {"demo": {}, **{name: {} for name, _ in named}}}
    sluice = start(config=config(), tenants=tenants)
    for signal in otlp.SIGNALS:
        # More parts at once than a batch holds: the requests are taken one after the other.
        client = wire.Http2(sluice.grpc_port)
        data = wire.frame(body(signal, *named[:64]).SerializeToString())
        for _ in range(3):
            assert client.call(otlp.SERVICES[signal], data, {}).grpc_status == 0
        stream = client.call(otlp.SERVICES[signal],
                             wire.frame(body(signal, *named).SerializeToString()), {})
        assert stream.grpc_status == 3 and "64 tenants" in stream.grpc_message
        client.close()
        assert tenants_of(sluice, signal, "rest") == {name: 6 for name, _ in named[:64]}
        assert sluice.metric("sluice_refused_items_total", signal=signal,
                             reason="too_many_tenants") == 130


@pytest.mark.parametrize("claimed, wanted", [
    ("overwrite", [("service.name", "checkout"), ("tenant.id", "gold"), ("tenant", "gold"),
                   ("tenant.id", "gold")]),
    ("strip", [("service.name", "checkout")]),
    ("keep", [("service.name", "checkout"), ("tenant.id", "a"), ("tenant", "b"),
              ("tenant.id", "c")])])
@pytest.mark.parametrize("coding, as_json", [(None, False), ("gzip", False), (None, True)])
def test_a_credential_beats_a_claim(start, claimed, wanted, coding, as_json):
    """Tenancy item 3: every occurrence of the claim is overwritten, stripped or kept."""
    sluice = start(config=config(claimed=claimed), tenants=TENANTS)
    for signal in otlp.SIGNALS:
        message = body(signal, ("a", 3), ("b", 2))
        for outer in getattr(message, OUTER[signal]):
            outer.resource.attributes[-1].value.string_value = "a"
            outer.resource.attributes.add(key="tenant").value.string_value = "b"
            outer.resource.attributes.add(key="tenant.id").value.string_value = "c"
        assert send(sluice, signal, message, coding, as_json, GOLD)[0] == 200
        assert taken(sluice, signal, "rest") == [(wanted, 3), (wanted, 2)]
        assert not taken(sluice, signal, "a") and not taken(sluice, signal, "b")


def test_a_claim_from_strangers_does_not_count(start):
    """Tenancy item 3: only from trusted_from, or where it is open; elsewhere it is overwritten."""
    sluice = start(config=config(resource={"by": "resource", "trusted_from": ["10.0.0.0/8"]}),
                   tenants=TENANTS)
    assert send(sluice, "logs", body("logs", ("a", 3)))[0] == 200
    assert tenants_of(sluice, "logs", "rest") == {"demo": 3}
    sluice.config["tenants"]["identify"][1] = {"by": "resource", "open": True,
                                               "trusted_from": ["10.0.0.0/8"]}
    sluice.reload()
    wait_for("the reload", lambda: send(sluice, "logs", body("logs", ("a", 1)))[0] == 200 and
             tenants_of(sluice, "logs", "a"))


def test_a_bad_credential_is_refused_whatever_is_claimed(start):
    """Tenancy items 4-6."""
    sluice = start(config=config(), tenants=TENANTS)
    assert send(sluice, "traces", body("traces", ("a", 1)),
                headers={"Authorization": "Bearer nope"})[0] == 401


def test_the_list_is_ordered_and_configured(start):
    """Tenancy item 3: which attributes count, and in which order, is configured."""
    sluice = start(config=config(resource={"resource": ["org", "team"]}), tenants=TENANTS)
    message = body("logs", ("a", 2), key="team")
    message.MergeFrom(body("logs", ("b", 3), key="team"))
    message.resource_logs[1].resource.attributes.add(key="org").value.string_value = "a"
    message.MergeFrom(body("logs", ("b", 4)))  # tenant.id says nothing here
    assert send(sluice, "logs", message) == (200, 0, "")
    assert sum(items for _, items in taken(sluice, "logs", "a")) == 5
    assert sum(items for _, items in taken(sluice, "logs", "rest")) == 4


def test_unknown_goes_to_a_tenant(start):
    sluice = start(config=config(unknown="b"), tenants=TENANTS)
    assert send(sluice, "logs", body("logs", ("who", 2), ("a", 1))) == (200, 0, "")
    assert tenants_of(sluice, "logs", "b") == {"who": 2}


def test_a_name_too_many_leaves_the_others_alone(start):
    """Where the template has no seat left, its resources are lost and not the whole body: a client
    that came again would bring it for as long as the seats are taken."""
    sluice = start(config=config(unknown="create", created_max=1), tenants=TENANTS)
    wait_for("the seat", lambda: (send(sluice, "logs", body("logs", ("one", 1))),
                                  sluice.metric("sluice_tenants_created"))[1] == 1)
    code, lost, _ = send(sluice, "logs", body("logs", ("a", 3), ("two", 2), ("_other", 4)))
    assert (code, lost) == (200, 6)
    assert tenants_of(sluice, "logs", "a") == {"a": 3}
    assert send(sluice, "logs", body("logs", ("two", 2)))[0] == 503


def test_sampling_is_each_tenants_own(start):
    """Rules of one tenant leave the others' items alone, in the same body."""
    more = {"sampling": [{"match": {"signal": "traces", "tenant": "a"}, "mode": "proportional", "rate": "0%"}]}
    sluice = start(config={**config(), **more}, tenants=TENANTS)
    message = body("traces", ("a", 100), ("b", 70), ("a", 30))
    assert send(sluice, "traces", message) == (200, 0, "")
    assert tenants_of(sluice, "traces", "b") == {"b": 70}
    assert tenants_of(sluice, "traces", "a") == {}
    assert sluice.metric("sluice_sampled_out_items_total", signal="traces") == 130
