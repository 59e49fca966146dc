"""Log lines that never hold the worker up: a slow reader, a full disk or a closed pipe lose lines.

A write to standard error waits while a pipe is full, and fails where a disk is. Neither may stop
the stream, so lines are written by a thread of their own, past the buffer of ``sys.stderr``, whose
lock that thread would hold while it waits.
"""

from __future__ import annotations

import json
import os
import select
import threading
from collections import deque

LINES_MAX = 10_000
"""Lines that wait to be written; what comes beyond is dropped and counted."""
_LAST_S = 2.0


class LogLines:
    """A text file for a logger: `write` takes whole lines, at once and without errors.

    Dropped lines are told by a line of their own before the next one that is written. Leaving it as
    a context waits until all is written, two seconds at most; later lines are written if that does
    not wait.

    Parameters
    ----------
    descriptor
        Of the file that lines go to; it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._rest = b""  # of a line that was written in part
        self._there = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take lines."""
        with self._there:
            if not self._is_closed:
                if len(self._lines) < LINES_MAX:
                    self._lines.append(text)
                else:
                    self._dropped += 1
                self._there.notify()
                return
        if not self._thread.is_alive() and select.select([], [self._descriptor], [], 0)[1]:
            self._print(text)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def __enter__(self) -> LogLines:
        return self

    def __exit__(self, *_: object) -> None:
        with self._there:
            self._is_closed = True
            self._there.notify()
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        while True:
            with self._there:
                while not self._lines and not self._is_closed:
                    self._there.wait()
                if not self._lines:
                    return
                text, lost = self._lines.popleft(), self._dropped
                self._dropped = 0
            if not self._print(_told(lost) + text):
                with self._there:
                    self._dropped += lost + 1

    def _print(self, text: str) -> bool:
        """Write a text after the rest of the last one; return False where nothing of it was.

        What was begun is kept, so that no line is cut by another.
        """
        new = text.encode(errors="backslashreplace")
        data = self._rest + new
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            is_begun = len(data) < len(new)
            self._rest = data if is_begun else data[: len(data) - len(new)]
            return is_begun
        self._rest = b""
        return True


def _told(lost: int) -> str:
    """Return a line about those that were dropped, if there are any."""
    if not lost:
        return ""
    return json.dumps({"event": "log_lines_dropped", "level": "warning", "lines": lost}) + "\n"
