"""The lineage of credentials as a nested list: approval or login, refresh, access token, exchange, use. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct, field

from aftergate.detections.reasoning import place
from aftergate.lineage.state import Life
from aftergate.lineage.tracking import World
from aftergate.report.text import esc, plural, short, stretch, time_tag

MOST_NODES: Final = 60
MOST_BESIDE: Final = 6  # children of one parent shown, besides those accused
MOST_NEAR: Final = 3_000
NARROW: Final = 3  # children up to which a parent's other children belong to the same story
_CLASS: Final[dict[str, str]] = {
    "access_token": "access token",
    "refresh_token": "refresh token",
    "session_key": "session key",
    "api_key": "API key",
    "client_secret": "client secret",
    "certificate": "certificate",
    "cookie": "cookie",
    "k8s_token": "Kubernetes token",
    "pat": "personal access token",
}
_GRANT: Final[dict[str, str]] = {
    "authorization_code": "login",
    "device_code": "device code approval",
    "refresh_token": "refresh",
    "client_credentials": "client credentials",
    "token_exchange": "exchange",
    "assume_role": "role assumed",
    "web_identity": "federation",
    "saml": "SAML login",
    "password": "password",
}


class Node(Struct):
    """A credential or session with what came of it."""

    life: Life
    children: list[Node] = field(default_factory=list)
    rest: list[Life] = field(default_factory=list)  # children that are not part of the family
    sessions: list[str] = field(default_factory=list)  # sessions that are this credential's own and nothing else
    unused: int = 0  # children never used in these logs, which have no place of their own
    weight: int = 0  # accused here or below


class Family(Struct):
    """The relatives of what an incident accuses."""

    near: set[str]  # accused, what came of it, and ancestors and siblings in a lineage that does not branch wide: one story
    line: set[str]  # `near` and all ancestors


class Families:
    """Parents and children of all lives, indexed once for all incidents."""

    def __init__(self, world: World) -> None:
        self.lives = world.lives
        self.children: dict[str, list[str]] = {}
        for name, life in world.lives.items():
            parent = self.parent(life)
            if parent is not None:
                self.children.setdefault(parent, []).append(name)

    def parent(self, life: Life) -> str | None:
        """What it was issued from: the credential shown or spent, else the session."""
        mint = life.mint
        choices = (mint.parent, mint.session) if mint is not None else (life.session_id,)
        return next((c for c in choices if c is not None and c != life.id and c in self.lives), None)

    def of(self, accused: Iterable[str]) -> Family:
        near = {name for name in accused if name in self.lives}
        line = set(near)
        for name in sorted(near):
            narrow = True
            at = self.parent(self.lives[name])
            while at is not None and (at not in line or (narrow and at not in near)):
                line.add(at)
                narrow = narrow and len(self.children.get(at, ())) <= NARROW
                if narrow:
                    near.add(at)
                at = self.parent(self.lives[at])
        queue = sorted(near)
        while queue and len(near) < MOST_NEAR:
            for child in self.children.get(queue.pop(), ()):
                if child not in near:
                    near.add(child)
                    queue.append(child)
        return Family(near, near | line)

    def grow(self, family: Family, accused: set[str]) -> list[Node]:
        """Trees of a family, oldest first."""
        nodes = {key: Node(self.lives[key]) for key in sorted(family.line)}
        for key in sorted(nodes):
            session = nodes[key].life.session_id
            held = nodes.get(session) if session is not None and session != key else None
            # a session of which nothing is known but the credential used in it is not a second thing
            if session is not None and held is not None and held.life.mint is None and self._alone(session, nodes):
                nodes[key].sessions.append(session)
                nodes[key].weight += session in accused
        for session in {s for node in nodes.values() for s in node.sessions}:
            del nodes[session]
        roots: list[Node] = []
        parents: dict[str, str] = {}
        for key, node in nodes.items():
            parent = self.parent(node.life)
            if parent is None or parent not in nodes or _under(parent, key, parents):
                roots.append(node)
            else:
                parents[key] = parent
                nodes[parent].children.append(node)
            node.rest = [self.lives[child] for child in self.children.get(key, ()) if child not in nodes]
        for key, node in nodes.items():
            if key in accused or node.weight:
                at: str | None = key
                while at is not None:
                    nodes[at].weight += 1
                    at = parents.get(at)
        for node in nodes.values():
            kept = [c for c in node.children if c.weight or c.children or c.rest or c.life.count or c.life.death is not None]
            node.unused = len(node.children) - len(kept)
            node.children = sorted(kept, key=_age)
        roots.sort(key=_age)
        return roots

    def _alone(self, session: str, nodes: dict[str, Node]) -> bool:
        return not any(child in nodes for child in self.children.get(session, ()))


def _under(start: str, key: str, parents: dict[str, str]) -> bool:
    """Would making `start` the parent of `key` close a ring?"""
    at: str | None = start
    while at is not None:
        if at == key:
            return True
        at = parents.get(at)
    return False


def _age(node: Node) -> tuple[int, str]:
    life = node.life
    return (life.mint.time if life.mint is not None else life.first, life.id)


def tree_html(roots: list[Node], accused: set[str]) -> str:
    """Nested list. Long chains and crowds of siblings that nothing accuses are folded, with their number."""
    budget = [MOST_NODES]
    shown = _choose(roots)
    hidden = len(roots) - len(shown)
    body = "".join(_item(node, accused, budget) for node in shown)
    if hidden:
        body += f'<li class="folded">{plural(hidden, "more tree")} of the same family</li>'
    return f'<ul class="tree">{body}</ul>'


def _choose(nodes: list[Node]) -> list[Node]:
    kept = [node for node in nodes if node.weight]
    room = MOST_BESIDE
    for node in nodes:
        if not node.weight and room > 0:
            kept.append(node)
            room -= 1
    order = {id(node): rank for rank, node in enumerate(nodes)}
    return sorted(kept, key=lambda node: order[id(node)])


def _spine(node: Node) -> Node | None:
    """The child that carries the chain on: the only one, or the only one with children of its own."""
    if len(node.children) == 1:
        return node.children[0]
    parents = [child for child in node.children if child.children]
    return parents[0] if len(parents) == 1 else None


def _telling(node: Node, spine: Node | None, accused: set[str]) -> bool:
    """Is there something to see at this link itself?"""
    if node.life.id in accused or node.life.death is not None or node.sessions:
        return True
    return any(child.weight for child in node.children if child is not spine)


def _item(start: Node, accused: set[str], budget: list[int]) -> str:
    """One node and, at the same level, the chain that follows it. The dull middle of a long chain is folded."""
    out: list[str] = []
    folded = 0
    chain = 0
    node: Node | None = start
    while node is not None:
        spine = _spine(node)
        dull = chain >= 2 and spine is not None and not _telling(node, spine, accused)
        if dull and spine is not None and not _telling(spine, _spine(spine), accused) and spine.children:
            folded += 1
        else:
            if folded:
                out.append(f'<li class="folded">{plural(folded, "link")} of the chain in between</li>')
                folded = 0
            budget[0] -= 1
            if budget[0] < 0:
                out.append('<li class="folded">more, left out to keep this readable</li>')
                break
            out.append(_node(node, accused, _children(node, spine, accused, budget), follows=chain > 0))
        node = spine
        chain += 1
    return "".join(out)


def _children(node: Node, spine: Node | None, accused: set[str], budget: list[int]) -> str:
    beside = [child for child in node.children if child is not spine]
    if not beside and not node.rest:
        return ""
    shown = _choose(beside)
    branches = sum(bool(child.children) or child.weight > 0 for child in shown)
    body = ""
    for place_, child in enumerate(shown, 1):
        if branches > 1 and (child.children or child.weight) and node.weight:
            body += f'<li class="branch">branch {place_}</li>'
        body += _item(child, accused, budget)
    held = {id(child) for child in shown}
    left = [*node.rest, *(child.life for child in beside if id(child) not in held)]
    if left:
        uses = sum(life.count for life in left)
        span = stretch(min(life.first for life in left), max(life.last for life in left))
        body += f'<li class="folded">{plural(len(left), "more credential")} of the same parent, {plural(uses, "use")}, {span}</li>'
    return f"<ul>{body}</ul>"


def _name(life: Life) -> str:
    if life.is_session:
        return "session"
    if not life.count and life.mint is not None and life.mint.detail is not None and len(life.mint.detail.issued) > 1:
        return "token"  # one of several issued at once; which of them is of the class named cannot be told before it is used
    klass = life.mint.klass if life.mint is not None else None
    return _CLASS.get(klass or "", "credential")


def _node(node: Node, accused: set[str], below: str, *, follows: bool) -> str:
    life = node.life
    mint = life.mint
    hot = life.id in accused or not accused.isdisjoint(node.sessions)
    marks = [f'<span class="what">{_name(life)}</span>', f'<code title="{esc(life.id)}">{esc(short(life.id, 44))}</code>']
    if hot:
        marks.append('<span class="tag hot">accused</span>')
    if life.death is not None:
        marks.append(f'<span class="tag dead">{esc(life.death.reason.replace("_", " "))} {time_tag(life.death.time)}</span>')
    lines: list[str] = []
    if mint is not None:
        how = _GRANT.get(mint.grant or "", (mint.grant or "").replace("_", " "))
        lines.append(
            f"issued {time_tag(mint.time, seconds=True)} by {esc(short(mint.shape.action.name, 60))}{f' ({esc(how)})' if how else ''}, from {esc(place(mint.shape.origin))}"
        )
    else:
        lines.append("its opening is not in these logs" if life.is_session else "its issue is not in these logs")
    if life.count:
        origins = sorted(life.origins().items(), key=lambda item: (item[1].first, item[0].ip or ""))
        where = ", ".join(esc(place(o)) for o, _ in origins[:3]) + (f" and {len(origins) - 3} more" if len(origins) > 3 else "")
        lines.append(f"{plural(life.count, 'use')}, {stretch(life.first, life.last)}, from {where}")
    else:
        lines.append("no use of it in these logs")
    if node.unused:
        lines.append(f"{plural(node.unused, 'token')} issued from it that these logs do not show in use")
    lines.extend(f"in session <code>{esc(short(session, 90))}</code>" for session in node.sessions)
    inner = "".join(f'<span class="line">{line}</span>' for line in lines)
    return f'<li class="node{" hot" if hot else ""}{" follows" if follows else ""}"><div class="card">{" ".join(marks)}{inner}</div>{below}</li>'
