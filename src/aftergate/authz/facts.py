"""What the server knows about a request when it decides: given to every policy as `context.live`."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

DAY_S: Final = 86_400
LEEWAY_MS: Final = 60_000  # by how much the clock of an issuer may be ahead


class TrustFacts(Struct, frozen=True, gc=False):
    """Live trust, 0 to 100, and the slugs of open findings. None: the request names no session or no credential."""

    identity: int
    session: int | None = None
    credential: int | None = None
    findings: tuple[str, ...] = ()

    @property
    def lowest(self) -> int:
        return min(value for value in (self.identity, self.session, self.credential) if value is not None)


class Facts(Struct, frozen=True, gc=False):
    """One moment's facts. `trust` is None when it cannot be known: then every answer is deny.

    `credential`, `auth`, `task` and `approval` are members of `context.live` as they stand; a member that is not known is absent, and a
    policy that reads it without asking `has` errs, which denies.
    """

    time_ms: int
    trust: TrustFacts | None
    credential: dict[str, Any] | None = None
    auth: dict[str, Any] | None = None
    task: dict[str, Any] | None = None
    approval: dict[str, Any] | None = None


def live(facts: Facts, trust: TrustFacts) -> dict[str, Any]:
    """`context.live`: times in UTC, `weekday` 1 for Monday to 7."""
    seconds = facts.time_ms // 1000
    levels = {"identity": trust.identity, "lowest": trust.lowest}
    if trust.session is not None:
        levels["session"] = trust.session
    if trust.credential is not None:
        levels["credential"] = trust.credential
    made: dict[str, Any] = {
        "trust": levels,
        "findings": list(trust.findings),
        "time": seconds,
        "hour": seconds % DAY_S // 3600,
        "weekday": (seconds // DAY_S + 3) % 7 + 1,  # the epoch was a Thursday
    }
    if facts.credential is not None:
        made["credential"] = facts.credential
    if facts.auth is not None:
        made["auth"] = facts.auth
    if facts.task is not None:
        made["task"] = facts.task
    if facts.approval is not None:
        made["approval"] = facts.approval
    return made


def credential_facts(asked: Any, id_: Any, time_ms: int) -> dict[str, Any] | None:
    """`context.live.credential` from what a caller says in `context.credential` and `context.credential_id`.

    `issued_at` is seconds since 1970; an age below 0 (clocks differ) counts as 0. Anything of another type is left out.
    """
    held = asked if isinstance(asked, dict) else {}
    made: dict[str, Any] = {name: held[name] for name in ("class", "bound", "root_kind") if isinstance(held.get(name), str)}
    if isinstance(id_, str):
        made["id"] = id_
    issued = held.get("issued_at")
    if type(issued) is int or type(issued) is float:
        made["age_s"] = max(0, int(time_ms / 1000 - issued))
    return made or None


def auth_facts(asked: Any, time_ms: int) -> dict[str, Any] | None:
    """`context.live.auth` from `context.auth` {acr, amr, auth_time}: freshness is measured from `auth_time`, never from a token's `iat`
    (RFC 9470, 3). An `auth_time` more than a minute ahead proves nothing and gives no age.
    """
    if not isinstance(asked, dict):
        return None
    made: dict[str, Any] = {}
    if isinstance(asked.get("acr"), str):
        made["acr"] = asked["acr"]
    amr = asked.get("amr")
    if isinstance(amr, list) and all(isinstance(each, str) for each in amr):
        made["amr"] = amr
    proved = asked.get("auth_time")
    if (type(proved) is int or type(proved) is float) and proved * 1000 <= time_ms + LEEWAY_MS:
        made["age_s"] = max(0, int(time_ms / 1000 - proved))
    return made or None
