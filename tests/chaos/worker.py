"""The shipped worker, which a test can tell to die or to stand still at a fault point.

``python -m tests.chaos.worker ORDERS run -c FILE --slot 0`` is ``riverwatch run ...``, but for two
more points inside of a transaction, and for ORDERS: a file that says ``POINT PASSES SECONDS``. From
the moment it is there, the pass of that number ends the process as ``kill -9`` does, or holds it
when SECONDS is not 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kafka.producer.transaction_manager import TransactionManager

from worker.cli import main
from worker.faults import FAULTS, fault, set_hook

INSIDE = {"written": "send_offsets_to_transaction", "offsets_sent": "begin_commit"}
"""Points inside of an open transaction: before its offsets are sent, and before its end is."""
POINTS = (*FAULTS, *INSIDE)


class Orders:
    """Counts the passes of the point that a file names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passes = 0

    def __call__(self, name: str) -> None:
        """Do what the file says, when it says something of this pass."""
        text = ""
        with suppress(FileNotFoundError):
            text = self._path.read_text()
        if not text.startswith(name + " "):
            return
        _, passes, seconds = text.split()
        self._passes += 1
        if self._passes >= int(passes):
            self._passes = 0
            self._path.unlink()
            self._obey(float(seconds))

    @staticmethod
    def _obey(seconds: float) -> None:
        if seconds:
            time.sleep(seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def _announce(point: str, method: str) -> None:
    """Make a method of the client's transaction manager a fault point."""
    original: Callable[..., Any] = getattr(TransactionManager, method)

    def announced(self: Any, *arguments: Any) -> Any:
        fault(point)
        return original(self, *arguments)

    setattr(TransactionManager, method, announced)


if __name__ == "__main__":
    set_hook(Orders(Path(sys.argv.pop(1))))
    for each in INSIDE.items():
        _announce(*each)
    main()
