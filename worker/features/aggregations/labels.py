"""Label aggregates: what became known about an entity's earlier events, read at the event's now.

An event's label counts from the position where it became known, at the time of its *event*: a fraud
of three days ago that is reported today is in every window that holds three days ago. So a window
that should not depend on how late labels come needs a ``delay`` of about that length. What is not
known is no fraud and not genuine. An event never sees its own label.

The L-part of an entity keeps its newest N labelled events by event time, N its ``ring``; a window
that they cover is exact, of an older one the rest comes from tiles, as with every other window. A
label that is revised changes what is kept; it counts once.
"""

from __future__ import annotations

import math
from itertools import takewhile

from worker.features import codes
from worker.features.aggregations.known import Known, LabelAggregation, Truth

DAY_MS = 86_400_000


class Frauds(LabelAggregation):
    """Number of known frauds in the window; with ``weight``, the sum of it over them.

    None known: 0.0. A weight that the event does not have counts 0. Error beyond the ring: at most
    the sum of |weight| over the tiles cut by an edge. Cost: O(ring + 12).

    >>> Frauds.of_known(Known([Truth(0, 1), Truth(5, 0), Truth(9, 1, 0.5)]))
    1.5
    """

    name = "frauds"
    truth = "fraud"
    options = ("delay", "where", "weight")
    words = "known frauds of this {entity} {field} in {window}"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return Σ weight of frauds."""
        return float(sum(truth.weight for truth in known.frauds))

    @classmethod
    def bounds_of(cls, sure: Known, wide: Known, tile_ms: int) -> tuple[float, float]:
        """Return the sum without the cut tiles, less and more what these hold."""
        return _about(sure, wide, 1)


class GenuineCount(LabelAggregation):
    """Number of events in the window known to be genuine; with ``weight``, the sum of it over them.

    With ``positives_only`` labels an event is known to be genuine when it has matured. None known:
    0.0. Error beyond the ring: at most the sum of |weight| over the tiles cut by an edge. Cost:
    O(ring + 12).

    >>> GenuineCount.of_known(Known([Truth(0, 1), Truth(5, 0), Truth(9, 0)]))
    2.0
    """

    name = "genuine_count"
    truth = "genuine"
    options = ("delay", "where", "weight")
    words = "events of this {entity} {field} known to be genuine in {window}"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return Σ weight of genuine events."""
        return float(sum(truth.weight for truth in known.truths if not truth.y))

    @classmethod
    def bounds_of(cls, sure: Known, wide: Known, tile_ms: int) -> tuple[float, float]:
        """Return the sum without the cut tiles, less and more what these hold."""
        return _about(sure, wide, 0)


class FraudRate(LabelAggregation):
    """Known frauds (or their ``weight``) in the window by all events of the entity in it.

    (frauds + prior · strength) / (events + strength); ``strength`` is 0 unless given: so many
    events at the rate ``prior`` are added. No events: 0.0, with a strength the prior. All events
    count below the line, labelled or not; ``include_current: false`` leaves this one out. Error
    beyond the ring: both numbers are interpolated, each by at most what happened in the tiles cut
    by an edge. Cost: O(ring + 12), once more for the events.

    Source: the terminal's risk in Le Borgne et al., Reproducible Machine Learning for Credit Card
    Fraud Detection, chapter 3, "Baseline feature transformation", with a delay of 7 days.

    >>> FraudRate.of_known(Known([Truth(0, 1), Truth(5, 0)], events=4))
    0.25
    >>> FraudRate.of_known(Known([Truth(0, 1)], events=1, prior=0.1, strength=10.0))
    0.18181818181818182
    """

    name = "fraud_rate"
    truth = "rate"
    options = ("delay", "include_current", "where", "weight", "prior", "strength")
    words = "share of known frauds {field} among events of this {entity} in {window}"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return the smoothed share."""
        below = known.events + known.strength
        return (Frauds.of_known(known) + known.prior * known.strength) / below if below else 0.0

    @classmethod
    def bounds_of(cls, sure: Known, wide: Known, tile_ms: int) -> tuple[float, float]:
        """Return the share with either number at its worst."""
        low, high = (n + sure.prior * sure.strength for n in _about(sure, wide, 1))
        least, most = sure.events + sure.strength, wide.events + sure.strength
        if not least:
            return min(0.0, low * math.inf if low else 0.0), math.inf if most else 0.0
        return min(low / least, low / most), max(high / least, high / most)


class TimeSinceFirstFraud(LabelAggregation):
    """Seconds from the first known fraud in the window to now; −1.0 where none is known.

    Windows: 90 d unless given. Error beyond the ring: a fraud in a tile counts at the middle of
    it, so at most a tile (a 12th of the window); one in a tile cut by the window's edge counts as
    inside. Cost: O(ring + 12).

    >>> known = Known([Truth(0, 1), Truth(500, 1), Truth(700, 0)], now_ms=2_000)
    >>> TimeSinceFirstFraud.of_known(known)
    2.0
    """

    name = "time_since_first_fraud"
    truth = "first"
    windows_ms = (90 * DAY_MS,)
    empty = -1.0
    words = "time since the first known fraud of this {entity} in {window}"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return now − the earliest time."""
        frauds = known.frauds
        return (known.now_ms - frauds[0].time_ms) / 1000.0 if frauds else -1.0

    @classmethod
    def bounds_of(cls, sure: Known, wide: Known, tile_ms: int) -> tuple[float, float]:
        """Return the ages of the oldest sure fraud, or of none, and of the oldest of all."""
        return _ages(cls.of_known(sure), cls.of_known(wide), tile_ms)


class TimeSinceLastFraud(LabelAggregation):
    """Seconds from the last known fraud in the window to now; −1.0 where none is known.

    Windows: 90 d unless given. Error beyond the ring: a fraud in a tile counts at the middle of
    it, so at most a tile (a 12th of the window); one in a tile cut by the window's edge counts as
    inside. Cost: O(ring + 12).

    >>> known = Known([Truth(0, 1), Truth(500, 1), Truth(700, 0)], now_ms=2_000)
    >>> TimeSinceLastFraud.of_known(known)
    1.5
    """

    name = "time_since_last_fraud"
    truth = "last"
    windows_ms = (90 * DAY_MS,)
    empty = -1.0
    words = "time since the last known fraud of this {entity} in {window}"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return now − the latest time."""
        frauds = known.frauds
        return (known.now_ms - frauds[-1].time_ms) / 1000.0 if frauds else -1.0

    @classmethod
    def bounds_of(cls, sure: Known, wide: Known, tile_ms: int) -> tuple[float, float]:
        """Return the ages of the newest of all and of the newest sure one; with no fraud sure, of
        none and of the oldest of all.
        """
        if sure.frauds:
            return _ages(cls.of_known(wide), cls.of_known(sure), tile_ms)
        return _ages(-1.0, TimeSinceFirstFraud.of_known(wide), tile_ms)


class FraudRun(LabelAggregation):
    """Number of trailing known frauds in a row: by event time, the newest labelled events that are
    all frauds.

    Defined over the labelled events that the ring holds: at most N. The newest is genuine, or none
    is labelled: 0.0. Events without a label break no run. Exact. Cost: O(run).

    >>> FraudRun.of_known(Known([Truth(0, 1), Truth(5, 0), Truth(9, 1), Truth(9, 1)]))
    2.0
    """

    name = "fraud_run"
    truth = "run"
    code = codes.FRAUD_RUN
    each = "nothing"
    options = ("where",)
    words = "known frauds of this {entity} in a row, up to the newest labelled event"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return the length of the run."""
        return float(len(known.run))


class FraudRunAge(LabelAggregation):
    """Seconds from the first fraud of the trailing run (see `fraud_run`) to now; −1.0 without one.

    Defined over the labelled events that the ring holds. Exact. Cost: O(run).

    >>> FraudRunAge.of_known(Known([Truth(0, 0), Truth(1_000, 1), Truth(9_000, 1)], now_ms=10_000))
    9.0
    """

    name = "fraud_run_age"
    truth = "run"
    code = codes.FRAUD_RUN_AGE
    each = "nothing"
    options = ("where",)
    empty = -1.0
    words = "time since the run of known frauds of this {entity} began"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return now − the first time of the run."""
        run = known.run
        return (known.now_ms - run[-1].time_ms) / 1000.0 if run else -1.0


class FraudRunGap(LabelAggregation):
    """Seconds between the labelled event before the trailing run (see `fraud_run`) and its first
    fraud; −1.0 without a run, and where nothing before it is known.

    Defined over the labelled events that the ring holds. Exact. Cost: O(run).

    >>> FraudRunGap.of_known(Known([Truth(0, 0), Truth(1_000, 1), Truth(9_000, 1)]))
    1.0
    """

    name = "fraud_run_gap"
    truth = "run"
    code = codes.FRAUD_RUN_GAP
    each = "nothing"
    options = ("where",)
    empty = -1.0
    words = "time between the last genuine event of this {entity} and its run of known frauds"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return first time of the run − time of the event before."""
        run = known.run
        if not 0 < len(run) < len(known.truths):
            return -1.0
        return (run[-1].time_ms - known.truths[-len(run) - 1].time_ms) / 1000.0


class CleanRun(LabelAggregation):
    """Number of trailing events in a row known to be genuine: the newest labelled ones, by event
    time, since the last known fraud.

    Defined over the labelled events that the ring holds: at most N. The newest is a fraud, or none
    is labelled: 0.0. Exact. Cost: O(run).

    >>> CleanRun.of_known(Known([Truth(0, 1), Truth(5, 0), Truth(9, 0)]))
    2.0
    """

    name = "clean_run"
    truth = "run"
    code = codes.CLEAN_RUN
    each = "nothing"
    options = ("where",)
    words = "genuine events of this {entity} in a row, up to the newest labelled event"

    @staticmethod
    def of_known(known: Known) -> float:
        """Return the length of the run."""
        return float(len(list(takewhile(lambda truth: not truth.y, reversed(known.truths)))))


def _about(sure: Known, wide: Known, y: int) -> tuple[float, float]:
    """Return Σ weight over the truths of one kind, less and more what the cut tiles hold."""
    exact = math.fsum(truth.weight for truth in sure.truths if truth.y == y)
    cut = math.fsum(abs(truth.weight) for truth in wide.truths if truth.y == y)
    cut -= math.fsum(abs(truth.weight) for truth in sure.truths if truth.y == y)
    return exact - cut, exact + cut


def _ages(least: float, greatest: float, tile_ms: int) -> tuple[float, float]:
    """Return two ages and a tile around them, in seconds; −1.0 is that of no fraud."""
    tile = tile_ms / 1000
    return (
        least - tile if least >= 0 else -1.0,
        greatest + tile if greatest >= 0 else -1.0,
    )


_CLASSES: tuple[type[LabelAggregation], ...] = (
    Frauds, FraudRate, GenuineCount, TimeSinceFirstFraud, TimeSinceLastFraud,
    FraudRun, FraudRunAge, FraudRunGap, CleanRun,
)  # fmt: skip
LABEL_AGGREGATIONS: dict[str, type[LabelAggregation]] = {c.name: c for c in _CLASSES}
"""Every label aggregate by its name in a configuration."""

__all__ = ["LABEL_AGGREGATIONS", "Known", "LabelAggregation", "Truth"]
