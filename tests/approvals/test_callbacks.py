"""Callbacks: where they go, where they never go, and what they carry."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from company import Company, now_s, payment
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jws
from joserfc.jwk import KeySet
from msgspec.structs import replace

from aftergate.authz.transactions.canonical import b64url
from aftergate.service import callbacks
from aftergate.service.approvals import Fault
from aftergate.service.callbacks import Callbacks, public, refuse_endpoint

HOST = "hooks.example.com"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "::127.0.0.1", "::10.0.0.1",
        "2002:7f00:1::", "2001:db8::1", "x", "",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_outside_are(address: str) -> None:
    assert public(address)


def resolving(*found: str) -> Any:
    return lambda _host, _port: list(found)


@pytest.mark.parametrize(
    ("endpoint", "found", "hosts", "ok"),
    [
        (f"https://{HOST}/x", ("93.184.216.34",), (), True),
        (f"https://{HOST}:8443/x?y=1", ("93.184.216.34", "2606:4700::1111"), (), True),
        (f"https://{HOST}/x", ("93.184.216.34", "10.0.0.1"), (), False),
        (f"https://{HOST}/x", ("10.0.0.1",), (), False),
        (f"https://{HOST}/x", ("10.0.0.1",), (HOST,), True),
        (f"https://{HOST}./x", ("10.0.0.1",), (HOST.upper(),), True),
        (f"https://{HOST}/x", (), (), False),
        (f"http://{HOST}/x", ("93.184.216.34",), (), False),
        (f"http://{HOST}/x", ("93.184.216.34",), (HOST,), False),
        (f"https://a:b@{HOST}/x", ("93.184.216.34",), (), False),
        (f"https://{HOST}/x#y", ("93.184.216.34",), (), False),
        (f"https://{HOST}/x\r\nHost: y", ("93.184.216.34",), (), False),
        (f"https://{HOST}:99999/", ("93.184.216.34",), (), False),
        ("https://[::1", ("93.184.216.34",), (), False),
        ("https://" + "x" * 3000, ("93.184.216.34",), (), False),
    ],
)
def test_which_endpoints_are_called(endpoint: str, found: tuple[str, ...], hosts: tuple[str, ...], ok: bool) -> None:
    assert (refuse_endpoint(endpoint, hosts, resolving(*found)) == "") == ok


def test_a_name_that_does_not_resolve_is_refused() -> None:
    def fails(_host: str, _port: int) -> list[str]:
        raise OSError("no such host")

    assert "resolve" in refuse_endpoint(f"https://{HOST}/", (), fails)


class Hook(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []
    answers: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Hook.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(Hook.answers.pop(0) if Hook.answers else 200)
        self.send_header("location", "https://127.0.0.1/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext]]:
    """An https server with a certificate for HOST; its port, and a context that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.fromtimestamp(now_s(), UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, encipher_only=False, decipher_only=False,
            ), critical=True,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = folder / "cert.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mine.load_cert_chain(pem, folder / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.socket = mine.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], ssl.create_default_context(cafile=str(pem))
    server.shutdown()
    server.server_close()


@pytest.fixture
def company(tmp_path: Path, hook: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    Hook.got.clear()
    Hook.answers.clear()
    made = Company(tmp_path, callback_hosts=(HOST,))
    made.person("bob", "finance")
    monkeypatch.setattr(
        "aftergate.service.approvals.submitting.refuse_endpoint",
        lambda endpoint, hosts: refuse_endpoint(endpoint, hosts, resolving("127.0.0.1")),
    )
    made.core.approvals.callbacks = Callbacks(made.core, made.core.approvals.keys, resolver=resolving("127.0.0.1"), tls=hook[1])
    yield made
    made.core.close()


def asked(company: Company, port: int, **callback: Any) -> Any:
    return company.request(payment(), callback={"endpoint": f"https://{HOST}:{port}/hook?x=1", "state": {"mine": 1}, **callback})


@pytest.mark.serving
def test_a_decision_is_told_signed_and_once(company: Company, hook: tuple[int, ssl.SSLContext]) -> None:
    approval = company.approve("bob", asked(company, hook[0]))
    sender = company.core.approvals.callbacks
    assert sender.send_due(company.now) == 1
    assert sender.send_due(company.now) == 0
    ((path, headers, body),) = Hook.got
    told = json.loads(body)
    assert path == "/hook?x=1"
    assert headers["host"] == f"{HOST}:{hook[0]}"
    assert (told["task"]["id"], told["task"]["status"], told["state"]) == (approval.id, "approved", {"mine": 1})
    assert "result" not in told, "a callback is a notification: the approval's id stays at the status endpoint"
    head, _, signature = headers["aftergate-signature"].split(".")
    keys = KeySet.import_key_set(company.core.tasks.signing.jwks(company.now))
    assert jws.deserialize_compact(f"{head}.{b64url(body)}.{signature}", keys).payload == body
    with pytest.raises(Exception, match="signature"):
        jws.deserialize_compact(f"{head}.{b64url(body + b' ')}.{signature}", keys)


@pytest.mark.serving
def test_only_the_events_asked_for_are_told(company: Company, hook: tuple[int, ssl.SSLContext]) -> None:
    approval = asked(company, hook[0], events=["approved"])
    company.core.approvals.deny(company.acting("bob"), approval.id, "no", company.now)
    assert company.core.approvals.callbacks.send_due(company.now) == 0


@pytest.mark.serving
def test_what_fails_is_tried_again_later_and_a_redirect_is_not_followed(company: Company, hook: tuple[int, ssl.SSLContext]) -> None:
    company.approve("bob", asked(company, hook[0]))
    Hook.answers.extend([503, 302])
    sender = company.core.approvals.callbacks
    assert sender.send_due(company.now) == 0
    assert sender.send_due(company.now) == 0, "not before its time"
    company.wait(10)
    assert sender.send_due(company.now) == 0
    company.wait(60)
    assert sender.send_due(company.now) == 1
    assert len(Hook.got) == 3


@pytest.mark.serving
def test_it_is_given_up_in_the_end(company: Company, hook: tuple[int, ssl.SSLContext]) -> None:
    company.approve("bob", asked(company, hook[0]))
    Hook.answers.extend([500] * 20)
    for _ in range(10):
        company.core.approvals.callbacks.send_due(company.now)
        company.wait(10_000)
    assert len(Hook.got) == len(callbacks.TRIES_MS)


@pytest.mark.serving
def test_a_name_that_moved_inside_since_is_not_called(company: Company, hook: tuple[int, ssl.SSLContext]) -> None:
    """DNS rebinding: public when asked, loopback when called."""
    company.approve("bob", asked(company, hook[0]))
    company.core.settings = replace(company.core.settings, callback_hosts=())
    assert company.core.approvals.callbacks.send_due(company.now) == 0
    assert Hook.got == []


@pytest.mark.serving
def test_a_certificate_of_another_name_is_not_trusted(
    company: Company, hook: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks.stamina, "retry_context", lambda **_: [contextlib.nullcontext()])
    company.core.settings = replace(company.core.settings, callback_hosts=("other.example.com",))
    approval = company.request(payment(), callback={"endpoint": f"https://other.example.com:{hook[0]}/"})
    company.approve("bob", approval)
    assert company.core.approvals.callbacks.send_due(company.now) == 0
    assert Hook.got == []


def test_a_callback_inside_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    company = Company(tmp_path)
    with pytest.raises(Fault, match="callback"):
        company.request(payment(), callback={"endpoint": "https://127.0.0.1/x"})
    company.core.close()
