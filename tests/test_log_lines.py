"""Log lines: nobody who does not read them, and no disk that is full, holds the worker up."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

import structlog

from worker.log_lines import LINES_MAX, LogLines
from worker.telemetry import configure_logging


def test_lines_come_in_order_and_all_of_them(tmp_path: Path) -> None:
    """Leaving waits for what was written; what comes later is written too."""
    path = tmp_path / "log"
    with path.open("w") as out:
        with LogLines(out) as lines:
            for i in range(1_000):
                lines.write(f"{i}\n")
        lines.write("last\n")
    assert path.read_text().split() == [*map(str, range(1_000)), "last"]


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    """What does not fit is dropped and counted, and told once somebody reads."""
    read, write = os.pipe()
    found: list[str] = []
    with os.fdopen(read) as reader, os.fdopen(write, "w") as out:
        with LogLines(out) as lines:
            for _ in range(3 * LINES_MAX):
                lines.write("x" * 99 + "\n")
            reading = threading.Thread(target=lambda: found.extend(reader))
            reading.start()
        out.close()
        reading.join()
    told = [json.loads(line) for line in found if line.startswith("{")]
    assert len(found) - len(told) + sum(one["lines"] for one in told) >= 3 * LINES_MAX
    assert {one["event"] for one in told} == {"log_lines_dropped"}


def test_a_full_disk_loses_lines_and_raises_nothing() -> None:
    """The logger of a worker goes on; the device that is always full stands for the disk."""
    config, full = structlog.get_config(), os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    try:
        with LogLines(full) as lines:
            configure_logging("INFO", lines)
            structlog.get_logger().info("worker_started")
        structlog.get_logger().info("worker_stopped")
    finally:
        structlog.configure(**config)
        with suppress(OSError):
            full.close()
