"""Signals to stop and the cycle collector: light to import, for they come before all else."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

_EXIT_KILLED = 130
_WARMED_UP_STEPS = 50
_TWICE_S = 0.5  # `timeout` signals a process and then its group: one wish, two signals
STOP_S = 9.0
"""After so long a worker that was asked to stop leaves, as where no broker answers: it is safe."""


def stop_on_signals() -> Callable[[], bool]:
    """Return a question that is true after SIGTERM or SIGINT; a second signal leaves at once, and
    so does the process by itself after `STOP_S`.

    What is alive when it has been asked for some time is frozen: the cycle collector passes it by.
    """
    seen_s: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if seen_s and now_s - seen_s[0] > _TWICE_S:
            os._exit(_EXIT_KILLED)
        seen_s.append(now_s)
        if len(seen_s) == 1:
            last = threading.Timer(STOP_S, _leave)
            last.daemon = True
            with suppress(RuntimeError):  # no more threads: it stops as it can
                last.start()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        if steps == _WARMED_UP_STEPS:
            gc.collect()
            gc.freeze()
        return bool(seen_s)

    return stop


def _leave() -> None:
    """End this process as `kill -9` would: what is open is ended by a successor."""
    try:
        import structlog  # long since imported by who logs

        structlog.get_logger().error("stop_forced", after_s=STOP_S)
        time.sleep(0.2)  # for the line to be written
    finally:
        os._exit(_EXIT_KILLED)


def relax_collector() -> None:
    """Let Python's cycle collector look less often.

    A batch makes thousands of tuples that live until its commit and no cycles; with the defaults
    (700, 10, 10) looking at them takes 12 to 20 of 105 µs an event on a broker. The clients do make
    cycles: these wait for it, some 8 MB. Before the imports it spares a start 0.15 of 1.9 s.
    """
    gc.set_threshold(50_000, 20, 50)
