"""Node processes for the tests: an OpenID provider and an OAuth client, with the packages that the Makefile installs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

SCRIPTS = Path(__file__).parent / "node"
PACKAGES = Path(__file__).parents[1] / ".venv" / "node" / "node_modules"


def folder_for(tmp_path: Path) -> Path:
    """A folder with the scripts and, beside them, the packages: Node looks for packages where a script lies."""
    assert (PACKAGES / "oidc-provider").is_dir(), "the Node packages are missing: `make test` installs them"
    made = tmp_path / "peers"
    made.mkdir(exist_ok=True)
    for script in SCRIPTS.glob("*"):
        shutil.copy(script, made)
    if not (made / "node_modules").exists():
        (made / "node_modules").symlink_to(PACKAGES)
    return made


class Issuer:
    """A running `issuer.mjs`. `url` is its issuer; ends with the block."""

    def __init__(self, tmp_path: Path, **configuration: Any) -> None:
        self._folder = folder_for(tmp_path)
        self._configuration = configuration
        self.url = ""

    def __enter__(self) -> Self:
        command = ["node", "issuer.mjs", json.dumps(self._configuration)]
        self._log = (self._folder / "issuer.log").open("wb")
        self._process = subprocess.Popen(command, cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(b"{"):
            self.__exit__()
            raise AssertionError((self._folder / "issuer.log").read_text()[-2000:])
        self.url = json.loads(line)["issuer"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        for each in (self._process.stdin, self._process.stdout):
            if each is not None:
                each.close()
        self._log.close()


def run(tmp_path: Path, script: str, configuration: dict[str, Any], timeout_s: float = 60) -> dict[str, Any]:
    """What a script printed as JSON. Raises: AssertionError, with its complaint."""
    command = ["node", script, json.dumps(configuration)]
    done = subprocess.run(command, cwd=folder_for(tmp_path), capture_output=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    held: dict[str, Any] = json.loads(done.stdout)
    return held
