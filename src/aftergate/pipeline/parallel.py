"""Several processes that decode for the one that tracks.

Work comes in units. Whichever worker is free takes the next one, and what they make of them is taken back in the units' order: so the tracking
process sees just what a single process would, and the findings are the same. Events travel through memory that both sides share, some parts
ahead: while one side tracks, the others go on decoding, until their share of that memory is full.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Lock, Semaphore
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from aftergate.errors import AftergateError, ReadError
from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.events.wire import Packer, Unpacker
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.reading import Fault, Input
from aftergate.pipeline.scan import Options, Part, Unit, decode, make_enricher, units

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


WORKER_NICE = 10  # the tracking process sets the pace: workers run ahead and give way to it
BATCH = 2_000  # events in a message
SLOT = 1 << 20  # bytes of one part's events; a part that needs more goes through the pipe
SLOTS = 16  # parts that a worker may be ahead


class _Message(Struct, array_like=True):
    """What a worker says: a part, the end of a unit, or an error."""

    unit: int
    input: int
    records: dict[str, int]
    faults: list[Fault]
    done: int
    size: int = 0  # bytes of events in the next slot; 0: they follow in the pipe
    last: bool = False
    error: str | None = None
    tables: list[tuple[str, str]] | None = None


class _Units:
    """Which unit is the next to be decoded: a number that all workers share."""

    def __init__(self, lock: Lock, count: int) -> None:
        self._lock = lock
        self._next = mmap.mmap(-1, 8)
        self._count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                number = int.from_bytes(self._next[:8], "little")
                self._next[:8] = (number + 1).to_bytes(8, "little")
            if number >= self._count:
                return
            yield number


class _Lane(Struct):
    """The way from one worker: a pipe for messages, slots of shared memory for events, and how many of them are free."""

    pipe: Connection
    memory: mmap.mmap
    free: Semaphore
    parent: int = 0  # the process that tracks
    next: int = 0
    head: _Message | None = None  # what was received of a unit whose turn has not come

    def put(self, data: bytes) -> int:
        """Put events into the next slot, once there is one; 0 if they are too many for it. Raises: BrokenPipeError, if nobody is left to read."""
        if len(data) > SLOT:
            return 0
        while not self.free.acquire(timeout=5):
            if os.getppid() != self.parent:
                raise BrokenPipeError
        at = self.next * SLOT
        self.memory[at : at + len(data)] = data
        self.next = (self.next + 1) % SLOTS
        return len(data)

    def take(self, size: int) -> memoryview:
        """What is in the next slot, to be read before `free` is released."""
        at = self.next * SLOT
        self.next = (self.next + 1) % SLOTS
        return memoryview(self.memory)[at : at + size]


def _larger(parts: Iterator[Part]) -> Iterator[Part]:
    """Parts of one unit joined to about BATCH events: each message has its price."""
    held: Part | None = None
    for part in parts:
        if held is None:
            held = part
        else:
            held.events.extend(part.events)
            held.faults.extend(part.faults)
            held.done = part.done
            for slug, count in part.records.items():
                held.records[slug] = held.records.get(slug, 0) + count
        if len(held.events) >= BATCH:
            yield held
            held = None
    if held is not None:
        yield held


def _work(lane: _Lane, inputs: Sequence[Input], units: Sequence[Unit], todo: _Units, options: Options) -> None:
    """A worker's life: take the next unit, decode it, send each part; end when there are no more."""
    import gc

    gc.disable()
    os.nice(WORKER_NICE)
    packer = Packer()
    pipe = lane.pipe
    encode = msgspec.msgpack.Encoder().encode
    try:
        normalising = Normalising(Interner(make_enricher(options)), options.source)
        for number in todo:
            unit = units[number]
            for part in _larger(decode(normalising, unit.input, inputs[unit.input], unit.start, unit.end)):
                data = packer.pack(part.events)
                size = lane.put(data)
                pipe.send_bytes(encode(_Message(number, part.input, part.records, part.faults, part.done, size)))
                if not size:
                    pipe.send_bytes(data)
            tables = list(normalising.intern.enrich.tables)
            pipe.send_bytes(encode(_Message(number, unit.input, {}, [], 0, last=True, tables=tables)))
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except AftergateError as error:
        pipe.send_bytes(encode(_Message(0, 0, {}, [], 0, error=str(error))))
    finally:
        pipe.close()


class Workers:
    """N processes that decode. Use `parts`, then `close`."""

    def __init__(self, inputs: Sequence[Input], options: Options) -> None:
        self.inputs = inputs
        self.options = options
        self.intern = Interner(Enricher(tables=False))
        self.tables: list[tuple[str, str]] = []
        self._lanes: list[_Lane] = []
        self._processes: list[BaseProcess] = []
        self._ended: set[int] = set()  # sentinels of workers that finished
        self._done = False
        self._decode = msgspec.msgpack.Decoder(_Message).decode

    def parts(self, order: Sequence[int]) -> Iterator[Part]:
        """The parts of all inputs in order. The workers begin at once.

        Raises: ReadError, while parts are taken, if a worker ends without finishing its work.
        """
        every = units(self.inputs, order)
        shared = [unit for unit in every if self.inputs[unit.input].path is not None]
        count = max(1, min(self.options.jobs, len(shared)))
        fork = "fork" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork") if fork else multiprocessing.get_context("spawn")
        todo = _Units(context.Lock(), len(shared))
        for _ in range(count):
            ours, theirs = context.Pipe(duplex=False)
            memory, free = mmap.mmap(-1, SLOT * SLOTS), context.Semaphore(SLOTS)
            lane = _Lane(theirs, memory, free, os.getpid())
            process = context.Process(target=_work, args=(lane, self.inputs, shared, todo, self.options), daemon=True)
            process.start()
            theirs.close()
            self._lanes.append(_Lane(ours, memory, free))
            self._processes.append(process)
        return self._taken(every)

    def _taken(self, every: Sequence[Unit]) -> Iterator[Part]:
        pool: dict[object, object] = {}
        unpackers = {id(lane): Unpacker(self.intern, pool) for lane in self._lanes}
        number = 0
        for unit in every:
            if self.inputs[unit.input].path is None:
                yield from self._here(unit, pool)
            else:
                lane = self._lane_of(number)
                yield from self._received(lane, unpackers[id(lane)])
                number += 1
        self._done = True

    def _lane_of(self, number: int) -> _Lane:
        """Whose unit this is. Each worker's units come in order, so it is the first that one of them still has to tell of.

        Raises: ReadError.
        """
        quiet: dict[object, _Lane] = {lane.pipe: lane for lane in self._lanes if lane.head is None}
        while True:
            for lane in self._lanes:
                if lane.head is not None and lane.head.unit == number:
                    return lane
            if not quiet:
                raise _ended_early()
            running = {process.sentinel: process for process in self._processes if process.sentinel not in self._ended}
            for ready in wait([*(lane.pipe for lane in quiet.values()), *running]):
                if isinstance(ready, int):
                    self._ended.add(ready)
                    if running[ready].exitcode:
                        raise _ended_early()  # it may have held what the others wait for
                    continue
                lane = quiet.pop(ready)
                with suppress(EOFError, OSError):  # this worker is done
                    lane.head = self._message(lane)

    def _message(self, lane: _Lane) -> _Message:
        message = self._decode(lane.pipe.recv_bytes())
        if message.error is not None:
            raise ReadError(message.error)
        return message

    def _received(self, lane: _Lane, unpacker: Unpacker) -> Iterator[Part]:
        """The parts of one unit, from the worker that has it.

        Raises: ReadError.
        """
        message, lane.head = lane.head, None
        try:
            while True:
                if message is None:
                    message = self._message(lane)
                if message.last:
                    if message.tables:
                        self.tables = message.tables
                    return
                if message.size:
                    with lane.take(message.size) as data:
                        events = unpacker.unpack(data)
                    lane.free.release()
                else:
                    events = unpacker.unpack(lane.pipe.recv_bytes())
                yield Part(message.input, events, message.records, message.faults, message.done)
                message = None
        except (EOFError, OSError):
            raise _ended_early() from None

    def _here(self, unit: Unit, pool: dict[object, object]) -> Iterator[Part]:
        """Standard input is this process's own: other processes see an empty one. Its events are interned like the workers'."""
        normalising = Normalising(Interner(make_enricher(self.options)), self.options.source)
        packer, unpacker = Packer(), Unpacker(self.intern, pool)
        for part in decode(normalising, unit.input, self.inputs[unit.input], unit.start, unit.end):
            part.events = unpacker.unpack(packer.pack(part.events))
            yield part
        self.tables = self.tables or list(normalising.intern.enrich.tables)

    def close(self) -> None:
        for lane in self._lanes:
            lane.pipe.close()
        for process in self._processes:
            if not self._done:
                process.terminate()  # what it still has nobody wants
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        for lane in self._lanes:
            lane.memory.close()


def _ended_early() -> ReadError:
    return ReadError("a decoding process ended early", hint="run again with --jobs 1 to see why")
