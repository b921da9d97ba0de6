"""Cookies: the session's, and the tickets that a browser carries through a ceremony."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final, Literal

from litestar.datastructures import Cookie

from aftergate.api.auth import COOKIE, Failures, Refused, address_of, cookies, header

if TYPE_CHECKING:
    from aftergate.service.core import Core

CEREMONY: Final = "aftergate_ceremony"
ISSUER: Final = "aftergate_issuer"


def name_of(core: Core, name: str) -> str:
    """Under https a name that only this host can set, for this host alone, over https (RFC 6265bis, section 4.1.3.2)."""
    return "__Host-" + name if core.url.startswith("https://") else name


def made(core: Core, name: str, value: str, *, same_site: Literal["lax", "strict"] = "strict", max_age_s: int | None = None) -> Cookie:
    """A cookie that no script reads and no other site sends along. `lax` only for what must come back from the issuer."""
    return Cookie(
        key=name_of(core, name), value=value, path="/", httponly=True, secure=core.url.startswith("https://"), samesite=same_site, max_age=max_age_s
    )  # fmt: skip


def gone(core: Core, name: str) -> Cookie:
    return made(core, name, "", max_age_s=0)


def value_of(core: Core, scope: Any, name: str) -> str:
    """A cookie's value, or "".

    Raises: Refused (400), if the header came twice.
    """
    try:
        jar = SimpleCookie(cookies(scope))
    except CookieError:
        return ""
    held = jar.get(name_of(core, name))
    return held.value if held is not None else ""


def session_of(core: Core, scope: Any) -> str:
    """The session cookie's value, or ""."""
    return value_of(core, scope, COOKIE)


def from_own_page(core: Core, scope: Any) -> None:
    """For routes that need no session and change something: only Aftergate's own page calls them.

    Raises: Refused (403).
    """
    if header(scope, b"origin") not in core.people.origins:
        raise Refused(403, "this request did not come from Aftergate's own page")


def not_too_often(core: Core, failures: Failures, scope: Any) -> str:
    """The caller's address, if it has not failed too often just now.

    Raises: Refused (429).
    """
    address = address_of(core, scope)
    failures.check(address, core.clock())
    return address
