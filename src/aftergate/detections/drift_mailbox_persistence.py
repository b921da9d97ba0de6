"""Mail is made to leave, hide or open by a rule, a forwarding address or a delegate; mail is then read in bulk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from aftergate.detections.api import Meta, Rule, on, raise_to, subject_of
from aftergate.detections.reasoning import RENTED, established, place, strangeness, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import RANK, Event, Severity, Tag
from aftergate.vocabulary.patterns import regex

_BULK = 100  # messages within a day after the rule that are more than ordinary work, when ten times the usual
_BULK_REQUESTS = 30  # the same for Graph, where one request lists many messages
_MAILBOXES = 3  # mailboxes in which one connector makes the same rule
_ADDRESS = regex(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_SENDS = frozenset(
    "forwardto forwardasattachmentto redirectto forwardingsmtpaddress forwardingaddress blindcopyto copyto redirectmessageto addtorecipients "
    "journalemailaddress email_forwarding_destination_address email_forwarding_destination recipients new_value "
    "email_monitor_dest_email destination_email".split()
)
_HIDING_FOLDERS = regex(r"rss|conversation history|archive|junk|deleted items|notes|sync issues|clutter|trash", re.IGNORECASE)
_LURES = regex(
    r"invoice|payment|bank|wire|iban|swift|payroll|salary|remittance|transfer|contract|password|security|phish|hack|malware|suspicious|verif|"
    r"helpdesk|mfa|sign-?in|docusign|rechnung|zahlung|facture|paiement|factura|pago",
    re.IGNORECASE,
)
_THROWAWAY = regex(
    r"throwaway|mailinator|guerrilla|temp-?mail|tempmail|yopmail|10minute|sharklaser|trashmail|getnada|maildrop|discard|burner",
    re.IGNORECASE,
)
_ANYBODY = frozenset({"anonymous", "default", "everyone", "nt:s-1-1-0"})


class _Change(Struct):
    """One rule, forwarding or delegation, and what was read by the same hand afterwards."""

    event: Event
    identity: Identity
    label: str
    outside: list[str] = field(default_factory=list)
    hides: list[str] = field(default_factory=list)
    tenant: bool = False  # a rule for everybody's mail
    opened: str = ""  # to whom a mailbox was opened
    strange: int = 0
    why: tuple[str, ...] = ()
    settled: bool = False
    vague: bool = False  # the log does not say what the rule does
    fresh: bool = False  # the person used this application for the first time within the last day
    usual: int = 0  # most messages read on one day until then
    read: int = 0
    last: Event | None = None
    read_events: list[str] = field(default_factory=list)


class Detection(Rule):
    meta = Meta(
        slug="drift-mailbox-persistence",
        title="Mailbox rule that forwards or hides",
        severity="high",
        about=(
            "A session or an application made a rule that forwards or hides mail, set a forwarding address, opened a mailbox to somebody, or "
            "added a transport rule, and perhaps read mail in bulk afterwards. Such rules go on stealing mail after the password is changed."
        ),
        attack=("T1114.003", "T1564.008"),
        needs=(("mail.rule",),),
        traps=(
            "Plug-ins of a customer relations or ticket system file mail by the same rule in many mailboxes.",
            "Rules that only sort mail into an ordinary folder.",
            "Forwarding inside the organisation's own domains, and a delegate named by an administrator.",
            "A person with a history who forwards outside from the usual place, hiding nothing: a policy matter, low.",
        ),
        blind=("Graph's request log names a rule without what is in it.", "Mail reads are logged only with the right licence."),
        recommended=(
            "Remove the rule or forwarding, and end the session that made it",
            "List what was forwarded and read since",
            "Block automatic forwarding outside for the organisation",
        ),
    )
    # Mail reads are frequent, but cost one look-up as long as no rule of their identity is being watched.
    subscriptions = (on(tags=(Tag.MAIL_RULE, Tag.MAIL_READ)),)

    def start(self) -> None:
        self.changes: list[_Change] = []
        self.watched: dict[str, list[_Change]] = {}
        self.usual: dict[str, list[int]] = {}  # identity -> [day, read today, most on one day before]
        self.domains: set[str] = set()
        self.by_client: dict[tuple[str, str], set[str]] = {}  # (client or address, rule name) -> identities

    def step(self, event: Event, facts: Facts) -> None:
        if Tag.MAIL_RULE in event.action.tags:
            if event.ok:
                self._change(event, facts)
            return
        held = facts.identity.id
        objects = event.d.objects or 1
        usual = self.usual.get(held)
        day = event.time - event.time % DAY_MS
        if usual is None:
            usual = self.usual[held] = [day, 0, 0]
        elif usual[0] != day:
            usual[:] = [day, 0, max(usual[1], usual[2])]
        usual[1] += objects
        for change in self.watched.get(held, ()):
            if event.time - change.event.time < DAY_MS:
                change.read += objects
                change.last = event
                if len(change.read_events) < 60:
                    change.read_events.append(event.id)

    def _change(self, event: Event, facts: Facts) -> None:
        params = event.d.params or {}
        identity = facts.identity
        change = _Change(event, identity, str(params.get("Name") or params.get("RuleName") or params.get("SETTING_NAME") or ""))
        name = event.action.name.lower()
        home = {address.rpartition("@")[2] for address in _addresses((*identity.names, event.target or "", *_texts(params.get("mailbox"))))}
        self.domains.update(address.rpartition("@")[2] for address in _addresses(identity.names))
        for key, value in params.items():
            if key.lower() in _SENDS:
                change.outside.extend(a for a in _addresses(_texts(value)) if a.rpartition("@")[2] not in home and a not in change.outside)
        if event.source.startswith("google.") and "out_of_domain" in name and not change.outside:
            change.outside.append(str(params.get("target_domain") or "an address outside the domain"))
        lowered = {key.lower(): str(value) for key, value in params.items()}
        self._hiding(change, lowered, " ".join(str(v) for v in params.values()), is_rule="rule" in name and "transport" not in name)
        change.tenant = any(
            word in name for word in ("transportrule", "journalrule", "gmail_setting", "email_monitor", "connector", "remotedomain")
        )
        if "permission" in name or "delegat" in name or lowered.get("grantsendonbehalfto"):
            self._delegate(change, lowered, home)
        change.vague = event.source.startswith("graph.") or (not params and not event.d.changes)
        judged = strangeness(self.world, identity, event)
        change.settled = established(identity, event.time)
        change.strange, change.why = (judged.score, judged.reasons) if change.settled else (0, ())
        client = event.shape.client
        change.fresh = client is not None and change.settled and event.time - identity.clients.get(client, event.time) < DAY_MS
        held = self.usual.get(identity.id)
        change.usual = max(held[1:]) if held is not None else 0
        maker = client or event.origin.net
        makers = self.by_client.setdefault((maker, change.label), set())
        makers.add(identity.id)
        if change.outside or change.hides or change.tenant or change.opened or change.vague:
            self.changes.append(change)
            self.watched.setdefault(identity.id, []).append(change)

    @staticmethod
    def _hiding(change: _Change, lowered: dict[str, str], everything: str, *, is_rule: bool) -> None:
        deletes = lowered.get("deletemessage", "").lower() == "true" or lowered.get("softdeletemessage", "").lower() == "true"
        if deletes or re.search(r'"(?:delete|permanentdelete)"', lowered.get("ruleactions", "").lower()):
            change.hides.append("deletes the mail")
        folder = lowered.get("movetofolder", "") or lowered.get("ruleactions", "")
        if is_rule and _HIDING_FOLDERS.search(folder):
            change.hides.append("moves it where nobody looks")
        if is_rule and change.label and not re.search(r"[^\W_]{2}", change.label):
            change.hides.append("has a name that says nothing")
        if change.hides:  # accountants forward invoices openly; who also hides them does not
            lures = sorted({word.lower() for word in _LURES.findall(everything)})
            if lures:
                change.hides.append("picks out " + ", ".join(lures[:4]))

    @staticmethod
    def _delegate(change: _Change, lowered: dict[str, str], home: set[str]) -> None:
        to = lowered.get("user") or lowered.get("trustee") or lowered.get("grantsendonbehalfto") or ""
        rights = lowered.get("accessrights", "")
        if to.lower() in _ANYBODY and rights.lower() not in ("none", "availabilityonly", "limiteddetails"):
            change.opened = to
            change.hides.append("opens a folder to anybody")
            return
        found = [a for a in _addresses([to]) if a.rpartition("@")[2] not in home]
        change.outside.extend(found)
        change.opened = to or "somebody"

    def finish(self) -> None:
        for change in self.changes:
            self._judge(change)

    def _judge(self, change: _Change) -> None:
        event = change.event
        outside = [a for a in change.outside if a.rpartition("@")[2] not in self.domains or event.source.startswith("google.")]
        requests = change.last is not None and change.last.source.startswith("graph.")
        bulk = change.read >= max(_BULK_REQUESTS, 5 * change.usual) if requests else change.read >= max(_BULK, 10 * change.usual)
        throwaway = any(_THROWAWAY.search(a.rpartition("@")[2]) for a in outside)
        after = self._strange_after(change) if outside else ""
        signs = [*change.hides, *(["sends to a throw-away address"] if throwaway else []), *([after] if after else [])]
        if change.strange >= 2:
            signs.extend(change.why)
        if change.fresh:
            signs.append("the application was new to this person")
        if bulk:
            signs.append(f"{change.read} messages were read within a day afterwards")
        severity: Severity = "low"
        if outside:
            severity = "medium" if signs or not change.settled else "low"
            if bulk or change.strange >= 3 or len(signs) >= 2 or (change.tenant and severity == "medium"):
                severity = "high"
            elif change.tenant:
                severity = "medium"
        elif change.opened:
            severity = "high" if bulk and change.strange >= 2 else "medium" if bulk or change.strange >= 3 or change.hides else "low"
        elif change.hides:
            grave = len(change.hides) >= 2 or change.strange >= 2 or bulk
            severity = "high" if grave and (bulk or change.strange >= 3) else "medium" if grave else "low"
        elif bulk and (change.strange >= 2 or change.fresh):
            severity = "high" if change.strange >= 3 else "medium"
        elif (change.tenant and not change.settled) or change.strange >= 3:
            severity = "medium"
        else:
            return
        traps: tuple[str, ...] = ()
        maker = event.shape.client or event.origin.net
        same = self.by_client.get((maker, change.label), set())
        if len(same) >= _MAILBOXES and change.strange < 3 and not change.tenant and self._connector(event, same):
            severity, traps = "low", ("a connector makes the same rule in many mailboxes",)
        if self.directory.ticket_for([change.identity.id, *change.identity.names], event.time):
            severity, traps = "low", ("declared change",)
        does = (
            f"that sends mail to {', '.join(outside[:3])}"
            if outside
            else f"that opens mail to {change.opened}"
            if change.opened
            else "on mail"
        )
        why = f" It {'; '.join(signs)}." if signs and change.hides else f" Beside that: {'; '.join(signs)}." if signs else ""
        label = f"{event.action.name} \u201c{change.label}\u201d" if change.label else event.action.name.rpartition("/")[2]
        severity = raise_to("high", severity) if RANK[severity] >= RANK["medium"] and outside and bulk else severity
        self.report(
            f"{change.identity.id}|{event.action.name}|{event.target or change.label}|{event.time}",
            change.last if bulk and change.last is not None else event,
            severity=severity,
            narrative=f"{who(event)} made {label} {does} at {when(event.time)} from {place(event.origin)}.{why}",
            subject=subject_of(change.identity, event),
            evidence=[event.id, *(change.read_events if bulk else ())],
            traps=traps,
        )

    def _connector(self, event: Event, makers: set[str]) -> bool:
        """True when the program or place that makes the rules had worked for several of these mailboxes long before."""
        client, net = event.shape.client, event.origin.net
        long = 0
        for name in makers:
            identity = self.world.identities.get(name)
            if identity is None:
                continue
            first = identity.clients.get(client) if client else identity.net_first.get(net)
            long += first is not None and first < event.time - DAY_MS
        return long >= _MAILBOXES

    def _strange_after(self, change: _Change) -> str:
        """A rented network that the person used for the first time within a day of the change."""
        now = change.event.time
        for origin, use in change.identity.origins().items():
            if origin.network in RENTED and abs(use.first - now) < DAY_MS and change.identity.first < use.first - HOUR_MS:
                return f"the same person came from {place(origin)} for the first time that day"
        return ""


def _texts(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _addresses(values: Iterable[str]) -> list[str]:
    """All e-mail addresses in the texts, lower-case, in order."""
    return list(dict.fromkeys(a.lower() for value in values if "@" in value for a in _ADDRESS.findall(value)))
