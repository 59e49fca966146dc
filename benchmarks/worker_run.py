"""One measured run of the real worker in a process of its own.

``python -m benchmarks.worker_run CONFIG COUNT STARTED`` prints figures as JSON; STARTED is the
monotonic clock when the parent started this process.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any  # the timed parts keep their own types

from benchmarks import memory_peak_mb
from worker.commands import load
from worker.contracts.settings import KafkaSettings, RedisSettings, Settings
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.outputs import Outcome
from worker.runner import Parts, Runner
from worker.secondary import secondary_entities
from worker.stopping import relax_collector
from worker.stores.redis import RedisStore
from worker.streams.kafka import KafkaStream
from worker.telemetry import Telemetry, configure_logging

Seconds = dict[str, float]


class Timed:
    """A part of the worker, with the seconds of some of its methods added to a stage each.

    Elapsed time of the main thread goes to the stage's name, its CPU time to that name with
    ``_cpu``. What other threads do beside it is no stage.
    """

    def __init__(self, part: Any, seconds: Seconds, **stages: str) -> None:
        self._part = part
        self._seconds = seconds
        for method, stage in stages.items():
            setattr(self, method, self._timed(getattr(part, method), stage))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __getitem__(self, name: str) -> Any:
        return self._part[name]

    def _timed(self, method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return method(*arguments, **words)
            started_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                return method(*arguments, **words)
            finally:
                self._seconds[stage] += time.perf_counter() - started_s
                self._seconds[f"{stage}_cpu"] += time.thread_time() - cpu_s

        return call


class TimedStream(Timed):
    """A stream whose readers are timed too: in a run from nothing that is the training log."""

    def __init__(self, stream: KafkaStream, seconds: Seconds) -> None:
        super().__init__(stream, seconds, poll="poll")

    def reader(self, topic: str, partition: int, offset: int) -> Any:
        """Return a timed reader."""
        return Timed(self._part.reader(topic, partition, offset), self._seconds, poll="training")


class TimedExecutor(Timed):
    """A background whose results are waited for: that wait is the stage."""

    def submit(self, *arguments: Any) -> Any:
        """Return a timed future."""
        return Timed(self._part.submit(*arguments), self._seconds, result="commit")


class Run:
    """Counts what is committed, and knows when it is enough.

    The clocks start after the first transaction, which is the warm-up: it loads the kernels.
    """

    def __init__(self, count: int, seconds: Seconds) -> None:
        self.seconds = seconds
        self.first_commit_s = 0.0
        self._count = count
        self._committed = 0
        self._warm: tuple[int, float, float] | None = None

    def committed(self, outcome: Outcome) -> None:
        """Count the rows of an outcome."""
        self._committed += len(outcome.rows)
        self.first_commit_s = self.first_commit_s or time.monotonic()

    def enough(self) -> bool:
        """Return whether all events are committed. Asked between steps."""
        if self._committed and self._warm is None:
            gc.collect()
            gc.freeze()  # as the command does
            self.seconds.clear()
            self._warm = (self._committed, time.perf_counter(), time.process_time())
        return self._committed >= self._count

    def figures(self) -> dict[str, Any]:
        """Return what it took from the warm-up until now."""
        assert self._warm is not None
        return {
            "events": self._committed - self._warm[0],
            "seconds": time.perf_counter() - self._warm[1],
            "cpu_seconds": time.process_time() - self._warm[2],
            "stages": dict(self.seconds),
            "memory_mb": memory_peak_mb(),
        }


def measure(settings: Settings, count: int, started_s: float) -> dict[str, Any]:
    """Run the worker until ``count`` events are committed and flushed; return what that took."""
    run = Run(count, defaultdict(float))
    with ExitStack() as stack:
        parts = parts_of(settings, run.seconds, stack)
        flush_s = settings.runner.flush / 1000
        Runner(parts, run.enough, flush_every_s=flush_s, on_commit=run.committed).run()
        figures = run.figures()
    return {**figures, "startup_s": run.first_commit_s - started_s}


def parts_of(settings: Settings, seconds: Seconds, stack: ExitStack) -> Any:
    """Return what `worker.commands.run_worker` would run with, timed."""
    assert isinstance(settings.stream, KafkaSettings)
    assert isinstance(settings.store, RedisSettings)
    assert settings.labels is not None
    spec = compile_features(settings)
    store = RedisStore(settings.store)
    stack.callback(store.close)
    stream = KafkaStream(
        settings.stream,
        group=settings.name,
        slot="0",
        events_topic=settings.events.topic,
        labels_topic=settings.labels.topic,
        outputs=settings.outputs,
        shared=bool(secondary_entities(spec)),
    )
    stack.callback(stream.close)
    models: Any = Timed(
        build_models(settings, spec.names), seconds, score="model", score_learn="model"
    )
    timed_stream: Any = TimedStream(stream, seconds)
    timed_store: Any = Timed(store, seconds, load="load")
    flushing, committing = (
        stack.enter_context(ThreadPoolExecutor(1, name)) for name in ("flush", "commit")
    )
    telemetry = Telemetry(time.time)
    return Parts(
        settings, spec, models, timed_stream, timed_store, telemetry,
        background=flushing, committing=TimedExecutor(committing, seconds),  # type: ignore[arg-type]
    )  # fmt: skip


def main() -> None:
    """Run once and print the figures as JSON."""
    path, count, started_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    configure_logging("WARNING")
    relax_collector()
    print(json.dumps(measure(load(path), count, started_s)))


if __name__ == "__main__":
    main()
