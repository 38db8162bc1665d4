"""What a tenant may, and where that is written: classes, folders, templates, a control plane."""

import json
import subprocess

import pytest
from lib import ledger, otlp, wire
from lib.redis import Redis
from lib.sluice import BINARY, ROOT, Sluice, digest, wait_for
from test_front_tls import Authority

BODY = otlp.request("traces", 10).SerializeToString()


def status(sluice, name=None, body=BODY, **headers):
    """The HTTP status of one request in the name of a tenant."""
    if name is not None:
        headers["X-Scope-OrgID"] = name
    return wire.post(sluice.http_port, "/v1/traces", body, headers=headers)[0]


def shown(sluice, name):
    """What /tenants/{id} says; None when there is none."""
    code, text = sluice.admin(f"/tenants/{name}")
    return json.loads(text) if code == 200 else None


def items_in(folder):
    return sum(otlp.count("traces", message) for path in folder.rglob("traces-*")
               for message in otlp.read_delimited("traces", path.read_bytes()))


def test_inheritance(start):
    """Keys of three levels in /tenants/{id}, in admission, in routes and in sampling."""
    sluice = start(
        tenants={
            "classes": {
                "base": {"body": "16KiB", "priority": 7, "quota": {"spans": "25/s", "burst": "1h"}},
                "free": {"extends": "base", "priority": 1, "quota": {"burst": "1s"}},
                "loud": {"extends": "base", "quota": {"spans": 0}},
            },
            "tenants": {"demo": {}, "f": {"class": "free"}, "l": {"class": "loud"},
                        "o": {"class": "free", "body": "64KiB", "quota": {"spans": "35/s"}}}},
        config={
            "destinations": {name: {"file": {"path": name, "format": "protobuf"}}
                             for name in ("free", "rest")},
            "routes": [{"match": {"class": "fr*"}, "to": ["free"]}, {"to": ["rest"]}],
            "sampling": [{"match": {"class": "loud"}, "mode": "proportional", "rate": "0%"}]})
    f, o, loud = (shown(sluice, name) for name in ("f", "o", "l"))
    assert (f["class"], f["extends"], f["priority"], f["body"]) == ("free", "base", 1, 16384)
    assert f["quota"]["spans"]["per_second"] == 25 and f["quota"]["spans"]["burst"] == 25
    assert o["body"] == 65536 and o["quota"]["spans"]["per_second"] == 35
    assert loud["priority"] == 7 and loud["quota"] == {} and loud["body"] == 16384
    large = otlp.request("traces", 200).SerializeToString()
    assert 16384 < len(large) < 65536
    assert status(sluice, "f", large) == 413 and status(sluice, "l", large) == 413
    assert status(sluice, "o", large) == 200
    assert status(sluice, "f") == 200
    assert status(sluice, "demo") == 200
    assert [status(sluice, "l") for _ in range(9)] == [200] * 9
    wait_for("routes by class", lambda: items_in(sluice.folder / "free") == 210)
    wait_for("the others", lambda: items_in(sluice.folder / "rest") == 10)
    assert sluice.metric("sluice_sampled_out_items_total", signal="traces") == 90


def test_a_circle_of_classes_is_refused(start):
    sluice = start(tenants={"classes": {"a": {"body": 1000}}, "tenants": {"demo": {"class": "a"}}})
    sluice.tenants["classes"] = {"a": {"extends": "b"}, "b": {"extends": "a"}}
    sluice.reload()
    assert "tenants.yaml:1:" in sluice.log() and "classes in a circle: a extends b" in sluice.log()
    assert shown(sluice, "demo")["body"] == 1000


def test_directory(start):
    """A folder of files, watched; one that is wrong keeps what there was."""
    sluice = start(config={"tenants": {
        "directory": "tenants.d", "identify": [{"header": "X-Scope-OrgID"}]}},
        edit=lambda self: ((self.folder / "tenants.d").mkdir(), put(self, "a", {"a": {}})))
    assert status(sluice, "a") == 200 and status(sluice, "b") == 401

    put(sluice, "b", {"b": {}, "c": {}})
    wait_for("a new file", lambda: status(sluice, "b") == 200)
    put(sluice, "b", {"b": {"suspended": True}, "c": {}})
    wait_for("a change of it", lambda: status(sluice, "b") == 403)

    refused = sluice.metric("sluice_config_reloads_total", result="failure")
    (sluice.folder / "tenants.d" / "b.yaml").write_text("tenants:\n  c:\n    clas: gold\n")
    wait_for("its refusal", lambda: sluice.metric("sluice_config_reloads_total",
                                                  result="failure") > refused)
    assert "tenants.d/b.yaml:3:5: tenants.c: unknown key 'clas'; did you mean 'class'?" in \
        sluice.log()
    assert status(sluice, "b") == 403 and status(sluice, "c") == 200

    (sluice.folder / "tenants.d" / "b.yaml").unlink()
    wait_for("the file to go", lambda: status(sluice, "b") == 401)
    assert status(sluice, "a") == 200


def put(sluice, name, tenants):
    """Writes a file of the folder as one that never leaves half of it to be read."""
    folder = sluice.folder / "tenants.d"
    (folder / f".{name}").write_text(json.dumps({"tenants": tenants}))
    (folder / f".{name}").rename(folder / f"{name}.yaml")


def test_template(start):
    """Names nobody knows become tenants: each with its quota, a cap on how many, idle ones go."""
    sluice = start(
        tenants={"classes": {"trial": {"priority": 3, "quota": {"spans": "30/s", "burst": "1s"}}},
                 "tenants": {"demo": {}, "acme": {"credentials": [digest("token")]}}},
        config={"tenants": {
            "file": "tenants.yaml", "identify": ["credential", {"header": "X-Scope-OrgID"}],
            "unknown": "create", "template": "trial", "created_max": 3, "idle": "3s"},
            "destinations": {name: {"file": {"path": name, "format": "protobuf"}}
                             for name in ("one", "rest")},
            "routes": [{"match": {"tenant": "one", "class": "trial"}, "to": ["one"]},
                       {"to": ["rest"]}]})
    # At once, and by its name: also what came before it was made.
    assert status(sluice, "one") == 200
    wait_for("the tenant", lambda: shown(sluice, "one"))
    about = shown(sluice, "one")
    assert about["created"] and about["class"] == "trial" and about["priority"] == 3
    assert about["quota"]["spans"]["per_second"] == 30
    wait_for("its route", lambda: items_in(sluice.folder / "one") == 10)
    large = otlp.request("traces", 2000).SerializeToString()  # debt for a minute
    assert status(sluice, "one", large) in (200, 429) and status(sluice, "one", large) == 429
    assert status(sluice, "two") == 200  # not its neighbour's

    # No tenants: bad names, and unknown credentials.
    for name in ("..", ".", "a:b", "a|b", "x" * 151, "x" * 10000):
        assert status(sluice, name) in (401, 431), name
    assert status(sluice, Authorization="Bearer guess") == 401

    def fill():
        status(sluice, "three")
        return sluice.metric("sluice_tenants_created") == 3
    wait_for("three of them", fill)
    # No room here for now: another instance may have some, so the client shall try again.
    code, headers = wire.post(sluice.http_port, "/v1/traces", BODY,
                              headers={"X-Scope-OrgID": "four"})[:2]
    assert code == 503 and int(headers["retry-after"]) >= 1 and shown(sluice, "four") is None
    assert sluice.metric("sluice_refused_requests_total", reason="tenants_full") >= 1
    assert status(sluice, "demo") == 200

    # The idle go, and another takes a seat; who is there stays.
    def four():
        status(sluice, "three")
        return status(sluice, "four") == 200
    wait_for("a free seat", four)
    wait_for("the fourth", lambda: shown(sluice, "four"))
    # In a seat that was another's: the account is its own.
    status(sluice, "four")
    wait_for("its account", lambda: shown(sluice, "four")["ledger"])
    assert shown(sluice, "four")["tenant"] == "four"
    assert shown(sluice, "three")
    wait_for("the idle to go", lambda: shown(sluice, "two") is None)
    assert sluice.metric("sluice_tenants_expired_total") >= 1


def test_a_newcomers_name(start):
    """A tenant that is made on its first request has its name from there on: in refusals, the log,
    and the ledger, which is exact."""
    sluice = start(
        tenants={"classes": {"trial": {"quota": {"spans": "30/s", "burst": "1s"}}},
                 "tenants": {"demo": {}}},
        config={"tenants": {"file": "tenants.yaml", "identify": [{"header": "X-Scope-OrgID"}],
                            "unknown": "create", "template": "trial", "created_max": 10},
                "log": {"level": "debug"}})
    # In debt for a minute, in the quota that newcomers share.
    large = otlp.request("traces", 2000).SerializeToString()
    assert status(sluice, "first", large) == 200
    code, _, text = wire.post(sluice.http_port, "/v1/traces", BODY,
                              headers={"X-Scope-OrgID": "second"})[:3]
    assert code == 429 and b"Tenant second is over its quota" in text
    wait_for("both", lambda: shown(sluice, "first") and shown(sluice, "second"))
    assert status(sluice, "second") == 200  # it has a quota of its own by now

    def booked():
        accounts = [shown(sluice, name)["ledger"] for name in ("first", "second")]
        if not all(accounts):
            return False
        first, second = (account["signals"]["traces"] for account in accounts)
        return (first.get("accepted", {}).get("items") == 2000 and
                second.get("accepted", {}).get("items") == 10 and
                second.get("received", {}).get("requests") == 2)
    wait_for("their accounts", booked, 20)
    assert ":new" not in sluice.log() and "tenant=second limit=spans" in sluice.log()
    assert ":new" not in sluice.admin("/metrics")[1]


def test_accounts_of_those_who_left(start):
    """What tenants from a template had is in their class' account once they have left, also what
    came before a restart; sums stay, and who is configured keeps an account of its own."""
    sluice = start(
        tenants={"classes": {"trial": {}}, "tenants": {"demo": {}}},
        config={"tenants": {"file": "tenants.yaml", "identify": [{"header": "X-Scope-OrgID"}],
                            "unknown": "create", "template": "trial", "created_max": 10,
                            "idle": "1s"},
                "ledger": {"path": "ledger", "interval": "200ms", "departed": "1s"}})
    for name in ("one", "two", "demo"):
        assert status(sluice, name) == 200
    assert ledger.settled(sluice)["one"]["traces"]["accepted"]["items"] == 10
    sluice.stop()
    sluice.start()

    def left():
        page = json.loads(sluice.admin("/tenants")[1])
        return {one["tenant"] for one in page["list"]} == {"_departed:trial", "demo"}
    wait_for("all to leave", left)
    found = ledger.accounts(sluice)
    assert found["_departed:trial"]["traces"]["accepted"]["items"] == 20
    assert found["demo"]["traces"]["accepted"]["items"] == 10
    # Told when the ledger's thread has gone through all of it.
    wait_for("the count", lambda: sluice.metric("sluice_ledger_departed_accounts_total") == 2)
    wait_for("the accounts", lambda: sluice.metric("sluice_ledger_accounts") == 2)
    assert json.loads(sluice.admin("/tenants/_departed:trial/ledger")[1])["tenant"] == \
        "_departed:trial"


def test_template_over_resources(start):
    """One body that names two new tenants: two parts, each by its name."""
    sluice = start(
        tenants={"tenants": {"demo": {}}},
        config={"tenants": {"file": "tenants.yaml", "identify": [{"by": "resource", "open": True}],
                            "unknown": "create"},
                "destinations": {name: {"file": {"path": name, "format": "protobuf"}}
                                 for name in ("a", "b")},
                "routes": [{"match": {"tenant": "new-a"}, "to": ["a"]}, {"to": ["b"]}]})
    message = otlp.request("traces", 3, **{"tenant.id": "new-a"})
    message.MergeFrom(otlp.request("traces", 5, **{"tenant.id": "new-b"}))
    for count in (1, 2):
        assert status(sluice, body=message.SerializeToString()) == 200
        wait_for("each its own", lambda: (items_in(sluice.folder / "a"),
                                          items_in(sluice.folder / "b")) == (3 * count, 5 * count))
        wait_for("both made", lambda: shown(sluice, "new-a") and shown(sluice, "new-b"))


@pytest.fixture
def redis():
    server = Redis()
    yield server
    server.remove()


def publish(redis, version, **tenants):
    """As a control plane does: the fields, then the version."""
    redis.call("DEL", "sluice:tenants")
    for name, value in tenants.items():
        text = value if isinstance(value, str) else json.dumps(value)
        redis.call("HSET", "sluice:tenants", name, text)
    redis.call("SET", "sluice:tenants:version", str(version))


def from_redis(redis, **more):
    return {"tenants": {"file": "tenants.yaml", "identify": ["credential", {"header": "X-Scope-OrgID"}],
                        "redis": {"address": redis.address, "poll": "50ms", **more}}}


def test_control_plane(start, redis):
    """What it writes is in force without a restart; what is wrong is not, and is named."""
    redis.start()
    publish(redis, 1, acme={"class": "gold", "credentials": [digest("acme-token")]})
    sluice = start(tenants={"classes": {"gold": {"priority": 9, "body": "1MiB"}},
                            "tenants": {"demo": {}}}, config=from_redis(redis, cache="cache"))

    def updates(result):
        return sluice.metric("sluice_tenants_redis_updates_total", result=result)

    bearer = {"Authorization": "Bearer acme-token"}
    assert status(sluice, **bearer) == 200 and shown(sluice, "acme")["priority"] == 9
    assert status(sluice, "demo") == 200 and status(sluice, "beta") == 401

    # What a start has found is good, too: the next one needs no Redis, though nothing has changed.
    assert sluice.metric("sluice_tenants_redis_tenants") == 1
    redis.kill()
    sluice.stop()
    sluice.start()
    assert status(sluice, **bearer) == 200
    redis.start()

    publish(redis, 2, acme={"class": "gold", "suspended": True},
            beta="class: gold\nquota:\n  spans: 5/s # in YAML\n", cost="{}")
    wait_for("the update", lambda: status(sluice, "beta") == 200)
    assert status(sluice, **bearer) == 401 and status(sluice, "acme") == 403
    assert shown(sluice, "beta")["quota"]["spans"]["per_second"] == 5

    # Whatever is wrong: the whole of it is not taken, and it is told whose it is.
    wrong = [("3", {"beta": {"class": "golt"}}, "did you mean gold"),
             ("4", {"good": {}, "beta": "{quota: [}"}, "tenants_redis_refused"),
             ("5", {"beta": "\x01"}, "tenant=beta"),
             ("6", {"demo": {}}, "there is another tenant demo"),
             ("7", {"beta": {"quota": {"spans": "${env:HOME}"}}}, "tenants.beta.quota.spans")]
    for version, tenants, told in wrong:
        refused = updates("failure")
        publish(redis, version, **tenants)
        wait_for("its refusal", lambda: updates("failure") > refused)
        assert told in sluice.log(), version
        assert status(sluice, "beta") in (200, 429) and status(sluice, "good") == 401
    redis.call("HSET", "sluice:tenants", "..", "{}")
    redis.call("SET", "sluice:tenants:version", "8")
    wait_for("a name that is none", lambda: "field .. is no name of a tenant" in sluice.log())
    redis.call("HDEL", "sluice:tenants", "..")
    redis.call("HSET", "sluice:tenants", "_other", "{}")
    redis.call("SET", "sluice:tenants:version", "8b")
    wait_for("the ledger's name", lambda: "field _other is no name of a tenant: the ledger's own "
             "account has it" in sluice.log())
    redis.call("HDEL", "sluice:tenants", "_other")
    redis.call("DEL", "sluice:tenants")
    redis.call("SET", "sluice:tenants", "a text")
    redis.call("SET", "sluice:tenants:version", "9")
    wait_for("another type", lambda: "WRONGTYPE" in sluice.log())
    assert status(sluice, "beta") in (200, 429)

    # Emptied by a restart: nothing is published, so nothing goes.
    redis.kill()
    redis.start()
    seen = sluice.metric("sluice_tenants_redis_failures_total")
    wait_for("looks", lambda: sluice.metric("sluice_tenants_redis_failures_total") > seen + 1)
    assert status(sluice, "cost") == 200
    publish(redis, 10, gamma={})
    wait_for("what is written then", lambda: status(sluice, "gamma") == 200)
    assert status(sluice, "cost") == 401

    # A start without Redis takes what was good last.
    redis.kill()
    wait_for("the cache", lambda: b'"gamma"' in (sluice.folder / "cache").read_bytes())
    sluice.stop()
    sluice.start()
    assert status(sluice, "gamma") == 200
    redis.start()
    publish(redis, 11, delta={})
    wait_for("Redis again", lambda: status(sluice, "delta") == 200)


def test_control_plane_over_tls(start, tmp_path):
    """The same with TLS, a certificate of ours, a user and a password; and over a restart of
    Redis, whose connection is kept. A Redis that cannot show who it is is not asked."""
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("redis", "IP:127.0.0.1,DNS:localhost")
    mine, mine_key = authority.issue("gateway", "DNS:gateway")
    redis = Redis("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file",
                  authority.pem, "--requirepass", "pa ss",
                  cli=("--tls", "--cacert", authority.pem, "--cert", mine, "--key", mine_key,
                       "-a", "pa ss"), tls=True)
    tls = {"ca_file": str(authority.pem), "certificate_file": str(mine), "key_file": str(mine_key)}
    more = {"address": f"rediss://localhost:{redis.port}/2", "tls": tls, "user": "gateway",
            "password": "${env:TENANTS_SECRET}"}

    def open_door():
        redis.start()
        redis.call("ACL", "SETUSER", "gateway", "on", ">letmein", "~sluice:*", "+@read", "+select")
        redis.cli += ["-n", "2"]
    try:
        open_door()
        publish(redis, 1, acme={"credentials": [digest("acme-token")]})
        sluice = start(tenants={"tenants": {"demo": {}}}, config=from_redis(redis, **more),
                       environment={"TENANTS_SECRET": "letmein"})
        assert status(sluice, Authorization="Bearer acme-token") == 200
        assert "letmein" not in sluice.admin("/config")[1]
        publish(redis, 2, beta={})
        wait_for("the update", lambda: status(sluice, "beta") == 200)
        redis.kill()
        open_door()
        publish(redis, 3, gamma={})
        wait_for("the next", lambda: status(sluice, "gamma") == 200)
        for change, problem in (({"tls": {}}, "certificate verify failed"),
                                ({"password": "guess"}, "WRONGPASS"),
                                ({"tls": {"ca_file": "missing.pem"}}, "missing.pem")):
            other = Sluice(tmp_path / problem, tenants={"tenants": {"demo": {}}},
                           config=from_redis(redis, **{**more, **change}),
                           environment={"TENANTS_SECRET": "letmein"})
            other.write_config()
            done = subprocess.run([BINARY, "--config", other.folder / "config.yaml"], timeout=30,
                                  capture_output=True, text=True,
                                  env={"TENANTS_SECRET": "letmein"})
            assert done.returncode == 78 and problem in done.stderr + done.stdout, problem
    finally:
        redis.remove()


def test_control_plane_tells(start, redis):
    """With keyspace notifications nobody waits for the next look, nor after a restart of Redis."""
    redis.start()
    redis.call("CONFIG", "SET", "notify-keyspace-events", "K$")
    publish(redis, 1, acme={})
    sluice = start(tenants={"tenants": {"demo": {}}},
                   config=from_redis(redis, poll="1h", notify=True))

    def listens():
        return "tenants:version" in redis.call("PUBSUB", "CHANNELS")
    wait_for("the ear", listens)
    assert status(sluice, "acme") == 200 and status(sluice, "beta") == 401
    publish(redis, 2, beta={})
    wait_for("what it was told of", lambda: status(sluice, "beta") == 200)
    publish(redis, 3, beta={"class": "none"})
    wait_for("a refusal", lambda: "there is no class none" in sluice.log())
    publish(redis, 4, gamma={})
    wait_for("what mends it", lambda: status(sluice, "gamma") == 200)
    redis.kill()
    redis.start()
    publish(redis, 5, delta={})
    wait_for("what was written before it listened again", lambda: status(sluice, "delta") == 200)


def test_start_without_redis(start, redis):
    """Neither Redis nor cache: refused, or the file's tenants alone, as configured."""
    sluice = start(tenants={"tenants": {"demo": {}}}, config=from_redis(redis, required=False))
    assert status(sluice, "demo") == 200 and status(sluice, "acme") == 401
    redis.start()
    publish(redis, "a", acme={})
    wait_for("Redis", lambda: status(sluice, "acme") == 200)
    sluice.stop()
    redis.kill()
    sluice.config["tenants"]["redis"]["required"] = True
    sluice.write_config()
    ended = subprocess.run([BINARY, "--config", "config.yaml"], cwd=sluice.folder, timeout=60,
                           capture_output=True, text=True)
    assert ended.returncode == 78 and "tenants.redis: redis:" in ended.stdout + ended.stderr


@pytest.mark.parametrize("name", ["delivery.yaml", "embedded.yaml", "fleet.yaml", "tenants.yaml"])
def test_example(name):
    ended = subprocess.run([BINARY, "--check", ROOT / "config/examples" / name],
                           capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
