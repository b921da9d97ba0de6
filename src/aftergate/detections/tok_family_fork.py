"""Both children of one refresh token are used: two living lineages from one login."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import RENTED, place, same_place, same_program, when, who
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Agent, Event, Kind, Origin, Severity

DEFECT_MS = 1000  # siblings minted closer than this from one address: the issuer does not rotate atomically
RETRY_MS = 60_000
CHAIN = 200  # refreshes followed forward when a fork is found


class Spend(Struct, gc=False):
    time: int
    event: str
    origin: Origin
    agent: Agent
    issued: tuple[str, ...]


class Branch(Struct):
    """One line of descent from the forked token."""

    spend: Spend
    places: list[Origin]
    agents: list[Agent]
    events: list[str]
    alive: bool = False


class Fork(Struct):
    token: str
    branches: list[Branch]


class Detection(Rule):
    meta = Meta(
        slug="tok-family-fork",
        title="Two living branches of one refresh token",
        severity="critical",
        about=(
            "One refresh token was spent twice and both of its children go on being used: two parties live on one login. With rotation that "
            "cannot happen to one client that works as it should."
        ),
        attack=("T1550.001", "T1528"),
        nhi=("NHI2",),
        needs=(("token.refresh_chain", "origin.ip"),),
        traps=(
            "An issuer that does not rotate atomically hands out several children within a second to one address: low, an issuer defect.",
            "Two tabs of one browser that each keep a child: same place and program, so low.",
            "Issuers that do not rotate at all: a token answered with itself has no children.",
        ),
        blind=("Only issuers that log the spent and the new refresh token show it.", "A fork behind one address looks like two tabs."),
        recommended=(
            "Revoke the login's session, so that both branches end",
            "Revoke the user's other grants and let the user sign in again",
            "Find out which of the two places is the user's, and what the other one read",
        ),
    )
    # every refresh brings a new token and so is never a repeated event; the work is a few look-ups
    subscriptions = (on(kinds=[Kind.TOKEN_REFRESH]),)

    def start(self) -> None:
        self.spends: dict[str, Spend] = {}
        self.forks: dict[str, Fork] = {}
        self.branch_of: dict[str, str] = {}  # refresh token -> forked token it descends from

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.d
        token = detail.spent
        if token is None or not event.ok or detail.issued_class != "refresh_token" or token in detail.issued:
            return
        spend = Spend(event.time, event.id, event.origin, event.agent, detail.issued)
        first = self.spends.get(token)
        if first is None:
            self.spends[token] = spend
            root = self.branch_of.get(token)
            if root is not None:
                self._descend(self.forks[root], token, spend)
                self._judge(self.forks[root], event, facts)
            return
        if first.event == event.id:
            return
        fork = self.forks.get(token)
        if fork is None:
            fork = self.forks[token] = Fork(token, [self._branch(token, first)])
            self._forward(fork, first)
        fork.branches.append(self._branch(token, spend))
        if len(fork.branches) > 16:
            del fork.branches[8]
        self._judge(fork, event, facts)

    def _branch(self, token: str, spend: Spend) -> Branch:
        for child in spend.issued:
            self.branch_of.setdefault(child, token)
        return Branch(spend, [spend.origin], [spend.agent], [spend.event])

    def _forward(self, fork: Fork, first: Spend) -> None:
        """Enter what the first child's descendants did before the fork was seen."""
        todo = list(first.issued)
        steps = 0
        while todo and steps < CHAIN:
            token = todo.pop()
            later = self.spends.get(token)
            if later is not None:
                steps += 1
                self._descend(fork, token, later)
                todo.extend(later.issued)

    def _descend(self, fork: Fork, token: str, spend: Spend) -> None:
        """A descendant was spent: its branch lives. Issuers that number generations give both children one id: then the place tells."""
        owners = [b for b in fork.branches if token in b.spend.issued] or fork.branches
        branch = next((b for b in owners if any(same_place(spend.origin, p) for p in b.places)), owners[0])
        branch.alive = True
        if spend.event not in branch.events and len(branch.events) < 40:
            branch.events.append(spend.event)
        if spend.origin not in branch.places and len(branch.places) < 20:
            branch.places.append(spend.origin)
        if spend.agent not in branch.agents and len(branch.agents) < 20:
            branch.agents.append(spend.agent)
        for child in spend.issued:
            self.branch_of.setdefault(child, fork.token)
            if child not in branch.spend.issued:
                branch.spend.issued = (*branch.spend.issued[:60], child)

    def _judge(self, fork: Fork, event: Event, facts: Facts) -> None:
        living = [b for b in fork.branches if b.alive]
        if len(living) < 2:
            return
        pairs = [(a, b) for i, a in enumerate(living) for b in living[i + 1 :]]
        a, b = next((p for p in pairs if not _one_place(*p)), pairs[0])
        gap = abs(a.spend.time - b.spend.time)
        severity: Severity = "critical"
        traps: list[str] = []
        alike = any(same_program(x, y) for x in a.agents for y in b.agents)
        if _one_place(a, b):
            if gap <= DEFECT_MS:
                severity, trap = "low", "children minted within a second for one address: a defect of the issuer"
            elif alike:
                severity, trap = "low", "both branches live in one place with one program: two tabs or copies on one device"
            else:
                severity, trap = "medium", "both branches live in one place"
            traps.append(trap)
        elif alike and gap <= RETRY_MS and not any(o.network in RENTED for x in (a, b) for o in x.places):
            severity = "high"
            traps.append("forked within a minute by one program between ordinary networks")
        self.report(
            fork.token,
            event,
            severity=severity,
            narrative=(
                f"One refresh token of {who(event)} was spent twice, at {when(a.spend.time)} from {place(a.places[0])} and at "
                f"{when(b.spend.time)} from {place(b.places[0])}, and both children are being used: two parties live on one login."
            ),
            subject=subject_of(facts.identity, event, credentials=[fork.token, a.spend.issued[0], b.spend.issued[0], event.d.family]),
            evidence=[a.spend.event, b.spend.event, *a.events, *b.events],
            traps=traps,
        )


def _one_place(a: Branch, b: Branch) -> bool:
    """True when the branches share a place or one of them shows none."""
    known = [[o for o in x.places if o.ip is not None] for x in (a, b)]
    if not all(known):
        return True
    return any(same_place(x, y) for x in known[0] for y in known[1])
