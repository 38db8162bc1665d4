"""Limits on how many attributes there are and how long values are, per tenant and class."""

import json

from lib import otlp
from lib.sluice import wait_for
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from test_parts import send


def tenants(of_class, **of_tenants):
    return {"classes": {"base": {"limits": of_class}, "c": {"extends": "base"}},
            "tenants": {"demo": {"class": "c"}, "free": {},
                        **{name: {"class": "c", "limits": own}
                           for name, own in of_tenants.items()}}}


def with_attributes(signal, count=5, value="x"):
    message = otlp.request(signal, 2)
    for item in otlp.items(signal, message):
        del item.attributes[:]
        for number in range(count):
            item.attributes.add(key=f"key{number}").value.string_value = value
    return message


def test_an_sdks_spans(start):
    """A real SDK: the first attributes stay, the rest is counted, values end between characters;
    what the SDK dropped itself counts too."""
    sluice = start(tenants=tenants({"attributes": 3, "resource_attributes": 2, "value": "10B",
                                    "name": "4B"}))
    provider = TracerProvider(resource=Resource({"a": "1", "b": "2", "c": "3", "d": "4"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(
        endpoint=f"http://{sluice.host}:{sluice.http_port}/v1/traces")))
    with provider.get_tracer("tests").start_as_current_span("checkout") as span:
        for number in range(130):  # the SDK keeps 128 of them
            span.set_attribute(f"key{number}", "price: 10 \u20ac" if number % 2 else "short")
        span.add_event("abcdef", {str(number): number for number in range(5)})
    provider.shutdown()
    (message,) = sluice.files("traces")
    (span,) = otlp.items("traces", message)
    assert span.name == "chec" and span.dropped_attributes_count == 127
    # The SDK forgets its oldest ones.
    assert [a.value.string_value for a in span.attributes] == ["short", "price: 10 ", "short"]
    (event,) = span.events
    assert event.name == "abcd" and event.dropped_attributes_count == 2
    assert [a.key for a in event.attributes] == ["0", "1", "2"]
    resource = message.resource_spans[0].resource
    assert len(resource.attributes) == resource.dropped_attributes_count == 2
    assert sluice.metric("sluice_limits_dropped_attributes_total", signal="traces") == 125 + 4
    assert sluice.metric("sluice_limits_cut_values_total", signal="traces") == 3
    told = json.loads(sluice.admin("/tenants/demo")[1])["limits"]
    assert told == {"mode": "enforce", "attributes": 3, "resource_attributes": 2, "value": 10,
                    "name": 4, "points": False, "dropped_attributes": 129, "cut_values": 3,
                    "observed": 0}


def test_inheritance_and_reload(start):
    """A tenant replaces only the keys it names; observe changes nothing; points are exempt."""
    sluice = start(tenants=tenants({"attributes": 3, "value": "4B"}, own={"attributes": 4},
                                   watch={"mode": "observe"}, points={"points": True}))

    def attributes(tenant, signal, message, as_json=False):
        assert send(sluice, signal, message, as_json=as_json,
                    headers={"X-Scope-OrgID": tenant}) == (200, 0, "")
        return [[a.value.string_value for a in item.attributes]
                for item in otlp.items(signal, sluice.files(signal)[-1])]

    message = with_attributes("logs", value="\u00e9\u00e9\u00e9")
    text = "\u00e9\u00e9"
    assert attributes("demo", "logs", message) == [[text] * 3] * 2
    assert attributes("own", "logs", message, as_json=True) == [[text] * 4] * 2
    assert attributes("watch", "logs", message) == [["\u00e9\u00e9\u00e9"] * 5] * 2
    assert attributes("free", "logs", message) == [["\u00e9\u00e9\u00e9"] * 5] * 2
    told = json.loads(sluice.admin("/tenants/watch")[1])["limits"]
    assert told["mode"] == "observe" and told["observed"] == 11  # the resource's too
    assert told["dropped_attributes"] == told["cut_values"] == 0
    assert "limits" not in json.loads(sluice.admin("/tenants/free")[1])
    points = with_attributes("metrics", value="\u00e9\u00e9\u00e9")
    assert attributes("demo", "metrics", points) == [["\u00e9\u00e9\u00e9"] * 5] * 2
    assert attributes("points", "metrics", points) == [[text] * 3] * 2
    assert sluice.metric("sluice_limits_observed_total", signal="logs") == 11
    sluice.tenants = tenants({"attributes": 1})
    sluice.reload()
    wait_for("the shard to see it",
             lambda: attributes("demo", "logs", message) == [["\u00e9\u00e9\u00e9"]] * 2)
    told = json.loads(sluice.admin("/tenants/demo")[1])["limits"]
    assert told["dropped_attributes"] >= 4 + 8  # counted on over the reload


def test_with_its_neighbours(start):
    """Limits, different values, a claim that is overwritten, and sampling's own attributes: each
    finds what the others left."""
    everything = tenants({"attributes": 2, "resource_attributes": 2, "value": "20B"})
    everything["classes"]["base"]["cardinality"] = [
        {"attribute": "key0", "limit": 1, "over": "drop_attribute", "window": "1d"},
        {"attribute": "key3", "limit": 1, "over": "drop_item", "window": "1d"}]
    sluice = start(tenants=everything, config={
        "tenants": {"file": "tenants.yaml",
                    "identify": [{"header": "X-Scope-OrgID", "open": True},
                                 {"resource": ["tenant.id"], "open": True}]},
        "sampling": [{"match": {"signal": "logs"}, "mode": "proportional", "rate": "99.99%"}]})
    message = with_attributes("logs", 4)
    for number, item in enumerate(otlp.items("logs", message)):
        item.trace_id = b"\xff" * 16
        for attribute in item.attributes:
            attribute.value.string_value = f"value{number}"
    resource = message.resource_logs[0].resource
    del resource.attributes[:]
    for key, value in (("a", "x" * 40), ("b", "x"), ("c", "x"), ("tenant.id", "somebody else")):
        resource.attributes.add(key=key).value.string_value = value
    assert send(sluice, "logs", message, headers={"X-Scope-OrgID": "demo"}) == (200, 0, "")
    (written,) = sluice.files("logs")
    first, second = otlp.items("logs", written)
    keys = [[a.key for a in item.attributes if a.key != "sampling.threshold"]
            for item in (first, second)]
    # key3 goes before it is looked at; where key0 goes, there is room for key2.
    assert keys == [["key0", "key1"], ["key1", "key2"]]
    assert all(len(item.attributes) == 3 for item in (first, second))
    assert first.dropped_attributes_count == 2 and second.dropped_attributes_count == 1
    about = {a.key: a.value.string_value for a in written.resource_logs[0].resource.attributes}
    assert about == {"a": "x" * 20, "b": "x", "tenant.id": "demo"}
    assert written.resource_logs[0].resource.dropped_attributes_count == 1
