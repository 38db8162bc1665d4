"""Several endpoints of one upstream: who gets what, who is left out, and what moves when one goes."""

import collections
import concurrent.futures
import random
import socket
import threading
import time

import grpc
import pytest
from lib import otlp, wire
from lib.sluice import wait_for
from lib.upstream import Upstream

TRACES = otlp.SERVICES["traces"]
HEALTH = "/grpc.health.v1.Health/Check"


def config(upstreams, http=False, more=None, retry=None, breaker=None, **settings):
    destination = {"otlp": {"endpoints": [f"http://127.0.0.1:{one.port}" for one in upstreams],
                            "protocol": "http" if http else "grpc", **settings},
                   "retry": {"initial": "20ms", "max": "100ms", **(retry or {})}}
    if breaker:
        destination["breaker"] = breaker
    return {"destinations": {"up": destination}, "routes": [{"to": ["up"]}], **(more or {})}


def post(client, message, signal="traces"):
    return client.call(otlp.SERVICES[signal], wire.frame(message.SerializeToString()))


def send(sluice, message=None, signal="traces"):
    client = wire.Http2(sluice.grpc_port)
    try:
        return post(client, message or otlp.request(signal, 2), signal)
    finally:
        client.close()


def traces_of(upstream):
    return {span.trace_id for message in upstream.messages() for rs in message.resource_spans
            for ss in rs.scope_spans for span in ss.spans}


def spans_of(upstream):
    return [span.span_id for message in upstream.messages() for rs in message.resource_spans
            for ss in rs.scope_spans for span in ss.spans]


def of_traces(ids, chance, spans=4):
    """A request with some spans of each of these traces, well mixed, in two resources."""
    message = otlp.request("traces", 0)
    del message.resource_spans[:]
    for service in ("a", "b"):
        resource = message.resource_spans.add()
        attribute = resource.resource.attributes.add(key="service.name")
        attribute.value.string_value = service
        scope = resource.scope_spans.add()
        chosen = [trace for trace in ids for _ in range(spans // 2)]
        chance.shuffle(chosen)
        for trace in chosen:
            scope.spans.add(trace_id=trace, span_id=chance.randbytes(8), name="x")
    return message


def test_calls_go_to_the_least_busy(start):
    """One of three answers nothing until the others have served the rest: it never has more in
    flight than they, so of four at a time it has two at most."""
    gate = threading.Event()
    with Upstream(judge=lambda _: (gate.wait(60), {})[1]) as slow, Upstream() as b, Upstream() as c:
        sluice = start(config=config([slow, b, c], timeout="1m", more={"answer_within": "1m"}))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = [pool.submit(lambda: send(sluice).grpc_status) for _ in range(60)]
            wait_for("the others", lambda: len(b.calls) + len(c.calls) >= 58)
            gate.set()
            assert [one.result() for one in found] == [0] * 60
        counts = [len(one.calls) for one in (slow, b, c)]
        assert sum(counts) == 60 and counts[0] <= 2 and min(counts[1:]) > 10, counts


def test_all_addresses_of_a_name_get_calls(start):
    """localhost is 127.0.0.1 and, where there is IPv6, ::1; what is there serves."""
    with Upstream() as upstream:
        sluice = start(config={
            "destinations": {"up": {"otlp": {"endpoint": f"http://localhost:{upstream.port}"},
                                    "retry": {"initial": "20ms"}}},
            "routes": [{"to": ["up"]}]})
        for _ in range(6):
            assert send(sluice).grpc_status == 0
        assert len(upstream.calls) == 6
        assert sluice.metric("sluice_endpoint_calls_total", destination="up",
                             endpoint=f"127.0.0.1:{upstream.port}") == 6


def test_a_name_is_resolved_anew(start, tmp_path):
    """Three addresses of one name; then one of them is another's: who is new gets calls, who is
    gone none, and no sender notices."""
    hosts = tmp_path / "hosts"

    def name(*addresses):
        hosts.write_text("".join(f"{one} many.test\n" for one in addresses))
    name("127.0.0.2", "127.0.0.3", "127.0.0.4")
    with Upstream(host="127.0.0.2") as a:
        port = a.port
        with (Upstream(host="127.0.0.3", port=port) as b, Upstream(host="127.0.0.4", port=port) as c,
              Upstream(host="127.0.0.5", port=port) as d):
            sluice = start(environment={"CARES_HOSTS": str(hosts)}, config={
                "destinations": {"up": {"otlp": {"endpoint": f"http://many.test:{port}"},
                                        "retry": {"initial": "10s", "max": "10s"}}},
                "routes": [{"to": ["up"]}]})
            for _ in range(12):
                assert send(sluice).grpc_status == 0
            assert [len(one.calls) for one in (a, b, c, d)] == [4, 4, 4, 0]
            c.close()
            name("127.0.0.2", "127.0.0.3", "127.0.0.5")

            def taken_up():
                assert send(sluice).grpc_status == 0
                return d.calls
            wait_for("the new address", taken_up)
            assert f"endpoint_left destination=up endpoint=127.0.0.4:{port}" in sluice.log()
            assert len(c.calls) == 4 and sluice.metric("sluice_retried_records_total") == 0
            assert a.calls[0].headers[":authority"] == f"many.test:{port}"


def test_a_name_that_is_not_known_yet(start, tmp_path):
    """Its records wait, as for an endpoint that is not there."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.9 other.test\n")
    with Upstream() as upstream:
        sluice = start(environment={"CARES_HOSTS": str(hosts)}, config={
            "destinations": {"up": {"otlp": {"endpoint": f"http://late.invalid:{upstream.port}"}}},
            "routes": [{"to": ["up"]}], "answer_within": "40s"})
        result = []
        thread = threading.Thread(target=lambda: result.append(send(sluice).grpc_status))
        thread.start()
        wait_for("a complaint", lambda: "name_not_resolved" in sluice.log())
        assert not result
        hosts.write_text("127.0.0.1 late.invalid\n")
        thread.join()
        assert result == [0] and "name_resolved" in sluice.log()


def test_one_that_is_not_there_costs_no_attempt(start):
    """Its calls go to another at once: the sender sees nothing, and nothing is booked as a retry."""
    with Upstream() as there, Upstream() as gone:
        gone.close()
        sluice = start(config=config([gone, there], retry={"initial": "10s", "max": "10s"}))
        for _ in range(20):
            assert send(sluice).grpc_status == 0
        assert len(there.calls) == 20
        assert sluice.metric("sluice_retried_records_total", destination="up") == 0


def test_each_endpoint_has_its_breaker(start):
    with Upstream(script=[{"status": 14}] * 10000) as bad, Upstream() as good:
        sluice = start(config=config([bad, good], breaker={"failures": 3, "wait": "1h",
                                                           "wait_max": "1h"}))
        for _ in range(40):
            assert send(sluice).grpc_status == 0
        assert len(bad.calls) == 3 and len(good.calls) == 40
        assert sluice.metric("sluice_breaker_shards", destination="up", state="open") == 1
        assert sluice.metric("sluice_breaker_shards", destination="up", state="closed") == 1
        assert sluice.metric("sluice_endpoint_healthy_shards",
                             endpoint=f"127.0.0.1:{bad.port}") == 0
        assert sluice.metric("sluice_endpoint_healthy_shards",
                             endpoint=f"127.0.0.1:{good.port}") == 1
        assert f"breaker_open destination=up endpoint=127.0.0.1:{bad.port}" in sluice.log()


def test_one_that_stands_out_is_ejected(start):
    """It refuses for good what the others take: no breaker counts that, but it stands out."""
    with Upstream(script=[{"status": 13}] * 10000) as odd, Upstream() as b, Upstream() as c:
        sluice = start(config=config([odd, b, c], outlier={
            "interval": "1s", "min_calls": 3, "wait": "1h", "wait_max": "1h"}))

        def ejected():
            for _ in range(15):
                send(sluice)
            return sluice.metric("sluice_endpoint_ejections_total",
                                 endpoint=f"127.0.0.1:{odd.port}")
        wait_for("the ejection", ejected)
        before = len(odd.calls)
        for _ in range(20):
            assert send(sluice).grpc_status == 0
        assert len(odd.calls) == before
        assert "endpoint_ejected" in sluice.log()


# --- checks --------------------------------------------------------------------------------------

class Server:
    """grpcio's own server with OTLP traces and the health service, as OpenTelemetry's are."""

    def __init__(self, port=0, watch=False):
        """`watch`: it has the health service's Watch, too."""
        self.status, self.calls, self.asked, self.watched = 1, 0, [], []
        self.stopped = False
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))

        def export(request, _):
            self.calls += 1
            return b""

        def check(request, context):
            self.asked.append(request)
            if self.status is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such service")
            return bytes([8, self.status]) if self.status else b""

        def watch_it(request, context):
            self.watched.append(request)
            said = None
            while context.is_active() and not self.stopped:
                if self.status != said:
                    said = self.status
                    yield bytes([8, said]) if said else b""
                time.sleep(0.02)

        methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
        if watch:
            methods["Watch"] = grpc.unary_stream_rpc_method_handler(watch_it)
        self.server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler(
                TRACES.split("/")[1], {"Export": grpc.unary_unary_rpc_method_handler(export)}),
            grpc.method_handlers_generic_handler(HEALTH.split("/")[1], methods)))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def close(self):
        self.stopped = True
        self.server.stop(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def healthy(sluice, server):
    return sluice.metric("sluice_endpoint_healthy_shards", endpoint=f"127.0.0.1:{server.port}")


@pytest.mark.parametrize("status", [2, 0, None], ids=["NOT_SERVING", "UNKNOWN", "UNIMPLEMENTED"])
def test_grpc_checks(start, status):
    with Server() as one, Server() as other:
        sluice = start(config=config([one, other], health={
            "check": "grpc", "service": "otlp", "interval": "50ms"}))
        wait_for("checks", lambda: len(one.asked) > 2 and len(other.asked) > 2)
        assert one.asked[0] == b"\n\x04otlp"
        one.status = status
        wait_for("it to be down", lambda: healthy(sluice, one) == 0)
        before = one.calls
        for _ in range(10):
            assert send(sluice).grpc_status == 0
        assert one.calls == before and other.calls >= 10 and healthy(sluice, other) == 1
        one.status = 1
        wait_for("it to be up", lambda: healthy(sluice, one) == 1)
        for _ in range(10):
            assert send(sluice).grpc_status == 0
        assert one.calls > before
        assert "endpoint_unhealthy" in sluice.log() and "endpoint_healthy" in sluice.log()


@pytest.mark.parametrize("status", [2, 0], ids=["NOT_SERVING", "UNKNOWN"])
def test_grpc_watch(start, status):
    """The server says so itself, long before the next check would be."""
    with Server(watch=True) as one, Server(watch=True) as other:
        sluice = start(config=config([one, other], health={
            "check": "grpc_watch", "service": "otlp", "interval": "1h", "timeout": "30s"}))
        wait_for("both", lambda: len(one.watched) == len(other.watched) == 1)
        assert one.watched[0] == b"\n\x04otlp"
        for _ in range(2):  # on the same stream
            one.status = status
            wait_for("it to be down", lambda: healthy(sluice, one) == 0)
            before = one.calls
            for _ in range(6):
                assert send(sluice).grpc_status == 0
            assert one.calls == before and healthy(sluice, other) == 1
            one.status = 1
            wait_for("it to be up", lambda: healthy(sluice, one) == 1)
        assert len(one.watched) == 1 and not one.asked
        assert f'why="health status {status}"' in sluice.log()


def test_a_watch_that_breaks_is_a_check_that_fails(start):
    with Server(watch=True) as one, Server(watch=True) as other:
        sluice = start(config=config([one, other], health={
            "check": "grpc_watch", "interval": "100ms"}))
        wait_for("both", lambda: one.watched and other.watched)
        one.close()
        wait_for("it to be down", lambda: healthy(sluice, one) == 0)
        for _ in range(6):
            assert send(sluice).grpc_status == 0
        with Server(one.port, watch=True) as again:
            wait_for("it to be up", lambda: healthy(sluice, one) == 1)
            assert again.watched and not again.asked


def test_without_watch_it_is_asked(start):
    """grpcio answers UNIMPLEMENTED: Check takes its place at once. One that comes back with Watch is
    watched."""
    with Server() as one, Server() as other:
        sluice = start(config=config([one, other], health={
            "check": "grpc_watch", "interval": "50ms"}))
        wait_for("checks", lambda: len(one.asked) > 2 and len(other.asked) > 2)
        one.status = 2
        wait_for("it to be down", lambda: healthy(sluice, one) == 0)
        one.status = 1
        wait_for("it to be up", lambda: healthy(sluice, one) == 1)
        one.close()
        wait_for("it to be down", lambda: healthy(sluice, one) == 0)
        with Server(one.port, watch=True) as again:
            wait_for("it to be up", lambda: healthy(sluice, one) == 1)
            wait_for("a watch", lambda: again.watched)


def test_a_watch_that_calls_speak_against_is_asked_anew(start):
    """The health service, on a port of its own, goes on to say that it serves."""
    with Server() as there, Server() as gone, Server(watch=True) as health:
        gone.close()
        sluice = start(config=config([gone, there], health={
            "check": "grpc_watch", "interval": "200ms", "port": health.port}))
        wait_for("both", lambda: len(health.watched) >= 2)
        before = len(health.watched)

        def noticed():
            assert send(sluice).grpc_status == 0
            return f"endpoint_unhealthy destination=up endpoint=127.0.0.1:{gone.port}" in sluice.log()
        wait_for("a call to find it gone", noticed)
        wait_for("a new stream", lambda: len(health.watched) > before)
        wait_for("its word", lambda: healthy(sluice, gone) == 1)


def test_tcp_checks(start):
    with Upstream() as one, Upstream() as other:
        sluice = start(config=config([one, other], health={"check": "tcp", "interval": "50ms"}))
        wait_for("both", lambda: healthy(sluice, one) == healthy(sluice, other) == 1)
        one.close()
        wait_for("it to be down", lambda: healthy(sluice, one) == 0)
        assert healthy(sluice, other) == 1
        with Upstream(port=one.port) as again:
            wait_for("it to be up", lambda: healthy(sluice, one) == 1)
            for _ in range(6):
                assert send(sluice).grpc_status == 0
            assert again.calls and other.calls


def test_http_checks_on_another_port(start):
    """A Collector tells its health over HTTP, on a port of its own."""
    answers = {"status": b"200 OK"}
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    def answer(peer):
        with peer:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = peer.recv(4096)
                    if not data:
                        return
                    head += data
                assert head.startswith(b"GET /healthz HTTP/1.1\r\n")
                peer.sendall(b"HTTP/1.1 " + answers["status"] + b"\r\ncontent-length: 0\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    try:
        with Upstream() as upstream:
            sluice = start(config=config([upstream], more={"answer_within": "300ms"}, health={
                "check": "http", "path": "/healthz", "interval": "50ms",
                "port": listener.getsockname()[1]}))
            assert send(sluice).grpc_status == 0
            answers["status"] = b"503 Service Unavailable"
            wait_for("it to be down", lambda: healthy(sluice, upstream) == 0)
            assert send(sluice).grpc_status == 14 and len(upstream.calls) == 1  # and nothing sent
            answers["status"] = b"204 No Content"
            wait_for("it to be up", lambda: healthy(sluice, upstream) == 1)
            assert send(sluice).grpc_status == 0
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


# --- by hash -------------------------------------------------------------------------------------

@pytest.mark.shards
def test_whole_traces_to_one_endpoint_while_one_leaves_and_returns(start):
    chance = random.Random(3)
    ids = [chance.randbytes(16) for _ in range(300)]
    ups = [Upstream() for _ in range(4)]
    try:
        sluice = start(shards=2, config=config(ups, balance="trace_id",
                                               health={"interval": "50ms"}))
        client = wire.Http2(sluice.grpc_port)

        def owners():
            """Sends three times, in other orders and together with others; who got which."""
            for one in ups:
                one.calls.clear()
            sent = 0
            for _ in range(3):
                mixed = list(ids)
                chance.shuffle(mixed)
                for at in range(0, len(mixed), 50):
                    message = of_traces(mixed[at:at + 50], chance)
                    sent += 200
                    assert post(client, message).grpc_status == 0
            assert sum(len(spans_of(one)) for one in ups) == sent
            found = collections.defaultdict(set)
            for one in ups:
                for trace in traces_of(one):
                    found[trace].add(one.port)
            assert set(found) == set(ids)
            assert all(len(ports_) == 1 for ports_ in found.values())  # whole
            return {trace: ports_.pop() for trace, ports_ in found.items()}

        before = owners()
        shares = collections.Counter(before.values())
        assert len(shares) == 4 and max(shares.values()) < 300 / 4 * 1.25 * 1.4
        gone = ups[1]
        gone.close()
        wait_for("all shards to see it", lambda: healthy(sluice, gone) == 0)
        during = owners()
        moved = {trace for trace in ids if during[trace] != before[trace]}
        assert moved == {trace for trace in ids if before[trace] == gone.port}  # its keys alone
        assert len({during[trace] for trace in moved}) == 3  # to all others
        assert "ring_changed" in sluice.log() and f'left="127.0.0.1:{gone.port}"' in sluice.log()
        ups[1] = Upstream(port=gone.port)
        wait_for("all shards to see it", lambda: healthy(sluice, gone) == 2)
        assert owners() == before
        client.close()
    finally:
        for one in ups:
            one.close()


def test_what_waits_follows_its_keys(start):
    """An owner that is gone: its records are dealt anew, whole traces, and nobody is told no."""
    chance = random.Random(5)
    ids = [chance.randbytes(16) for _ in range(60)]
    with Upstream() as a, Upstream() as b, Upstream() as c:
        sluice = start(config=config([a, b, c], balance="trace_id", health={"interval": "100ms"}))
        b.close()
        for _ in range(4):
            assert send(sluice, of_traces(ids, chance)).grpc_status == 0
        assert not traces_of(b)
        assert traces_of(a) | traces_of(c) == set(ids) and not traces_of(a) & traces_of(c)
        assert sluice.metric("sluice_delivered_items_total", destination="up") == 4 * 240


def test_what_was_on_disk_finds_its_owners(start, tmp_path):
    """Spooled while all of them refused: from there each trace goes where it does without a disk."""
    chance = random.Random(13)
    ids = [chance.randbytes(16) for _ in range(12)]
    down = [True]
    ups = [Upstream(judge=lambda _: {"status": 14} if down[0] else {}) for _ in range(3)]
    try:
        settings = config(ups, balance="trace_id")
        settings["destinations"]["up"]["spool"] = {"path": str(tmp_path / "spool"), "after": "50ms"}
        sluice = start(config=settings)

        def owners():
            found = collections.defaultdict(set)
            for one in ups:
                for message in one.messages(taken=True):
                    for span in message.resource_spans[0].scope_spans[0].spans:
                        found[span.trace_id].add(one.port)
            return dict(found)
        for trace in ids:
            assert send(sluice, of_traces([trace], chance)).grpc_status == 0
        assert sluice.metric("sluice_spooled_items_total") >= 48 and not owners()
        wait_for("the figures", lambda: sluice.metric("sluice_spool_items") > 0)
        down[0] = False
        wait_for("the disk", sluice.spools_are_empty)
        from_disk = owners()
        assert set(from_disk) == set(ids)
        assert len({port for found in from_disk.values() for port in found}) == 3
        for trace in ids:  # past the disk, sooner or later
            assert send(sluice, of_traces([trace], chance)).grpc_status == 0
        wait_for("the rest", sluice.spools_are_empty)
        assert owners() == from_disk and all(len(found) == 1 for found in from_disk.values())
    finally:
        for one in ups:
            one.close()


@pytest.mark.parametrize("balance", ["tenant", {"hash": "attribute", "attribute": "service.name"}])
def test_by_tenant_and_attribute(start, balance):
    ups = [Upstream() for _ in range(3)]
    try:
        sluice = start(config=config(ups, balance=balance, tenant_header="X-Scope-OrgID"),
                       tenants={"tenants": {f"t{i}": {} for i in range(12)} | {"demo": {}}})
        client = wire.Http2(sluice.grpc_port)
        for turn in range(3):
            for i in range(12):
                message = otlp.request("logs", 4)
                if balance != "tenant":
                    for resource in message.resource_logs:
                        del resource.resource.attributes[:]
                        resource.resource.attributes.add(
                            key="service.name").value.string_value = f"s{i}"
                assert client.call(otlp.SERVICES["logs"], wire.frame(message.SerializeToString()),
                                   {"x-scope-orgid": f"t{i}"}).grpc_status == 0
        client.close()
        found = collections.defaultdict(set)
        for one in ups:
            for call, message in zip(one.calls, one.messages("logs")):
                if balance == "tenant":
                    found[call.headers["x-scope-orgid"]].add(one.port)
                    continue
                for resource in message.resource_logs:
                    found[resource.resource.attributes[0].value.string_value].add(one.port)
        assert len(found) == 12 and all(len(ports_) == 1 for ports_ in found.values())
        assert sum(len(one.calls) for one in ups) == 36
        assert len({ports_.pop() for ports_ in found.values()}) > 1
    finally:
        for one in ups:
            one.close()


def test_a_body_that_one_owner_has_goes_as_it_came(start):
    """One trace: nothing is cut, so its gzip bytes are not touched either."""
    chance = random.Random(9)
    packed = otlp.compress("gzip", of_traces([chance.randbytes(16)], chance).SerializeToString())
    with Upstream() as a, Upstream() as b:
        sluice = start(config=config([a, b], balance="trace_id", compression="gzip"))
        client = wire.Http2(sluice.grpc_port)
        assert client.call(TRACES, wire.frame(packed, 1), {"grpc-encoding": "gzip"}).grpc_status == 0
        client.close()
        assert [call.body for call in a.calls + b.calls] == [wire.frame(packed, 1)]


def test_one_owner_that_hangs_does_not_stop_the_others(start):
    """Of the calls at a time an endpoint has its share only; counts, not times."""
    chance = random.Random(11)
    with Upstream(script=[{"do": "silent"}] * 10000) as dead, Upstream() as b, Upstream() as c:
        sluice = start(config=config([dead, b, c], balance="trace_id", concurrency=6,
                                     timeout="1m", more={"answer_within": "3s"}))
        singles = [of_traces([chance.randbytes(16)], chance) for _ in range(90)]
        with concurrent.futures.ThreadPoolExecutor(45) as pool:
            found = list(pool.map(lambda one: send(sluice, one).grpc_status, singles))
        theirs = [one.resource_spans[0].scope_spans[0].spans[0].trace_id for one in singles]
        arrived = traces_of(b) | traces_of(c)
        assert len(dead.calls) <= 3  # its share of 6 with the bound: 2.5
        assert 30 < len(arrived) < 90
        told = {trace for status, trace in zip(found, theirs) if status == 0}
        assert set(found) <= {0, 14} and told <= arrived and len(told) > 30
        sluice.clean = False  # calls to the dead one are still open
        sluice.kill()
