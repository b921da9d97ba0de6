"""Registering an authenticator: with a one-time link, or by somebody who has just logged in."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from webauthn import generate_registration_options, options_to_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from aftergate.audit.records import Actor, Party, Record
from aftergate.authz.transactions.canonical import b64url, unb64url
from aftergate.authz.transactions.webauthn import ALGORITHMS, Expected, Failure, Registration, verify_registration
from aftergate.service.naming import MAX_NAME, text
from aftergate.stores import people as store
from aftergate.stores.people import Passkey, Person
from aftergate.stores.used import first_use

if TYPE_CHECKING:
    from aftergate.service.core import Core
    from aftergate.service.people import People

KIND: Final = "register"
CEREMONY_MS: Final = 300_000
MOST: Final = 20  # authenticators of one person


class Ceremony(Struct, frozen=True):
    """What a browser needs for `navigator.credentials.create` or `.get`, and the ticket it brings back."""

    options: dict[str, Any]
    ticket: str
    person: str = ""
    name: str = ""


class Refused(Struct, frozen=True):
    """Why a ceremony did not succeed. `code` is for the page; what exactly failed is in the log and the audit trail."""

    code: str
    detail: str = ""


class Enrolment:
    """The two steps, for either way in."""

    def __init__(self, core: Core, people: People) -> None:
        self._core = core
        self._people = people

    def begin(self, person_id: str) -> Ceremony | Refused:
        """For a person who is logged in.

        Raises: StoreUnavailable.
        """
        with self._core.db.read() as connection:
            person = store.person(connection, person_id)
            if person is None or person.removed_ms is not None:
                return Refused("removed")
            held = store.passkeys(connection, person_id)
        if len(held) >= MOST:
            return Refused("too-many", f"a person has up to {MOST} authenticators")
        return self._ceremony(person, held, "")

    def begin_with_link(self, secret: str) -> Ceremony | Refused:
        """For somebody who has a link. It is used up at the end, not here: a page may be reloaded.

        Raises: StoreUnavailable.
        """
        with self._core.db.read() as connection:
            person_id = store.enrolment(connection, self._people.digest(secret), self._core.clock())
            person = None if person_id is None else store.person(connection, person_id)
            if person is None or person.removed_ms is not None:
                return Refused("link")
            held = store.passkeys(connection, person.id)
        return self._ceremony(person, held, self._people.digest(secret).hex())

    def finish(
        self, ticket: str, credential: Any, name: str, *, person_id: str = "", secret: str = "", session: str = ""
    ) -> Passkey | Refused:
        """Check what the authenticator made, and keep it. Exactly one of `person_id` (logged in, in `session`) and `secret` (a link) is given.

        Raises: PersonProblem, StoreUnavailable.
        """
        now = self._core.clock()
        held = self._people.tickets.open(KIND, ticket, now)
        link = self._people.digest(secret) if secret else b""
        if held is None or held["link"] != link.hex() or (person_id and held["person"] != person_id):
            return Refused("expired")
        expected = Expected(unb64url(held["challenge"]), self._people.rp_id, self._people.origins)
        made = verify_registration(credential, expected)
        if isinstance(made, Failure):
            return Refused("unverified" if "was not verified" in made.detail else "refused", f"{made.step}: {made.detail}")
        passkey = self._passkey(held["person"], made, text(name, "name", MAX_NAME) if name.strip() else usual_name(made), now)
        try:
            with self._core.db.write() as connection:
                refused = self._keep(connection, passkey, link, held, session, now)
        except IntegrityError:
            return Refused("known", "the credential is registered already")  # WebAuthn Level 3, section 7.1, step 26
        self._people.sessions.forget()
        return passkey if refused is None else refused

    def _keep(self, connection: Connection, passkey: Passkey, link: bytes, held: dict[str, Any], session: str, now: int) -> Refused | None:
        person = store.person(connection, passkey.person)
        if person is None or person.removed_ms is not None:
            return Refused("removed")
        if link and not store.use_enrolment(connection, link, now):
            return Refused("link")
        if not first_use(self._core.db, connection, KIND, held["challenge"], held["until_ms"]):
            return Refused("expired", "this ceremony is over")
        store.add_passkey(connection, passkey)
        self._core.db.touch(connection, store.TOPIC)
        detail = {
            "authenticator": passkey.id, "credential_id": b64url(passkey.credential_id),
            "public_key_sha256": b64url(hashlib.sha256(passkey.public_key).digest()), "aaguid": passkey.aaguid, "device_bound": not passkey.backup_eligible, "attestation": passkey.attestation,
            "with": "link" if link else "session", **({"session": session} if session else {}),
        }  # fmt: skip
        record = Record(
            type="admin.authenticator.added",
            actor=Actor("person", person.id),
            subject=Party("person", person.id),
            detail=detail,
            personal={"name": passkey.name},
        )
        self._core.audit.append(connection, [record])
        return None

    def _ceremony(self, person: Person, held: list[Passkey], link: str) -> Ceremony:
        made = generate_registration_options(
            rp_id=self._people.rp_id,
            rp_name="Aftergate",
            user_name=person.id,
            user_id=person.user_handle,
            user_display_name=person.name,
            challenge=secrets.token_bytes(32),
            timeout=CEREMONY_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=key.credential_id) for key in held],
            supported_pub_key_algs=list(ALGORITHMS),
        )
        options: dict[str, Any] = json.loads(options_to_json(made))
        sealed = {"challenge": options["challenge"], "person": person.id, "link": link}
        return Ceremony(options, self._people.tickets.seal(KIND, sealed, self._core.clock() + CEREMONY_MS), person.id, person.name)

    def _passkey(self, person_id: str, made: Registration, name: str, now: int) -> Passkey:
        return Passkey(
            "auth-" + secrets.token_hex(10), made.credential_id, person_id, made.public_key, made.sign_count, made.backup_eligible, made.backed_up,
            made.aaguid, made.transports, made.attestation, name, now,
        )  # fmt: skip


def usual_name(made: Registration) -> str:
    """What an authenticator is called until its owner says otherwise."""
    if "internal" in made.transports:
        return "This device" if not made.backup_eligible else "Passkey"
    if {"usb", "nfc", "ble"} & set(made.transports):
        return "Security key"
    return "Phone" if "hybrid" in made.transports else "Passkey"
