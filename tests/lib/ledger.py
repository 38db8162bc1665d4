"""A random mix of calls whose every answer is counted, and the gateway's ledger beside it.

Every resource says whose it is (attribute `who`), so that what files and topics hold can be counted
by tenant too.
"""

import collections
import json
import random
import threading

from lib import otlp, wire
from lib.sluice import digest, wait_for

OUTER = {"traces": "resource_spans", "metrics": "resource_metrics", "logs": "resource_logs"}
CREDENTIALS = ("gold", "silver", "free", "thin", "void")
CLAIMS = ("ra", "rb", "rc")
BODY_MAX = 64 * 1024


def tenants():
    found = {name: {"credentials": [digest(name + "-token")]} for name in CREDENTIALS}
    found["free"]["quota"] = {"spans": "60/s", "points": "60/s", "log_records": "60/s"}
    found["rc"] = {"quota": {"spans": "40/s", "points": "40/s", "log_records": "40/s"}}
    found.update({"ra": {}, "rb": {}, "demo": {},
                  "gone": {"suspended": True, "credentials": [digest("gone-token")]}})
    return {"tenants": found}


def config(destinations, to, **ledger):
    """`void` is dropped by rule, `thin` sampled."""
    return {
        "tenants": {"file": "tenants.yaml", "identify": ["credential", {"by": "resource"}],
                    "default": "demo", "unknown": "refuse"},
        "limits": {"body_bytes": BODY_MAX}, "answer_within": "15s",
        "sampling": [{"match": {"tenant": "thin"}, "mode": "proportional", "rate": "30%"}],
        "destinations": destinations,
        "routes": [{"match": {"tenant": "void"}, "drop": True}, {"to": to}],
        "ledger": ledger,
    }


def request(signal, *named):
    """Of (who, items, claim): a resource each."""
    message = otlp.REQUESTS[signal]()
    for who, items, claim in named:
        more = {"tenant.id": claim} if claim else {}
        message.MergeFrom(otlp.request(signal, items, who=who, **more))
    return message


def counted(signal, message):
    """{who: items} of a request."""
    sums = collections.Counter()
    for resource in getattr(message, OUTER[signal]):
        one = type(message)()
        getattr(one, OUTER[signal]).append(resource)
        who = next(a.value.string_value for a in resource.resource.attributes if a.key == "who")
        sums[who] += otlp.count(signal, one)
    return sums


def estimated(message):
    """What spans stand for, by the thresholds in their tracestate."""
    total = 0
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                th = next((part[3:] for member in span.trace_state.split(",")
                           if member.startswith("ot=") for part in member[3:].split(";")
                           if part.startswith("th:")), "0")
                total += 1 / (1 - int(th.ljust(14, "0"), 16) / 2**56)
    return total


class Tally:
    """What clients were told: items and calls by tenant, signal and answer."""

    def __init__(self):
        self.lock = threading.Lock()
        self.accepted = collections.Counter()  # (tenant, signal): items
        self.refused = collections.Counter()   # (tenant, signal, status): calls
        self.unsure = collections.Counter()    # (tenant, signal): items of calls without an answer
        self.partial = collections.Counter()   # signal: items rejected of calls that were taken
        self.calls = 0


class Client(threading.Thread):
    """One connection after another; `seed` decides what it sends."""

    def __init__(self, gateway, tally, seed, late=False):
        super().__init__(daemon=True)
        self.gateway, self.tally, self.random = gateway, tally, random.Random(seed)
        self.late = late  # its first claims have thresholds already
        self.ended = threading.Event()
        self.failure = None

    def pick(self):
        """(signal, whose, body, headers, [(tenant, items)]) of the next call."""
        draw, signal = self.random.random(), self.random.choice(otlp.SIGNALS)
        items, headers = self.random.randint(0, 12), {}
        if draw < 0.55:
            who = self.random.choice(CREDENTIALS)
            headers["Authorization"] = f"Bearer {who}-token"
            message = request(signal, (who, items, None))
            # Spans that were sampled before: what they stand for is in the estimates.
            if signal == "traces" and who == "gold" and self.random.random() < 0.3:
                for span in message.resource_spans[0].scope_spans[0].spans:
                    span.trace_id = span.trace_id[:8] + b"\xff" * 8
                    span.trace_state = "ot=th:c"
            return signal, [(who, items)], message.SerializeToString(), headers
        if draw < 0.85:
            names = self.random.sample(CLAIMS + ("nobody", None), self.random.randint(1, 3))
            parts = [(name or "demo", self.random.randint(1, 5), name) for name in names]
            return (signal, [(who, count) for who, count, _ in parts],
                    request(signal, *parts).SerializeToString(), headers)
        if draw < 0.90:
            headers["Authorization"] = "Bearer silver-token"
            return signal, [("silver", 0)], b"\x0a\xff" + bytes(20), headers
        if draw < 0.94:
            headers["Authorization"] = "Bearer silver-token"
            return signal, [("silver", 0)], bytes(BODY_MAX + 1), headers
        who = self.random.choice(("gone", "_unknown"))
        headers["Authorization"] = f"Bearer {who}-token"
        return signal, [(who, 0)], request(signal, ("x", 3, None)).SerializeToString(), headers

    def note(self, signal, parts, status, rejected):
        tally = self.tally
        with tally.lock:
            tally.calls += 1
            if status is None:
                for who, items in parts:
                    tally.unsure[who, signal] += items
            elif status == 200:
                for who, items in parts:
                    # A claim that names nobody is the only part that goes alone.
                    if who == "nobody":
                        rejected -= items
                        tally.refused["_unknown", signal, 200] += 1
                    else:
                        tally.accepted[who, signal] += items
                assert rejected == 0, (parts, rejected)
            else:
                for who, _ in parts:
                    tally.refused["_unknown" if who == "nobody" else who, signal, status] += 1

    def call(self, connection, signal, body, headers):
        lines = [f"POST /v1/{signal} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}",
                 "Content-Type: application/x-protobuf"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        connection.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return connection.read_response()

    def once(self, connection):
        signal, parts, body, headers = self.pick()
        status, rejected = None, 0
        try:
            status, _, answer = self.call(connection, signal, body, headers)
            if status == 200:
                partial = otlp.RESPONSES[signal].FromString(answer).partial_success
                rejected = sum(value for field, value in partial.ListFields()
                               if field.name.startswith("rejected"))
        except (OSError, AssertionError):
            status = None
        self.note(signal, parts, status, rejected)
        return status is not None and status not in (400, 413)

    def run(self):
        connection = None
        try:
            while not self.ended.is_set():
                try:
                    connection = connection or wire.Http1(self.gateway.http_port)
                except OSError:
                    self.ended.wait(0.05)  # it is being started again
                    continue
                if not self.once(connection):
                    connection.close()
                    connection = None
        except Exception as error:  # noqa: BLE001  (told by whoever joins)
            self.failure = error
        finally:
            if connection:
                connection.close()


class Load:
    """`with Load(gateway, tally):` some clients at work."""

    def __init__(self, gateway, tally, clients=4, seed=1):
        self.clients = [Client(gateway, tally, 1000 * seed + i) for i in range(clients)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *failed):
        for client in self.clients:
            client.ended.set()
        for client in self.clients:
            client.join(60)
            if not any(failed):
                assert client.failure is None, client.failure
                assert not client.is_alive()


# --- the gateway's side --------------------------------------------------------------------------

def accounts(gateway):
    """{tenant: {signal: {...}}}; every page of the list."""
    names, skip = [], 0
    while True:
        page = json.loads(gateway.admin(f"/tenants?skip={skip}&limit=5")[1])
        names += [one["tenant"] for one in page["list"]]
        skip += len(page["list"])
        if not page["list"]:
            break
    assert len(names) == len(set(names)) == page["tenants"]
    return {name: json.loads(gateway.admin(f"/tenants/{name}/ledger")[1])["signals"]
            for name in names}


def items(account, *path):
    """A number of an account's signal; 0 where it is not."""
    for one in path:
        account = account.get(one, {})
    return account.get("items", 0)


def total(account, kind, unit="items"):
    """The sum of a kind that is by reason or destination, or of one that is not."""
    value = account.get(kind, {})
    if unit in value or "items" in value:
        return value.get(unit, 0)
    return sum(one.get(unit, 0) for one in value.values())


def settled(gateway):
    wait_for("requests to end", lambda: gateway.metric("sluice_in_flight_items") == 0)
    # A row that is being asked for is read again when its shard has answered.
    wait_for("the accounts to say so", lambda: all(
        total(account, "in_flight", "requests") == 0
        for signals in accounts(gateway).values() for account in signals.values()))
    return accounts(gateway)


def check_balance(found):
    """Each account by itself, in items and in calls."""
    for tenant, signals in found.items():
        for signal, account in signals.items():
            for unit in ("items", "requests", "bytes"):
                parts = [total(account, kind, unit) for kind in
                         ("accepted", "throttled", "refused", "unanswered", "in_flight")]
                assert total(account, "received", unit) == sum(parts), (tenant, signal, account)


def check_global(gateway, found):
    """The books of the shards, which know no tenants, say the same; of a gateway that has not been
    started again."""
    for signal in otlp.SIGNALS:
        mine = [signals[signal] for signals in found.values() if signal in signals]
        for kind in ("received", "accepted", "sampled_out", "dropped_by_rule"):
            assert sum(total(one, kind) for one in mine) == gateway.metric(
                f"sluice_{kind}_items_total", signal=signal), (signal, kind)
        refused = collections.Counter()
        for one in mine:
            for kind in ("throttled", "refused"):
                for reason, cell in one.get(kind, {}).items():
                    refused[reason] += cell["items"]
        for reason, count in refused.items():
            assert count == gateway.metric("sluice_refused_items_total", signal=signal,
                                           reason=reason), (signal, reason)
        assert sum(refused.values()) == gateway.metric("sluice_refused_items_total", signal=signal)
        delivered = collections.Counter()
        for one in mine:
            for name, cell in one.get("delivered", {}).items():
                delivered[name] += cell["items"]
        for name, count in delivered.items():
            assert count == gateway.metric("sluice_delivered_items_total", signal=signal,
                                           destination=name), (signal, name)


# Which answer of HTTP a reason is, of those that the mix meets.
STATUS = {"quota_exceeded": 429, "malformed": 400, "body_too_large": 413, "suspended": 403,
          "unknown_credential": 401,
          # On a machine that has too much to do:
          "overloaded": 503, "memory_full": 503, "egress_full": 503, "timed_out": 503}


def check_client(found, tally):
    """To the item against what clients were told, and to the call."""
    for (tenant, signal), count in tally.accepted.items():
        account = found.get(tenant, {}).get(signal, {})
        assert items(account, "accepted") == count, (tenant, signal, count, account)
    answers = collections.Counter()
    for tenant, signals in found.items():
        for signal, account in signals.items():
            assert not total(account, "accepted") or (tenant, signal) in tally.accepted
            for kind in ("throttled", "refused"):
                for reason, cell in account.get(kind, {}).items():
                    answers[tenant, signal, reason] += cell["requests"]
    for (tenant, signal, status), calls in tally.refused.items():
        if status == 200:
            got = answers[tenant, signal, "unknown_tenant"]
            assert got >= calls, (tenant, signal, got, calls)
            continue
        # Parts that name nobody are `unknown_tenant` where they are alone: 401.
        got = sum(count for (who, what, reason), count in answers.items()
                  if who == tenant and what == signal and STATUS.get(reason) == status)
        if status == 401:
            got += (answers[tenant, signal, "unknown_tenant"] -
                    tally.refused[tenant, signal, 200])
        assert got == calls, (tenant, signal, status, got, calls)


def check_held(found, held, destination):
    """`held`: [(signal, message)] that a destination has."""
    sums, stand_for = collections.Counter(), 0
    for signal, message in held:
        for who, count in counted(signal, message).items():
            sums[who, signal] += count
        if signal == "traces":
            stand_for += estimated(message)
    for tenant, signals in found.items():
        for signal, account in signals.items():
            delivered = items(account, "delivered", destination)
            assert delivered == sums.pop((tenant, signal), 0), (tenant, signal)
            assert delivered == (items(account, "accepted") - items(account, "sampled_out") -
                                 items(account, "dropped_by_rule"))
    assert not +sums, sums
    told = sum(signals["traces"]["estimated_items"] for tenant, signals in found.items()
               if "traces" in signals and tenant != "void")
    assert abs(told - stand_for) <= 0.01 * stand_for + 1, (told, stand_for)


def used(records):
    """Usage records as {(tenant, signal): {...}}, after a look at their keys."""
    once, sums, ends = {}, {}, collections.defaultdict(list)
    for _, key, value, _ in records:
        assert once.setdefault(key, value) == value, f"{key} says two things"
    for key, value in once.items():
        one = json.loads(value)
        tenant, signal, instance, _, sequence = key.decode().rsplit("/", 4)
        assert (tenant, signal, instance, int(sequence)) == (
            one["tenant"], one["signal"], one["instance"], one["sequence"])
        ends[tenant, signal].append((one["from"], one["to"]))
        sums.setdefault((tenant, signal), collections.Counter()).update(flat(one))
    for intervals in ends.values():
        intervals.sort()
        assert all(a[1] <= b[0] for a, b in zip(intervals, intervals[1:])), "intervals overlap"
    return sums


def flat(account, path=""):
    """{path: number} of an account's counts; estimates are told apart."""
    found = {}
    for key, value in account.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{path}{key}/"))
        elif path:
            found[path + key] = value
    return found


def whole(found):
    """{(tenant, signal): {path: number}}, without accounts that have nothing."""
    return {(tenant, signal): flat(account) for tenant, signals in found.items()
            for signal, account in signals.items()}


def check_usage(found, records):
    """What is billed is what the accounts have, to the item."""
    billed, had = used(records), whole(found)
    for key, counts in had.items():
        sums = billed.pop(key, collections.Counter())
        wrong = {path: (sums[path], counts.get(path, 0)) for path in {*sums, *counts}
                 if sums[path] != counts.get(path, 0)}
        assert not wrong, (key, wrong)
    assert not billed, billed


def within(less, more):
    """Whether no number of `less` is greater."""
    return all(number <= more.get(key, {}).get(path, 0)
               for key, counts in less.items() for path, number in counts.items())


def saved(gateway):
    """What the file has for certain: these accounts, or later ones."""
    found = accounts(gateway)
    saves = gateway.metric("sluice_ledger_saves_total")
    wait_for("the ledger to be written twice",
             lambda: gateway.metric("sluice_ledger_saves_total") >= saves + 2)
    return found


def counters_only(found):
    """What is in flight is no counter."""
    return {key: {path: number for path, number in counts.items()
                  if not path.startswith("in_flight/")} for key, counts in whole(found).items()}


def check_bounds(found, tally, held, destination):
    """After a kill: nothing is claimed that was not; `held` as in check_held()."""
    sums = collections.Counter()
    for signal, message in held:
        for who, count in counted(signal, message).items():
            sums[who, signal] += count
    for tenant, signals in found.items():
        for signal, account in signals.items():
            told = tally.accepted[tenant, signal] + tally.unsure[tenant, signal]
            assert items(account, "accepted") <= told, (tenant, signal)
            assert items(account, "delivered", destination) <= sums[tenant, signal], (tenant, signal)


def drill(gateway, seconds, destination, held, usage=None, say=print):
    """A mix with a reload, an end, and a kill in it. `held()`: what the destination has; `usage()`:
    the records on the topic, where there is one."""
    tally, rest = Tally(), threading.Event()
    with Load(gateway, tally):
        rest.wait(seconds * 0.4)
        gateway.tenants["tenants"]["silver"]["quota"] = {"spans": "100/s"}
        gateway.tenants["tenants"]["later"] = {}
        gateway.reload()
        rest.wait(seconds * 0.3)
    found = settled(gateway)
    check_balance(found)
    check_global(gateway, found)
    check_client(found, tally)
    check_held(found, held(), destination)
    say(f"{tally.calls} calls, {sum(tally.accepted.values())} items accepted: accounts, books, "
        f"clients and {destination} say the same")
    gateway.stop()
    if usage:
        check_usage(found, usage())
    gateway.start()
    assert accounts(gateway) == found
    say(f"ended and started again: {len(found)} accounts as they were"
        f"{', and the usage records add up to them' if usage else ''}")
    with Load(gateway, tally, seed=2):
        rest.wait(seconds * 0.15)
        before = saved(gateway)
        rest.wait(seconds * 0.05)
        gateway.kill()
        gateway.start()
        rest.wait(seconds * 0.1)
    after = settled(gateway)
    check_balance(after)
    assert within(counters_only(before), whole(after))
    check_bounds(after, tally, held(), destination)
    lost = sum(tally.accepted.values()) - sum(
        items(account, "accepted") for signals in after.values() for account in signals.values())
    gateway.stop()
    if usage:
        check_usage(after, usage())
    say(f"killed and started again: all that had been saved is there, {lost} items of the time "
        f"since are not, nothing is claimed twice")
