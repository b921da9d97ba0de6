"""Steps 8 and 9 of a verification: every approval from its evidence, and every use against the approvals before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aftergate.audit.evidence import Granted, Refused, verify
from aftergate.audit.findings import Notebook
from aftergate.audit.records import Leaf

SLACK_MS: Final = 15_000  # a record may be written this long after what it tells: a database may keep a writer waiting


class Yes(NamedTuple):
    seq: int
    ts_ms: int
    granted: Granted


class Approvals:
    """Walks the records in order; holds what was granted, voided and used."""

    def __init__(self, book: Notebook, *, rp_ids: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        self._book = book
        self._rp_ids = rp_ids
        self._origins = origins
        self._given: dict[str, list[Yes]] = {}  # by approval id
        self._void: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._requests: dict[str, set[str]] = {}  # request -> its approval ids
        self._erased: set[str] = set()  # approvals and requests whose evidence was erased
        self._keys: dict[str, str | None] = {}  # credential -> key hash; None once removed
        self._names: dict[str, str] = {}  # what the server calls an authenticator -> its credential
        self._counts: dict[str, tuple[int, str]] = {}
        self._unknown: set[str] = set()

    def record(self, leaf: Leaf, found: dict[str, Any]) -> None:
        """`found` is what is kept beside the record and proved genuine."""
        kind = leaf.type
        if kind in ("approval.granted", "breakglass.opened"):
            self._grant(leaf, found)
        elif kind == "approval.consumed":
            self._use(leaf, found)
        elif kind == "approval.voided":
            for each in self._named(leaf):
                self._void.setdefault(each, leaf.seq)
        elif kind == "admin.authenticator.added":
            detail = leaf.raw.get("detail") or {}
            credential = str(detail.get("credential_id"))
            self._keys[credential] = str(detail.get("public_key_sha256"))
            self._names[str(detail.get("authenticator"))] = credential
        elif kind == "admin.authenticator.removed":
            detail = leaf.raw.get("detail") or {}
            named = str(detail.get("authenticator"))
            self._keys[str(detail.get("credential_id") or self._names.get(named, named))] = None

    def _named(self, leaf: Leaf) -> set[str]:
        """Approvals that a record names: by its list, its own, or all of its request."""
        listed = (leaf.raw.get("detail") or {}).get("approvals")
        if isinstance(listed, list):
            return {str(each) for each in listed}
        own = str((leaf.raw.get("approval") or {}).get("id", ""))
        request = str(leaf.raw.get("transaction", ""))
        return {own} if own and own not in self._requests and own != request else self._requests.get(own or request, set()) | {own}

    # Step 8

    def _grant(self, leaf: Leaf, found: dict[str, Any]) -> None:
        self._book.check(8)
        reference = leaf.raw.get("approval") or {}
        evidence = found.get("evidence")
        if evidence is None:
            if "evidence" not in leaf.raw:
                self._book.fail(8, "no-evidence", f"record {leaf.seq} says that somebody approved, without evidence", leaf.seq)
                return
            self._erased |= {str(reference.get("id")), str(leaf.raw.get("transaction"))}
            self._book.note(
                8, "evidence-erased", f"the evidence of record {leaf.seq} is not there: that approval cannot be checked again", leaf.seq
            )
            return
        answer = verify(evidence, str(reference.get("tx_hash", "")), rp_ids=self._rp_ids, origins=self._origins)
        if isinstance(answer, Refused):
            self._book.fail(8, answer.code, f"the approval in record {leaf.seq} does not hold: {answer.why}", leaf.seq)
            return
        if self._grant_holds(leaf, found, answer, evidence):
            for each in answer.approvals:
                self._given.setdefault(each, []).append(Yes(leaf.seq, leaf.ts_ms, answer))
            self._requests.setdefault(answer.request_id, set()).update(answer.approvals)

    def _grant_holds(self, leaf: Leaf, found: dict[str, Any], yes: Granted, evidence: dict[str, Any]) -> bool:
        """What the assertion alone does not show: the form, the right moment, the right person, a registered key, a counter that rises."""

        def fail(code: str, why: str) -> bool:
            self._book.fail(8, code, f"the approval in record {leaf.seq} does not hold: {why}", leaf.seq)
            return False

        if (yes.form == "break_glass") != (leaf.type == "breakglass.opened"):
            return fail("form", f"a record of type `{leaf.type}` with evidence of the form `{yes.form}`")
        if leaf.ts_ms > yes.expires_ms + SLACK_MS:
            return fail("expired", "it was given after the request had expired")
        if yes.form == "break_glass":
            self._book.note(8, "break-glass", f"in record {leaf.seq} somebody broke glass: no approver was asked first", leaf.seq)
            return True
        if yes.form == "policy":
            self._book.note(
                8, "by-policy", f"the approval in record {leaf.seq} was given by policy: there is no person's signature", leaf.seq
            )
            return True
        who = {str(each).casefold() for each in (yes.subject, *yes.object.get("on_behalf_of", ()))}
        if yes.approver.casefold() in who:
            return fail("self-approval", "the approver asked for it")
        named = found.get("approval.approver", (leaf.raw.get("approval") or {}).get("approver"))
        if isinstance(named, str) and named != yes.approver:
            return fail("approver", "the record names another approver than the one who signed")
        return self._key_holds(yes, evidence, leaf, fail)

    def _key_holds(self, yes: Granted, evidence: dict[str, Any], leaf: Leaf, fail: Any) -> bool:
        credential = yes.credential_id
        if (leaf.raw.get("approval") or {}).get("credential_id", credential) != credential:
            return bool(fail("credential", "the record names another credential than the evidence"))
        if credential not in self._keys:
            if credential not in self._unknown:
                self._unknown.add(credential)
                self._book.warn(
                    8,
                    "credential-unregistered",
                    f"the log does not tell when the credential used in record {leaf.seq} was registered",
                    leaf.seq,
                )
        elif self._keys[credential] is None:
            return bool(fail("credential-removed", "its credential had been removed"))
        elif self._keys[credential] != yes.key_sha256:
            return bool(fail("credential-key", "its key is not the one that was registered"))
        # A declared batch of several requests is signed once: the same signature may stand in several records.
        count, signature = self._counts.get(credential, (0, ""))
        if evidence.get("signature") != signature:
            if (yes.sign_count or count) and yes.sign_count <= count:
                return bool(fail("sign-count", "the authenticator's counter did not rise: a copy of it may exist"))
            self._counts[credential] = (yes.sign_count, str(evidence.get("signature")))
        return True

    # Step 9

    def _use(self, leaf: Leaf, found: dict[str, Any]) -> None:
        self._book.check(9)
        own = str((leaf.raw.get("approval") or {}).get("id", ""))
        before = self._used.setdefault(own, leaf.seq)
        if before != leaf.seq:
            self._book.fail(9, "used-twice", f"record {leaf.seq} uses the approval that record {before} had used up", leaf.seq)
        if own in self._void:
            self._book.fail(9, "used-after-void", f"record {leaf.seq} uses an approval that record {self._void[own]} made void", leaf.seq)
        given = self._given.get(own, [])
        if own in self._erased or str(leaf.raw.get("transaction")) in self._erased:
            self._book.note(
                9, "evidence-erased", f"the approvals behind record {leaf.seq} cannot be checked again: their evidence was erased", leaf.seq
            )
            return
        if not given:
            self._book.fail(9, "no-approval", f"record {leaf.seq} uses an approval that nobody gave before it", leaf.seq)
            return
        problem = _quorum(given, leaf.ts_ms) or _same_thing(own, given[-1].granted, leaf, found)
        if problem is not None:
            self._book.fail(9, problem.code, f"record {leaf.seq}: {problem.why}", leaf.seq)


def _quorum(given: Sequence[Yes], used_ms: int) -> Refused | None:
    """Enough different people with different credentials agreed on one thing, and it was used in time."""
    # Broken glass and a policy's yes need no second.
    given = next(([yes] for yes in given if yes.granted.form != "webauthn"), given)
    first = given[0].granted
    agreed = [yes for yes in given if yes.granted.base == first.base]
    if len(agreed) != len(given):
        return Refused("not-the-same", "its approvers did not agree on the same thing")
    reached = given[0].ts_ms
    if first.form == "webauthn":
        people: set[str] = set()
        credentials: set[str] = set()
        enough = False
        for yes in agreed:
            person, credential = yes.granted.approver.casefold(), yes.granted.credential_id
            if person not in people and credential not in credentials:
                people.add(person)
                credentials.add(credential)
                if len(people) == first.needed:
                    reached, enough = yes.ts_ms, True
        if (first.object.get("quorum") or {}).get("each"):
            # Several groups each had to agree: it could be used from the last of them on.
            reached = agreed[-1].ts_ms
        if not enough:
            return Refused("quorum", f"{first.needed} approvers were needed, {len(people)} approved")
    end = reached + first.usable_ms
    if first.until_ms is not None:
        end = min(end, first.until_ms)
    return Refused("used-late", "the approval had expired when it was used") if used_ms > end + SLACK_MS else None


def _same_thing(own: str, granted: Granted, leaf: Leaf, found: dict[str, Any]) -> Refused | None:
    """What ran is what was approved: subject, action, resource and the executor's key, as far as the record says them."""
    o = granted.object
    item = o if "items" not in o else next(i for i in o["items"] if i["approval_id"] == own)
    resource, subject = leaf.raw.get("resource") or {}, leaf.raw.get("subject") or {}
    subject_id = found.get("subject.id", subject.get("id"))
    resource_id = found.get("resource.id", resource.get("id"))
    pairs = (
        (leaf.raw.get("action"), item["action"]["name"]),
        (resource.get("type"), item["resource"]["type"]),
        (resource_id, item["resource"]["id"]),
        (subject.get("type"), o["subject"].get("type")),
        (subject_id, o["subject"]["id"]),
    )
    if any(isinstance(ran, str) and ran != approved for ran, approved in pairs):
        return Refused("another-thing", "what ran is not what was approved")
    key = (leaf.raw.get("token") or {}).get("cnf")
    executor = o.get("executor")
    said = (leaf.raw.get("detail") or {}).get("executor", executor)
    if said != executor or (key and isinstance(executor, dict) and key not in executor.values()):
        return Refused("executor", "another key used it than the one it was given to")
    return None
