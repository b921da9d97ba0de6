"""GitHub secret scanning alerts: one alert to one Event. Source: docs.github.com, REST "Secret scanning"."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.loose import decode, kept, mapping, moment, number, text
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Detail, Event, Kind, Tag, Target
from aftergate.vocabulary.patterns import regex

ALERTS: Final = "github.secret_scanning"

_AWS_KEY = regex(r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b")
_GOOGLE_KEY = regex(r"^[0-9a-f]{40}$")


class Alert(Struct, gc=False):
    number: Any = None
    created_at: Any = None
    updated_at: Any = None
    state: Any = None
    resolution: Any = None
    resolved_at: Any = None
    resolved_by: Any = None
    secret_type: Any = None
    secret: Any = None
    repository: Any = None
    html_url: Any = None
    validity: Any = None
    publicly_leaked: Any = None
    multi_repo: Any = None
    push_protection_bypassed: Any = None
    push_protection_bypassed_by: Any = None


_alert = msgspec.json.Decoder(Alert)
_any = msgspec.json.Decoder()


class Alerts:
    """Secret scanning alerts of the REST interface. INVARIANT: the found value leaves this class only as an identifier or a hash."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner

    def parse(self, line: bytes) -> Event:
        record = decode(_alert, line)
        kind = text(record.secret_type)
        if kind is None:
            raise NotMine("alert has no `secret_type`")
        sequence = number(record.number)
        repo = text(mapping(record.repository).get("full_name")) or _repository_of(text(record.html_url))
        if sequence is None or repo is None:
            raise Reject("alert has no number or repository")
        credential, kept_as = _identifier(kind, record.secret)
        alert = f"{repo}#{sequence}"
        intern = self.intern
        owner = repo.partition("/")[0]
        private = mapping(record.repository).get("private")
        detail = Detail(
            repo=repo,
            credential_type=kind,
            targets=(Target(repo, "repository"), Target(alert, "alert")),
            params=kept(
                {
                    "secret_type": kind,
                    "kept_as": kept_as,
                    "state": text(record.state),
                    "resolution": text(record.resolution),
                    "resolved_at": text(record.resolved_at),
                    "validity": text(record.validity),
                    "publicly_leaked": record.publicly_leaked if isinstance(record.publicly_leaked, bool) else None,
                    "private": private if isinstance(private, bool) else None,
                    "multi_repo": record.multi_repo if isinstance(record.multi_repo, bool) else None,
                    "push_protection_bypassed": record.push_protection_bypassed
                    if isinstance(record.push_protection_bypassed, bool)
                    else None,
                    "bypassed_by": text(mapping(record.push_protection_bypassed_by).get("login")),
                }
            ),
            status=text(record.state),
        )
        shape = intern.shape(
            ALERTS,
            intern.action(ALERTS, "secret_scanning_alert", lambda _: (Kind.OTHER, "github-secret-scanning", "discover", (Tag.LEAK,))),
            intern.actor("github", kind="service", account=owner, first_party=True),
            account=owner,
        )
        return Event(moment(record.created_at), alert, shape, credential=credential, target=repo, detail=detail)


def _repository_of(url: str | None) -> str | None:
    found = re.match(r"^https?://[^/]+/([^/]+/[^/]+)/security/secret-scanning/", url or "")
    return found.group(1) if found else None


def token_hash(secret: str) -> str:
    """What the audit log calls `hashed_token`: base64 of the SHA-256 of the token."""
    return base64.b64encode(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()).decode()


def _identifier(kind: str, secret: Any) -> tuple[str | None, str | None]:
    """(credential id, how it was kept) of what an alert found: a key id where the vendor's logs name keys by it, else a hash."""
    if not isinstance(secret, str) or not secret:
        return None, None
    value = secret.strip()
    key = _AWS_KEY.search(value) if kind.startswith("aws") or len(value) == 20 else None
    if key:
        return key.group(1), "key_id"
    if kind.startswith("google") and _GOOGLE_KEY.match(value):
        return value, "key_id"
    if kind.startswith("google") and value.startswith("{"):
        try:
            document = mapping(decode(_any, value.encode("utf-8", "replace")))
        except (msgspec.MsgspecError, Reject):
            document = {}
        key_id, account, project = (text(document.get(name)) for name in ("private_key_id", "client_email", "project_id"))
        if key_id and account and project and _GOOGLE_KEY.match(key_id):
            return f"//iam.googleapis.com/projects/{project}/serviceAccounts/{account.lower()}/keys/{key_id}", "key_id"
    return token_hash(value), "sha256"


def is_alert(record: dict[str, Any]) -> bool:
    return "secret_type" in record and isinstance(record.get("number"), int) and ("repository" in record or "html_url" in record)
