"""A real Kafka broker from Maven Central, on loopback, and a consumer for what it holds."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

from lib import ports

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build/kafka"
VERSION = "4.3.1"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluice.tests</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def jars():
    """The folder of the broker's jars, fetched once."""
    folder = CACHE / f"jars-{VERSION}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pom = CACHE / "pom.xml"
        pom.write_text(POM)
        subprocess.run(
            ["mvn", "-q", "-B", "-f", pom,
             "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
             "-DincludeScope=runtime", f"-DoutputDirectory={folder}"], check=True, timeout=600)
        (folder / "done").touch()
    return folder


class Broker:
    """One node, broker and controller in one. Keeps 64 MiB a partition: a load of minutes writes
    more than a disk may have."""

    def __init__(self, folder, extra=""):
        self.folder = pathlib.Path(folder)
        self.port, self.controller_port = ports.free(2)
        self.address = f"127.0.0.1:{self.port}"
        self.extra = extra
        self.process = None

    def _java(self, *arguments, memory="256m"):
        return ["java", f"-Xmx{memory}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp", f"{jars()}/*", *arguments]

    def format(self):
        properties = self.folder / "server.properties"
        properties.write_text(f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self.controller_port}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={self.folder}/logs
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
num.network.threads=1
num.io.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.segment.bytes=16777216
log.retention.bytes=67108864
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=100
{self.extra}
""")
        subprocess.run([*self._java("kafka.tools.StorageTool", "format", "-t",
                                    "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties))],
                       check=True, stdout=subprocess.DEVNULL, timeout=120)

    def start(self):
        self.launch()
        return self.wait_ready()

    def launch(self):
        if not (self.folder / "logs").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.format()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self._java("kafka.Kafka", str(self.folder / "server.properties")),
                stdout=log, stderr=log)

    def wait_ready(self):
        end = time.monotonic() + 90
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < end, "Kafka did not become ready"
            time.sleep(0.2)
        return self

    def answers(self):
        try:
            return subprocess.run(["kcat", "-b", self.address, "-L", "-m", "2"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=10).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def remove(self):
        """Stops it for good and gives its disk back."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def create(self, topic, partitions=1, replicas=1, **config):
        from confluent_kafka.admin import AdminClient, NewTopic
        admin = AdminClient({"bootstrap.servers": self.address})
        made = admin.create_topics([NewTopic(topic, partitions, replicas,
                                             config={k.replace("_", "."): str(v)
                                                     for k, v in config.items()})])
        made[topic].result(30)

    @staticmethod
    def _end(consumer, partition):
        """The partition's end, once its leader knows that it leads (a new topic's takes a while)."""
        from confluent_kafka import KafkaException
        end = time.monotonic() + 20
        while True:
            try:
                return consumer.get_watermark_offsets(partition, timeout=20)[1]
            except KafkaException:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def read(self, topic, addresses=None):
        """All records of a topic as (partition, key, value, {header: value}), to its end."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
        consumer = Consumer({"bootstrap.servers": addresses or self.address, "group.id": "reader",
                             "enable.auto.commit": False, "fetch.message.max.bytes": 10**7})
        try:
            parts = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            ends = {p: self._end(consumer, TopicPartition(topic, p)) for p in parts}
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in parts])
            left = sum(ends.values())
            found, end = [], time.monotonic() + 60
            while len(found) < left:
                assert time.monotonic() < end, f"{len(found)} of {left} records"
                for message in consumer.consume(1000, 0.5):
                    assert not message.error(), message.error()
                    found.append((message.partition(), message.key(), message.value(),
                                  dict(message.headers() or [])))
            return found
        finally:
            consumer.close()


class Cluster:
    """Three nodes, each broker and controller: replication 3, two must have a record. A leader that
    goes is replaced within seconds."""

    def __init__(self, folder, nodes=3):
        self.nodes = [Broker(pathlib.Path(folder) / str(number)) for number in range(nodes)]
        voters = ",".join(f"{number + 1}@127.0.0.1:{node.controller_port}"
                          for number, node in enumerate(self.nodes))
        for number, node in enumerate(self.nodes):
            node.extra = f"""
node.id={number + 1}
controller.quorum.voters={voters}
min.insync.replicas=2
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
replica.lag.time.max.ms=2000
offsets.topic.replication.factor={nodes}
"""

    @property
    def addresses(self):
        return [node.address for node in self.nodes]

    def start(self):
        """All at once: one alone has no quorum and is not ready."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        return self

    def create(self, topic, partitions=1, **config):
        self.nodes[0].create(topic, partitions, replicas=len(self.nodes), **config)

    def leader(self, topic):
        """The node that leads the topic's first partition."""
        from confluent_kafka.admin import AdminClient
        admin = AdminClient({"bootstrap.servers": ",".join(self.addresses)})
        leads = admin.list_topics(topic, timeout=20).topics[topic].partitions[0].leader
        return self.nodes[leads - 1]

    def read(self, topic):
        return self.nodes[0].read(topic, ",".join(self.addresses))

    def remove(self):
        for node in self.nodes:
            node.stop()
        for node in self.nodes:
            node.remove()
