"""Reasons: what is unusual about one event, in the units and words of its features.

Every reason is computed from the event itself, from what was known before it, and from the model
that scored it as it was then. Which features are told follows from what each did to the score; what
is said of them, from how far they are from their usual values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from worker.contracts.messages import Reason
from worker.contracts.records import Float64
from worker.models.statistics import FeatureStatistics, Snapshot

OBSERVATIONS_MIN = 30
"""Events that must have been seen before "usual" means anything; the spread of fewer is noise."""

NOTABLE_MIN = 1.0
"""Standard deviations from which a distance is a reason; below it only the largest is told."""

RAISING_MIN = 0.05
"""Share of the largest contribution that a feature must have to be told."""

Measure = Literal["log_odds", "score", "deviations"]
_TOO_FEW = "too few events came before to say what is usual"
_COUNTS = frozenset({"count", "distinct"})
_UNITS_S = (("d", 86_400), ("h", 3_600), ("min", 60))


class FeatureWords(Protocol):
    """What a reason needs to know of a feature; `worker.features.spec.Feature` has it."""

    @property
    def name(self) -> str:
        """Name of the column."""

    @property
    def entity(self) -> str | None:
        """Entity it belongs to; None for a feature of the event alone."""

    @property
    def aggregation(self) -> str:
        """Such as ``count`` or ``time_since_last``."""

    @property
    def field(self) -> str | None:
        """The field that is aggregated."""

    @property
    def window_ms(self) -> int | None:
        """Size of the window."""

    @property
    def delay_ms(self) -> int:
        """How long ago the window ended."""

    @property
    def words(self) -> str:
        """Such as ``transactions of this card in 1 h``."""

    @property
    def typical(self) -> int | None:
        """Column with an entity's mean of this field, if there is one."""

    @property
    def typical_count(self) -> int | None:
        """Column with the number of values in that mean, where the event is one of them."""


def reasons_for(
    features: Sequence[FeatureWords],
    x: Float64,
    mean: Float64,
    std: Float64,
    count: int,
    reasons_max: int,
    contributions: Float64 | None = None,
    measure: Measure = "deviations",
    own: tuple[str, Float64] | None = None,
) -> list[Reason]:
    """Return up to `reasons_max` reasons, the largest contribution first, ties in order of
    features.

    With ``contributions`` of the model these are the features that raised the score; where none
    did, and without any, a contribution is the distance from the typical value.

    A distance is (value − typical) / spread. Typical is the entity's own mean before the event
    where there is one above zero (an empty window gives zero), else the mean of all events before;
    the spread is always that of all events before. Features that never varied, and all of them
    before 30 events, give no reason: there is nothing to compare with. Where none is left, the one
    reason says so, with the value of the first feature and a contribution of zero.

    Parameters
    ----------
    features, x, mean, std
        Of equal length, in the order of the feature spec: the event's values, and mean and
        standard deviation of each feature before the event.
    count
        How many events mean and std are of.
    contributions, measure
        What each feature did to the score, and in which units.
    own
        The name of an entity, and per feature the level of its own past, NaN where it has none.

    Examples
    --------
    >>> from collections import namedtuple
    >>> Feature = namedtuple("Feature", "name entity aggregation field window_ms words typical")
    >>> hourly = Feature("n_1h", "card", "count", None, 3_600_000,
    ...                  "transactions of this card in 1 h", None)
    >>> [reason] = reasons_for([hourly], [31.0], [3.1], [5.365], 1_000, 5)
    >>> reason.text
    'transactions of this card in 1 h: 31 is 5.2 standard deviations above the usual 3.1'
    """
    assert len(features) == len(x) == len(mean) == len(std), (len(features), len(x))
    chosen: list[int] = []
    if contributions is not None and reasons_max:
        chosen = _raising(contributions)[:reasons_max]
        if chosen:
            parts = [(i, float(mean[i]), float(std[i]), float(contributions[i])) for i in chosen]
            return [_model_reason(features, x, *part, measure, own) for part in parts]
    if count >= OBSERVATIONS_MIN:
        chosen = _ranked(features, np.asarray(x), np.asarray(mean), np.asarray(std))[:reasons_max]
    if not chosen:
        why = "nothing about it is unusual" if count >= OBSERVATIONS_MIN else _TOO_FEW
        return [_plain(features[0], float(x[0]), float(mean[0]), why)][:reasons_max]
    return [_reason(features, i, x, float(mean[i]), float(std[i])) for i in chosen]


def typical_values(features: Sequence[FeatureWords], X: Float64, mean: Float64) -> Float64:
    """Return the usual value of each feature of events, (k, f): the entity's own mean before the
    event where it has one, else that of all events before.
    """
    typical = np.array(mean, np.float64)
    for i in range(len(features)):
        own = _own_means(features, i, X)
        if own is not None:
            typical[:, i] = np.where(np.isnan(own), typical[:, i], own)
    return typical


def _own_means(features: Sequence[FeatureWords], i: int, X: Float64) -> Float64 | None:
    """Return the entity's mean of a field before each event, (k,), NaN where it is not above zero.

    An event that is part of the mean is taken out of it: (mean n - x) / (n - 1). What is left below
    a share of 1e-12 is the error of rounding, and nothing. A late event that its window does not
    reach is not in the mean; x does not say so, and it is taken out all the same.
    """
    feature = features[i]
    if feature.typical is None:
        return None
    own = np.array(X[:, feature.typical], np.float64)
    if feature.typical_count is not None:
        count = X[:, feature.typical_count]
        with np.errstate(all="ignore"):
            total = own * count
            rest = total - X[:, i]
            is_some = (count >= 2.0) & (rest > 1e-12 * np.abs(total))
            own = np.where(is_some, rest / (count - 1.0), np.nan)
    return np.where((own > 0.0) & (own < np.inf), own, np.nan)


def format_seconds(seconds: float) -> str:
    """Return a time in the largest unit that leaves at least one of it.

    >>> format_seconds(45.0), format_seconds(5_400.0), format_seconds(-172_800.0)
    ('45 s', '1.5 h', '-2 d')
    """
    for unit, size in _UNITS_S:
        if abs(seconds) >= size:
            return f"{_shortest(seconds / size)} {unit}"
    return f"{_shortest(seconds)} s"


def _ranked(features: Sequence[FeatureWords], x: Float64, mean: Float64, std: Float64) -> list[int]:
    """Return the features with a notable distance, or the one with the largest; none without any.

    By columns, as an event has many features and few reasons. A distance is told of finite values
    with a spread that is more than rounding errors.
    """
    comparable = np.flatnonzero(np.isfinite(x) & (std > 1e-12 * np.abs(mean)))
    own = [_own(features, i, x) for i in comparable.tolist()]
    typical = [mean[i] if o is None else o for i, o in zip(comparable, own, strict=True)]
    with np.errstate(over="ignore"):
        distance = np.abs(x[comparable] - typical) / std[comparable]
    order = np.argsort(-distance, kind="stable")
    notable = int(np.count_nonzero(distance >= NOTABLE_MIN))
    best = order[: max(1, notable)]
    return comparable[best[distance[best] > 0]].tolist()  # type: ignore[no-any-return]


def _raising(contributions: Float64) -> list[int]:
    """Return the features that raised the score, those that did most first.

    What did less than a twentieth of the largest is left out: it explains nothing.
    """
    order = np.argsort(-contributions, kind="stable")
    least = max(0.0, RAISING_MIN * float(contributions[order[0]]))
    return order[contributions[order] > least].tolist()  # type: ignore[no-any-return]


def _model_reason(
    features: Sequence[FeatureWords], x: Float64, i: int, mean: float, std: float,
    contribution: float, measure: Measure, own: tuple[str, Float64] | None,
) -> Reason:  # fmt: skip
    feature, value = features[i], float(x[i])
    if own is not None and math.isfinite(own[1][i]):
        typical = float(own[1][i])
        text = _level_text(feature, value, own[0], typical)
    elif std > 1e-12 * abs(mean):
        typical, text = _compared(features, i, x, mean, std)
    else:
        typical = mean
        text = f"{_subject(feature, value)}; the usual {_format(feature, mean)} never varied"
    return Reason(
        feature=feature.name, value=value, typical=typical, contribution=contribution,
        measure=measure, text=text,
    )  # fmt: skip


def _level_text(feature: FeatureWords, value: float, entity: str, level: float) -> str:
    usual = f"this {entity}'s level of {_format(feature, level)}"
    if min(value, level) > 0.0 and not 2 / 3 < value / level < 3 / 2:
        return f"{_subject(feature, value)} is {_ratio(value / level)} times {usual}"
    side = "above" if value >= level else "below"
    return f"{_subject(feature, value)} is {_format(feature, abs(value - level))} {side} {usual}"


def _own(features: Sequence[FeatureWords], i: int, x: Float64) -> float | None:
    """Return the entity's own mean of a feature before the event; None where there is none."""
    own = _own_means(features, i, np.asarray(x)[None])
    return None if own is None or math.isnan(own[0]) else float(own[0])


def _reason(
    features: Sequence[FeatureWords], i: int, x: Float64, mean: float, std: float
) -> Reason:
    value = float(x[i])
    typical, text = _compared(features, i, x, mean, std)
    return Reason(
        feature=features[i].name, value=value, typical=typical,
        contribution=(value - typical) / std, text=text,
    )  # fmt: skip


def _compared(
    features: Sequence[FeatureWords], i: int, x: Float64, mean: float, std: float
) -> tuple[float, str]:
    """Return the typical value of a feature, and the words that hold the event's against it."""
    feature, value, own = features[i], float(x[i]), _own(features, i, x)
    if own is None or feature.typical is None:
        return mean, _population_text(feature, value, mean, std)
    return own, _own_text(feature, features[feature.typical], value, own)


def _plain(feature: FeatureWords, value: float, mean: float, why: str) -> Reason:
    text = f"{_subject(feature, value)}; {why}"
    return Reason(feature=feature.name, value=value, typical=mean, contribution=0.0, text=text)


def _population_text(feature: FeatureWords, value: float, mean: float, std: float) -> str:
    side = "above" if value >= mean else "below"
    distance = _shortest(abs(value - mean) / std, keep_tenth=True)
    usual = _format(feature, mean)
    return f"{_subject(feature, value)} is {distance} standard deviations {side} the usual {usual}"


def _own_text(feature: FeatureWords, own: FeatureWords, value: float, typical: float) -> str:
    window = "" if own.window_ms is None else f" over {format_seconds(own.window_ms / 1000)}"
    ended = f", which ended {format_seconds(own.delay_ms / 1000)} ago" if own.delay_ms else ""
    usual = f"this {own.entity or 'entity'}'s mean of {_format(feature, typical)}{window}{ended}"
    if value < 0.0:
        return f"{_subject(feature, value)} is {_format(feature, typical - value)} below {usual}"
    return f"{_subject(feature, value)} is {_ratio(value / typical)} times {usual}"


def _subject(feature: FeatureWords, value: float) -> str:
    colon = ":" if " " in feature.words else ""
    return f"{feature.words}{colon} {_format(feature, value)}"


def _format(feature: FeatureWords, value: float) -> str:
    if feature.aggregation.startswith("time_since"):
        return format_seconds(value)
    if feature.field is None or feature.aggregation in _COUNTS:
        return _shortest(value)
    if value != 0.0 and not 0.01 <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:.2f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 1.0 else f"{ratio:.2g}"


def _shortest(value: float, keep_tenth: bool = False) -> str:
    """Return a number with one decimal, without it where it is zero, or 3 digits where tiny."""
    if value != 0.0 and not 0.05 <= abs(value) < 1e9:
        return f"{value:.3g}"
    text = f"{value:.1f}"
    return text if keep_tenth or not text.endswith(".0") else text[:-2]


__all__ = [
    "FeatureStatistics",
    "FeatureWords",
    "Snapshot",
    "format_seconds",
    "reasons_for",
    "typical_values",
]
