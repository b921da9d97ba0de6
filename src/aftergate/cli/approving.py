"""Approving from a terminal: log in with a software key, look at a request in full, decide. What `aftergate approve` does, without its words."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2
import stamina

from aftergate import __version__
from aftergate.authz.transactions import softkey
from aftergate.authz.transactions.canonical import b64url, canonical, unb64url
from aftergate.authz.transactions.objects import batch_challenge, challenge, encoded
from aftergate.authz.transactions.softkey import SoftKey
from aftergate.errors import AftergateError

TIMEOUT_S: Final = 15.0


class Refused(AftergateError):
    """The server said no, or says something that does not fit what it shows. `status` is its HTTP status, 0 for the latter."""

    code = "refused"

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Desk:
    """One person at one server. The key's counter is written down before each signature is sent."""

    def __init__(self, url: str, path: Path | None = None, passphrase: str = "") -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        default = {"https": 443, "http": 80}.get(parts.scheme)
        port = f":{parts.port}" if parts.port and parts.port != default else ""
        self.origin = f"{parts.scheme}://{parts.hostname}{port}"
        self._path = path
        self._passphrase = passphrase
        self._key: SoftKey | None = softkey.load(path, passphrase) if path is not None else None
        headers = {"origin": self.origin, "user-agent": f"aftergate/{__version__}"}
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, token: str = "") -> dict[str, Any]:
        """Raises: Refused."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self._told("GET", path, attempts=3, headers=headers)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """Raises: Refused."""
        return self._told("POST", path, attempts=1, json=body)

    def _told(self, method: str, path: str, *, attempts: int, **more: Any) -> dict[str, Any]:
        try:
            for attempt in stamina.retry_context(on=httpx2.ConnectError, attempts=attempts, wait_initial=0.2):
                with attempt:
                    answer = self._http.request(method, path, **more)
            held = answer.json() if answer.content else {}
        except httpx2.ConnectError as error:
            raise Refused(f"cannot reach {self.origin}") from error
        except (httpx2.HTTPError, ValueError) as error:
            raise Refused(f"no answer that makes sense from {self.origin}: {type(error).__name__}") from error
        if answer.status_code >= 300 or not isinstance(held, dict):
            said = held if isinstance(held, dict) else {}
            words = str(said.get("title") or f"the server answered {answer.status_code}")
            raise Refused(words, status=answer.status_code, reason=str(said.get("reason", "")))
        return held

    def register(self, link: str, path: Path, passphrase: str, name: str) -> str:
        """Make a key file and register it with a one-time link; gives the person's id.

        Raises: Refused, KeyFileError.
        """
        secret = urlsplit(link).fragment or link
        options = self.post("/v1/enrol/options", {"secret": secret})["public_key"]
        key = softkey.new_key(options["rp"]["id"], unb64url(options["user"]["id"]), secrets.token_bytes)
        key, made = key.register(unb64url(options["challenge"]), self.origin)
        softkey.save(path, key, passphrase, secrets.token_bytes, new=True)
        try:
            person = self.post("/v1/enrol", {"secret": secret, "credential": made, "name": name})["person"]
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._path, self._passphrase, self._key = path, passphrase, key
        return str(person)

    def login(self) -> str:
        """Open a session with the key; gives the person's id. Raises: Refused, KeyFileError."""
        options = self.post("/v1/login/passkey/options", {})["public_key"]
        return str(self.post("/v1/login/passkey", {"credential": self._signed(unb64url(options["challenge"]))})["person"])

    def inbox(self, *, everything: bool = False) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = self.get("/v1/approvals" + ("?all=true" if everything else ""))["requests"]
        return held

    def view(self, id_: str) -> dict[str, Any]:
        return self.get(f"/v1/approvals/{id_}")

    def deny(self, id_: str, reason: str) -> dict[str, Any]:
        return self.post(f"/v1/approvals/{id_}/decision", {"decision": "deny", "reason": reason})

    def approve(self, shown: dict[str, Any], items: list[int] | None = None) -> dict[str, Any]:
        """Say yes to what was shown, and to nothing else.

        The challenge is computed here from the object that the server sends with it, and the object must hold every field that was shown: a
        server that shows one thing and asks to sign another is refused.
        Raises: Refused, KeyFileError.
        """
        asked = self.post(f"/v1/approvals/{shown['id']}/challenge", {"items": items})
        made = asked["object"]
        self._fits(made, shown)
        digest = challenge(encoded(made))
        if b64url(digest) != asked["public_key"]["challenge"]:
            raise Refused("the server asks to sign something else than it shows")
        body = {"decision": "approve", "challenge_id": asked["challenge_id"], "assertion": self._signed(digest)}
        return self.post(f"/v1/approvals/{shown['id']}/decision", body)

    def approve_all(self, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One signature over one declared batch of requests, each of which was shown. Raises: Refused, KeyFileError."""
        ids = [one["id"] for one in shown]
        asked = self.post("/v1/approvals/batch/challenge", {"requests": ids})
        for made, one in zip(asked["objects"], shown, strict=True):
            self._fits(made, one)
        if len(ids) == 1:
            digest = challenge(encoded(asked["objects"][0]))
        else:
            batch = asked["batch"]
            if batch["objects"] != [b64url(challenge(encoded(made))) for made in asked["objects"]]:
                raise Refused("the server asks to sign another batch than it shows")
            digest = batch_challenge(canonical(batch))
        if b64url(digest) != asked["public_key"]["challenge"]:
            raise Refused("the server asks to sign something else than it shows")
        body = {"requests": ids, "challenge_id": asked["challenge_id"], "assertion": self._signed(digest)}
        held: list[dict[str, Any]] = self.post("/v1/approvals/batch/decision", body)["requests"]
        return held

    def _fits(self, made: dict[str, Any], shown: dict[str, Any]) -> None:
        if any(made.get(name) != value for name, value in shown["object"].items()):
            raise Refused("the request is not what was shown any more: look again")

    def _signed(self, digest: bytes) -> dict[str, Any]:
        if self._key is None or self._path is None:
            raise Refused("this needs a key: give --key FILE")
        self._key, made = self._key.assertion(digest, self.origin)
        softkey.save(self._path, self._key, self._passphrase, secrets.token_bytes)
        return made
