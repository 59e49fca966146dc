"""A worker of a schedule: it runs only while the scheduler waits for it."""

from __future__ import annotations

from collections.abc import Callable

from greenlet import getcurrent, greenlet

from tests.simulation.faults import Killed


class Process:
    """One worker process: it runs only while the scheduler waits for it."""

    def __init__(self, slot: str, number: int, body: Callable[[Process], None]) -> None:
        self.slot, self.name = slot, f"worker {slot}.{number}"
        self.error: BaseException | None = None
        self.ended = False
        self.killed = self.is_held = False
        self.idle_steps = 0
        self.doom: str | None = None
        self._body = body
        self.stops_left = 0
        self._home = getcurrent()
        self._self = greenlet(self._run)

    def go_on(self, stops: int = 1) -> None:
        """Run until it has reached so many calls of the world, or ends."""
        self.stops_left = stops
        self._home = getcurrent()
        self._self.switch()

    def kill(self) -> None:
        """End it where it is; it touches nothing any more."""
        self.killed = True
        while not self.ended:
            self.go_on()

    def is_here(self) -> bool:
        """Return whether this is the process that asks."""
        return getcurrent() is self._self

    def stop_here(self) -> None:
        """Let the scheduler decide, at the last of the stops; called by the process."""
        self.stops_left -= 1
        if self.stops_left <= 0 and not self.killed:
            self._home.switch()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        try:
            if not self.killed:
                self._body(self)
        except Killed:
            pass
        except BaseException as error:  # the scheduler judges it
            self.error = error
        self.ended = True
