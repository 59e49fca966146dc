"""When and how everything dirty of a worker goes to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
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

    ``is_away`` says that it did not take the last of them.

    Parameters
    ----------
    every_s
        None flushes only when asked to.
    background
        One thread that writes what is flushed because it is time, while the worker goes on; None
        waits for each flush.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        clock_s: Callable[[], float],
        every_s: float | None,
        background: Executor | None = None,
    ) -> None:
        self._telemetry, self._clock_s, self.every_s = telemetry, clock_s, every_s
        self._background = background
        self._flushed_s = clock_s()
        self._turn = self._first = 0
        self.is_away = False

    def flush_due(
        self, states: Callable[[], Iterable[Dirty]], checkpoints: Callable[[], Sequence[Checkpoint]]
    ) -> None:
        """Flush if it is time, and see after the version of one of all ``checkpoints``.

        Raises
        ------
        StateLostError
            The store is at another version: nothing held here is to be trusted.
        """
        now_s = self._clock_s()
        if self.every_s is not None and now_s - self._flushed_s >= self.every_s:
            self.flush(states(), self._background)
            self._flushed_s = now_s
            self._see_after_one(checkpoints())

    def _see_after_one(self, checkpoints: Sequence[Checkpoint]) -> None:
        """One at a time, in turn: what has nothing to write would not notice what the store lost,
        and others that wait for its position would wait for ever.
        """
        self._turn += 1
        if checkpoints and (one := checkpoints[self._turn % len(checkpoints)]).is_settled:
            with suppress(TransientError):  # a store that is away is noticed by who needs it
                one.load([])

    def drain(self) -> None:
        """Wait until nothing is on its way to the store any more, whatever came of it."""
        if self._background is not None:
            self._background.submit(int).result()

    def flush(self, states: Iterable[Dirty], background: Executor | None = None) -> bool:
        """Flush; return whether the store took all of it, or from the ``background`` is taking it.

        A store that does not answer costs one wait: the rest is left for the next time, which
        begins behind the state that was not taken.

        Raises
        ------
        StateLostError
            The store is at another version: nothing held here is to be trusted.
        """
        waiting = list(states)
        first = self._first % max(1, len(waiting))
        for i, dirty in enumerate(waiting[first:] + waiting[:first], start=first):
            if not self._flush(dirty, background):
                self._first, self.is_away = i + 1, True
                return False
        self.is_away = False
        return True

    def _flush(self, dirty: Dirty, background: Executor | None) -> bool:
        started_s = self._clock_s()
        try:
            keys = dirty.checkpoint.flush(dirty.state, dirty.journal_next, background)
        except TransientError as error:
            self._telemetry.retries.labels("store").inc()
            self._telemetry.log.warning(
                "flush_delayed", partition=dirty.partition, error=str(error)
            )
        else:
            self._telemetry.flushed.inc(keys)
            self._telemetry.flush_seconds.observe(self._clock_s() - started_s)
            return True
        return False
