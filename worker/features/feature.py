"""One column of X: what it is, what it is called, and how a person reads it."""

from __future__ import annotations

from dataclasses import dataclass

from worker.contracts.settings import format_duration
from worker.features.aggregations import AGGREGATIONS
from worker.features.scales import scale_of

_CALENDAR_WORDS = {
    "hour": "hour of the day (UTC)",
    "weekday": "day of the week (0 is Monday)",
    "is_night": "at night (00:00 to 06:59 UTC)",
    "is_weekend": "at the weekend (UTC)",
}
CALENDAR = tuple(_CALENDAR_WORDS)
"""Functions of the event time."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature.

    ``aggregation`` is a name of `AGGREGATIONS` where there is an entity; else ``value`` (of a
    field), ``category`` (1.0 where the field has the value number ``category``) or a calendar
    function. Units of the field's resolution times ``multiply`` over ``divide`` are the feature's
    value (one of the two is 1.0, so it is rounded once). ``typical`` is the column that holds the
    usual value of an own field: the longest mean of it.
    """

    name: str
    aggregation: str
    words: str
    entity: str | None = None
    field: str | None = None
    window_ms: int | None = None
    delay_ms: int = 0
    include_current: bool = True
    category: int | None = None
    multiply: float = 1.0
    divide: float = 1.0
    typical: int | None = None


def own_feature(name: str, field: str, resolution: float | None) -> Feature:
    """Return the feature that is a field's own value."""
    multiply, divide = scale_of(resolution)
    return Feature(name, "value", field, field=field, multiply=multiply, divide=divide)


def category_features(name: str, field: str, values: tuple[str, ...]) -> list[Feature]:
    """Return a 0/1 feature per declared value; an unknown value is none of them.

    >>> [f.name for f in category_features("channel", "channel", ("web", "pos"))]
    ['channel=web', 'channel=pos']
    """
    return [
        Feature(f"{name}={value}", "category", f"{field} is {value}", field=field, category=i)
        for i, value in enumerate(values)
    ]


def calendar_feature(name: str, function: str) -> Feature:
    """Return a feature of the event time."""
    return Feature(name, function, _CALENDAR_WORDS[function])


def history_feature(
    entity: str,
    aggregation: str,
    field: str | None,
    window_ms: int | None = None,
    delay_ms: int = 0,
    include_current: bool = True,
    resolution: float | None = None,
) -> Feature:
    """Return a feature of an entity's history.

    >>> day = 86_400_000
    >>> feature = history_feature("card", "mean", "amount", 7 * day, 7 * day)
    >>> feature.name
    'card_mean_amount_7d_delay_7d'
    >>> feature.words
    'mean amount of this card over 7 d, which ended 7 d ago'
    """
    multiply, divide = scale_of(resolution)
    parts = [entity, aggregation]
    parts += [field] if field else []
    parts += [format_duration(window_ms)] if window_ms else []
    parts += [f"delay_{format_duration(delay_ms)}"] if delay_ms else []
    parts += [] if include_current else ["before"]
    return Feature(
        "_".join(parts),
        aggregation,
        _history_words(entity, aggregation, field, window_ms, delay_ms, include_current),
        entity,
        field,
        window_ms,
        delay_ms,
        include_current,
        multiply=multiply,
        divide=divide,
    )


def _history_words(
    entity: str,
    aggregation: str,
    field: str | None,
    window_ms: int | None,
    delay_ms: int,
    include_current: bool,
) -> str:
    window = _spaced(window_ms) if window_ms else ""
    words = AGGREGATIONS[aggregation].words.format(entity=entity, field=field, window=window)
    if delay_ms:
        words += f", which ended {_spaced(delay_ms)} ago"
    return words if include_current else f"{words}, this event left out"


def _spaced(duration_ms: int) -> str:
    """Return a duration as people write it.

    >>> _spaced(604_800_000), _spaced(600_000)
    ('7 d', '10 min')
    """
    text = format_duration(duration_ms)
    count = text.rstrip("dhms")
    unit = text[len(count) :]
    return f"{count} {'min' if unit == 'm' else unit}"
