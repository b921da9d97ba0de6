"""Microsoft: Entra sign-ins and directory audit, Graph activity, Microsoft 365 unified audit, Azure activity.

Each log has a module of its own beside this one; `common.py` holds what they share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from aftergate.connectors.base import Source
from aftergate.connectors.microsoft import activity, audit, graph, signins, unified

_USER: Final = frozenset(
    ["origin.ip", "origin.asn", "agent", "device", "session", "client", "resource", "token.mint", "binding", "device_code"]
)
_WORKLOAD: Final = frozenset(["origin.ip", "origin.asn", "agent", "credential", "client", "resource", "token.mint"])


def _is(slug: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: signins.slug_of(record) == slug


def _sign_ins(slug: str, title: str, provides: frozenset[str], *misleads: str) -> Source:
    return Source(
        slug=slug,
        title=title,
        recognise=_is(slug),
        normaliser=partial(signins.SignIns, slug),
        provides=provides,
        misleads=misleads,
        priority=20,
    )


SOURCES: Final = (
    _sign_ins(signins.INTERACTIVE, "Entra ID interactive sign-ins", _USER),
    _sign_ins(
        signins.NON_INTERACTIVE,
        "Entra ID non-interactive user sign-ins",
        _USER,
        "Equal sign-ins are merged into one row, so rows must not be counted as sign-ins.",
        "Rows of confidential clients repeat the address of the first token issue, not the caller's.",
        "Microsoft's own clients refresh on a user's behalf from Microsoft's networks.",
        "Codes 70043 and 70044 are policy expiry, 50173 is a revoked grant.",
    ),
    _sign_ins(
        signins.SERVICE_PRINCIPAL,
        "Entra ID service principal sign-ins",
        _WORKLOAD,
        "Every token has a session id of its own, which joins nothing and is left out.",
    ),
    _sign_ins(
        signins.MANAGED_IDENTITY,
        "Entra ID managed identity sign-ins",
        frozenset(["client", "resource", "token.mint"]),
        "There is no address: Azure asks for the token on the resource's behalf.",
    ),
    Source(
        slug=audit.SLUG,
        title="Entra ID directory audit",
        recognise=audit.recognise,
        normaliser=audit.Audit,
        provides=frozenset(
            [
                "origin.ip",
                "agent",
                "credential.change",
                "identity.lifecycle",
                "privilege",
                "policy",
                "trust",
                "factor",
                "consent",
                "scopes",
                "token.mint",
            ]
        ),
        misleads=(
            "Applications act without an address.",
            "The user agent of a consent is Microsoft's own server, and is left out.",
        ),
        priority=20,
    ),
    Source(
        slug=graph.SLUG,
        title="Microsoft Graph activity",
        recognise=graph.recognise,
        normaliser=graph.Graph,
        provides=frozenset(
            [
                "origin.ip",
                "agent",
                "device",
                "session",
                "credential",
                "client",
                "resource",
                "token.times",
                "scopes",
                "bytes",
                "credential.change",
                "privilege",
                "policy",
                "trust",
                "factor",
                "consent",
                "mail.rule",
                "mail.read",
                "share",
                "discovery",
            ]
        ),
        misleads=("A user is named by object id only.",),
        priority=20,
    ),
    Source(
        slug=unified.SLUG,
        title="Microsoft 365 unified audit",
        recognise=unified.recognise,
        normaliser=unified.Unified,
        provides=frozenset(
            [
                "origin.ip",
                "agent",
                "session",
                "credential",
                "client",
                "token.times",
                "bytes",
                "objects",
                "mail.rule",
                "mail.read",
                "share",
                "policy",
                "privilege",
                "consent",
                "credential.change",
            ]
        ),
        misleads=(
            "Session and token ids are missing on merged and background rows.",
            "Mail reads are merged over two minutes and throttled above a thousand.",
        ),
        priority=30,
    ),
    Source(
        slug=activity.SLUG,
        title="Azure activity",
        recognise=activity.recognise,
        normaliser=activity.Activity,
        provides=frozenset(
            [
                "origin.ip",
                "agent",
                "credential",
                "client",
                "resource",
                "token.times",
                "privilege",
                "policy",
                "secret.read",
                "remote_exec",
                "share",
                "discovery",
                "bytes",
                "credential.change",
            ]
        ),
        misleads=("One operation has a record for its start and one for its end, with one correlation id.",),
        priority=40,
    ),
)
