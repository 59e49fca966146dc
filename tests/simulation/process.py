"""A worker of a schedule: a thread that runs only while the scheduler waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.simulation.faults import Killed


class Process:
    """One worker process: a thread that runs only while the scheduler waits for it."""

    def __init__(self, slot: str, number: int, body: Callable[[Process], None]) -> None:
        self.slot, self.name = slot, f"worker {slot}.{number}"
        self.error: BaseException | None = None
        self.ended = False
        self.killed = self.is_held = False
        self.idle_steps = 0
        self.doom: str | None = None
        self._body = body
        self.stops_left = 0
        # Locks as signals: a semaphore of `threading` costs four times as much to hand over.
        self._mine, self._theirs = threading.Lock(), threading.Lock()
        self._mine.acquire()
        self._theirs.acquire()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def go_on(self, stops: int = 1) -> None:
        """Run until it has reached so many calls of the world, or ends."""
        self.stops_left = stops
        self._mine.release()
        self._theirs.acquire()

    def kill(self) -> None:
        """End it where it is; it touches nothing any more."""
        self.killed = True
        while not self.ended:
            self.go_on()

    def is_here(self) -> bool:
        """Return whether this is the thread that asks."""
        return threading.current_thread() is self._thread

    def stop_here(self) -> None:
        """Let the scheduler decide, at the last of the stops; called by the process."""
        self.stops_left -= 1
        if self.stops_left <= 0 and not self.killed:
            self._theirs.release()
            self._mine.acquire()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if not self.killed:
                self._body(self)
        except Killed:
            pass
        except BaseException as error:  # the scheduler judges it
            self.error = error
        self.ended = True
        self._theirs.release()
