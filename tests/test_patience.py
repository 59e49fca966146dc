"""Waiting: as a living member of the group, and never beyond the wish to stop."""

from __future__ import annotations

import pytest

from tests.worlds import drain, events, fill, new_log, worker
from worker.errors import TransientError
from worker.patience import Patience, Stopped
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream
from worker.telemetry import Telemetry

AWAY = 5


class Attentive(MemoryStream):
    """A stream that counts how often its worker said that it lives."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(
            log, group="world", slot="0", events_topic="transactions", labels_topic="labels"
        )
        self.kept_alive = 0

    def keep_alive(self) -> None:
        self.kept_alive += 1


def test_who_waits_for_the_store_stays_in_the_group() -> None:
    """Once per question: the group gives up who is silent, and its partitions move for nothing."""
    stream, left = Attentive(new_log()), iter(range(AWAY))
    patience = Patience(stream, Telemetry(lambda: 0.0), lambda: False, lambda s: None)

    def ask() -> str:
        for _ in left:
            raise TransientError("store", "an answer", "none")
        return "answer"

    assert patience.insist(ask) == "answer"
    assert stream.kept_alive == AWAY


def test_who_waits_for_the_stream_to_recover_stays_in_the_group() -> None:
    """The coordinator of transactions may be away alone, and the group waits for its members."""
    stream, left = Attentive(new_log()), iter(range(AWAY))

    def recover() -> None:
        for _ in left:
            raise TransientError("stream", "an answer", "none")

    stream.recover = recover  # type: ignore[method-assign]
    Patience(stream, Telemetry(lambda: 0.0), lambda: False, lambda s: None).recover()
    assert stream.kept_alive == AWAY


def test_who_folds_for_long_stays_in_the_group() -> None:
    """Between polls of what is read again."""
    log = new_log()
    fill(log, events(200))
    drain(worker(log, MemoryStore()))
    stream = Attentive(log)
    second = worker(log, MemoryStore(), stream=stream)
    second.step()
    assert stream.kept_alive > 1


def test_a_wait_ends_when_the_worker_is_to_stop() -> None:
    """For a store or a broker that may never come back."""
    patience = Patience(Attentive(new_log()), Telemetry(lambda: 0.0), lambda: True, lambda s: None)

    def ask() -> None:
        raise TransientError("store", "an answer", "none")

    for wait in (patience.tick, lambda: patience.insist(ask)):
        with pytest.raises(Stopped):
            wait()
