"""A log and a store that fail as real ones do, and processes that stop wherever they touch them.

Every call is a place where the scheduler may go on with another process, end this one, or let the
call fail before or after it took effect.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from worker.contracts.records import Output, Records
from worker.errors import StateLostError, TransientError
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore
from worker.streams import Polled, TopicPartition
from worker.streams.memory import MemoryLog, MemoryReader, MemoryStream

EVENTS, LABELS, GROUP = "transactions", "labels", "world"
HISTORY = 4  # flushes that the store can lose


class Killed(BaseException):
    """The process ends here: nothing after it runs, nothing catches it."""


@dataclass
class Chances:
    """How likely a call fails; all zero in the calm end of a schedule."""

    draw: random.Random
    fails: float = 0.0
    commit_fails: float = 0.0

    def calm(self) -> None:
        """Let nothing fail any more."""
        self.fails = self.commit_fails = 0.0


Gate = Callable[[str], None]
"""Called before and after each call with what it is; returns when the process may go on."""


@dataclass
class Server:
    """The store's server, shared by all workers: what it holds, and what it held before."""

    held: MemoryStore = field(default_factory=MemoryStore)
    history: list[Any] = field(default_factory=list)
    flushes: list[tuple[str, bytes | None, Meta, list[Writes]]] = field(default_factory=list)

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        """Apply a flush and remember what was before it."""
        self.history = [*self.history[-HISTORY:], _copied(self.held)]
        self.held.flush(space, version, meta, writes)
        self.flushes = [*self.flushes[-2 * HISTORY :], (space, version, meta, list(writes))]

    def roll_back(self, count: int) -> None:
        """Lose the last flushes, as a promoted replica has; all of them when there are fewer."""
        self.held._spaces = self.history[-count] if count <= len(self.history) else {}
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

    def load(self, space: str, version: bytes | None, keys: Sequence[str]) -> list[bytes | None]:
        return self._ask(f"load {space}", lambda: self._server.held.load(space, version, keys))

    def peek(
        self, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[Meta | None, list[bytes | None]]]:
        return self._ask("peek", lambda: self._server.held.peek(asked))

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        said = f"flush {space} to {meta.events_offset}/{meta.labels_offset}/{meta.journal_offset}"
        self._ask(said, lambda: self._server.flush(space, version, meta, writes))

    def drop(self, space: str, version: bytes | None = None) -> int:
        return self._ask(f"drop {space}", lambda: self._server.held.drop(space, version))

    def close(self) -> None:
        """Do nothing."""

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


class FaultyStream(MemoryStream):
    """One worker's stream; ``torn`` is shared with the scheduler, which ends what is in it."""

    def __init__(
        self, log: MemoryLog, slot: str, chances: Chances, gate: Gate, torn: list[Torn]
    ) -> None:
        self._chances, self._gate, self._torn = chances, gate, torn
        super().__init__(log, group=GROUP, slot=slot, events_topic=EVENTS, labels_topic=LABELS)

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
        return super().settle(topic, partition)

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
        offsets = super().commit(generation, outputs, positions)
        if dice < 3 * share:
            self._gate(f"{said}: the answer is lost")
            raise StateLostError("commit", "an answer", "none")
        self._gate(f"{said}: done")
        return offsets

    def recover(self) -> None:
        self._pass("recover")
        super().recover()

    def keep_alive(self) -> None:
        self._gate("keep alive")

    def _pass(self, what: str) -> None:
        self._gate(what)
        if self._chances.draw.random() < self._chances.fails / 4:
            raise TransientError("stream", got="no answer")
