"""Raw records to events: recognises the source once, goes on with it, and sets aside what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source, recognise, sources
from aftergate.errors import ConfigError, NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event

Parse = Callable[[bytes], "Event | list[Event]"]


class Aside(Struct):
    """A record set aside: its place in the chunk, why, and its bytes."""

    index: int
    reason: str
    record: bytes


class Normalising:
    """Keeps one normaliser for each source; the last one that worked is asked first."""

    def __init__(self, intern: Interner, source: str | None = None) -> None:
        self.intern = intern
        self.counts: dict[str, int] = {}
        self._made: dict[str, Parse] = {}
        self._forced: Source | None = None
        self._current: Parse | None = None
        self._slug = ""
        if source is not None:
            known = sources()
            if source not in known:
                raise ConfigError(f"`{source}` is no source", hint=f"one of: {', '.join(known)}")
            self._forced = known[source]
            self._current = self._parser(known[source])
            self._slug = source

    def _parser(self, source: Source) -> Parse:
        made = self._made.get(source.slug)
        if made is None:
            made = self._made[source.slug] = source.normaliser(self.intern).parse
        return made

    def run(self, lines: Sequence[bytes], events: list[Event]) -> list[Aside]:
        """Append the events of these records to `events`; the answer is what could not be read. One record counts once, whatever it tells."""
        aside: list[Aside] = []
        add = events.append
        parse = self._current
        done = 0
        for index, line in enumerate(lines):
            if parse is not None:
                try:
                    made = parse(line)
                except NotMine as error:
                    if self._forced is not None:
                        aside.append(Aside(index, error.message, line))
                        continue
                except (Reject, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                    if self._forced is not None:
                        aside.append(Aside(index, _why(error), line))
                        continue
                else:
                    if type(made) is list:
                        events.extend(made)
                    else:
                        add(made)  # type: ignore[arg-type]
                    done += 1
                    continue
            if done:
                self.counts[self._slug] = self.counts.get(self._slug, 0) + done
                done = 0
            reason = self._recognise(line, events)
            parse = self._current
            if reason is not None:
                aside.append(Aside(index, reason, line))
        if done:
            self.counts[self._slug] = self.counts.get(self._slug, 0) + done
        return aside

    def _recognise(self, line: bytes, events: list[Event]) -> str | None:
        """Find the source of a record, normalise it and keep its normaliser as the current one; the answer is why not, if not."""
        try:
            record = msgspec.json.decode(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return _why(error)
        source = recognise(record)
        if source is None:
            return "no source has records of this shape; name it with --source, if there is one"
        parse = self._parser(source)
        try:
            made = parse(line)
        except (Reject, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return f"{source.slug}: {_why(error)}"
        if isinstance(made, list):
            events.extend(made)
        else:
            events.append(made)
        self.counts[source.slug] = self.counts.get(source.slug, 0) + 1
        self._current = parse
        self._slug = source.slug
        return None


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, Reject):
        return error.message
    if isinstance(error, msgspec.ValidationError):
        return f"a field has the wrong type: {error}"
    return f"not JSON: {error}"
