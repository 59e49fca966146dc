"""A server in a child process that dies with its parent."""

from __future__ import annotations

import atexit
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ServerProcess:
    """Starts, stops and kills one server; its output goes to a file.

    Parameters
    ----------
    name
        For messages.
    command
        The server and its arguments.
    log
        Where standard output and errors go, appended.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self._name = name
        self._command = [*_die_with_parent(), *command]
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)

    @property
    def running(self) -> bool:
        """Return whether the child lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return how the child ended, None while it lives; minus the signal where one ended it."""
        return None if self._child is None else self._child.poll()

    @property
    def pid(self) -> int:
        """Return the child's process id."""
        assert self._child is not None
        return self._child.pid

    def limit_files(self, size_bytes: int = resource.RLIM_INFINITY) -> None:
        """Let the child write no file beyond a size, as on a disk that is full; or again any."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))

    def start(self, ready: Callable[[str], bool], timeout_s: float = 60) -> None:
        """Start the child and wait until ``ready(output of this start)``.

        Raises
        ------
        RuntimeError
            The child ended, or was not ready in time; the message holds the end of its output.
        """
        assert not self.running, f"{self._name} runs already"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as out:
            begin = out.tell()
            # As it inherits that SIGXFSZ is ignored, `limit_files` makes errors and does not kill.
            self._child = subprocess.Popen(
                self._command, stdout=out, stderr=out, start_new_session=True,
                restore_signals=False,
            )  # fmt: skip
        deadline_s = time.monotonic() + timeout_s
        while not ready(self._output(begin)):
            if not self.running or time.monotonic() > deadline_s:
                self.kill()
                tail = self._output(begin)[-2_000:]
                raise RuntimeError(f"{self._name} did not start; its last words:\n{tail}")
            time.sleep(0.02)

    def stop(self, timeout_s: float = 30) -> None:
        """End the child with SIGTERM and wait; kill it when it does not end in time."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the child at once, as ``kill -9`` does."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def freeze(self) -> None:
        """Stop the child from running (SIGSTOP) until `thaw`."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen child run again (SIGCONT)."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def _output(self, begin: int) -> str:
        with self._log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")


def _die_with_parent() -> list[str]:
    """Return a prefix that ends the child when this process is killed, where Linux offers it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
