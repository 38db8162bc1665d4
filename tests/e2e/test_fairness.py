"""What one tenant takes is not another's: memory for bodies that wait, and hints that are ignored."""

from lib import otlp, wire
from lib.sluice import wait_for

GOLD = {"Authorization": "Bearer gold-token"}


def head(length, token, extra=""):
    return (f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {length}\r\n{extra}\r\n").encode()


def test_a_tenant_may_reserve_a_quarter(start):
    """Bodies that do not come hold a quarter of the budget at most; the others do not feel it."""
    sluice = start(config={"memory_budget": "32MiB", "limits": {"body_bytes": "4MiB"}})
    held, refused = [], []
    for _ in range(8):
        client = wire.Http1(sluice.http_port)
        client.send(head(3 << 20, "gold-token", "Expect: 100-continue\r\n"))
        status, headers, _ = client.read_response()
        if status == 100:
            held.append(client)
        else:
            assert status == 503 and int(headers["retry-after"]) >= 1
            refused.append(client)
    assert len(held) == 2, "of 8 MiB, two of 3 MiB"
    body = otlp.request("traces", 1).SerializeToString()
    for _ in range(5):
        assert wire.post(sluice.http_port, "/v1/traces", body)[0] == 200  # another tenant
    held.pop().close()  # what it gives back is its own again

    def admitted():
        client = wire.Http1(sluice.http_port)
        client.send(head(3 << 20, "gold-token", "Expect: 100-continue\r\n"))
        status = client.read_response()[0]
        client.close()
        return status == 100

    wait_for("the share", admitted)
    for client in held + refused:
        client.close()
    wait_for("memory", lambda: sluice.metric("sluice_memory_used_bytes") < 1 << 20)
