"""A long run under steady load: ``python -m tests.chaos.soak --minutes N``.

Samples memory, open descriptors, records waiting and the store's bytes, writes build/soak.json and
build/soak.png, and ends with 1 when one of them is not flat or rows are missing. Event time is
paced so that what is kept longest (events that wait for labels: 61 days) is forgotten within the
first third of the run: that is the warm-up, and only what comes after it is judged. The store
forgets by its own clock, so its times to live are shortened alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from redis import Redis
from rich.console import Console
from rich.table import Table

from tests.chaos.world import PARTITIONS, Load, World
from tests.services.kafka import KafkaServer
from tests.services.valkey import ValkeyServer

GROWTH_MAX = 0.03
"""Of the mean, by a straight line over the judged part: more is not flat."""
FEW = {"rss_mb": 4.0, "descriptors": 3.0, "waiting": 200.0, "store_mb": 0.2}
"""Growth below this counts as none, in the unit of the series: waiting for two seconds' events."""
_BUILD = Path(__file__).parents[2] / "build"
_KEPT_MS = 61 * 86_400_000
_KEPT_SHARE = 2 / 7  # of the run
_AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) > 0 then redis.call('PEXPIRE', key, ARGV[1], 'LT') end
end
"""
_EVERY_S = 1.0
_AGE_EVERY = 5  # samples
_TITLES = {"rss_mb": "memory of the workers, MB", "descriptors": "open descriptors of the workers",
           "waiting": "events without a row", "store_mb": "memory of the store, MB"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """What was there at a moment; the workers' figures are sums."""

    at_s: float
    rss_mb: float
    descriptors: int
    waiting: int
    store_mb: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through the judged part of a series."""

    name: str
    mean: float
    growth: float

    @property
    def is_flat(self) -> bool:
        """Return whether it does not grow; falling is no harm."""
        return self.growth <= max(GROWTH_MAX * self.mean, FEW[self.name])


def sample(world: World, store: Redis, begun_s: float) -> Sample:
    """Return the figures of now."""
    pids = [worker.pid for worker in world.workers.values()]
    rows = sum(world.watch.rows(p) for p in range(PARTITIONS))
    return Sample(
        time.monotonic() - begun_s,
        sum(_rss_mb(pid) for pid in pids),
        sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        world.player.sent - rows,
        store.info("memory")["used_memory"] / 1e6,
    )


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Return the trend of every series after the warm-up, a third of the time."""
    judged = [one for one in samples if one.at_s > samples[-1].at_s / 3]
    at_s = np.array([one.at_s for one in judged])
    found = []
    for name in FEW:
        values = np.array([getattr(one, name) for one in judged], np.float64)
        slope = np.polyfit(at_s, values, 1)[0]
        growth = float(slope * (at_s[-1] - at_s[0]))
        found.append(Trend(name, float(values.mean()), growth))
    return found


def draw(samples: Sequence[Sample], found: Sequence[Trend], path: Path) -> None:
    """Draw the series, one below the other; the warm-up is grey."""
    import matplotlib  # heavy, and only here

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(found), 1, figsize=(8, 9), sharex=True)
    minutes = [one.at_s / 60 for one in samples]
    for axis, trend in zip(axes, found, strict=True):
        values = [getattr(one, trend.name) for one in samples]
        axis.axvspan(0, minutes[-1] / 3, color="0.94", lw=0)
        axis.plot(minutes, values, color="#1f5a92", lw=1.2)
        axis.set_ylim(0, max(values) * 1.15 + 1)
        axis.set_title(f"{_TITLES[trend.name]}: {_said(trend)}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0)
    axes[-1].set_xlabel("minutes; the warm-up is grey")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> int:
    """Run, print the table, draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=100, help="events a second")
    arguments = parser.parse_args()
    events, rows, samples = _run(arguments.minutes, arguments.rate)
    found = trends(samples)
    _BUILD.mkdir(exist_ok=True)
    told = {"events": events, "rows": rows, "trends": [asdict(one) for one in found],
            "samples": [asdict(one) for one in samples]}  # fmt: skip
    (_BUILD / "soak.json").write_text(json.dumps(told) + "\n")
    draw(samples, found, _BUILD / "soak.png")
    _print(events, rows, found)
    return 0 if events == rows and all(one.is_flat for one in found) else 1


def _run(minutes: float, rate: int) -> tuple[int, int, list[Sample]]:
    seconds = 60 * minutes
    # Twenty cards have their rings full early; the tail is for a start that takes its time.
    step_ms = int(_KEPT_MS / (rate * seconds * _KEPT_SHARE))
    load = Load(rate, int((seconds + 300) * rate), 20, step_ms, cached_max=1_000)
    samples: list[Sample] = []
    with KafkaServer() as kafka, ValkeyServer() as server, Redis.from_url(server.url) as store:
        directory = Path(tempfile.mkdtemp(prefix="soak-"))
        world = World(directory, kafka.bootstrap, server.url, "soak", load=load)
        try:
            world.begin()
            begun_s = time.monotonic()
            while time.monotonic() < begun_s + seconds:
                samples.append(sample(world, store, begun_s))
                if len(samples) % _AGE_EVERY == 0:
                    store.eval(_AGE, 0, int(seconds * _KEPT_SHARE * 1000))
                world.flow(_EVERY_S)
            world.end()
        finally:
            world.close()
    # A row that is there twice is as wrong as one that is missing.
    rows = [(p, s) for p, seen in world.watch.seen.items() for one in seen for s in one.sources]
    return world.player.sent, 2 * len(set(rows)) - len(rows), samples


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _said(trend: Trend) -> str:
    return f"{trend.growth:+.1f} of {trend.mean:.0f}, {'flat' if trend.is_flat else 'NOT FLAT'}"


def _print(events: int, rows: int, found: Sequence[Trend]) -> None:
    table = Table(title=f"{events:,} events, {rows:,} rows; after the warm-up")
    for column in ("series", "mean", "growth", "verdict"):
        table.add_column(column, justify="left" if column in ("series", "verdict") else "right")
    for one in found:
        word = "flat" if one.is_flat else "NOT FLAT"
        table.add_row(_TITLES[one.name], f"{one.mean:,.1f}", f"{one.growth:+,.1f}", word)
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
