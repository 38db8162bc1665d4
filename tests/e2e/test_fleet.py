"""One quota over several gateways and a real Redis: shares, and Redis gone in every way."""

import subprocess
import time

import pytest
from lib import fleet
from lib.redis import Redis
from lib.sluice import BINARY, Sluice, wait_for

from test_front_tls import Authority

QUOTA, ITEMS, COUNT = 1000, 5, 2
FULL = 3 * QUOTA / ITEMS  # requests a second for each tenant: three times the quota


@pytest.fixture
def redis():
    servers = []

    def begin(*arguments, **named):
        servers.append(Redis(*arguments, **named).start())
        return servers[-1]

    yield begin
    for one in servers:
        one.remove()


def gateways(start, server, count=2, **quotas):
    """`count` of them, all of which have found each other."""
    found = [start(config=fleet.config([server.address], **quotas),
                   tenants=fleet.tenants(COUNT, QUOTA)) for _ in range(count)]
    wait_all(found, count)
    return found


def wait_all(found, count):
    for one in found:
        wait_for("all instances", lambda: one.metric("sluice_fleet_instances") == count)


def down(one):
    return one.metric("sluice_fleet_links_down")


def finish(offers):
    for one in offers:
        one.ended.set()
    for one in offers:
        one.finish()
        assert one.broken is None and len(one.answers) + one.dropped == one.sent
        assert len(one.answers) >= one.dropped


def near(offers, begin, end, least=0.85, most=1.15):
    for tenant in range(COUNT):
        got = fleet.admitted(offers, begin, end, tenant) / (QUOTA * (end - begin))
        assert least < got < most, f"tenant {tenant} got {got:.3f} of its quota"


def settles(gateways, shares, seconds):
    """The quota is held once shares have settled. A machine that leaves a client without a turn for
    a tenth of a second, half of a bucket, says nothing of it: again, then."""
    for _ in range(5):
        began = time.monotonic()
        offers = fleet.offer(gateways, COUNT, FULL, ITEMS, seconds, shares)
        finish(offers)
        if max(one.longest_turn for one in offers) < 0.1:
            return near(offers, began + 1.5, began + seconds)
    pytest.skip("the machine is too busy to offer a steady load")


def test_one_quota_whoever_is_asked(start, redis):
    both = gateways(start, redis())
    for shares in ((3, 1), (1, 0)):
        settles(both, shares, 4)
    assert all(one.metric("sluice_fleet_damaged_answers_total") == 0 for one in both)


def test_redis_paused_killed_and_back_empty(start, redis):
    server = redis()
    both = gateways(start, server)
    began = time.monotonic()
    offers = fleet.offer(both, COUNT, FULL, ITEMS, 2, (3, 1))
    server.pause()
    for one in both:
        wait_for("the pause to be seen", lambda: down(one) == 1)
    answered = [len(one.answers) for one in offers]
    time.sleep(1)
    # Nobody waits for Redis: answers go on, and both yes and no.
    for one, before in zip(offers, answered):
        since = one.answers[before:]
        assert {ok for _, _, ok in since} == {True, False} and len(since) > 10
    server.resume()
    for one in both:
        wait_for("Redis to be back", lambda: down(one) == 0)
    server.kill()
    for one in both:
        wait_for("the loss to be seen", lambda: down(one) == 1)
    server.start()
    for one in both:
        wait_for("Redis to be back", lambda: down(one) == 0)
    time.sleep(1)
    finish(offers)
    near(offers, began + 1, time.monotonic(), 0.5, 1.25)
    for one in both:
        assert one.metric("sluice_fleet_link_failures_total") >= 2
        assert "event=quota_redis_lost" in one.log() and "event=quota_redis_up" in one.log()


@pytest.mark.parametrize("damage", [
    ("SET", "{sluice}:quota", "not a hash"),
    ("SET", "{sluice}:alive", "not a set"),
    ("HSET", "{sluice}:quota", "1t0", "x" * 24, "1t1", "short"),
])
def test_wrong_data_under_our_keys(start, redis, damage):
    server = redis()
    one = gateways(start, server, 1)[0]
    offers = fleet.offer([one], COUNT, FULL, ITEMS, 1, (1,))
    if damage[0] == "SET":
        server.call("DEL", damage[1])
    server.call(*damage)
    begin = time.monotonic()
    time.sleep(2)
    finish(offers)
    assert fleet.admitted(offers, begin, begin + 2) <= COUNT * QUOTA * (2 * 1.2 + 1)
    assert fleet.admitted(offers, begin, begin + 2) > 0
    assert (one.metric("sluice_fleet_mended_fields_total") +
            one.metric("sluice_fleet_damaged_answers_total") +
            one.metric("sluice_fleet_link_failures_total")) > 0


def test_a_redis_that_refuses_every_call(start, redis):
    """It takes connections and the script, and has no memory for a call: down until it answers one,
    told once, and not as often as it is tried again."""
    server = redis()
    one = gateways(start, server, 1)[0]
    server.call("CONFIG", "SET", "maxmemory", "1")
    wait_for("its refusals", lambda: down(one) == 1)
    tried = one.metric("sluice_fleet_link_failures_total")

    def again():
        assert down(one) == 1
        return one.metric("sluice_fleet_link_failures_total") >= tried + 3
    wait_for("other tries", again)
    assert one.log().count("event=quota_redis_up") == 1
    server.call("CONFIG", "SET", "maxmemory", "0")
    wait_for("an answer", lambda: down(one) == 0)
    wait_for("its line", lambda: one.log().count("event=quota_redis_up") == 2)


def test_join_leave_and_crash(start, redis, tmp_path):
    server = redis()
    stays = gateways(start, server, 1)
    leaves, dies = (Sluice(tmp_path / name, config=fleet.config([server.address]),
                           tenants=fleet.tenants(COUNT, QUOTA)).start() for name in ("a", "b"))
    wait_all(stays, 3)
    leaves.stop()
    wait_all(stays, 2)
    offers = fleet.offer([*stays, dies], COUNT, FULL, ITEMS, 2, (1, 1))
    dies.kill()
    wait_all(stays, 1)
    offers[0].finish()
    settles(stays, (1,), 3.5)


def test_tls_and_passwords(start, redis, tmp_path):
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("redis", "IP:127.0.0.1,DNS:localhost")
    server = redis("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file",
                   authority.pem, "--tls-auth-clients", "no", "--requirepass", "pa ss",
                   cli=("--tls", "--cacert", authority.pem, "-a", "pa ss"), tls=True)
    server.call("ACL", "SETUSER", "gateway", "on", ">letmein", "~*", "+@all")
    shard = {"address": f"localhost:{server.port}", "tls": {"ca_file": str(authority.pem)},
             "user": "gateway", "password": "${env:QUOTA_SECRET}", "database": 3}
    one = start(config=fleet.config([shard]), tenants=fleet.tenants(COUNT, QUOTA),
                environment={"QUOTA_SECRET": "letmein"})
    wait_for("the greeting", lambda: one.metric("sluice_fleet_instances") == 1)
    assert "letmein" not in one.admin("/config")[1]
    wrong = start(config=fleet.config([shard]), tenants=fleet.tenants(COUNT, QUOTA),
                  environment={"QUOTA_SECRET": "guess"})
    wait_for("the refusal", lambda: "WRONGPASS" in wrong.log())
    assert down(wrong) == 1


@pytest.mark.parametrize("redis_list, problem", [
    (["nowhere"], "expected host:port"),
    ([{"address": "h:1", "user": "me"}], "needs a password"),
    ([{"address": "h:1", "prefix": "{a}"}], "without braces"),
    ([{"address": "h:1", "tls": {"ca_file": "missing.pem"}}], "missing.pem"),
    (["h:1"] * 17, "at most 16"),
])
def test_check_names_what_is_wrong(tmp_path, redis_list, problem):
    one = Sluice(tmp_path, config=fleet.config(redis_list), tenants=fleet.tenants(1, 1))
    one.write_config()
    done = subprocess.run([BINARY, "--check", tmp_path / "config.yaml"],
                          capture_output=True, text=True)
    assert done.returncode != 0 and problem in done.stderr
