"""Limits on different values of an attribute and on metric series, per tenant."""

import json
import subprocess

import grpc
from lib import otlp
from lib.sluice import BINARY, Sluice, wait_for
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from test_parts import send


def tenants(*limits):
    return {"classes": {"c": {"cardinality": list(limits)}},
            "tenants": {"demo": {"class": "c"}, "free": {}, "other": {"class": "c"}}}


def limit(over, values=3, **more):
    return {"attribute": "user.id", "limit": values, "over": over, "window": "1d", **more}


def with_users(signal, *users):
    """One item for each user, with an attribute before and behind the user's."""
    message = otlp.request(signal, len(users))
    for item, user in zip(otlp.items(signal, message), users):
        item.attributes.add(key="before").value.string_value = "x"
        item.attributes.add(key="user.id").value.string_value = user
        item.attributes.add(key="behind").value.int_value = 7
    return message


def users_of(signal, message):
    return [{a.key: a.value.string_value for a in item.attributes}.get("user.id")
            for item in otlp.items(signal, message)]


def resources(message):
    return getattr(message, message.DESCRIPTOR.fields[0].name)


def described(sluice, tenant="demo"):
    return json.loads(sluice.admin(f"/tenants/{tenant}")[1])["cardinality"]


def test_new_values_vanish_and_known_ones_stay(start):
    sluice = start(tenants=tenants(limit("drop_attribute")), shards=2)
    for number, signal in enumerate(otlp.SIGNALS):
        first = with_users(signal, "a", "b", "a", "c") if not number else with_users(signal, "c")
        assert send(sluice, signal, first) == (200, 0, "")
        message = with_users(signal, "b", "new", "c", "newer", "a", "new")
        as_json = signal == "logs"
        assert send(sluice, signal, message, as_json=as_json) == (200, 0, "")
        written = sluice.files(signal)
        assert written[0] == first
        assert users_of(signal, written[1]) == ["b", None, "c", None, "a", None]
        # Nothing else of them has changed.
        for item in otlp.items(signal, message):
            kept = [a for a in item.attributes
                    if a.key != "user.id" or a.value.string_value in "abc"]
            del item.attributes[:]
            item.attributes.extend(kept)
        assert written[1] == message
        assert sluice.metric("sluice_cardinality_cut_attributes_total", signal=signal) == 3
        assert sluice.metric("sluice_accepted_items_total", signal=signal) == 6 + len(
            users_of(signal, first))
    (told,) = described(sluice)
    assert told["attribute"] == "user.id" and told["admitted"] == told["limit"] == 3
    # Two values may share a register of the estimate.
    assert told["estimate"] in (4, 5) and told["cut"] == 9 and told["current"]
    assert set(told["refused"]) == {"new", "newer"} and told["refused"][0] == "new"
    assert sluice.log().count("cardinality_exceeded") == 1
    # Each tenant has its own, and one without limits none.
    for tenant, wanted in (("other", ["x", "y", "z", None]), ("free", ["x", "y", "z", "new"])):
        headers = {"X-Scope-OrgID": tenant}
        message = with_users("logs", "x", "y", "z", "new")
        assert send(sluice, "logs", message, headers=headers) == (200, 0, "")
        assert users_of("logs", sluice.files("logs")[-1]) == wanted


def test_items_are_lost_and_told(start):
    """partial_success says what does not arrive, over gRPC too."""
    sluice = start(tenants=tenants(limit("drop_item", signal="logs")))
    with grpc.insecure_channel(f"{sluice.host}:{sluice.grpc_port}") as channel:
        stub = logs_grpc.LogsServiceStub(channel)
        reply = stub.Export(with_users("logs", "a", "b", "c", "d", "a", "e"), timeout=30)
        assert reply.partial_success.rejected_log_records == 2
        assert "Tenant demo has more than 3 values of user.id" in \
            reply.partial_success.error_message
        assert users_of("logs", sluice.files("logs")[0]) == ["a", "b", "c", "a"]
        # Nothing of it is left: a success, since sending it again would not help.
        reply = stub.Export(with_users("logs", "f"), timeout=30)
        assert reply.partial_success.rejected_log_records == 1
    assert len(sluice.files("logs")) == 1
    assert sluice.metric("sluice_refused_items_total", signal="logs",
                         reason="cardinality_exceeded") == 3
    assert sluice.metric("sluice_cardinality_cut_items_total", signal="logs") == 3
    # Spans are not meant.
    spans = with_users("traces", "p", "q", "r", "s")
    assert send(sluice, "traces", spans) == (200, 0, "")
    assert sluice.files("traces") == [spans]


def test_series(start):
    """A real SDK: its first series go on, those beyond vanish, and the metric is named."""
    sluice = start(tenants=tenants({"series": True, "limit": 10, "over": "drop_item"}))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(
        endpoint=f"http://{sluice.host}:{sluice.http_port}/v1/metrics"), 3600_000)
    provider = MeterProvider([reader])
    meter = provider.get_meter("tests")
    quiet, loud = meter.create_counter("quiet"), meter.create_counter("loud")
    for path in "abc":
        quiet.add(1, {"path": path})
    for number in range(7):
        loud.add(1, {"user": number})
    assert provider.force_flush()
    for number in range(7, 60):
        loud.add(1, {"user": number})
    assert provider.force_flush()
    first, second = [otlp.items("metrics", message) for message in sluice.files("metrics")]
    assert len(first) == 10

    def series(points):
        return sorted(str(point.attributes) for point in points)

    assert series(first) == series(second)
    provider.shutdown()
    (told,) = described(sluice)
    assert told["series"] and told["admitted"] == 10 and 55 <= told["estimate"] <= 71
    assert told["names"][0]["name"] == "loud" and 20 < told["names"][0]["estimate"] < 110
    assert {name["name"] for name in told["names"]} == {"loud", "quiet"}
    refused = sluice.metric("sluice_refused_items_total", reason="cardinality_exceeded")
    assert refused >= 53 and refused == sluice.metric("sluice_cardinality_cut_items_total")


def test_observe_and_reload(start):
    """observe lets all pass; what is known outlives a reload that leaves the limit as it is."""
    sluice = start(tenants=tenants(limit("observe")))
    message = with_users("logs", "a", "b", "c", "d")
    assert send(sluice, "logs", message) == (200, 0, "")
    assert sluice.files("logs") == [message]
    assert sluice.metric("sluice_cardinality_observed_total", signal="logs") == 1
    sluice.tenants = tenants(limit("drop_attribute"))
    sluice.reload()
    assert described(sluice)[0]["over"] == "drop_attribute"

    def enforced():
        assert send(sluice, "logs", message) == (200, 0, "")
        return users_of("logs", sluice.files("logs")[-1]) == ["a", "b", "c", None]

    wait_for("the shard to see it", enforced)
    assert sluice.metric("sluice_cardinality_memory_bytes") > 0


def test_with_sampling_and_a_quota(start):
    """Cut for the quota, then by value, then sampled: each count is its own."""
    everything = tenants(limit("drop_item"), {"attribute": "behind", "limit": 100, "window": "1d"})
    everything["classes"]["c"]["quota"] = {"spans": "6/h", "burst": "1h", "excess": "cut"}
    sluice = start(tenants=everything, config={"sampling": [
        {"match": {"signal": "traces"}, "mode": "proportional", "rate": "50%"}]})
    message = with_users("traces", *"abcdeabcde")
    status, rejected, text = send(sluice, "traces", message)
    assert (status, rejected) == (200, 6) and "quota" in text
    refused = {reason: sluice.metric("sluice_refused_items_total", reason=reason)
               for reason in ("quota_exceeded", "cardinality_exceeded")}
    assert refused == {"quota_exceeded": 4, "cardinality_exceeded": 2}
    arrived = [user for one in sluice.files("traces") for user in users_of("traces", one)]
    assert len(arrived) + sluice.metric("sluice_sampled_out_items_total") == 4
    assert set(arrived) <= set("abc")


def test_attributes_of_resources(start):
    """Values of a resource's attribute: cut out of it, which its series follow, or all in it goes."""
    sluice = start(tenants=tenants(
        {"resource_attribute": "pod", "limit": 1, "over": "drop_attribute", "window": "1d"},
        {"resource_attribute": "zone", "limit": 1, "over": "drop_item", "window": "1d"},
        {"series": True, "limit": 2, "over": "drop_item", "window": "1d"}))

    def of_pod(signal, **named):
        message = otlp.request(signal, 2)
        for resource in resources(message):
            for key, value in named.items():
                resource.resource.attributes.add(key=key).value.string_value = value
        return message

    def pods(signal):
        return [[a.value.string_value for a in resource.resource.attributes if a.key == "pod"]
                for message in sluice.files(signal)
                for resource in resources(message)]

    for pod in "abca":
        assert send(sluice, "logs", of_pod("logs", pod=pod, zone="one")) == (200, 0, "")
    assert pods("logs") == [["a"], [], [], ["a"]]
    status, rejected, text = send(sluice, "logs", of_pod("logs", zone="two"))
    assert (status, rejected) == (200, 2) and "values of resources' zone" in text
    assert len(sluice.files("logs")) == 4
    # What is left of them is one series.
    for pod in "bcd":
        message = otlp.request("metrics", 1)
        resources(message)[0].resource.attributes.add(
            key="pod").value.string_value = pod
        assert send(sluice, "metrics", message) == (200, 0, "")
    assert pods("metrics") == [[], [], []]
    pod, zone, series = described(sluice)
    assert pod["resource_attribute"] == "pod" and set(pod["refused"]) == {"b", "c", "d"}
    assert zone["refused"] == ["two"] and zone["cut"] == 1
    assert series["admitted"] == 1
    assert "resource_attribute=pod" in sluice.log()


def test_tenants_from_a_template(start):
    """Each that is made has its class' limits for itself, by name, and they survive a reload; who
    comes into a seat that was another's begins anew."""
    made = {"classes": {"c": {"cardinality": [limit("drop_attribute", 2)]}}, "tenants": {"demo": {}}}
    sluice = start(tenants=made, config={"tenants": {
        "file": "tenants.yaml", "identify": [{"header": "X-Scope-OrgID"}], "unknown": "create",
        "template": "c", "created_max": 2}})

    def come(name, *users):
        return send(sluice, "logs", with_users("logs", *users),
                    headers={"X-Scope-OrgID": name})[0]

    def there(name):
        return sluice.admin(f"/tenants/{name}")[0] == 200

    for name in ("one", "two"):
        assert come(name, "first") == 200
        wait_for("its seat", lambda name=name: there(name))
    before = len(sluice.files("logs"))
    assert come("one", "a", "b", "x") == 200 and come("two", "c", "d", "y") == 200
    assert sorted(map(users_of, ["logs"] * 2, sluice.files("logs")[before:])) == [
        ["a", "b", None], ["c", "d", None]]
    (told,) = described(sluice, "one")
    assert told["admitted"] == 2 and told["refused"] == ["x"]
    assert described(sluice, "two")[0]["refused"] == ["y"]
    sluice.tenants = {**made, "tenants": {"demo": {}, "more": {}}}
    sluice.reload()
    assert described(sluice, "one")[0]["admitted"] == 2

    # In the seat of who has left nothing of him is left.
    sluice.config["tenants"]["idle"] = "3s"
    sluice.reload()

    def third():
        come("two", "c")
        return come("three", "z") == 200 and there("three")
    wait_for("a free seat", third)
    assert not there("one")
    assert come("three", "x", "z", "q") == 200
    (told,) = described(sluice, "three")
    assert told["admitted"] == 2 and "x" not in told["refused"] and told["cut"] == 1


def test_what_a_template_may_take_is_bounded(tmp_path):
    """All that may be made count, before one of them is."""
    one = Sluice(tmp_path, tenants={"classes": {"c": {"cardinality": [limit("observe", 10000)]}}},
                 config={"tenants": {"file": "tenants.yaml", "identify": [{"header": "X-Scope-OrgID"}],
                                     "unknown": "create", "template": "c", "created_max": 100000}})
    one.write_config()
    done = subprocess.run([BINARY, "--check", tmp_path / "config.yaml"], capture_output=True,
                          text=True)
    assert done.returncode == 78 and "cardinality_memory" in done.stderr
