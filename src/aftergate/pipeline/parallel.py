"""Several processes that decode for the one that tracks.

Work is handed out in parts in a fixed order, part k to worker k mod N, and taken back in that order: so the tracking process sees just what a single
process would, and the findings are the same. A worker runs one part ahead at most; its pipe holds it back.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from aftergate.errors import AftergateError, ReadError
from aftergate.events.interning import Interner
from aftergate.events.wire import Packer, Unpacker
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.reading import Fault, Input, split_ranges
from aftergate.pipeline.scan import SHARE_BYTES, Options, Part, decode, make_enricher

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


class _Unit(Struct, array_like=True):
    input: int
    start: int
    end: int | None


class _Message(Struct, array_like=True):
    """What a worker says: a part, the end of a unit, or an error."""

    input: int
    records: dict[str, int]
    faults: list[Fault]
    done: int
    last: bool = False
    error: str | None = None
    tables: list[tuple[str, str]] | None = None


def _units(inputs: Sequence[Input], order: Sequence[int]) -> list[_Unit]:
    units: list[_Unit] = []
    for number in order:
        item = inputs[number]
        parts = max(1, -(-item.size // SHARE_BYTES))
        if item.path is not None and not item.packing and item.container == "ndjson" and parts > 1:
            units.extend(_Unit(number, start, end) for start, end in split_ranges(item, parts))
        else:
            units.append(_Unit(number, 0, None))
    return units


def _work(pipe: Connection, inputs: Sequence[Input], units: Sequence[_Unit], options: Options) -> None:
    """A worker's life: decode its units in order, send each part, end."""
    import gc  # noqa: PLC0415  (worker only)

    gc.disable()
    packer = Packer()
    encode = msgspec.msgpack.Encoder().encode
    try:
        normalising = Normalising(Interner(make_enricher(options)), options.source)
        for unit in units:
            for part in decode(normalising, unit.input, inputs[unit.input], unit.start, unit.end):
                pipe.send_bytes(encode(_Message(part.input, part.records, part.faults, part.done)))
                pipe.send_bytes(packer.pack(part.events))
            tables = list(normalising.intern.enrich.tables)
            pipe.send_bytes(encode(_Message(unit.input, {}, [], 0, last=True, tables=tables)))
    except (BrokenPipeError, KeyboardInterrupt):
        return
    except AftergateError as error:
        pipe.send_bytes(encode(_Message(0, {}, [], 0, error=str(error))))
    finally:
        pipe.close()


class Workers:
    """N processes that decode. Use `parts`, then `close`."""

    def __init__(self, inputs: Sequence[Input], options: Options) -> None:
        self.inputs = inputs
        self.options = options
        self.intern = Interner()
        self.tables: list[tuple[str, str]] = []
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []

    def parts(self, order: Sequence[int]) -> Iterator[Part]:
        """The parts of all inputs in order.

        Raises: ReadError, if a worker ends without finishing its work.
        """
        units = _units(self.inputs, order)
        count = max(1, min(self.options.jobs, len(units)))
        context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
        for number in range(count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, self.inputs, units[number::count], self.options), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        pool: dict[object, object] = {}
        unpackers = [Unpacker(self.intern, pool) for _ in range(count)]
        decoder = msgspec.msgpack.Decoder(_Message)
        for number in range(len(units)):
            worker = number % count
            pipe, unpacker = self._pipes[worker], unpackers[worker]
            while True:
                try:
                    message = decoder.decode(pipe.recv_bytes())
                    if message.error is not None:
                        raise ReadError(message.error)
                    if message.last:
                        if message.tables:
                            self.tables = message.tables
                        break
                    events = unpacker.unpack(pipe.recv_bytes())
                except EOFError:
                    raise ReadError("a decoding process ended early", hint="run again with --jobs 1 to see why") from None
                yield Part(message.input, events, message.records, message.faults, message.done)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
                process.join()
