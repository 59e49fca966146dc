"""What a worker's calls of Kafka and of the store cost with nothing between them.

``python -m benchmarks.transport CONFIG BESIDE COUNT PID...`` runs the worker of the first
configuration and keeps each poll, read, commit, load and flush; then it makes the same calls again,
one after the other, under the name and on the topics of the second one, and prints figures of that
as JSON. ``servers`` are CPU seconds of the processes PID in it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any  # the recorded parts keep their own types

from benchmarks import cpu_seconds
from benchmarks.worker_run import Run, parts_of
from worker.commands import load
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.runner import Runner
from worker.stopping import relax_collector
from worker.stores import Meta, Writes
from worker.telemetry import configure_logging

_TURNS = 1_000  # what was read once is there, so it comes


class Again:
    """Makes calls again on a stream and a store of its own."""

    def __init__(self, stream: Any, store: Any) -> None:
        self._stream, self._store = stream, store
        self._generation: object = None
        self._owed = 0
        self._readers: dict[int, Any] = {}
        self._owed_by: dict[int, int] = defaultdict(int)
        self._versions: dict[str, bytes] = {}

    def join(self) -> None:
        """Become the owner of all partitions, at their beginning."""
        while len((polled := self._stream.poll(100, 1)).assigned) < self._stream.partitions:
            pass
        self._generation = polled.generation
        for p in polled.assigned:
            self._stream.seek(p, 0, 0)

    def poll(self, count: int) -> None:
        """Poll until so many more records have come."""
        self._owed += count
        for _ in range(_TURNS):
            if self._owed <= 0:
                return
            polled = self._stream.poll(5, self._owed)
            self._generation = polled.generation
            self._owed -= sum(map(len, polled.records))
        raise RuntimeError(f"{self._owed} records did not come")

    def open(self, key: int, topic: str, partition: int, offset: int) -> None:
        """Open a reader."""
        self._readers[key] = self._stream.reader(topic, partition, offset)

    def read(self, key: int, count: int) -> None:
        """Read so many more records."""
        self._owed_by[key] += count
        for _ in range(_TURNS):
            if self._owed_by[key] <= 0:
                return
            records = self._readers[key].poll(5, self._owed_by[key])
            self._owed_by[key] -= 0 if records is None else len(records)
        raise RuntimeError(f"{self._owed_by[key]} records of {key} did not come")

    def shut(self, key: int) -> None:
        """Close a reader."""
        self._readers.pop(key).close()

    def commit(self, outputs: Sequence[Output], positions: Mapping[tuple[str, int], int]) -> None:
        """Write outputs and positions."""
        self._stream.commit(self._generation, outputs, positions)

    def load(self, asked: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Read keys of the store."""
        self._store.load(asked)

    def flush(self, space: str, meta: Meta, writes: Sequence[Writes]) -> None:
        """Write keys of the store."""
        self._store.flush(space, self._versions.get(space), meta, writes)
        self._versions[space] = meta.version


Call = Callable[[Again], None]


class Tape:
    """Keeps calls, with all names as they are to be called again."""

    def __init__(self, name: str, again: str) -> None:
        self._name, self._again = name, again
        self.calls: list[Call] = []

    def named(self, text: str) -> str:
        """Return a topic or space of the one name as that of the other."""
        return text.replace(self._name, self._again)

    def keep(self, method: str, *arguments: Any) -> None:
        """Keep a call."""
        self.calls.append(lambda again: getattr(again, method)(*arguments))


class _Part:
    def __init__(self, part: Any, tape: Tape) -> None:
        self._part, self._tape = part, tape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


class TapedReader(_Part):
    """A reader whose polls are kept."""

    def poll(self, timeout_ms: int, records_max: int) -> Any:
        """Return the next records."""
        records = self._part.poll(timeout_ms, records_max)
        self._tape.keep("read", id(self), 0 if records is None else len(records))
        return records

    def close(self) -> None:
        """Close the reader."""
        self._tape.keep("shut", id(self))
        self._part.close()


class TapedStream(_Part):
    """A stream whose calls are kept."""

    def poll(self, timeout_ms: int, records_max: int) -> Any:
        """Return new records."""
        polled = self._part.poll(timeout_ms, records_max)
        self._tape.keep("poll", sum(map(len, polled.records)))
        return polled

    def reader(self, topic: str, partition: int, offset: int) -> TapedReader:
        """Return a reader whose polls are kept."""
        made = TapedReader(self._part.reader(topic, partition, offset), self._tape)
        self._tape.keep("open", id(made), self._tape.named(topic), partition, offset)
        return made

    def commit(self, generation: object, outputs: Sequence[Output], positions: Any) -> Any:
        """Write outputs and positions."""
        written = [replace(one, topic=self._tape.named(one.topic)) for one in outputs]
        self._tape.keep("commit", written, dict(positions))
        return self._part.commit(generation, outputs, positions)


class TapedStore(_Part):
    """A store whose calls are kept."""

    def load(self, asked: Sequence[tuple[str, Sequence[str]]]) -> Any:
        """Return meta and values."""
        self._tape.keep("load", [(self._tape.named(space), list(keys)) for space, keys in asked])
        return self._part.load(asked)

    def flush(self, space: str, version: Any, meta: Meta, writes: Sequence[Writes]) -> None:
        """Apply writes."""
        self._tape.keep("flush", self._tape.named(space), meta, list(writes))
        self._part.flush(space, version, meta, writes)


def record(settings: Settings, count: int, again: str) -> list[Call]:
    """Run the worker over ``count`` events; return its calls."""
    tape, run = Tape(settings.name, again), Run(count, defaultdict(float))
    with ExitStack() as stack:
        parts = parts_of(settings, run.seconds, stack)
        taped = replace(
            parts, stream=TapedStream(parts.stream, tape), store=TapedStore(parts.store, tape)
        )
        flush_s = settings.runner.flush / 1000
        Runner(taped, run.enough, flush_every_s=flush_s, on_commit=run.committed).run()
    return tape.calls


def measure(settings: Settings, calls: list[Call], count: int, pids: list[int]) -> dict[str, Any]:
    """Make calls again; return what that took."""
    with ExitStack() as stack:
        parts = parts_of(settings, defaultdict(float), stack)
        again = Again(parts.stream, parts.store)
        again.join()
        gc.collect()
        gc.freeze()
        before = list(_clocks(pids))
        for call in calls:
            call(again)
        seconds, cpu_s, *servers = (b - a for a, b in zip(before, _clocks(pids), strict=True))
    return {"events": count, "seconds": seconds, "cpu_seconds": cpu_s, "servers": servers}


def _clocks(pids: list[int]) -> Iterator[float]:
    yield time.perf_counter()
    yield time.process_time()
    yield from map(cpu_seconds, pids)


def main() -> None:
    """Run once and print the figures as JSON."""
    configure_logging("WARNING")
    relax_collector()
    first, beside = load(Path(sys.argv[1])), load(Path(sys.argv[2]))
    count, pids = int(sys.argv[3]), [int(pid) for pid in sys.argv[4:]]
    print(json.dumps(measure(beside, record(first, count, beside.name), count, pids)))


if __name__ == "__main__":
    main()
