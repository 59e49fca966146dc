"""Log lines: nobody who does not read them, and no disk that is full, holds the worker up."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog

from worker.log_lines import LINES_MAX, LogLines
from worker.telemetry import configure_logging

# Its standard error is a pipe that nobody reads.
STALLED = """
import sys
from worker.log_lines import LogLines
with LogLines(sys.stderr.fileno()) as lines:
    for _ in range(20_000):
        lines.write("x" * 99 + "\\n")
sys.stderr.flush()
"""


def told(found: list[str]) -> int:
    """Return how many lines are said to be dropped."""
    said = [json.loads(line) for line in found if line.startswith("{")]
    assert {one["event"] for one in said} <= {"log_lines_dropped"}
    return sum(one["lines"] for one in said)


def test_lines_come_in_order_and_all_of_them(tmp_path: Path) -> None:
    """Leaving waits for what was written; what comes later is written too."""
    path = tmp_path / "log"
    with path.open("w") as out:
        with LogLines(out.fileno()) as lines:
            for i in range(1_000):
                lines.write(f"{i}\n")
        lines.write("last\n")
    assert path.read_text().split() == [*map(str, range(1_000)), "last"]


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    """What does not fit is dropped and counted, and told once somebody reads."""
    read, write = os.pipe()
    found: list[str] = []
    with os.fdopen(read) as reader:
        with LogLines(write) as lines:
            for _ in range(3 * LINES_MAX):
                lines.write("x" * 99 + "\n")
            reading = threading.Thread(target=lambda: found.extend(reader))
            reading.start()
        os.close(write)
        reading.join()
    written = [line for line in found if line == "x" * 99 + "\n"]
    assert told(found) > 0
    assert len(written) + told(found) == 3 * LINES_MAX


def test_who_ends_while_nobody_reads_ends() -> None:
    """Neither leaving nor the flush of standard error after it waits for a reader."""
    with subprocess.Popen([sys.executable, "-c", STALLED], stderr=subprocess.PIPE) as child:
        assert child.wait(30) == 0
        assert child.stderr is not None
        child.stderr.read()


def test_a_full_disk_loses_lines_that_are_told_when_there_is_room(tmp_path: Path) -> None:
    """A line that was begun comes whole; nothing that was written is said to be lost."""
    path, limits = tmp_path / "log", resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("w") as out, LogLines(out.fileno()) as lines:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (250, limits[1]))
            for _ in range(10):
                lines.write("x" * 99 + "\n")
            while lines._lines:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        lines.write("x" * 99 + "\n")
    found = path.read_text().splitlines()
    written = [line for line in found if line == "x" * 99]
    assert (len(written), told(found), len(found)) == (4, 7, 5)


def test_a_logger_on_a_full_disk_raises_nothing() -> None:
    """The device that is always full stands for the disk."""
    config, full = structlog.get_config(), os.open("/dev/full", os.O_WRONLY)
    try:
        with LogLines(full) as lines:
            configure_logging("INFO", lines)
            structlog.get_logger().info("worker_started")
        structlog.get_logger().info("worker_stopped")
    finally:
        structlog.configure(**config)
        os.close(full)
