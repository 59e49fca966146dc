"""When and how everything dirty of a worker goes to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from worker.checkpoint import Checkpoint, Folded
from worker.errors import TransientError
from worker.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Dirty:
    """A state that differs from what the store has of it, with the journal's next offset."""

    partition: int
    state: Folded
    checkpoint: Checkpoint
    journal_next: int


class Flusher:
    """Flushes states one by one; what the store does not take stays dirty.

    Parameters
    ----------
    every_s
        None flushes only when asked to.
    """

    def __init__(
        self, telemetry: Telemetry, clock_s: Callable[[], float], every_s: float | None
    ) -> None:
        self._telemetry, self._clock_s, self.every_s = telemetry, clock_s, every_s
        self._flushed_s = clock_s()

    def flush_due(self, states: Callable[[], Iterable[Dirty]]) -> None:
        """Flush if it is time."""
        now_s = self._clock_s()
        if self.every_s is not None and now_s - self._flushed_s >= self.every_s:
            self.flush(states())
            self._flushed_s = now_s

    def flush(self, states: Iterable[Dirty]) -> bool:
        """Flush; return whether the store took all of it.

        Raises
        ------
        StateLostError
            The store is at another version: nothing held here is to be trusted.
        """
        taken = [self._flush(dirty) for dirty in states]
        return all(taken)

    def _flush(self, dirty: Dirty) -> bool:
        started_s = self._clock_s()
        try:
            keys = dirty.checkpoint.flush(dirty.state, dirty.journal_next)
        except TransientError as error:
            self._telemetry.retries.labels("store").inc()
            self._telemetry.log.warning(
                "flush_delayed", partition=dirty.partition, error=str(error)
            )
        else:
            self._telemetry.flushed.inc(keys)
            self._telemetry.flush_seconds.observe(self._clock_s() - started_s)
            return True
        self._telemetry.ready, self._telemetry.reason = False, "the store does not take writes"
        return False
