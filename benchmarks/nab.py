"""How good `series` is on the Numenta Anomaly Benchmark: 58 files, a series each, 116 windows.

Scored as Lavin and Ahmad 2015 (arXiv 1510.03336) do it, standard profile: the best threshold over
all files, detections weighted by how early in a window they are, the first 15 % of a file (at most
750 values) left out; 0 is a detector that finds nothing, 100 a perfect one. Written anew here, not
Numenta's own code. Run it with ``python -m benchmarks.nab DIRECTORY`` of the data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from worker.models import series_kernels
from worker.models.series import Series

Numbers = NDArray[np.float64]
FALSE_POSITIVE = 0.11
SHARES = (0.0005, 0.001, 0.005)


def main(directory: Path) -> None:
    """Print the normalised score, and the share of windows found at some rates of false alarms."""
    windows = json.loads((directory / "combined_windows.json").read_text())
    table = pq.read_table(directory / "nab.parquet").to_pandas()
    scores, gains, places, count = [], [], [], 0
    for name, part in table.groupby("file", observed=True, sort=False):
        times = part["timestamp"].to_numpy()
        bounds = [
            np.searchsorted(times, [np.datetime64(a), np.datetime64(b)]) for a, b in windows[name]
        ]
        gain, place = _worth(len(times), bounds)
        keep = slice(min(len(times) * 15 // 100, 750), None)
        scores.append(_scores(part["value"].to_numpy())[keep])
        gains.append(gain[keep])
        places.append(np.where(place < 0, -1, place + count)[keep])
        count += len(bounds)
    _report(np.concatenate(scores), np.concatenate(gains), np.concatenate(places), count)


def _scores(values: Numbers) -> Numbers:
    """Return how unusual each value is for its file, by the preset's own parameters."""
    model, scores = Series(), np.empty(len(values))
    states = np.zeros((1, 1, series_kernels.NUMBERS))
    series_kernels.fold(
        values.reshape(-1, 1), np.isfinite(values), np.zeros(len(values), np.int64), states,
        float(model.window), float(model.warm_up), scores,
        np.empty((len(values), 1, 2)),
    )  # fmt: skip
    return scores


def _worth(n: int, bounds: Sequence[NDArray[np.int64]]) -> tuple[Numbers, NDArray[np.int64]]:
    """Return what a detection at each row is worth, and the window it is in, -1 for none."""
    gain, place = np.full(n, -FALSE_POSITIVE), np.full(n, -1)
    for k, (first, last) in enumerate(bounds):
        width, end = last - first + 1, bounds[k + 1][0] if k + 1 < len(bounds) else n
        after = np.arange(last + 1, end)
        gain[after] = FALSE_POSITIVE * _sigmoid((after - last) / max(width - 1, 1))
        inside = np.arange(first, last + 1)
        gain[inside] = _sigmoid(-(last - inside + 1) / width) / _sigmoid(np.array(-1.0))
        place[inside] = k
    return gain, place


def _sigmoid(x: Numbers) -> Numbers:
    return np.where(x > 3.0, -1.0, 2.0 / (1.0 + np.exp(np.minimum(5.0 * x, 50.0))) - 1.0)


def _report(scores: Numbers, gains: Numbers, places: NDArray[np.int64], count: int) -> None:
    best, total, top, alarms = np.full(count, -1.0), -float(count), -float(count), 0
    found = dict.fromkeys(SHARES, 0)
    order = np.argsort(-scores, kind="stable")
    outside = int((places < 0).sum())
    for j, i in enumerate(order[: len(order) // 50].tolist()):  # beyond are alarms only
        if places[i] < 0:
            total, alarms = total + gains[i], alarms + 1
        elif gains[i] > best[places[i]]:
            total += gains[i] - best[places[i]]
            best[places[i]] = gains[i]
        for share in SHARES:
            if alarms <= share * outside:
                found[share] = int((best > -1.0).sum())
        if j + 1 == len(order) or scores[order[j + 1]] < scores[i]:
            top = max(top, total)
    print(f"normalised score, standard profile  {50.0 * (top + count) / count:6.1f}")
    for share, windows in found.items():
        print(f"windows found at {share:7.2%} false alarms {windows / count:8.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
