"""What a detection says of itself, and which events it asks for."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from aftergate.vocabulary import Action, Bit, Kind, Severity, Tag


class On(Struct, frozen=True):
    """A subscription: every condition given must hold. An empty one is refused."""

    kinds: frozenset[Kind] = frozenset()
    tags: frozenset[Tag] = frozenset()  # any of
    sources: tuple[str, ...] = ()  # prefixes of the source slug, any of
    bits: Bit = Bit(0)  # any of; 0: called for every event that the other conditions choose

    def chooses(self, action: Action) -> bool:
        if self.kinds and action.kind not in self.kinds:
            return False
        if self.tags and not self.tags & action.tags:
            return False
        return not self.sources or action.source.startswith(self.sources)


def on(
    *,
    kinds: Iterable[Kind] = (),
    tags: Iterable[Tag] = (),
    sources: Iterable[str] = (),
    bits: Bit = Bit(0),  # noqa: B008  (an immutable flag)
) -> On:
    """Shorthand. Raises: ValueError, if nothing is asked for."""
    made = On(frozenset(kinds), frozenset(tags), tuple(sources), bits)
    if not (made.kinds or made.tags or made.sources or made.bits):
        raise ValueError("a subscription must ask for something")
    return made


class Meta(Struct, frozen=True):
    """A detection's fixed facts. The slug never changes."""

    slug: str
    title: str  # sentence without names, e.g. "Refresh token presented again after it was rotated"
    severity: Severity  # default
    about: str  # two or three sentences for the generated page: what, why it matters
    attack: tuple[str, ...]
    nhi: tuple[str, ...] = ()  # OWASP NHI 2025, e.g. "NHI2"
    csf: tuple[str, ...] = ("DE.CM-03", "DE.AE-02")  # NIST CSF 2.0
    # what must be in the logs for it to fire: any one group, wholly present in one source; names as in connectors/README.md and Tag values
    needs: tuple[tuple[str, ...], ...] = ()
    traps: tuple[str, ...] = ()  # innocent look-alikes and how they are told apart
    blind: tuple[str, ...] = ()  # what it cannot see
    recommended: tuple[str, ...] = ()  # smallest response first
    half_life_d: float = 14.0  # of the trust penalty
