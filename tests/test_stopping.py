"""Signals: one wish to stop may come as two signals, a later one leaves at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys, time
from worker.stopping import stop_on_signals
stop = stop_on_signals()
print("ready", flush=True)
while not stop():
    time.sleep(0.01)
print("stopping", flush=True)
sys.stdin.read()
"""


def test_who_does_not_end_in_time_leaves_and_says_so() -> None:
    """As when no broker answers: its successor ends what it left open."""
    script = SCRIPT.replace("import sys, time", "import sys, time, worker.stopping as stopping")
    script = script.replace("stop = stop", "stopping.STOP_S = 0.3\nstop = stop")
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        assert process.wait(10) == 130
        assert "stop_forced" in process.stdout.read()


@pytest.mark.parametrize(("pause_s", "code"), [(0.0, 0), (0.7, 130)])
def test_a_second_signal_leaves_at_once_unless_it_is_the_same_wish(
    pause_s: float, code: int
) -> None:
    """The script ends by itself, with 0, when its input is closed."""
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        time.sleep(pause_s)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.stdin.close()
        assert process.wait(10) == code
