"""People decide: a challenge over exactly what they were shown, then an assertion that signs it, or a no with its reason."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from aftergate.audit.records import Actor, ApprovalRef, Record
from aftergate.authz.transactions import machine
from aftergate.authz.transactions.canonical import b64url
from aftergate.authz.transactions.machine import Approver, folded
from aftergate.authz.transactions.objects import batch_challenge, challenge, encoded, for_approver, from_rfc3339, gathered, rfc3339
from aftergate.authz.transactions.webauthn import Assertion, Authenticator, Expected, Failure, credential_id_of, verify_assertion
from aftergate.errors import AftergateError
from aftergate.service.approvals.recording import keep, new_id, record, records_of, scored
from aftergate.service.approvals.suspicion import clone_suspected
from aftergate.service.approvals.votes import counted
from aftergate.stores import approvals as store
from aftergate.stores import people
from aftergate.stores.approvals import Approval, Challenge
from aftergate.stores.people import Person

if TYPE_CHECKING:
    from aftergate.service.core import Core

CHALLENGE_MS: Final = 300_000
LOCK_MS: Final = 900_000  # failures count against a person for so long
MAX_BATCH: Final = 100
REFUSED: Final = "the assertion was refused"  # INVARIANT: the same words whatever failed (PSD2 RTS article 4(3)(a))


class Acting(Struct, frozen=True):
    """A logged-in person."""

    person: str
    session: str

    def actor(self) -> Actor:
        return Actor("person", self.person)


class Undecided(AftergateError):
    """A decision that was not taken. `reason` is stable: for the page and the terminal."""

    code = "not-decided"

    def __init__(self, reason: str, detail: str, *, status: int = 409) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status


class Asked(Struct, frozen=True):
    """What to sign: options for `navigator.credentials.get`, and the objects they are over, as text to show."""

    challenge_id: str
    options: dict[str, Any]
    objects: list[dict[str, Any]]
    batch: dict[str, Any] | None = None  # what is signed when there are several


def ask(core: Core, acting: Acting, ids: Sequence[str], items: Sequence[int] | None, now_ms: int) -> Asked:
    """A fresh challenge for one request, or for a declared batch of several.

    Raises: Undecided, StoreUnavailable.
    """
    if not 1 <= len(ids) <= MAX_BATCH or len(set(ids)) != len(ids):
        raise Undecided("no_such_request", f"name 1 to {MAX_BATCH} requests, each once", status=400)
    voided: Undecided | None = None
    with core.db.write() as connection:
        person = _person(connection, acting)
        _not_locked(core, connection, person, now_ms)
        objects: list[tuple[int, bytes]] = []
        shown: list[dict[str, Any]] = []
        device_bound = False
        for id_ in ids:
            approval = _seen(connection, id_, person)
            risk = scored(core, connection, approval.about)
            # The same that stops a vote stops a challenge; what time, findings or lost votes ended is written down here already.
            counts = counted(connection, machine.tick(approval.state, now_ms).state, now_ms)
            step = machine.observe(counts.state, risk.marks, now_ms)
            refusal = machine.eligible(counts.state, _approver(person, acting.session))
            if step.state != approval.state:
                step = _over(core, connection, approval.number, now_ms)
            if "pending" not in step.state.items:
                voided = Undecided("not_pending", f"the request is {machine.status(step.state)}: {step.state.reason}".rstrip(": "))
                break
            if refusal is not None:
                raise Undecided(refusal.code, refusal.detail, status=403)
            device_bound = device_bound or approval.asked.device_bound
            try:
                made = for_approver(approval.object, approver=person.id, nonce=secrets.token_bytes(32), risk=risk, leaves=items)
            except ValueError as error:
                raise Undecided("no_such_item", str(error), status=400) from error
            objects.append((approval.number, encoded(made)))
            shown.append(made)
        if voided is None:
            batch = None
            if len(objects) > 1:
                batch = gathered([raw for _, raw in objects], approver=person.id, nonce=secrets.token_bytes(32), rp_id=core.approvals.rp_id)
            signed = None if batch is None else encoded(batch)
            keys = [key for key in people.passkeys(connection, person.id) if not (device_bound and key.backup_eligible)]
            ends = min(from_rfc3339(one["expires_at"]) for one in shown)
            issued = Challenge(new_id("chg"), person.id, acting.session, tuple(objects), signed, min(now_ms + CHALLENGE_MS, ends))
            store.add_challenge(connection, issued, now_ms)
    if voided is not None:
        raise voided
    if not keys:
        raise Undecided("no_authenticator", "register an authenticator first" + (" that is bound to its device" if device_bound else ""))
    options = {
        "challenge": b64url(_digest(issued)),
        "rpId": core.approvals.rp_id,
        "timeout": issued.expires_ms - now_ms,
        "userVerification": "required",
        "allowCredentials": [
            {"type": "public-key", "id": b64url(key.credential_id), **({"transports": list(key.transports)} if key.transports else {})}
            for key in keys
        ],
    }
    return Asked(issued.id, options, shown, batch)


def _over(core: Core, connection: Connection, number: int, now_ms: int) -> machine.Step:
    """Write down what time, lost votes or findings ended. The row is locked and looked at again: another process may have moved it meanwhile."""
    approval = store.by_number(connection, number, lock=True)
    assert approval is not None
    risk = scored(core, connection, approval.about)
    late = machine.tick(approval.state, now_ms)
    counts = counted(connection, late.state, now_ms)
    step = machine.observe(counts.state, risk.marks, now_ms)
    keep(core, connection, approval, step.state, now_ms)
    core.audit.append(connection, records_of(approval, late.emit + counts.emit + step.emit, risk=risk))
    return step


def approve(core: Core, acting: Acting, ids: Sequence[str] | None, challenge_id: str, assertion: Any, now_ms: int) -> list[Approval]:
    """Take an assertion over a challenge: a yes to every request it covers, all in one transaction or none. `ids`, if given, must be those.

    Raises: Undecided, StoreUnavailable.
    """
    refused: Undecided | None = None
    made: list[Approval] = []
    with core.db.write() as connection:
        person = _person(connection, acting)
        _not_locked(core, connection, person, now_ms)
        issued = store.take_challenge(connection, challenge_id, now_ms) if len(challenge_id) <= 64 else None
        if issued is None or issued.person != person.id or issued.session != acting.session:
            raise Undecided("challenge_unknown", "this challenge is not known, or was used: ask for a new one")
        approvals = [store.by_number(connection, number, lock=True) for number, _ in sorted(issued.objects)]
        held = {one.number: one for one in approvals if one is not None}
        if ids is not None and {one.id for one in held.values()} != set(ids):
            raise Undecided("challenge_unknown", "this challenge is for another request")
        answer = _verified(core, connection, issued, held, person, assertion, now_ms)
        if isinstance(answer, Failure):
            refused = _failed(core, connection, issued, held, person, acting, answer, assertion, now_ms)
        else:
            refused = _granted(core, connection, issued, held, person, acting, answer, now_ms)
        made = [again for one in held.values() if (again := store.by_number(connection, one.number)) is not None]
    if refused is not None:
        raise refused
    return made


def deny(core: Core, acting: Acting, id_: str, reason: str, now_ms: int) -> Approval:
    """A no, with its reason: it ends the request.

    Raises: Undecided, StoreUnavailable.
    """
    refused: Undecided | None = None
    with core.db.write() as connection:
        person = _person(connection, acting)
        approval = _seen(connection, id_, person, lock=True)
        risk = scored(core, connection, approval.about)
        counts = counted(connection, approval.state, now_ms)
        step = machine.deny(counts.state, _approver(person, acting.session), reason.strip()[:2000], risk.marks, now_ms)
        keep(core, connection, approval, step.state, now_ms)
        if step.refused is not None:
            refused = Undecided(step.refused.code, step.refused.detail, status=400 if step.refused.code == "reason_required" else 409)
            core.audit.append(connection, records_of(approval, counts.emit + step.emit, risk=risk))
        else:
            store.add_vote(connection, approval.number, person.id, "denied", reason.strip()[:2000], now_ms, "", risk)
            ref = ApprovalRef(approval.id, "", person.id, quorum=approval.asked.quorum)
            said = record("approval.denied", approval, actor=acting.actor(), risk=risk, ref=ref, personal={"reason": reason.strip()[:2000]})
            core.audit.append(connection, [said])
        made = store.by_number(connection, approval.number)
    if refused is not None:
        raise refused
    assert made is not None
    return made


def take_back(core: Core, acting: Acting, id_: str, reason: str, now_ms: int) -> Approval:
    """An approver ends a request, or an approval that was not used yet.

    Raises: Undecided, StoreUnavailable.
    """
    if not reason.strip():
        raise Undecided("reason_required", "say why", status=400)
    with core.db.write() as connection:
        person = _person(connection, acting)
        approval = _seen(connection, id_, person, lock=True)
        if not person.groups & set(approval.asked.groups):
            raise Undecided("not_an_approver", "you are in none of the groups that approve this", status=403)
        step = machine.revoke(approval.state, reason.strip()[:500], now_ms)
        if step.refused is not None:
            raise Undecided(step.refused.code, step.refused.detail)
        keep(core, connection, approval, step.state, now_ms)
        core.audit.append(connection, records_of(approval, step.emit, actor=acting.actor()))
        made = store.by_number(connection, approval.number)
    assert made is not None
    return made


def _verified(
    core: Core, connection: Connection, issued: Challenge, held: dict[int, Approval], person: Person, assertion: Any, now_ms: int
) -> Assertion | Failure:
    """The assertion against the challenge recomputed from what is stored."""
    if now_ms >= issued.expires_ms:
        return Failure("6 time", "the challenge has run out")
    if len(held) != len(issued.objects):
        return Failure("6 time", "a request is gone")
    named = credential_id_of(assertion)
    passkey = None if named is None else people.passkey(connection, named)
    authenticator: Authenticator | None = None if passkey is None else passkey.held(person.user_handle)
    device_bound = any(one.asked.device_bound for one in held.values())
    expected = Expected(_digest(issued), core.approvals.rp_id, core.approvals.origins, device_bound=device_bound)
    answer = verify_assertion(assertion, expected, authenticator, person.id)
    if isinstance(answer, Failure) or authenticator is None:
        return answer
    moved = people.passkey_used(
        connection, answer.credential_id, before=authenticator.sign_count, now=answer.sign_count, backed_up=answer.backed_up, at_ms=now_ms
    )
    return answer if moved else Failure("5 counter", "another assertion was quicker")


def _granted(
    core: Core,
    connection: Connection,
    issued: Challenge,
    held: dict[int, Approval],
    person: Person,
    acting: Acting,
    answer: Assertion,
    now_ms: int,
) -> Undecided | None:
    """A yes to each request. If one of them cannot take it none does; what time, lost votes or findings ended is written down all the same."""
    by = _approver(person, acting.session, b64url(answer.credential_id))
    taken: list[tuple[Approval, machine.Step, Record, bytes]] = []
    batch = None if issued.gathered is None else msgspec.json.decode(issued.gathered)
    records: list[Record] = []
    refused: Undecided | None = None
    for number, raw in issued.objects:
        approval = held[number]
        shown = msgspec.json.decode(raw)
        risk = scored(core, connection, approval.about)
        counts = counted(connection, approval.state, now_ms)
        step = machine.approve(counts.state, by, shown.get("approved_items"), risk.marks, now_ms)
        if step.refused is not None:
            keep(core, connection, approval, step.state, now_ms)
            records.extend(records_of(approval, counts.emit + step.emit, risk=risk))
            refused = refused or Undecided(
                step.refused.code, step.refused.detail, status=409 if step.refused.code == "not_pending" else 403
            )
            continue
        evidence = answer.evidence(shown, core.approvals.rp_id, batch)
        ref = ApprovalRef(approval.id, b64url(challenge(raw)), person.id, b64url(answer.credential_id), approval.asked.quorum)
        detail = {"sign_count": answer.sign_count, "backup_eligible": answer.backup_eligible}
        items = step.emit[0].items if "items" in approval.object else ()
        said = record("approval.granted", approval, actor=acting.actor(), items=items, risk=risk, ref=ref, detail=detail, evidence=evidence)
        taken.append((approval, step, said, raw))
    if refused is None:
        for approval, step, said, raw in taken:
            keep(core, connection, approval, step.state, now_ms)
            risk = scored(core, connection, approval.about)
            store.add_vote(connection, approval.number, person.id, "approved", "", now_ms, b64url(answer.credential_id), risk)
            records.append(said)
            assert raw  # what was signed is in the record's evidence
        store.forget_failures(connection, person.id)
    if records:
        core.audit.append(connection, records)
    return refused


def _failed(
    core: Core,
    connection: Connection,
    issued: Challenge,
    held: dict[int, Approval],
    person: Person,
    acting: Acting,
    failure: Failure,
    assertion: Any,
    now_ms: int,
) -> Undecided:
    """Count a try that did not hold. Which step failed goes into the log alone."""
    store.add_failure(connection, person.id, now_ms)
    records: list[Record] = []
    named = credential_id_of(assertion)
    credential = b64url(named)[:1400] if named else ""
    for number, raw in issued.objects:
        approval = held.get(number)
        if approval is None:
            continue
        step = machine.fail(approval.state, person.id)
        keep(core, connection, approval, step.state, now_ms)
        ref = ApprovalRef(approval.id, b64url(challenge(raw)), person.id, credential)
        detail = {"step": failure.step, "why": failure.detail, "tries": dict(step.state.failed)[person.id]}
        records.append(record("approval.refused", approval, actor=acting.actor(), ref=ref, detail=detail))
    if failure.clone_suspected and named is not None:
        records.extend(clone_suspected(core, connection, person, named, failure.detail, now_ms))
    if records:
        core.audit.append(connection, records)
    locked = any(machine.locked_out(machine.fail(one.state, person.id).state, person.id) for one in held.values())
    return Undecided("locked_out", "too many failed tries", status=429) if locked else Undecided("refused", REFUSED, status=403)


def _digest(issued: Challenge) -> bytes:
    return challenge(issued.objects[0][1]) if issued.gathered is None else batch_challenge(issued.gathered)


def _person(connection: Connection, acting: Acting) -> Person:
    person = people.person(connection, acting.person)
    if person is None or person.removed_ms is not None:
        raise Undecided("not_an_approver", "you are not known any more", status=403)
    return person


def _seen(connection: Connection, id_: str, person: Person, *, lock: bool = False) -> Approval:
    approval = store.by_id(connection, id_, lock=lock) if len(id_) <= 64 else None
    if approval is None or not may_see(approval, person):
        raise Undecided("no_such_request", "no such request for you", status=404)
    return approval


def may_see(approval: Approval, person: Person) -> bool:
    """Those who may approve it, and those who asked for it."""
    return bool(person.groups & set(approval.asked.groups)) or bool(folded(person.names) & approval.state.terms.requester)


def _approver(person: Person, session: str, authenticator: str = "") -> Approver:
    return Approver(person.id, folded(person.names), person.groups, session, authenticator)


def _not_locked(core: Core, connection: Connection, person: Person, now_ms: int) -> None:
    if store.failures_since(connection, person.id, now_ms - LOCK_MS) >= core.settings.approval_failures:
        raise Undecided("locked_out", f"too many failed tries: try again after {rfc3339(now_ms + LOCK_MS)}", status=429)


def etag(approval: Approval) -> str:
    """Changes whenever anything about a request does."""
    return hashlib.sha256(store.text(approval.state).encode()).hexdigest()[:16]
