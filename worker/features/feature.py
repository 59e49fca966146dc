"""One column of X: what it is, what it is called, and how a person reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from worker.contracts.settings import format_duration
from worker.features.aggregations import AGGREGATIONS, Aggregation, Field, Options, Register, Source
from worker.features.expressions import Expression
from worker.features.scales import scale_of

_NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class SeriesOf:
    """A column that the model of an entity's own series writes: what it is made of."""

    model: str
    entity: str
    features: tuple[str, ...]
    params: str


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature.

    ``aggregation`` is a name of `AGGREGATIONS` where there is an entity; else ``value`` (of a
    field), ``expression``, or ``category`` (1.0 where the field or expression has the class of
    this number), or ``series``. Units of the field's resolution times ``multiply`` over ``divide``
    are the feature's value (one of the two is 1.0, so it is rounded once). ``typical`` is the
    column that holds the usual value of an own field: the longest mean of it. Where the event is
    part of that mean, ``typical_count`` is the column that counts its values. ``sources`` are the
    recorded columns that an aggregation reads.
    """

    name: str
    aggregation: str
    words: str
    entity: str | None = None
    field: str | None = None
    category: int | None = None
    multiply: float = 1.0
    divide: float = 1.0
    typical: int | None = None
    sources: tuple[Source, ...] = ()
    options: Options = _NO_OPTIONS

    @property
    def window_ms(self) -> int | None:
        """Return the size of its window, None where it has none."""
        return self.options.window_ms or None

    @property
    def delay_ms(self) -> int:
        """Return how long ago its window ended."""
        return self.options.delay_ms

    @property
    def include_current(self) -> bool:
        """Return whether the event itself is inside."""
        return self.options.include_current

    @property
    def registers(self) -> tuple[Register, ...]:
        """Return the numbers of its entity that it reads."""
        return AGGREGATIONS[self.aggregation].registers(self.sources, self.options)

    expression: Expression | None = None
    series: SeriesOf | None = None
    typical_count: int | None = None


def own_feature(
    name: str, field: str, resolution: float | None, expression: Expression | None = None
) -> Feature:
    """Return the feature that is a field's own value; an optional field needs its expression."""
    multiply, divide = scale_of(resolution)
    return Feature(
        name, "value", field, field=field, multiply=multiply, divide=divide, expression=expression
    )


def category_features(name: str, field: str, values: tuple[str, ...]) -> list[Feature]:
    """Return a 0/1 feature per declared value; an unknown value is none of them.

    >>> [f.name for f in category_features("channel", "channel", ("web", "pos"))]
    ['channel=web', 'channel=pos']
    """
    return [
        Feature(f"{name}={value}", "category", f"{field} is {value}", field=field, category=i)
        for i, value in enumerate(values)
    ]


def expression_features(name: str, expression: Expression) -> list[Feature]:
    """Return the feature that is an expression, or one per class of a category."""
    if expression.kind != "category":
        return [Feature(name, "expression", expression.words, expression=expression)]
    return [
        Feature(
            name + (label if label.startswith("#") else f"={label}"),
            "category",
            f"{expression.words} is {label}",
            expression=expression,
            category=i,
        )
        for i, label in enumerate(expression.classes)
    ]


def history_feature(
    entity: str,
    kind: type[Aggregation],
    fields: Sequence[Field],
    options: Options,
    resolution: float | None = None,
) -> Feature:
    """Return a feature of an entity's history, of some fields.

    >>> day = 86_400_000
    >>> options = Options(window_ms=7 * day, delay_ms=7 * day)
    >>> amount = Field("amount", "decimal")
    >>> feature = history_feature("card", AGGREGATIONS["mean"], [amount], options)
    >>> feature.name
    'card_mean_amount_7d_delay_7d'
    >>> feature.words
    'mean amount of this card over 7 d, which ended 7 d ago'
    """
    multiply, divide = scale_of(resolution if kind.in_units else None)
    names = [one.name for one in fields]
    return Feature(
        "_".join(_name_parts(entity, kind, names, options)),
        kind.name,
        _history_words(entity, kind, names, options),
        entity,
        names[0] if len(names) == 1 else None,
        multiply=multiply,
        divide=divide,
        sources=kind.sources(fields, options),
        options=options,
    )


def _name_parts(
    entity: str, kind: type[Aggregation], fields: list[str], options: Options
) -> list[str]:
    parts = [entity, kind.name, *fields]
    for duration_ms in (options.window_ms, options.half_life_ms, options.gap_ms):
        parts += [format_duration(duration_ms)] if duration_ms else []
    parts += [str(options.last)] if options.last else []
    parts += [f"beyond_{_slug(f'{options.beyond:g}')}"] if options.beyond else []
    parts += ["robust"] if options.robust else []
    parts += [options.over] if options.over else []
    parts += [f"delay_{format_duration(options.delay_ms)}"] if options.delay_ms else []
    parts += ["where", _slug(options.where)] if options.where else []
    if options.include_current != kind.include_current:
        parts += ["with_current" if options.include_current else "before"]
    return parts


_SIGNS = {
    "==": " is ", "!=": " not ", "<=": " upto ", ">=": " from ", "<": " below ", ">": " above ",
}  # fmt: skip


def _slug(text: str) -> str:
    """Return what a text says in letters, digits and _.

    >>> _slug('$channel == "web"'), _slug("amount >= 1.5")
    ('channel_is_web', 'amount_from_1_5')
    """
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _history_words(
    entity: str, kind: type[Aggregation], fields: list[str], options: Options
) -> str:
    durations = {
        name: _spaced(duration_ms) if duration_ms else ""
        for name, duration_ms in (
            ("window", options.window_ms),
            ("half_life", options.half_life_ms),
            ("gap", options.gap_ms),
        )
    }
    durations["window"] = durations["window"] or "its last events"
    words = kind.words.format(
        entity=entity, field=" and ".join(fields), last=options.last, beyond=options.beyond,
        **durations,
    )  # fmt: skip
    words += ", by median and deviation from it" if options.robust else ""
    words += ", of events known to be genuine" if options.over else ""
    words += f", where {options.where}" if options.where else ""
    words += f", which ended {_spaced(options.delay_ms)} ago" if options.delay_ms else ""
    if options.include_current != kind.include_current:
        words += ", this event included" if options.include_current else ", this event left out"
    return words


def _spaced(duration_ms: int) -> str:
    """Return a duration as people write it.

    >>> _spaced(604_800_000), _spaced(600_000)
    ('7 d', '10 min')
    """
    text = format_duration(duration_ms)
    count = text.rstrip("dhms")
    unit = text[len(count) :]
    return f"{count} {'min' if unit == 'm' else unit}"
