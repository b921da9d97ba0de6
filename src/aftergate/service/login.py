"""Logging in: with a passkey, or at the issuer (OpenID Connect, authorization code with PKCE). Each opens a new session and ends the one before."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec import Struct
from sqlalchemy import Connection
from webauthn import generate_authentication_options, options_to_json
from webauthn.helpers.structs import UserVerificationRequirement

from aftergate.audit.records import Actor, Party, Record
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.webauthn import Expected, Failure, credential_id_of, verify_assertion
from aftergate.errors import ConfigError
from aftergate.service.enrolment import Ceremony, Refused
from aftergate.service.naming import MAX_NAME, usable_id
from aftergate.service.oidc import Issuer, IssuerError, Proved
from aftergate.service.sessions import Login
from aftergate.stores import people as store
from aftergate.stores.people import Person, folded
from aftergate.stores.used import first_use

if TYPE_CHECKING:
    from aftergate.service.core import Core
    from aftergate.service.people import People

PASSKEY: Final = "passkey"
OIDC: Final = "oidc"
CEREMONY_MS: Final = 300_000
AT_ISSUER_MS: Final = 600_000
CALLBACK: Final = "/v1/login/oidc/callback"
# What a passkey with user verification proves, in the words of OpenID Connect (Enhanced Authentication Profile ACR Values) and RFC 8176.
PASSKEY_ACR: Final = "phr"
PASSKEY_AMR: Final = ("pop", "user", "mfa")
log = structlog.get_logger("aftergate")


class LoggedIn(Struct, frozen=True):
    """A new session. `cookie` is told this once; `onward` is where the browser goes."""

    cookie: str
    person: str
    name: str
    session: str
    onward: str = ""


class Start(Struct, frozen=True):
    """Where to send the browser, and the ticket it keeps meanwhile."""

    url: str
    ticket: str


class Logins:
    """Both ways in."""

    def __init__(self, core: Core, people: People) -> None:
        self._core = core
        self._people = people
        settings = core.settings
        self.issuer: Issuer | None = None
        if settings.oidc_issuer:
            self.issuer = Issuer(settings.oidc_issuer, settings.oidc_client_id, secret_of(settings.oidc_client_secret_file), core.clock)

    @property
    def callback(self) -> str:
        """The redirect address, exactly as it must be registered at the issuer."""
        return self._core.url + CALLBACK

    def passkey_begin(self) -> Ceremony:
        """Options without a list of credentials: the authenticator knows whose it is, and nobody learns who has one here."""
        made = generate_authentication_options(
            rp_id=self._people.rp_id,
            challenge=secrets.token_bytes(32),
            timeout=CEREMONY_MS,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        options: dict[str, Any] = json.loads(options_to_json(made))
        until_ms = self._core.clock() + CEREMONY_MS
        return Ceremony(options, self._people.tickets.seal(PASSKEY, {"challenge": options["challenge"]}, until_ms))

    def passkey_finish(self, ticket: str, credential: Any, *, instead_of: str = "") -> LoggedIn | Refused:
        """Check an assertion, and open a session. `instead_of` is the cookie the browser had.

        Raises: StoreUnavailable.
        """
        now = self._core.clock()
        held = self._people.tickets.open(PASSKEY, ticket, now)
        if held is None:
            return Refused("expired")
        with self._core.db.read() as connection:
            passkey = store.passkey(connection, credential_id_of(credential) or b"")
            person = None if passkey is None else store.person(connection, passkey.person)
        if passkey is None or person is None or person.removed_ms is not None:
            return Refused("unknown")  # nothing is written for what names no key of ours
        expected = Expected(unb64url(held["challenge"]), self._people.rp_id, self._people.origins)
        answer = verify_assertion(credential, expected, passkey.held(person.user_handle), person.id)
        with self._core.db.write() as connection:
            if not first_use(self._core.db, connection, PASSKEY, held["challenge"], held["until_ms"]):
                return Refused("expired", "this challenge was used")
            if isinstance(answer, Failure):
                detail = {"method": PASSKEY, "authenticator": passkey.id, "step": answer.step, "clone_suspected": answer.clone_suspected}
                self._core.audit.append(connection, [Record(type="admin.login.refused", actor=Actor("person", person.id), detail=detail)])
                # Only the missing verification is told apart: its owner can do something about it, and nobody else learns anything.
                return Refused("unverified" if "was not verified" in answer.detail else "refused", f"{answer.step}: {answer.detail}")
            there = store.person(connection, person.id)
            used = store.passkey_used(
                connection, passkey.credential_id, before=passkey.sign_count, now=answer.sign_count, backed_up=answer.backed_up, at_ms=now
            )
            if not used or there is None or there.removed_ms is not None:
                return Refused("refused", "the authenticator was used or removed meanwhile")
            login = Login(PASSKEY, now, PASSKEY_ACR, PASSKEY_AMR, passkey.id)
            cookie, session = self._people.sessions.open(connection, there, login, now, instead_of=instead_of)
        self._people.sessions.forget()
        return LoggedIn(cookie, person.id, person.name, session.id)

    def oidc_begin(self, onward: str, *, max_age_s: int | None = None, acr_values: str = "", prompt: str = "") -> Start:
        """The request to the issuer, and what must come back with its answer.

        Raises: IssuerError; ConfigError, if no issuer is set.
        """
        issuer = self._issuer()
        state, nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        url = issuer.authorize(
            redirect_uri=self.callback, state=state, nonce=nonce, verifier=verifier, max_age_s=max_age_s, acr_values=acr_values, prompt=prompt
        )  # fmt: skip
        held = {"state": state, "nonce": nonce, "verifier": verifier, "onward": onward, "max_age": max_age_s, "acr": acr_values}
        return Start(url, self._people.tickets.seal(OIDC, held, self._core.clock() + AT_ISSUER_MS))

    def oidc_finish(self, ticket: str, answer: Mapping[str, str], *, instead_of: str = "") -> LoggedIn | Refused:
        """Check the issuer's answer, redeem its code, and open a session for whom it names.

        Raises: StoreUnavailable; ConfigError, if no issuer is set.
        """
        issuer = self._issuer()
        now = self._core.clock()
        held = self._people.tickets.open(OIDC, ticket, now)
        if held is None or not hmac.compare_digest(answer.get("state", "").encode(), held["state"].encode()):
            return Refused("expired", "the answer does not belong to a login of this browser")
        with self._core.db.write() as connection:
            if not first_use(self._core.db, connection, OIDC, held["state"], held["until_ms"]):
                return Refused("expired", "this answer came before")
        try:
            self._answer_is_of(issuer, answer)
            if "error" in answer:
                log.info("login refused by the issuer", error=answer["error"][:60])
                return Refused("stronger" if answer["error"] == "unmet_authentication_requirements" else "declined", answer["error"][:60])
            claim, groups_claim = self._core.settings.oidc_person_claim, self._core.settings.oidc_groups_claim
            proved = issuer.redeem(
                answer.get("code", ""), redirect_uri=self.callback, verifier=held["verifier"], nonce=held["nonce"], max_age_s=held["max_age"],
                acr_values=held["acr"], wanted={claim, groups_claim, "name"},
            )  # fmt: skip
        except IssuerError as e:
            log.warning("login failed", problem=str(e))
            return Refused("issuer", e.message)
        with self._core.db.write() as connection:
            person = self._known(connection, issuer.issuer, proved)
            if isinstance(person, Refused):
                return person
            login = Login(OIDC, proved.auth_ms, proved.acr, proved.amr)
            cookie, session = self._people.sessions.open(connection, person, login, self._core.clock(), instead_of=instead_of)
        self._people.sessions.forget()
        return LoggedIn(cookie, person.id, person.name, session.id, held["onward"])

    def _answer_is_of(self, issuer: Issuer, answer: Mapping[str, str]) -> None:
        """RFC 9207: an answer that names its issuer names ours, and one of an issuer that always does so does it."""
        named = answer.get("iss")
        if named is None and not issuer.metadata().authorization_response_iss_parameter_supported:
            return
        if named != issuer.issuer:
            raise IssuerError("the answer is not of this issuer", where=issuer.issuer)

    def _known(self, connection: Connection, issuer: str, proved: Proved) -> Person | Refused:
        """The person of an issuer's `sub`, with names and groups as the issuer says now; somebody new is added, and can do nothing without groups.

        Only issuer and `sub` are who somebody is (OpenID Connect Core, section 5.7). At the first login the claim of the settings ties them to a
        person whom the operator has entered under that id or alias, unless an account of this issuer is tied to that person already: an address
        that is given to somebody else must not bring them the former owner's groups.
        """
        claims = proved.claims
        person_id = store.login_of(connection, issuer, proved.subject)
        new = False
        if person_id is None:
            person_id, new = self._first_login(connection, issuer, proved)
        held = store.person(connection, person_id)
        assert held is not None
        if held.removed_ms is not None:
            return Refused("removed")
        names = {str(claims[name]).strip() for name in ("sub", "preferred_username", "email") if isinstance(claims.get(name), str)}
        aliases = {name for name in names if 0 < len(name) <= 500 and name.isprintable()}
        groups = groups_of(claims.get(self._core.settings.oidc_groups_claim))
        store.set_aliases(connection, person_id, "issuer", aliases)
        store.set_groups(connection, person_id, "issuer", groups)
        made = store.person(connection, person_id)
        assert made is not None
        if new or made.groups != held.groups:
            kind = "admin.person.added" if new else "admin.person.changed"
            personal = {"name": made.name, "aliases": ", ".join(sorted(made.aliases))} if new else {}
            record = Record(
                type=kind,
                actor=Actor("issuer", issuer),
                subject=Party("person", person_id),
                detail={"groups": sorted(groups), "source": "issuer"},
                personal=personal,
            )
            self._core.audit.append(connection, [record])
        if new or made != held:
            self._core.db.touch(connection, store.TOPIC)
        return made

    def _first_login(self, connection: Connection, issuer: str, proved: Proved) -> tuple[str, bool]:
        """Whose account this is: an operator's entry, or somebody new. Returns the person's id, and whether they are new."""
        claim = claim_of(proved.claims, self._core.settings.oidc_person_claim)
        everybody = store.everybody(connection, removed=True)
        if claim:
            meant = [
                p
                for p in everybody
                if folded(claim) in {folded(name) for name in (p.id, *p.given_aliases)} and not store.has_login(connection, issuer, p.id)
            ]
            if len(meant) == 1:
                store.add_login(connection, issuer, proved.subject, meant[0].id)
                return meant[0].id, False
        taken = {folded(p.id) for p in everybody}
        never_taken = "person-" + hashlib.sha256(f"{issuer}\0{proved.subject}".encode()).hexdigest()[:20]
        free = [name for name in (claim, proved.subject, never_taken) if usable_id(name) and folded(name) not in taken]
        shown = next((proved.claims[n] for n in ("name", "preferred_username", "email") if isinstance(proved.claims.get(n), str)), free[0])
        name = "".join(c for c in shown.strip()[:MAX_NAME] if c.isprintable()) or free[0]
        store.add(connection, free[0], name, secrets.token_bytes(32), self._core.clock())
        store.add_login(connection, issuer, proved.subject, free[0])
        return free[0], True

    def _issuer(self) -> Issuer:
        if self.issuer is None:
            raise ConfigError("no issuer is set for people", where="oidc_issuer", hint="log in with a passkey, or set `oidc_issuer`")
        return self.issuer


def claim_of(claims: Mapping[str, Any], name: str) -> str:
    """The claim that ties an account to a person; an e-mail address counts only if the issuer has verified it."""
    value = claims.get(name)
    if not isinstance(value, str) or (name == "email" and claims.get("email_verified") is not True):
        return ""
    return value.strip()


def groups_of(claim: Any) -> frozenset[str]:
    """Groups as issuers write them: a list, or words with blanks between."""
    held = claim.split() if isinstance(claim, str) else claim
    if not isinstance(held, list):
        return frozenset()
    return frozenset(each.strip() for each in held[:1000] if isinstance(each, str) and 0 < len(each.strip()) <= 500 and each.isprintable())


def secret_of(path: str) -> str:
    """The client secret in a file; "" for a public client.

    Raises: ConfigError.
    """
    if not path:
        return ""
    try:
        made = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the client secret: {reason}", where=path, hint="give a readable file with `oidc_client_secret_file`"
        ) from e
    if not made:
        raise ConfigError(
            "the client secret's file is empty", where=path, hint="write the secret into it, or leave the setting out for a public client"
        )
    return made
