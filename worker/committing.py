"""The one transaction of a step, and what is noted once it is committed.

With a background thread it is written while the worker polls, decodes and loads what comes next.
Nothing is processed, flushed, acquired or given up before `Committer.join` has said that it is
committed; so a shard is at most one batch ahead of the log, and a doubt forgets the same as without
the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial

from worker.acquire import Live
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.errors import StateLostError, TransientError
from worker.exchange import Exchange
from worker.faults import fault
from worker.outputs import Outcome
from worker.streams import Stream, TopicPartition
from worker.telemetry import Telemetry

Done = Sequence[tuple[Live, Outcome]]
Written = tuple[list[Output], list[int]]


class Committer:
    """Commits what the shards of a worker made, one transaction at a time.

    Parameters
    ----------
    background
        One thread of its own; None commits before `start` returns.
    on_commit
        Called with every committed outcome.
    """

    def __init__(
        self,
        stream: Stream,
        settings: Settings,
        exchange: Exchange | None,
        telemetry: Telemetry,
        clock_s: Callable[[], float],
        on_commit: Callable[[Outcome], None],
        background: Executor | None,
    ) -> None:
        self._stream, self._settings, self._exchange = stream, settings, exchange
        self._telemetry, self._clock_s, self._on_commit = telemetry, clock_s, on_commit
        self._background = background
        self._running: tuple[Done, Future[Written]] | None = None

    @property
    def is_running(self) -> bool:
        """Return whether it is not known yet what became of a transaction."""
        return self._running is not None

    def start(self, generation: object, done: Done, fetch: Callable[[], None]) -> None:
        """Commit outcomes of shards with their positions; `join` tells what became of it.

        In the background ``fetch`` is called after the commit of examples.

        Raises
        ------
        StateLostError
            Not known to be committed. So it is by `join`.
        """
        assert self._running is None, "one transaction at a time"
        encode = [outcome.outputs for _, outcome in done]
        if self._exchange is not None:
            encode.append(self._exchange.outputs([(live.shard, o.result) for live, o in done]))
        positions: dict[TopicPartition, int] = {}
        for live, _ in done:
            shard = live.shard
            positions[self._settings.events.topic, shard.partition] = shard.events_next
            if self._settings.labels is not None:
                positions[self._settings.labels.topic, shard.partition] = shard.labels_next
        write = partial(self._write, generation, encode, positions)
        if self._background is None:
            self._note(done, write())
        else:
            self._running = done, self._background.submit(self._ahead, write, fetch)

    def join(self) -> None:
        """Wait until what was started is known to be committed, and note it."""
        if self._running is not None:
            (done, writing), self._running = self._running, None
            self._note(done, writing.result())

    def drain(self) -> None:
        """Wait until nothing is being written any more; a doubt is no news to who forgets all."""
        with suppress(StateLostError, TransientError):
            self.join()

    def _write(
        self,
        generation: object,
        encode: Sequence[Callable[[], list[Output]]],
        positions: dict[TopicPartition, int],
    ) -> Written:
        started_s = self._clock_s()
        outputs = [output for make in encode for output in make()]
        offsets = self._stream.commit(generation, outputs, positions)
        fault("committed")
        self._telemetry.commit_seconds.observe(self._clock_s() - started_s)
        return outputs, offsets

    def _ahead(self, write: Callable[[], Written], fetch: Callable[[], None]) -> Written:
        """Write, and get what the next step learns."""
        outputs, offsets = write()
        if any(output.topic == self._settings.outputs.training for output in outputs):
            with suppress(TransientError):  # who needs it asks again
                fetch()
        return outputs, offsets

    def _note(self, done: Done, written: Written) -> None:
        outputs, offsets = written
        journal, lives = self._settings.outputs.journal, {x.shard.partition: x for x, _ in done}
        for output, offset in zip(outputs, offsets, strict=True):
            if output.topic == journal:
                lives[output.partition].journal_next = offset + 1
        if self._exchange is not None:
            self._exchange.committed(outputs, offsets)
        for _, outcome in done:
            self._telemetry.committed(outcome)
            self._on_commit(outcome)
        fault("noted")
