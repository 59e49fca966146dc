"""What is measured and how; ``python -m benchmarks`` runs all of it."""

from __future__ import annotations

from pathlib import Path


def memory_peak_mb() -> float:
    """Return the most memory this process has had, in MB. ``getrusage`` counts its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
