"""Progress of a long command: a bar on a terminal, elsewhere a line every five seconds."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SAY_EVERY_S = 5


class ProgressBar:
    """Shows how far something is; a context manager.

    Parameters
    ----------
    doing, done
        What is said: ``replaying`` beside the bar, ``replayed`` in lines.
    """

    def __init__(self, doing: str, done: str) -> None:
        console = Console(stderr=True)
        self._done = done
        self._bar = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn(doing), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"), TimeRemainingColumn(), console=console,
                transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(doing, total=None, unit="")
        self._started_s = self._said_s = time.monotonic()
        self._rows = self._last = 0

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None, unit: str, rows: int) -> None:
        """Show ``done`` of ``total`` units; ``rows`` is what the rate is counted in.

        Rows that are fewer than last time are those of a next part, and are added.
        """
        self._rows += rows - self._last if rows >= self._last else rows
        self._last = rows
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, unit=unit)
        elif time.monotonic() - self._said_s > _SAY_EVERY_S:
            self._said_s = time.monotonic()
            rate = self._rows / (self._said_s - self._started_s)
            print(f"{self._done} {done} of {total} {unit}, {rate:.0f} rows/s", file=sys.stderr)
