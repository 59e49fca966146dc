"""A log and a store that fail as real ones do, and processes that stop wherever they touch them.

Every call is a place where the scheduler may go on with another process, end this one, or let the
call fail before or after it took effect.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from worker.contracts.records import Output, Records
from worker.errors import StateLostError, TransientError
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore
from worker.streams import Polled, TopicPartition
from worker.streams.memory import MemoryLog, MemoryReader, MemoryStream

EVENTS, LABELS, GROUP = "transactions", "labels", "world"
OPEN = ": open"
"""Ends the name of the place where a transaction is written and not ended."""
_SETTLE_TRIES = 3
HISTORY = 4  # flushes that the store can lose


class Killed(BaseException):
    """The process ends here: nothing after it runs, nothing catches it."""


@dataclass
class Chances:
    """How likely a call fails; all zero in the calm end of a schedule."""

    draw: random.Random
    fails: float = 0.0
    commit_fails: float = 0.0
    lags: float = 0.0

    def calm(self) -> None:
        """Let nothing fail any more."""
        self.fails = self.commit_fails = self.lags = 0.0


Gate = Callable[[str], None]
"""Called before and after each call with what it is; returns when the process may go on."""


@dataclass
class Server:
    """The store's server, shared by all workers: what it holds, and what it held before."""

    held: MemoryStore = field(default_factory=MemoryStore)
    history: list[Any] = field(default_factory=list)
    flushes: list[tuple[str, bytes | None, Meta, list[Writes]]] = field(default_factory=list)
    changes: int = 0

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        """Apply a flush and remember what was before it."""
        self.history = [*self.history[-HISTORY:], _copied(self.held)]
        self.held.flush(space, version, meta, writes)
        self.changes += 1
        self.flushes = [*self.flushes[-2 * HISTORY :], (space, version, meta, list(writes))]

    def roll_back(self, count: int, only: str = "") -> None:
        """Lose the last flushes, as a promoted replica has; all of them when there are fewer.

        Of one space ``only``, as where spaces are on several servers.
        """
        before = self.history[-count] if count <= len(self.history) else {}
        kept = {name: one for name, one in self.held._spaces.items() if only and name != only}
        self.held._spaces = kept | {n: one for n, one in before.items() if only in ("", n)}
        self.history.clear()

    def repeat(self) -> None:
        """Deliver flushes again that were delivered before, as clients do that had no answer."""
        for one in self.flushes:
            with suppress(StateLostError):  # as it should be, unless it goes on from what is there
                self.held.flush(*one)


def _copied(store: MemoryStore) -> dict[str, Any]:
    return {name: replace(one, values=dict(one.values)) for name, one in store._spaces.items()}


class FaultyStore:
    """One worker's connection to the server."""

    def __init__(self, server: Server, chances: Chances, gate: Gate) -> None:
        self._server, self._chances, self._gate = server, chances, gate

    def meta(self, space: str) -> Meta | None:
        return self._ask(f"meta {space}", lambda: self._server.held.meta(space))

    def load(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        return self._ask("load", lambda: [self._server_of(one[0]).load([one])[0] for one in asked])

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        said = f"flush {space} to {meta.events_offset}/{meta.labels_offset}/{meta.journal_offset}"
        self._ask(said, lambda: self._server.flush(space, version, meta, writes))

    def drop(self, space: str, version: bytes | None = None) -> int:
        return self._ask(f"drop {space}", lambda: self._server.held.drop(space, version))

    def close(self) -> None:
        """Do nothing."""

    def _server_of(self, space: str) -> MemoryStore:
        """Return who answers: where several workers read a space, a replica that may lag."""
        server, lags = self._server, self._chances.lags
        if "updates-" not in space or not server.history or self._chances.draw.random() >= lags:
            return server.held
        replica = MemoryStore()
        replica._spaces = server.history[0]
        return replica

    def _ask(self, what: str, ask: Callable[[], Any]) -> Any:
        self._gate(what)
        dice = self._chances.draw.random()
        if dice < self._chances.fails / 2:
            raise TransientError("store", got="no answer")
        answer = ask()
        if dice < self._chances.fails:
            self._gate(f"{what}: the answer is lost")
            raise TransientError("store", got="no answer")
        self._gate(f"{what}: done")
        return answer


class FaultyReader(MemoryReader):
    """A reader that may fail."""

    def __init__(self, pass_: Callable[[str], None], log: MemoryLog, *place: Any) -> None:
        super().__init__(log, *place)
        self._pass, self._place = pass_, place

    def poll(self, timeout_ms: int, records_max: int) -> Records | None:
        self._pass(f"read {self._place[0]}/{self._place[1]} from {self.position}")
        return super().poll(timeout_ms, records_max)


@dataclass
class Torn:
    """A transaction whose end is on its way: outputs are there, positions come later or never."""

    positions: dict[TopicPartition, int]


@dataclass
class Open:
    """A transaction that was written and has not ended: nobody may read its records, or others
    after them.
    """

    slot: str
    producer: str
    offsets: dict[TopicPartition, list[int]]


class OpenLog(MemoryLog):
    """A log whose transactions may stay open; readers end before them, at the last stable offset.

    Parameters
    ----------
    partitions
        As of `MemoryLog`.
    """

    def __init__(self, partitions: Mapping[str, int]) -> None:
        super().__init__(partitions)
        self._open: list[Open] = []
        self.changes = 0

    def append(self, *what: Any) -> int:
        """Append one record; return its offset."""
        self.changes += 1
        return super().append(*what)

    def end(self, topic: str, partition: int) -> int:
        """Return the last stable offset."""
        place = topic, partition
        firsts = [one.offsets[place][0] for one in self._open if place in one.offsets]
        return min([self.high_watermark(*place), *firsts])

    def high_watermark(self, topic: str, partition: int) -> int:
        """Return the offset after the last record of whatever transaction."""
        return super().end(topic, partition)

    def read(self, topic: str, partition: int, start: int, records_max: int) -> Records:
        """Return committed records only."""
        return super().read(
            topic, partition, start, max(0, min(records_max, self.end(topic, partition) - start))
        )

    def leave_open(self, one: Open) -> None:
        """Take note of what was written."""
        self._open.append(one)

    def commit(self, one: Open) -> bool:
        """End a transaction; return False when somebody else has."""
        if one not in self._open:
            return False
        self._open.remove(one)
        return True

    def initialise(self, slot: str) -> None:
        """Abort what producers of a slot left open, as a new one's first request does."""
        self._abort(lambda one: one.slot == slot)

    def end_abandoned(self, place: TopicPartition, slots: Collection[str]) -> None:
        """Abort open transactions of slots that no member has."""
        self._abort(lambda one: place in one.offsets and one.slot not in slots)

    def time_out(self, alive: Collection[str]) -> None:
        """Abort the open transactions of producers that are dead."""
        self._abort(lambda one: one.producer not in alive)

    def _abort(self, is_meant: Callable[[Open], bool]) -> None:
        for one in [one for one in self._open if is_meant(one)]:
            self._open.remove(one)
            for place, offsets in one.offsets.items():
                log = self._logs[place]
                for offset in offsets:
                    log.entries[offset - log.first] = None


class Producer(Protocol):
    """Whose stream it is."""

    name: str
    slot: str


class FaultyStream(MemoryStream):
    """One worker's stream; ``torn`` is shared with the scheduler, which ends what is in it."""

    def __init__(
        self, log: OpenLog, owner: Producer, chances: Chances, gate: Gate, torn: list[Torn]
    ) -> None:
        self._chances, self._gate, self._torn = chances, gate, torn
        self._name, self._opens = owner.name, log
        log.initialise(owner.slot)
        super().__init__(
            log, group=GROUP, slot=owner.slot, events_topic=EVENTS, labels_topic=LABELS
        )

    def poll(self, timeout_ms: int, records_max: int) -> Polled:
        self._pass("poll")
        polled = super().poll(timeout_ms, records_max)
        self._gate("polled")
        return polled

    def committed(self, partition: int) -> tuple[int, int] | None:
        self._pass(f"committed {partition}")
        return super().committed(partition)

    def settle(self, topic: str, partition: int) -> int:
        self._pass(f"settle {topic}/{partition}")
        wanted = self._opens.high_watermark(topic, partition)
        for _ in range(_SETTLE_TRIES):
            end = super().settle(topic, partition)
            if end >= wanted:
                return end
            slots = self._log.group(GROUP).members
            self._opens.end_abandoned((topic, partition), slots)
            self._gate(f"settle {topic}/{partition}: one is open")
        raise TransientError(f"{topic}/{partition}", "no open transaction", "one")

    def reader(self, topic: str, partition: int, offset: int) -> FaultyReader:
        self._pass(f"reader {topic}/{partition} from {offset}")
        return FaultyReader(self._pass, self._log, topic, partition, offset)

    def last_records(self, topic: str, partition: int, count: int) -> Records:
        self._pass(f"last of {topic}/{partition}")
        return super().last_records(topic, partition, count)

    def commit(
        self,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        said = "commit " + ", ".join(f"{t}/{p} to {at}" for (t, p), at in positions.items())
        self._gate(said)
        dice, share = self._chances.draw.random(), self._chances.commit_fails / 3
        if dice < share:
            for place in {(o.topic, o.partition) for o in outputs}:
                self._log.skip(*place, count=2)
            self._gate(f"{said}: aborted")
            raise StateLostError("commit", "an answer", "none")
        if dice < 2 * share:
            before = dict(self._state().offsets)
            super().commit(generation, outputs, positions)
            self._state().offsets = before
            self._torn.append(Torn(dict(positions)))
            self._gate(f"{said}: torn")
            raise StateLostError("commit", "an answer", "none")
        if dice > 1 - 2 * share:
            return self._commit_late(said, generation, outputs, positions)
        offsets = super().commit(generation, outputs, positions)
        if dice < 3 * share:
            self._gate(f"{said}: the answer is lost")
            raise StateLostError("commit", "an answer", "none")
        self._gate(f"{said}: done")
        return offsets

    def _commit_late(
        self,
        said: str,
        generation: object,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartition, int],
    ) -> list[int]:
        """Write all of it and stop before its end, which nobody but the producer's heir prevents:
        the group was asked before.
        """
        committed = self._state().offsets
        before = dict(committed)
        offsets = super().commit(generation, outputs, positions)
        self._state().offsets = before
        one = Open(self._slot, self._name, {})
        for output, offset in zip(outputs, offsets, strict=True):
            one.offsets.setdefault((output.topic, output.partition), []).append(offset)
        self._opens.leave_open(one)
        self._gate(f"{said}{OPEN}")
        if not self._opens.commit(one):
            raise StateLostError("commit", "the producer that wrote it", "another")
        now = self._state().offsets
        now.update(positions)
        self._gate(f"{said}: done")
        return offsets

    def recover(self) -> None:
        self._pass("recover")
        self._opens.initialise(self._slot)
        super().recover()

    def keep_alive(self) -> None:
        self._gate("keep alive")

    def _pass(self, what: str) -> None:
        self._gate(what)
        if self._chances.draw.random() < self._chances.fails / 4:
            raise TransientError("stream", got="no answer")
