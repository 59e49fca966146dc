"""How a worker waits: with back-off, as a living member of its group, until it is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from worker.errors import TransientError
from worker.streams import Stream
from worker.telemetry import Telemetry

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

Answer = TypeVar("Answer")


class Stopped(Exception):  # noqa: N818
    """A wait was ended because the worker was asked to stop."""


class Patience:
    """Waits for stream and store; ``failures`` in a row make the waits longer.

    Parameters
    ----------
    stop
        Asked in every wait.
    """

    def __init__(
        self,
        stream: Stream,
        telemetry: Telemetry,
        stop: Callable[[], bool],
        sleep: Callable[[float], None],
    ) -> None:
        self._stream, self._telemetry = stream, telemetry
        self._stop, self._sleep = stop, sleep
        self._failures = 0

    def reset(self) -> None:
        """Note that something was answered."""
        self._failures = 0

    def pause(self) -> None:
        """Sleep for the shortest time: something is missing, nothing has failed."""
        self._sleep(BACKOFF_S[0])

    def tick(self) -> None:
        """Stay in the group during long work, and end it when asked to stop."""
        if self._stop():
            raise Stopped
        self._stream.keep_alive()

    def wait(self, part: str, error: TransientError) -> None:
        """Wait after a failure of ``part``.

        Raises
        ------
        Stopped
            The worker is to stop.
        """
        if self._stop():
            raise Stopped
        self._telemetry.retries.labels(part).inc()
        self._telemetry.ready, self._telemetry.reason = False, str(error)
        self._telemetry.log.warning("waited", part=part, failures=self._failures, error=str(error))
        self._sleep(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
        self._failures += 1

    def recover(self) -> None:
        """Have the stream settle what a failed commit left behind, however long it takes."""
        while True:
            try:
                self._stream.recover()
            except TransientError as error:
                with suppress(TransientError):  # the group may answer where transactions do not
                    self._stream.keep_alive()
                self.wait("stream", error)
            else:
                return

    def insist(self, ask: Callable[[], Answer]) -> Answer:
        """Ask the store, however long it takes: nothing may be guessed and nothing lost."""
        while True:
            try:
                answer = ask()
            except TransientError as error:
                self._stream.keep_alive()
                self.wait("store", error)
            else:
                self._failures = 0
                return answer
