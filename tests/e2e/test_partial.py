"""Tenants who would rather lose items than send them again: quota `excess: cut`.

What partial_success says is what does not arrive, to the item, over each protocol.
"""

import json

import grpc
import pytest
from lib import ledger, otlp, wire
from lib.sluice import wait_for
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc
from test_parts import body, send, tenants_of
from test_parts import config as parts_config

STUBS = {"traces": traces_grpc.TraceServiceStub, "metrics": metrics_grpc.MetricsServiceStub,
         "logs": logs_grpc.LogsServiceStub}
REJECTED = {"traces": "rejected_spans", "metrics": "rejected_data_points",
            "logs": "rejected_log_records"}
# So slow that nothing is refilled while a test runs: what there is, is the burst.
SLOW = {"spans": "10/h", "points": "10/h", "log_records": "10/h", "burst": "1h"}


def tenants(**quota):
    return {"classes": {"losing": {"quota": {**SLOW, **quota, "excess": "cut"}}},
            "tenants": {"demo": {"class": "losing"}, "a": {}, "b": {},
                        "free": {"class": "losing"}, "strict": {"quota": SLOW}}}


def arrived(sluice, signal):
    return [otlp.items(signal, message) for message in sluice.files(signal)]


def check_counts(sluice, signal, accepted, cut):
    assert sluice.metric("sluice_accepted_items_total", signal=signal) == accepted
    assert sluice.metric("sluice_refused_items_total", signal=signal,
                         reason="quota_exceeded") == cut


@pytest.mark.parametrize("coding, as_json", [(None, False), ("gzip", False), (None, True)])
def test_over_http(start, coding, as_json):
    sluice = start(tenants=tenants())
    for signal in otlp.SIGNALS:
        first, second = otlp.request(signal, 7), otlp.request(signal, 8)
        assert send(sluice, signal, first, coding, as_json) == (200, 0, "")
        status, rejected, text = send(sluice, signal, second, coding, as_json)
        assert (status, rejected) == (200, 5)
        assert "Tenant demo" in text and "a second" in text
        assert arrived(sluice, signal) == [otlp.items(signal, first),
                                           otlp.items(signal, second)[:3]]
        # Nothing is left: refused as ever, with a hint, and nothing is counted as lost.
        status, headers, _ = wire.post(sluice.http_port, f"/v1/{signal}",
                                       second.SerializeToString())
        assert status == 429 and int(headers["retry-after"]) > 0
        assert sluice.metric("sluice_accepted_items_total", signal=signal) == 10


def test_over_grpc(start):
    sluice = start(tenants=tenants())
    with grpc.insecure_channel(f"{sluice.host}:{sluice.grpc_port}") as channel:
        for signal in otlp.SIGNALS:
            message = otlp.request(signal, 25)
            reply = STUBS[signal](channel).Export(message, timeout=30)
            assert getattr(reply.partial_success, REJECTED[signal]) == 15
            assert "Tenant demo is over its quota" in reply.partial_success.error_message
            assert arrived(sluice, signal) == [otlp.items(signal, message)[:10]]
            check_counts(sluice, signal, accepted=10, cut=15)
            with pytest.raises(grpc.RpcError) as refused:
                STUBS[signal](channel).Export(message, timeout=30)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_by_bytes(start):
    """The items kept are those whose bytes fit; what they leave is for smaller ones."""
    sluice = start(tenants=tenants(spans="0/s", bytes="2000/h"))
    message = otlp.request("traces", 60)
    status, rejected, text = send(sluice, "traces", message)
    (kept,) = arrived(sluice, "traces")
    assert status == 200 and rejected == 60 - len(kept) and "bytes" in text
    assert kept == otlp.items("traces", message)[:len(kept)]
    (written,) = sluice.files("traces")
    one = len(kept[0].SerializeToString()) + 2
    assert 2000 - one - 16 < len(written.SerializeToString()) <= 2000


def test_who_did_not_choose_it_loses_nothing(start):
    sluice = start(tenants=tenants())
    headers = {"X-Scope-OrgID": "strict"}
    assert send(sluice, "logs", otlp.request("logs", 7), headers=headers) == (200, 0, "")
    assert send(sluice, "logs", otlp.request("logs", 4), headers=headers)[0] == 429
    assert send(sluice, "logs", otlp.request("logs", 3), headers=headers) == (200, 0, "")


def test_a_part_is_cut_and_the_others_are_whole(start):
    """Also under refuse_all: a part that is cut is not refused."""
    sluice = start(config=parts_config(), tenants=tenants())
    for signal in otlp.SIGNALS:
        message = body(signal, ("a", 5), ("free", 8), ("b", 4), ("free", 6))
        status, rejected, text = send(sluice, signal, message)
        assert (status, rejected) == (200, 4) and "Tenant free" in text
        assert tenants_of(sluice, signal, "a") == {"a": 5}
        assert tenants_of(sluice, signal, "b") == {"b": 4}
        assert tenants_of(sluice, signal, "rest") == {"free": 10}
        check_counts(sluice, signal, accepted=19, cut=4)


def test_a_refusal_beside_it_takes_nothing(start):
    """One part is cut, another refuses the request: what the cut part was charged goes back."""
    sluice = start(config=parts_config(), tenants=tenants())
    assert send(sluice, "logs", body("logs", ("strict", 9)))[0] == 200
    for _ in range(3):
        assert send(sluice, "logs", body("logs", ("free", 14), ("strict", 9)))[0] == 429
    assert send(sluice, "logs", body("logs", ("free", 14)))[:2] == (200, 4)
    assert tenants_of(sluice, "logs", "rest") == {"strict": 9, "free": 10}


def test_merged_with_others(start):
    """What is left of a body is merged like any other."""
    behind = start(tenants={"tenants": {"demo": {}}})
    sluice = start(tenants=tenants(), config={"destinations": {"file": {
        "otlp": {"endpoint": f"http://{behind.host}:{behind.grpc_port}"},
        "merge": {"delay": "100ms"}}}})
    with grpc.insecure_channel(f"{sluice.host}:{sluice.grpc_port}") as channel:
        calls = [STUBS["logs"](channel).Export.future(otlp.request("logs", 4), timeout=30)
                 for _ in range(3)]
        cut = [call.result().partial_success.rejected_log_records for call in calls]
    assert sorted(cut) == [0, 0, 2]
    assert sum(len(items) for items in arrived(behind, "logs")) == 10
    check_counts(sluice, "logs", accepted=10, cut=2)


def test_the_ledger_agrees(start):
    """received = accepted + throttled, in bytes too; what is accepted is what arrives."""
    sluice = start(tenants=tenants())
    message = otlp.request("logs", 13)
    assert send(sluice, "logs", message)[:2] == (200, 3)
    wait_for("the ledger", lambda: "delivered" in sluice.admin("/tenants/demo/ledger")[1])
    rows = json.loads(sluice.admin("/tenants/demo/ledger")[1])["signals"]["logs"]
    (written,) = sluice.files("logs")
    assert rows["accepted"]["items"] == 10
    assert rows["accepted"]["bytes"] == len(written.SerializeToString())
    assert rows["received"]["bytes"] == len(message.SerializeToString())
    lost = rows["throttled"]["quota_exceeded"]
    assert lost["items"] == 3
    assert lost["bytes"] == rows["received"]["bytes"] - rows["accepted"]["bytes"]


def test_sampling_comes_after(start):
    """Charges are for what is offered: cut first, then sampled."""
    sluice = start(tenants=tenants(), config={"sampling": [
        {"match": {"signal": "traces"}, "mode": "proportional", "rate": "0%"}]})
    assert send(sluice, "traces", otlp.request("traces", 13))[:2] == (200, 3)
    assert sluice.metric("sluice_sampled_out_items_total", signal="traces") == 10
    assert not arrived(sluice, "traces")


def test_to_a_volumes_mark(start):
    """The hard mark of a day: what fits is taken, the rest told, and the books know why."""
    sluice = start(shards=2, config={"quotas": {"volume_file": "volumes"}}, tenants={
        "classes": {"losing": {"quota": {"excess": "cut", "volume": {"spans": 25, "per": "month"}}}},
        "tenants": {"demo": {"class": "losing"}}})

    def known():
        return json.loads(sluice.admin("/tenants/demo")[1])["volume"]
    wait_for("the mark", lambda: sluice.metric("sluice_quota_ticks_total") > 0)
    first, second, third = (otlp.request("traces", 10) for _ in range(3))
    assert send(sluice, "traces", first) == (200, 0, "")
    assert send(sluice, "traces", second) == (200, 0, "")
    status, rejected, text = send(sluice, "traces", third)
    assert (status, rejected) == (200, 5)
    assert "Tenant demo has used up its volume of 25 spans a month" in text
    assert arrived(sluice, "traces")[2] == otlp.items("traces", third)[:5]
    assert known()["spans"]["used"] == 25
    assert send(sluice, "traces", third)[0] == 429
    assert sluice.metric("sluice_volume_cut_items_total", dimension="spans") == 5
    assert sluice.metric("sluice_accepted_items_total", signal="traces") == 25
    assert sluice.metric("sluice_refused_items_total", signal="traces",
                         reason="volume_exceeded") == 5  # the last one was not read
    account = ledger.settled(sluice)["demo"]["traces"]
    assert account["throttled"]["volume_exceeded"] == {
        "items": 5, "bytes": account["throttled"]["volume_exceeded"]["bytes"], "requests": 1}
    assert account["received"]["items"] == 30 and account["accepted"]["items"] == 25
