"""TLS as clients meet it: versions, names, certificates of both sides, reloads, resumption."""

import os
import socket
import ssl
import subprocess
import time

import pytest
from lib import otlp, wire
from lib.sluice import wait_for

TRACES = otlp.SERVICES["traces"]
BODY = otlp.request("traces", 2).SerializeToString()
WHOLE = (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
         b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.pem = folder / f"{name}.pem"
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
                 "-days", "30")

    def run(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name, alt, common="x"):
        """(certificate, key) paths."""
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alt}\n")
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={common}")
        self.run("x509", "-req", "-in", f"{name}.csr", "-CA", self.pem, "-CAkey",
                 f"{self.name}.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "30",
                 "-extfile", f"{name}.ext")
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


def serve(start, pairs, **tls):
    """A gateway whose gRPC port speaks TLS with these certificates."""
    def listen(sluice):
        sluice.config["listen"][0] = {"address": f"127.0.0.1:{sluice.grpc_port}", "tls": {
            "certificates": [{"certificate_file": str(c), "key_file": str(k)} for c, k in pairs],
            **tls}}
    return start(edit=listen)


def client_context(ca, alpn=("h2",), identity=None):
    context = ssl.create_default_context(cafile=ca.pem)
    if alpn:
        context.set_alpn_protocols(alpn)
    if identity:
        context.load_cert_chain(*identity)
    return context


def connect(sluice, context, name="localhost", session=None):
    return context.wrap_socket(socket.create_connection(("127.0.0.1", sluice.grpc_port), timeout=10),
                               server_hostname=name, session=session)


def export(sock):
    """Whether one call over HTTP/1.1 succeeds."""
    try:
        sock.sendall(WHOLE)
        return sock.recv(1000).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(start, ca, version):
    sluice = serve(start, [ca.issue("server", "DNS:localhost")])
    context = client_context(ca, None)
    context.minimum_version = context.maximum_version = version
    with connect(sluice, context) as sock:
        assert export(sock)


def test_min_version_1_3(start, ca):
    sluice = serve(start, [ca.issue("server", "DNS:localhost")], min_version="1.3")
    context = client_context(ca, None)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(sluice, context)
    with connect(sluice, client_context(ca, None)) as sock:
        assert export(sock)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(start, ca):
    sluice = serve(start, [ca.issue("server", "DNS:localhost")])
    context = client_context(ca, None)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # the client itself would refuse it
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(sluice, context)
    assert sluice.metric("sluice_tls_failures_total") == 1


@pytest.mark.parametrize("alpn, chosen", [(["h2"], "h2"), (["http/1.1"], "http/1.1"),
                                          (["http/1.1", "h2"], "h2"), (None, None)])
def test_alpn(start, ca, alpn, chosen):
    """Without ALPN the first bytes decide, as on a plain connection."""
    sluice = serve(start, [ca.issue("server", "DNS:localhost")])
    sock = connect(sluice, client_context(ca, alpn))
    assert sock.selected_alpn_protocol() == chosen
    if chosen != "http/1.1":
        client = wire.Http2(None, sock=sock)
        assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    sock.close()
    if chosen != "h2":
        with connect(sluice, client_context(ca, alpn)) as sock:
            assert export(sock)


def test_sni_picks_among_certificates(start, ca):
    sluice = serve(start, [ca.issue("one", "DNS:one.example"),
                           ca.issue("two", "DNS:two.example,DNS:*.two.example")])
    for name, expected in (("one.example", "one.example"), ("two.example", "two.example"),
                           ("a.two.example", "two.example"), ("TWO.example", "two.example")):
        with connect(sluice, client_context(ca, None), name) as sock:
            names = [value for _, value in sock.getpeercert()["subjectAltName"]]
            assert expected in names and export(sock)
    with pytest.raises(ssl.SSLCertVerificationError):  # unknown: the first, which does not match
        connect(sluice, client_context(ca, None), "three.example")


def test_client_certificates(start, ca, tmp_path):
    other = Authority(tmp_path, "other")
    sluice = serve(start, [ca.issue("server", "DNS:localhost")], client_ca_file=str(ca.pem),
                   require_client=True)
    with connect(sluice, client_context(ca, None, ca.issue("client", "DNS:gold"))) as sock:
        assert export(sock)
    for identity in (None, other.issue("stranger", "DNS:gold")):
        try:
            with connect(sluice, client_context(ca, None, identity)) as sock:
                assert not export(sock)
        except (ssl.SSLError, ConnectionError):
            pass
    wait_for("failures", lambda: sluice.metric("sluice_tls_failures_total") == 2)
    assert sluice.files("traces") and len(sluice.files("traces")) == 1


def test_replaced_certificate_is_served_without_dropping(start, ca, tmp_path):
    old = ca.issue("old", "DNS:localhost")
    pair = tmp_path / "live.crt", tmp_path / "live.key"
    for source, target in zip(old, pair):
        target.write_bytes(source.read_bytes())
    sluice = serve(start, [pair])
    first = connect(sluice, client_context(ca))
    serial = first.getpeercert()["serialNumber"]
    client = wire.Http2(None, sock=first)
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    before = sluice.metric("sluice_config_reloads_total", result="success")
    for source, target in zip(ca.issue("new", "DNS:localhost"), pair):
        replacement = target.with_suffix(".tmp")
        replacement.write_bytes(source.read_bytes())
        os.replace(replacement, target)

    def served():
        with connect(sluice, client_context(ca, None)) as sock:
            return sock.getpeercert()["serialNumber"] != serial and export(sock)

    wait_for("the new certificate", served)
    assert sluice.metric("sluice_config_reloads_total", result="success") > before
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0  # on the old one
    assert not client.goaways
    client.close()
    # A broken file changes nothing.
    pair[0].write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    wait_for("the refusal", lambda: sluice.metric("sluice_config_reloads_total", result="failure"))
    assert served()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [48, 80])
def test_sessions_resume_on_another_instance(start, ca, tmp_path, version, size):
    keys = tmp_path / "tickets"
    keys.write_bytes(os.urandom(size))
    pair = ca.issue("server", "DNS:localhost")
    one, two = (serve(start, [pair], ticket_key_file=str(keys)) for _ in range(2))
    context = client_context(ca, None)
    context.minimum_version = context.maximum_version = version
    with connect(one, context) as sock:
        assert export(sock) and not sock.session_reused
        session = sock.session  # TLS 1.3: the ticket came with the answer
    with connect(two, context, session=session) as sock:
        assert sock.session_reused and export(sock)
    keys.write_bytes(os.urandom(size))  # other keys: a full handshake again, no failure
    before = two.metric("sluice_config_reloads_total", result="success")
    wait_for("the reload",
             lambda: two.metric("sluice_config_reloads_total", result="success") > before)
    time.sleep(0.2)
    with connect(two, context, session=session) as sock:
        assert not sock.session_reused and export(sock)


def test_close_notify_then_the_answer(start, ca):
    """A half-close inside TLS: what came whole is answered."""
    sluice = serve(start, [ca.issue("server", "DNS:localhost")])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(ca, None).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", sluice.grpc_port), timeout=5) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        tls.write(WHOLE)
        with pytest.raises(ssl.SSLError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        data = b""
        while more := sock.recv(65536):
            data += more
        incoming.write(data)
        assert tls.read(1000).startswith(b"HTTP/1.1 200")


def test_large_bodies_through_tls(start, ca):
    sluice = serve(start, [ca.issue("server", "DNS:localhost")])
    body = wire.frame(otlp.request("traces", 20000).SerializeToString())
    client = wire.Http2(None, sock=connect(sluice, client_context(ca)))
    assert client.call(TRACES, body).grpc_status == 0
    client.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_end_is_told(start, ca, version):
    """close_notify before the close (RFC 8446, section 6.1), else what ends looks cut."""
    sluice = serve(start, [ca.issue("localhost", "DNS:localhost")])
    context = client_context(ca, alpn=None)
    context.minimum_version = context.maximum_version = version

    def rest(sent):
        with socket.create_connection(("127.0.0.1", sluice.grpc_port), timeout=30) as plain:
            secure = context.wrap_socket(plain, server_hostname="localhost",
                                         suppress_ragged_eofs=False)
            secure.sendall(sent)
            data = b""
            while piece := secure.recv(65536):  # raises where the end was not told
                data += piece
            return data

    close = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    assert rest(close).startswith(b"HTTP/1.1 200")
    assert rest(b"no HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400")
    goaway = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + bytes(8)
    assert rest(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + goaway)
