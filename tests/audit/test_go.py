"""Go's `golang.org/x/mod/sumdb` opens our checkpoints and checks our proofs; what it refuses, it refuses for the reason we meant."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from making import Log, ordinary

from aftergate.audit.merkle import consistency_proof, inclusion_proof, leaf_hash, over
from aftergate.audit.notes import b64

GOPATH = Path("/usr/share/gocode")  # where Debian's golang-golang-x-mod-dev puts it
HAVE = shutil.which("go") is not None and (GOPATH / "src/golang.org/x/mod/sumdb/note").is_dir()

pytestmark = pytest.mark.skipif(not HAVE, reason="needs Go and its x/mod: apt-get install golang-go golang-golang-x-mod-dev")


@pytest.fixture(scope="session")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    made = folder / "verify"
    subprocess.run(["go", "build", "-o", str(made), str(Path(__file__).parent / "go/verify.go")], env=environment, check=True, timeout=300)
    return made


def lay_out(folder: Path, log: Log, index: int, old: int) -> None:
    leaves = [leaf_hash(e) for e in log.leaves]
    parts = {
        "vkey": log.signer.verifier.vkey.encode(),
        "checkpoint": log.sign(),
        "old": log.sign(size=old),
        "record": log.leaves[index],
        "index": str(index).encode(),
        "inclusion": "\n".join(map(b64, inclusion_proof(index, len(leaves), over(leaves)))).encode(),
        "consistency": "\n".join(map(b64, consistency_proof(old, len(leaves), over(leaves)))).encode(),
    }
    for name, data in parts.items():
        (folder / name).write_bytes(data)


def run(verifier: Path, folder: Path) -> str:
    return subprocess.run([verifier, folder], capture_output=True, text=True, timeout=20, check=False).stdout.strip()


@pytest.mark.parametrize(("size", "index", "old"), [(1, 0, 1), (2, 1, 1), (7, 6, 4), (300, 255, 256), (300, 256, 299), (517, 0, 3)])
def test_go_agrees(verifier: Path, tmp_path: Path, size: int, index: int, old: int) -> None:
    log = Log()
    for n in range(size):
        log.add(ordinary(n))
    lay_out(tmp_path, log, index, old)
    assert run(verifier, tmp_path) == "ok"


def test_go_refuses_what_was_tampered_with(verifier: Path, tmp_path: Path) -> None:
    log = Log()
    for n in range(20):
        log.add(ordinary(n))
    lay_out(tmp_path, log, 11, 7)
    good = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for name, said in (
        ("record", "inclusion"),
        ("checkpoint", "checkpoint"),
        ("old", "old"),
        ("inclusion", "inclusion"),
        ("consistency", "consistency"),
    ):
        changed = good[name][:3] + (b"B" if good[name][3:4] != b"B" else b"C") + good[name][4:]
        (tmp_path / name).write_bytes(changed)
        assert run(verifier, tmp_path).startswith(said), name
        (tmp_path / name).write_bytes(good[name])
    assert run(verifier, tmp_path) == "ok"
