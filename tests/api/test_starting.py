"""Starting, refusing to start, and stopping: `aftergate serve` as its users run it."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from serving import KEY, Server, free_port

pytestmark = pytest.mark.serving


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What is said on standard error by a server that does not start."""
    command = [sys.executable, "-m", "aftergate.cli.main", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}, check=False)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("aftergate: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate_path, key_path


def test_with_nothing_configured_it_starts_says_what_to_do_and_answers(tmp_path: Path) -> None:
    port = free_port()
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "aftergate.cli.main", "serve", "--listen", f"127.0.0.1:{port}"], cwd=tmp_path, stdout=out, stderr=err
        )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and "Stop with" not in (tmp_path / "out").read_text():
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.1)
        said = (tmp_path / "out").read_text()
        command = said[said.index("  curl") : said.index("\n\nNext:")].replace("\\\n", "")
        key_file = tmp_path / "aftergate-data" / "first-api-key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert key_file.read_text().split()[0] not in said
        until = time.monotonic() + 10
        answer = ""
        while time.monotonic() < until and not answer:
            answer = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False).stdout
            time.sleep(0.1)
        assert isinstance(json.loads(answer)["decision"], bool), answer
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_unsafe_combinations_do_not_start(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    assert "without TLS" in refused(*data, "--listen", f"0.0.0.0:{free_port()}")
    proxied = ("--listen", f"0.0.0.0:{free_port()}", "--public-url", "https://gate.example")
    assert "choose its own address" in refused(*data, *proxied, "--trusted-proxies", "0.0.0.0/0")
    assert "no key for callers" in refused(*data, *proxied, "--trusted-proxies", "10.0.0.0/8")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in said
    assert "another" in said


def test_two_servers_do_not_share_a_port(tmp_path: Path, policies: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(policies)) as made:
        port = made.url.rsplit(":", 1)[1]
        assert "another program listens there" in refused("--data", str(tmp_path / "other"), "--listen", f"127.0.0.1:{port}")


def test_what_cannot_be_used_is_told_in_one_line_with_advice(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{free_port()}")
    keys = tmp_path / "keys.txt"
    keys.write_text("short\n")
    assert "keys.txt:1" in refused(*data, "--api-key-file", str(keys))
    keys.write_text("")
    assert "holds no key" in refused(*data, "--api-key-file", str(keys))
    assert "cannot read the key file" in refused(*data, "--api-key-file", str(tmp_path))
    assert "x.pem" in refused(*data, "--tls-certificate", str(tmp_path / "x.pem"), "--tls-key", str(tmp_path / "y.pem"))
    (tmp_path / "x.pem").write_text("nothing")
    (tmp_path / "y.pem").write_text("nothing")
    assert "TLS certificate" in refused(*data, "--tls-certificate", str(tmp_path / "x.pem"), "--tls-key", str(tmp_path / "y.pem"))
    assert "data directory" in refused("--data", "/proc/none", "--listen", data[3])
    assert "not a database" in refused(*data, "--database", "mysql://x/y")
    assert "does not answer" in refused(*data, "--database", "postgresql://u:hunter2secret@127.0.0.1:1/x")
    assert "hunter2secret" not in refused(*data, "--database", "postgresql://u:hunter2secret@127.0.0.1:1/x")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.cedar").write_text("permit(everything)")
    assert "a.cedar" in refused(*data, "--policies", str(broken))
    (tmp_path / "data" / "keys" / "pepper").write_text("damaged")
    assert "pepper" in refused(*data)


def test_a_misspelt_environment_variable_is_told(tmp_path: Path, policies: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(policies), env={"AFTERGATE_POLICY": "/x"}) as made:
        assert "AFTERGATE_POLICY" in made.text()


def test_it_stops_on_sigterm_finishing_what_was_asked_and_starts_again_on_the_same_data(tmp_path: Path, policies: Path) -> None:
    made = Server(tmp_path / "s", "--policies", str(policies))
    made.start()
    got: list[int] = []
    began = threading.Event()

    def slowly():
        yield b"["
        began.set()
        time.sleep(1.0)
        yield b"]"

    def ask() -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        got.append(httpx2.post(made.url + "/v1/findings", content=slowly(), headers=headers, timeout=20, trust_env=False).status_code)

    with httpx2.Client(base_url=made.url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as idle:
        key = idle.post("/v1/keys", json={"name": "kept", "scopes": ["metrics"]}).json()["key"]
        thread = threading.Thread(target=ask)
        thread.start()
        assert began.wait(10)
        assert made.stop() == 0  # although `idle` keeps its connection open
    thread.join()
    assert got == [200]
    assert "stopped" in made.text()
    made.start()
    assert httpx2.get(made.url + "/v1/status", headers={"authorization": f"Bearer {key}"}, trust_env=False).status_code == 200
    assert made.stop() == 0


def test_tls_serves_with_strict_transport_security_and_nothing_old(tmp_path: Path, policies: Path) -> None:
    certificate_path, key_path = certificate(tmp_path)
    made = Server(tmp_path / "s", "--policies", str(policies), "--tls-certificate", str(certificate_path), "--tls-key", str(key_path))
    context = ssl.create_default_context(cafile=str(certificate_path))
    made.start(tls=context)
    with made:
        assert made.url.startswith("https://")
        answer = httpx2.get(made.url + "/v1/status", headers={"authorization": f"Bearer {KEY}"}, verify=context, trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
        host, port = "localhost", int(made.url.rsplit(":", 1)[1])
        old = ssl.create_default_context(cafile=str(certificate_path))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError), socket.create_connection((host, port), timeout=5) as plain:
            old.wrap_socket(plain, server_hostname=host)


def test_headers_of_a_proxy_are_believed_of_the_proxy_only(tmp_path: Path, policies: Path) -> None:
    """With the proxy trusted, each forwarded address has its own count of failures; without, they are all one."""
    wrong = {"authorization": "Bearer wrong-key-000000000000"}

    def codes(made: Server) -> list[int]:
        return [
            httpx2.get(made.url + "/v1/status", headers={**wrong, "x-forwarded-for": f"198.51.100.{n}"}, trust_env=False).status_code
            for n in range(8)
        ]

    with Server(tmp_path / "a", "--policies", str(policies), "--failures-per-minute", "3") as made:
        assert 429 in codes(made)
    proxied = ("--trusted-proxies", "127.0.0.0/8,::1", "--public-url", "https://gate.example")
    with Server(tmp_path / "b", "--policies", str(policies), "--failures-per-minute", "3", *proxied) as made:
        assert codes(made) == [401] * 8
        # The last address that is no proxy counts: what a caller puts before it is not believed.
        forged = [
            httpx2.get(
                made.url + "/v1/status", headers={**wrong, "x-forwarded-for": f"10.0.0.{n}, 198.51.100.99"}, trust_env=False
            ).status_code
            for n in range(8)
        ]
        assert 429 in forged
        plain = httpx2.get(
            made.url + "/v1/status", headers={"authorization": f"Bearer {KEY}", "x-forwarded-proto": "http"}, trust_env=False
        )
        assert plain.status_code == 403
