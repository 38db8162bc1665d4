"""A real Kafka: what is on the topic decodes to what was sent; keys and partitions are standard."""

import os
import subprocess
import threading
import time

import pytest
from lib import kafka, otlp, ports, wire
from lib.sluice import SANITIZED, wait_for

pytestmark = pytest.mark.kafka
TRACES = otlp.SERVICES["traces"]


def config(broker, topic, **more):
    return {"destinations": {"main": {"kafka": {"brokers": [broker.address], "topic": topic, **more}}},
            "routes": [{"to": ["main"]}]}


def send(sluice, signal, message, headers=None):
    client = wire.Http2(sluice.grpc_port)
    try:
        return client.call(otlp.SERVICES[signal], wire.frame(message.SerializeToString()),
                           headers).grpc_status
    finally:
        client.close()


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "lz4", "snappy"])
def test_bytes_on_the_topic_are_what_was_sent(start, broker, compression):
    name = f"plain-{compression}-" + "{signal}"
    for signal in ("spans", "metrics", "logs"):
        broker.create(name.replace("{signal}", signal))
    sluice = start(config=config(broker, name, compression=compression))
    for signal, topic in (("traces", "spans"), ("metrics", "metrics"), ("logs", "logs")):
        message = otlp.request(signal, 5)
        assert send(sluice, signal, message) == 0
        records = broker.read(name.replace("{signal}", topic))
        assert [(r[1], otlp.REQUESTS[signal].FromString(r[2])) for r in records] == [(None, message)]


def test_kcat_reads_the_same_bytes(start, broker):
    broker.create("kcat-spans")
    sluice = start(config=config(broker, "kcat-{signal}"))
    message = otlp.request("traces", 3)
    assert send(sluice, "traces", message) == 0
    out = subprocess.run(["kcat", "-b", broker.address, "-C", "-t", "kcat-spans", "-o", "beginning",
                          "-e", "-q", "-D", ""], capture_output=True, timeout=60)
    assert out.stdout == message.SerializeToString()


@pytest.mark.parametrize("partitions, wanted", [(8, (6, 1)), (12, (6, 5)), (32, (14, 25))])
def test_partition_by_trace(start, broker, partitions, wanted):
    """Keys are 32 hex digits, partitions Sarama's: the vectors of the Collector's exporter."""
    topic = f"by-trace-{partitions}"
    broker.create(topic, partitions)
    sluice = start(config=config(broker, topic, partition_by="trace"))
    ids = [bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"),
           bytes.fromhex("5b8efff798038103d269b633813fc60c")]
    message = otlp.request("traces", 6)
    spans = message.resource_spans[0].scope_spans[0].spans
    for index, span in enumerate(spans):
        span.trace_id = ids[index % 2]
    assert send(sluice, "traces", message) == 0
    records = {r[1]: r for r in broker.read(topic)}
    assert set(records) == {i.hex().encode() for i in ids}
    for trace_id, partition in zip(ids, wanted):
        record = records[trace_id.hex().encode()]
        assert record[0] == partition
        got = otlp.REQUESTS["traces"].FromString(record[2])
        assert [s for s in got.resource_spans[0].scope_spans[0].spans] == [
            s for s in spans if s.trace_id == trace_id]
        assert got.resource_spans[0].resource == message.resource_spans[0].resource


def murmur2(key):
    """As Java's default partitioner hashes a key: 32 bits, signed."""
    value = 0x9747b28c ^ len(key)
    for at in range(0, len(key) - len(key) % 4, 4):
        word = int.from_bytes(key[at:at + 4], "little") * 0x5bd1e995 & 0xffffffff
        word = (word ^ word >> 24) * 0x5bd1e995 & 0xffffffff
        value = value * 0x5bd1e995 & 0xffffffff ^ word
    rest = key[len(key) - len(key) % 4:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * 0x5bd1e995 & 0xffffffff
    value = (value ^ value >> 13) * 0x5bd1e995 & 0xffffffff
    value ^= value >> 15
    return value - (value >> 31 << 32)


def test_partitions_of_java(start, broker):
    """With `murmur2_random` a key lies where a Java producer puts it."""
    # From Kafka's own tests.
    assert {key: murmur2(key) for key in (b"21", b"foobar", b"a-little-bit-long-string")} == {
        b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    broker.create("java", 12)
    sluice = start(config=config(broker, "java", partition_by="trace",
                                 partitioner="murmur2_random"))
    message = otlp.request("traces", 24)
    for index, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        span.trace_id = bytes([index * 11 % 256]) * 16
    assert send(sluice, "traces", message) == 0
    records = broker.read("java")
    assert len(records) == 24 and len({r[0] for r in records}) > 1
    assert [r[0] for r in records] == [(murmur2(r[1]) & 0x7fffffff) % 12 for r in records]


def test_an_empty_trace_id_has_an_empty_key(start, broker):
    broker.create("empty-key")
    sluice = start(config=config(broker, "empty-key", partition_by="trace"))
    message = otlp.request("traces", 1)
    message.resource_spans[0].scope_spans[0].spans[0].trace_id = b""
    assert send(sluice, "traces", message) == 0
    assert broker.read("empty-key")[0][1] == b""


def test_large_requests_are_split_not_dropped(start, broker):
    broker.create("split", max_message_bytes=100000)
    sluice = start(config=config(broker, "split", max_message_bytes="90KB"))
    message = otlp.request("traces", 3000)
    assert send(sluice, "traces", message) == 0
    records = broker.read("split")
    assert len(records) > 1
    found = [s for r in records for rs in otlp.REQUESTS["traces"].FromString(r[2]).resource_spans
             for ss in rs.scope_spans for s in ss.spans]
    wanted = list(message.resource_spans[0].scope_spans[0].spans)
    assert sorted(s.span_id for s in found) == sorted(s.span_id for s in wanted)


def test_unknown_topic_is_an_error_not_a_loss(start, broker):
    """Refused for good while the sender waits; the topic is found once somebody has made it."""
    sluice = start(config=config(broker, "no-such-topic"))
    assert send(sluice, "traces", otlp.request("traces", 1)) == 3
    assert sluice.metric("sluice_rejected_items_total", destination="main") == 1
    assert sluice.metric("sluice_destination_refused_records_total", destination="main",
                         answer="kafka_unknown_topic", reason="rejected") == 1
    assert send(sluice, "traces", otlp.request("traces", 1)) == 3
    broker.create("no-such-topic")
    wait_for("the new topic", lambda: send(sluice, "traces", otlp.request("traces", 1)) == 0)
    assert len(broker.read("no-such-topic")) == 1


def test_headers_of_refused_records_are_freed_once(start, broker):
    """librdkafka 2.0.2 frees the single headers of a record without a topic twice."""
    sluice = start(config=config(broker, "no-such-topic-{signal}", headers={"zone": "eu"},
                                 tenant_header="X-Scope-OrgID"))
    broker.create("no-such-topic-logs")
    for _ in range(100):
        assert send(sluice, "traces", otlp.request("traces", 1)) == 3
        assert send(sluice, "logs", otlp.request("logs", 1)) == 0
    found = [headers for _, _, _, headers in broker.read("no-such-topic-logs")]
    assert found == 100 * [{"X-Scope-OrgID": b"demo", "zone": b"eu"}]


@pytest.mark.shards
def test_kill_9_under_load_loses_nothing_acknowledged(start, broker):
    broker.create("kill")
    sluice = start(shards=2, config=config(broker, "kill"))
    acknowledged, lock = set(), threading.Lock()

    def load():
        client = wire.Http2(sluice.grpc_port)
        try:
            while True:
                message = otlp.request("traces", 5)
                ids = {s.span_id for s in message.resource_spans[0].scope_spans[0].spans}
                stream = client.call(TRACES, wire.frame(message.SerializeToString()))
                if stream.grpc_status != 0:
                    return
                with lock:
                    acknowledged.update(ids)
        except (OSError, AssertionError):
            return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for("load", lambda: len(acknowledged) > 500)
    sluice.kill()
    for thread in threads:
        thread.join()
    found = {s.span_id for r in broker.read("kill")
             for rs in otlp.REQUESTS["traces"].FromString(r[2]).resource_spans
             for ss in rs.scope_spans for s in ss.spans}
    assert acknowledged <= found, f"{len(acknowledged - found)} of {len(acknowledged)} lost"


def test_a_paused_broker_is_answered_in_time(start, broker):
    broker.create("paused")
    sluice = start(config=dict(config(broker, "paused"), answer_within="1s"))
    assert send(sluice, "traces", otlp.request("traces", 1)) == 0
    broker.pause()
    try:
        began = time.monotonic()
        client = wire.Http2(sluice.grpc_port)
        stream = client.call(TRACES, wire.frame(otlp.request("traces", 1).SerializeToString()))
        assert stream.grpc_status == 14 and stream.retry_delay > 0
        assert 0.5 < time.monotonic() - began < 3.9  # not at the preset
        client.close()
    finally:
        broker.resume()
    wait_for("the late end", lambda: sluice.metric("sluice_late_requests_total") == 1, 60)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A broker that wants TLS and a login on a second listener: (address, folder of its CA)."""
    folder = tmp_path_factory.mktemp("kafka-tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.pem", "-subj", f"/CN={name}", "-days", "2")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr",
            "-subj", "/CN=127.0.0.1")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "ext")
    (folder / "server.both").write_bytes(
        (folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes())
    server = kafka.Broker(folder / "broker")
    port = ports.free()[0]
    plain, controller = f"127.0.0.1:{server.port}", f"127.0.0.1:{server.controller_port}"
    server.extra = f"""
listeners=PLAINTEXT://{plain},SASL_SSL://127.0.0.1:{port},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{plain},SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
required user_me="secret";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.both
"""
    server.start()
    server.create("guarded")
    yield server, f"127.0.0.1:{port}", folder
    server.remove()


@pytest.mark.parametrize("ca, password, wanted", [
    ("ca.pem", "secret", 0),
    ("ca.pem", "guessed", 14),
    ("other.pem", "secret", 14),
    (None, "secret", 14),  # the system's store does not know it
])
def test_tls_and_login(start, guarded, ca, password, wanted):
    server, address, folder = guarded
    sluice = start(config={
        "answer_within": "3s",
        "destinations": {"main": {"kafka": {
            "brokers": [address], "topic": "guarded", "message_timeout": "4s",
            "tls": {"ca_file": str(folder / ca)} if ca else {"verify": True},
            "sasl": {"username": "me", "password": password}}}},
        "routes": [{"to": ["main"]}]})
    before = len(server.read("guarded"))
    assert send(sluice, "traces", otlp.request("traces", 1)) == wanted
    assert len(server.read("guarded")) == before + (wanted == 0)
    wait_for("the end", lambda: sluice.metric("sluice_destination_in_flight_items") == 0, 30)


@pytest.mark.skipif(not os.environ.get("SLUICE_LONG"), reason="ten minutes: SLUICE_LONG=1")
@pytest.mark.timeout(1200)
def test_flat_memory(start, broker):
    """Twice the measured capacity for ten minutes: RSS grows at most 5 % after minute two."""
    from lib.load import flat_memory
    flat_memory(start, broker, config, seconds=600, warm=120, growth=0.05)


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' memory grows")
@pytest.mark.timeout(300)
def test_flat_memory_short(start, broker):
    """Bounded by the budget of 64 MiB, whatever the broker does meanwhile."""
    from lib.load import flat_memory
    flat_memory(start, broker, config, seconds=40, warm=15, growth=3.5)
