"""A scan: inputs in, findings out. One process, or several that decode for one that tracks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from msgspec import Struct, field

from aftergate.connectors.base import sources
from aftergate.detections.api import Directory
from aftergate.detections.engine import Engine
from aftergate.errors import ReadError
from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.ordering import LATENESS_MS, Sequencer, advance, times_of
from aftergate.pipeline.reading import Fault, Input, chunks, plan, split_ranges
from aftergate.vocabulary import Event

_TIME = attrgetter("time")
SHARE_BYTES = 4 << 20  # a plain file is handed out to workers in parts of this size
RELEASE_EVERY = 20_000


class Options(Struct):
    """What a scan is told."""

    paths: Sequence[str | Path]
    source: str | None = None
    jobs: int = 1
    mmdb: tuple[Path, ...] = ()
    tables: bool | None = None  # offline tables of the `enrich` extra: None uses them if installed
    lateness_ms: int = LATENESS_MS
    strict: bool = False
    only: tuple[str, ...] | None = None  # detections, None: all


class Part(Struct):
    """Some decoded records of one input."""

    input: int
    events: list[Event]
    records: dict[str, int]  # by source
    faults: list[Fault]
    done: int  # bytes of the input consumed


class Counts(Struct):
    """In = normalised + duplicates + set aside, always."""

    read: int = 0
    duplicates: int = 0
    set_aside: int = 0
    late: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    files: int = 0
    tables: list[tuple[str, str]] = field(default_factory=list)

    @property
    def normalised(self) -> int:
        return self.read - self.duplicates - self.set_aside


Progress = Callable[[int, int, int], None]  # bytes done, bytes in all, events


class Unit(Struct, array_like=True):
    """A stretch of one input that is decoded in one go."""

    input: int
    start: int
    end: int | None


def units(inputs: Sequence[Input], order: Sequence[int]) -> list[Unit]:
    """The inputs in this order, large plain files in parts. The same whatever the number of processes, so the findings are too."""
    made: list[Unit] = []
    for number in order:
        item = inputs[number]
        parts = max(1, -(-item.size // SHARE_BYTES))
        if item.path is not None and not item.packing and item.container == "ndjson" and parts > 1:
            made.extend(Unit(number, start, end) for start, end in split_ranges(item, parts))
        else:
            made.append(Unit(number, 0, None))
    return made


class Decoder(Protocol):
    """Where parts come from: this process, or several."""

    @property
    def tables(self) -> list[tuple[str, str]]: ...

    def parts(self, order: Sequence[int]) -> Iterator[Part]: ...

    def close(self) -> None: ...


class Inline:
    """Decodes in this process."""

    def __init__(self, inputs: Sequence[Input], options: Options) -> None:
        self.inputs = inputs
        self.intern = Interner(make_enricher(options))
        self.normalising = Normalising(self.intern, options.source)

    def parts(self, order: Sequence[int]) -> Iterator[Part]:
        for unit in units(self.inputs, order):
            yield from decode(self.normalising, unit.input, self.inputs[unit.input], unit.start, unit.end)

    @property
    def tables(self) -> list[tuple[str, str]]:
        return list(self.intern.enrich.tables)

    def close(self) -> None:
        """Nothing to end."""


def make_enricher(options: Options) -> Enricher:
    return Enricher(mmdb=[Path(p) for p in options.mmdb], tables=options.tables)


def decode(normalising: Normalising, number: int, source: Input, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Chunk by chunk: events, and faults with file and offset."""
    for chunk in chunks(source, start, end):
        before = dict(normalising.counts)
        events: list[Event] = []
        aside = normalising.run(chunk.lines, events)
        faults = list(chunk.faults)
        faults.extend(Fault(chunk.name, chunk.offset(a.index), a.reason, a.record.removesuffix(b"\n")) for a in aside)
        good = {slug: count - before.get(slug, 0) for slug, count in normalising.counts.items() if count > before.get(slug, 0)}
        yield Part(number, events, good, faults, start + chunk.done)


def scan(
    options: Options,
    *,
    directory: Directory | None = None,
    set_aside: Callable[[Fault], None] | None = None,
    progress: Progress | None = None,
    tap: Callable[[list[Event]], None] | None = None,
) -> tuple[Engine, Counts]:
    """Read everything, judge everything.

    `set_aside` gets each record that could not be read; `tap` each batch of events in order.
    Raises: ReadError, if a path does not exist, or with `strict` at the first record set aside.
    """
    began = time.perf_counter()
    cpu = time.process_time()
    inputs = plan(list(options.paths))
    counts = Counts(files=len(inputs), bytes=sum(i.size for i in inputs))
    if options.jobs > 1:
        from aftergate.pipeline.parallel import Workers

        sources()  # so that every worker begins with them
        decoder: Decoder = Workers(inputs, options)
    else:
        decoder = Inline(inputs, options)
    enabled = gc.isenabled()
    gc.disable()  # nothing tracked is cyclic enough to matter, and the collector walks millions of live objects
    gc.unfreeze()  # what an earlier scan of this process left may go
    try:
        work = _Work(inputs, options, decoder)
        engine = Engine(directory, options.only)  # while the workers begin
        for batch in _in_order(work, counts, set_aside, progress):
            engine.feed(batch)
            if tap is not None:
                tap(batch)
        engine.finish()
    finally:
        decoder.close()
        gc.freeze()  # what the scan holds is about to be read out, and no garbage: the collector need never walk it
        if enabled:
            gc.enable()
    counts.tables = decoder.tables
    counts.seconds = time.perf_counter() - began
    counts.cpu_seconds = time.process_time() - cpu
    return engine, counts


def ordered(options: Options, *, stdin: bool = False) -> Iterator[list[Event]]:
    """Batches of events in order, without judging them. Standard input only with `stdin`: a second reading of it would find it empty.

    Raises: ReadError, if a path does not exist.
    """
    inputs = [i for i in plan(list(options.paths)) if stdin or i.path is not None]
    if inputs:
        yield from _in_order(_Work(inputs, options, Inline(inputs, options)), Counts(), None, None)


class _Work:
    """Inputs in the order they are taken, and the stream of their parts. Workers begin when it is made."""

    def __init__(self, inputs: Sequence[Input], options: Options, decoder: Decoder) -> None:
        starts: dict[int, int | None] = peek(inputs, options) if len(inputs) > 1 else {0: None}
        order = sorted(range(len(inputs)), key=lambda n: (starts.get(n) is None, starts.get(n) or 0, n))
        self.inputs = inputs
        self.options = options
        self.floor = _floors(order, starts, options.lateness_ms)
        self.parts = decoder.parts(order)


def _in_order(
    work: _Work,
    counts: Counts,
    set_aside: Callable[[Fault], None] | None,
    progress: Progress | None,
) -> Iterator[list[Event]]:
    inputs, options, floor = work.inputs, work.options, work.floor
    sequencer = Sequencer(options.lateness_ms)
    current = -1
    newest: int | None = None
    rising = True
    done_before = 0
    fresh = 0
    for part in work.parts:
        if part.input != current:
            if current >= 0:
                done_before += inputs[current].size
            current, newest, rising = part.input, None, True
        counts.read += len(part.faults)
        for slug, count in part.records.items():
            counts.read += count
            counts.sources[slug] = counts.sources.get(slug, 0) + count
        counts.set_aside += len(part.faults)
        if set_aside is not None:
            for fault in part.faults:
                set_aside(fault)
        if part.faults and options.strict:
            fault = min(part.faults, key=lambda f: f.offset)
            raise ReadError(
                fault.reason, where=f"{fault.name}, byte {fault.offset}", hint="without --strict such records are set aside and counted"
            )
        events = part.events
        if events:
            newest, in_order = advance(times_of(events), newest, options.lateness_ms)
            rising = rising and in_order
            sequencer.add(events)
            fresh += len(events)
        if fresh >= RELEASE_EVERY and rising and newest is not None:
            bound = newest - options.lateness_ms
            later = floor[part.input]
            if later is not None:
                bound = min(bound, later)
            if bound > -(1 << 61):
                fresh = 0
                ready = sequencer.release(bound)
                if ready:
                    yield ready
        if progress is not None:
            progress(done_before + part.done, counts.bytes, counts.read)
    yield sequencer.release(None)
    counts.duplicates = sequencer.duplicates
    counts.late = sequencer.late


def _floors(order: Sequence[int], starts: dict[int, int | None], lateness_ms: int) -> dict[int, int | None]:
    """For each input, before which time nothing of the inputs after it can lie. None: there are none; very small: unknown."""
    floor: dict[int, int | None] = {}
    least: int | None = None
    for number in reversed(order):
        floor[number] = least
        start = starts.get(number)
        mine = -(1 << 62) if start is None else start - lateness_ms
        least = mine if least is None else min(least, mine)
    return floor


def peek(inputs: Sequence[Input], options: Options) -> dict[int, int | None]:
    """Where in time each input begins, from a few records of its first chunk.

    None where that cannot be known: nothing there can be read, it is a pipe (looking would use it up), or its times fall, so that it begins
    at its unseen end.
    """
    normalising = Normalising(Interner(Enricher(tables=False)), options.source)
    return {
        number: _start(source, normalising) if source.path is not None and source.size else None for number, source in enumerate(inputs)
    }


def _start(source: Input, normalising: Normalising) -> int | None:
    first: list[bytes] | None = None
    whole = True
    for chunk in chunks(source):
        if first is not None:
            whole = False
            break
        first = chunk.lines or None
    if first is None:
        return None
    times: list[int] = []
    for line in first:
        _note(line, normalising, times)
        if times or (len(first) > 200 and line is first[200]):
            break
    step = max(1, len(first) // 20)
    for line in [*first[step:-1:step], first[-1]]:
        _note(line, normalising, times)
    if not times:
        return None
    falls = sum(b < a for a, b in pairwise(times))
    rises = sum(b > a for a, b in pairwise(times))
    if falls > 4 * rises and not whole:
        return None
    return min(times)


def _note(line: bytes, normalising: Normalising, times: list[int]) -> None:
    events: list[Event] = []
    normalising.run([line], events)
    if events:
        times.append(min(map(_TIME, events)))


def source_titles(slugs: Iterable[str]) -> dict[str, str]:
    known = sources()
    return {slug: known[slug].title if slug in known else slug for slug in slugs}
