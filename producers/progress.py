"""How far a command is, on standard error: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import structlog

_EVERY_SECONDS = 5.0
_LOOK_RECORDS = 256  # reading a clock for each record would cost more than handing it over


class Progress:
    """Counts the records of a run and shows count, rate and the recorded time it has reached."""

    def __init__(self, words: str, total: int | None = None) -> None:
        self._words = words
        self._count = self._time_ms = 0
        self._notes: dict[str, object] = {}
        self._start = self._shown = time.monotonic()
        self._bar = _bar(words, total) if sys.stderr.isatty() else None
        self._log = _logger()

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._show()
            self._bar.stop()
        if kind is None:
            self._log.info(f"{self._words}_finished", **self._figures(), **self._notes)

    def advance(self, time_ms: int) -> None:
        """Count one record of this recorded time; every now and then show where the run is."""
        self._count, self._time_ms = self._count + 1, time_ms
        if self._count % _LOOK_RECORDS:
            return
        every = 0.2 if self._bar is not None else _EVERY_SECONDS
        if time.monotonic() - self._shown >= every:
            self._show()

    def note(self, **figures: object) -> None:
        """Add figures to the closing line."""
        self._notes.update(figures)

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._bar is None:
            self._log.info(f"{self._words}_progressed", **self._figures())
        else:
            self._bar.update(self._bar.task_ids[0], completed=self._count, at=self._at())

    def _figures(self) -> dict[str, object]:
        seconds = max(time.monotonic() - self._start, 1e-9)
        figures: dict[str, object] = {
            "records": self._count,
            "records_per_s": round(self._count / seconds),
        }
        return figures | ({"time": self._at()} if self._count else {})

    def _at(self) -> str:
        return datetime.fromtimestamp(self._time_ms / 1000, UTC).isoformat(timespec="seconds")


def _bar(words: str, total: int | None) -> Any:  # Any: rich is imported only for a terminal
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(words),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
    )
    bar = Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True))
    bar.add_task(words, total=total, at="")
    return bar


def _logger() -> Any:  # Any: structlog's loggers are bound lazily
    """Return a logger to standard error: readable on a terminal, JSON lines elsewhere."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
    )
